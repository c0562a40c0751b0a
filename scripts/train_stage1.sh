#!/usr/bin/env bash
# Stage 1: alignment of each task's vision features. The model is m3 unless MODEL says l14, xl32 or nano; flags go to every run:
#   MODEL=m3 NUM_GPUS=8 bash scripts/train_stage1.sh --output_root output/m3
# See launch.sh for several nodes and other launchers.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch stage1_comprehension "$@"
launch stage1_generation "$@"
