#!/usr/bin/env bash
# Sets up and draws an image into output.png (--save_path). Flags go to demo/gen_infer.py; weights may also come from the
# variables of com_infer.sh, and VQGAN_PATH. With nothing set, the embedded default draws an example.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"
source "$root/demo/flags.sh"
exec "$root/.venv/bin/python" "$root/demo/gen_infer.py" ${flags[@]+"${flags[@]}"} "$@"
