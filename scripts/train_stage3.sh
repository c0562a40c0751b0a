#!/usr/bin/env bash
# Stage 3: instructions. The model is m3 unless MODEL says l14, xl32 or nano; flags go to every run:
#   MODEL=m3 NUM_GPUS=8 bash scripts/train_stage3.sh --output_root output/m3
# See launch.sh for several nodes and other launchers.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch stage3_comprehension "$@"
launch stage3_generation "$@"
