#!/usr/bin/env bash
# Sets up and serves OpenAI's API at http://127.0.0.1:8000/v1. Flags go to `healthgpt serve`; docs/serving.md has them:
#   bash demo/serve.sh --port 9000 --model nano ./healthgpt-m3
# With nothing set, the embedded default is served; MODEL may name another one.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"
exec "$root/.venv/bin/healthgpt" serve ${MODEL:+--model "$MODEL"} "$@"
