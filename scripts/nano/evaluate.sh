#!/usr/bin/env bash
# Scores the shipped model (or --model FOLDER) on phantoms of the test split, writes benchmarks/results/nano.json, and
# renews the tables of README and docs that quote it:
#   bash scripts/nano/evaluate.sh [--seed S] [--count N]
# What was interrupted goes on: the run is in output/evaluation, in a folder of its own per model, seed and count.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/setup.sh
run=output/evaluation/nano-$(cat healthgpt/models/nano/SHA256SUMS <(echo "$*") | cksum | cut -d' ' -f1)
.venv/bin/healthgpt evaluate --benchmark phantoms --output "$run" --batch_size 32 --num_processes "$(nproc)" "$@"
cp "$run/phantoms/results.json" benchmarks/results/nano.json
.venv/bin/python scripts/update_tables.py
