#!/usr/bin/env bash
# Scores the shipped model (or --model FOLDER) on phantoms of the test split and writes benchmarks/results/nano.json:
#   bash scripts/nano/evaluate.sh [--seed S] [--count N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/setup.sh
.venv/bin/healthgpt evaluate --benchmark phantoms --output benchmarks/results/nano.json "$@"
