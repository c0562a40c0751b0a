#!/usr/bin/env bash
# Scores the shipped model (or --model FOLDER) on phantoms of the test split, writes benchmarks/results/nano.json, and
# renews the tables of README and docs that quote it:
#   bash scripts/nano/evaluate.sh [--seed S] [--count N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/setup.sh
.venv/bin/healthgpt evaluate --benchmark phantoms --output benchmarks/results/nano.json "$@"
.venv/bin/python scripts/update_tables.py
