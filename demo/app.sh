#!/usr/bin/env bash
# Sets up and opens the web app at http://127.0.0.1:7860. Flags go to demo/app.py, such as --model m3 --port 8080; MODEL in the
# environment names a model, too. With nothing set, the embedded default runs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh" serve
exec "$root/.venv/bin/python" "$root/demo/app.py" ${MODEL:+--model "$MODEL"} "$@"
