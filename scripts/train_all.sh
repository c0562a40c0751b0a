#!/usr/bin/env bash
# All five runs in their order; what is finished is not trained again, what was interrupted goes on. The result is the model
# folder OUTPUT_ROOT/model. Data differ per run, so they are set in the five YAML files (CONFIG_DIR for a copy of yours):
#   MODEL=nano CONFIG_DIR=my/configs bash scripts/train_all.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
for stage in stage1_comprehension stage1_generation stage2_fusion stage3_comprehension stage3_generation; do
    echo "== $stage" >&2
    launch "$stage" "$@"
done
