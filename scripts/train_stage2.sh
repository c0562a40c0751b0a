#!/usr/bin/env bash
# Stage 2: embeddings and head for both tasks. The model is m3 unless MODEL says l14, xl32 or nano; flags go to every run:
#   MODEL=m3 NUM_GPUS=8 bash scripts/train_stage2.sh --output_root output/m3
# See launch.sh for several nodes and other launchers.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch stage2_fusion "$@"
