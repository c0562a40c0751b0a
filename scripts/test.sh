#!/usr/bin/env bash
# Sets up, then checks style and types and runs the tests. Arguments go to pytest: bash scripts/test.sh -k parity
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python scripts/audit.py
.venv/bin/python -m pytest "$@"
