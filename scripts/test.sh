#!/usr/bin/env bash
# Sets up, then checks style and types and runs all tests. Arguments go to pytest.
# The browser that pages are tested in is Debian's Chromium; where it is not here and cannot be installed, a line says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev
bash scripts/chromium.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python scripts/audit.py
# Two processes, each on one core; who has nothing left takes of the other's.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
