#!/usr/bin/env bash
# Scores models on phantoms (all kinds of questions, all types of drawings) and sets them beside each other:
#   bash scripts/evaluate.sh [MODEL...]    names or folders (default nano)
#   OUTPUT  folder of the runs (default output/evaluation/phantoms); what was interrupted goes on
#   COUNT   samples per kind of question and type of drawing (default 100)
#   SEED    of the phantoms' test split (default 0)
# Prints the table; OUTPUT/comparison has it as Markdown, CSV, LaTeX and HTML, with figures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
OUTPUT=${OUTPUT:-output/evaluation/phantoms}
COUNT=${COUNT:-100}
SEED=${SEED:-0}
[ $# -gt 0 ] || set -- nano
runs=()
for model in "$@"; do
    run=$OUTPUT/$(basename "$model")-$SEED-$COUNT
    healthgpt evaluate --benchmark phantoms --model "$model" --seed "$SEED" --count "$COUNT" --output "$run" \
        --phantoms "$OUTPUT/data-$SEED-$COUNT" --batch_size 32 --num_processes "$(nproc)" >&2
    runs+=("$run")
done
healthgpt evaluate compare "${runs[@]}" --output "$OUTPUT/comparison" >&2
cat "$OUTPUT/comparison/comparison.md"
