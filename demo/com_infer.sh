#!/usr/bin/env bash
# Sets up and answers a question about an image. Flags go to demo/com_infer.py; weights may also come from variables:
#   MODEL                                                   a model folder or name, or instead of it
#   MODEL_NAME_OR_PATH VIT_PATH HLORA_PATH FUSION_LAYER_PATH   released files
# With nothing set, the embedded default answers an example.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"
source "$root/demo/flags.sh"
exec "$root/.venv/bin/python" "$root/demo/com_infer.py" ${flags[@]+"${flags[@]}"} "$@"
