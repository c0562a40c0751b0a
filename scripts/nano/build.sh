#!/usr/bin/env bash
# Builds HealthGPT-Nano from nothing: phantoms, the three frozen parts, the five training runs, the folder to ship, its
# figures. What is finished is kept, what was interrupted goes on: start it again as often as needed.
#   bash scripts/nano/build.sh
#   OUTPUT     folder of everything (default output/nano)
#   PATIENTS   phantoms to learn from (default 28000)
#   SEED       of the phantoms (default 0)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/setup.sh train
export PATH="$PWD/.venv/bin:$PATH"
OUTPUT=${OUTPUT:-output/nano}
PATIENTS=${PATIENTS:-28000}
SEED=${SEED:-0}
cores=$(nproc)
data=$OUTPUT/data
parts=$OUTPUT/parts
mkdir -p "$data" "$parts" "$OUTPUT/logs"
started=$SECONDS
# Compiled blocks take little more than half of the time; on a CPU they need a C++ compiler.
compile=false
! command -v g++ >/dev/null || compile=true

say() { printf '== %s (%d min)\n' "$1" $(((SECONDS - started) / 60)) | tee -a "$OUTPUT/logs/build.log" >&2; }

# side_by_side COMMAND COMMAND: both at once, half of the cores each, which is faster than one after the other with all
# of them for models this small. Either's failure is this one's.
side_by_side() {
    local half=$(((cores + 1) / 2)) first status=0
    OMP_NUM_THREADS=$half "$1" &
    first=$!
    OMP_NUM_THREADS=$half "$2" || status=$?
    wait "$first" || status=$?
    return "$status"
}

train_vqgan() {
    python -m healthgpt.nano vqgan --data "$data/drawn.npz" --output "$parts" 2>&1 | tee -a "$OUTPUT/logs/vqgan.log"
    healthgpt prepare vq-indices --vqgan_path "$parts/vqgan" --output "$data/vq_indices" --batch_size 64 \
        --data "$data"/{stage1_generation,stage2_fusion,stage3_generation}.yaml
}

train_readers() {
    local flags=()
    [ "$compile" = false ] || flags=(--compile)
    python -m healthgpt.nano base --data "$data/chats.jsonl" --output "$parts" ${flags[@]+"${flags[@]}"} 2>&1 | tee -a "$OUTPUT/logs/base.log"
    python -m healthgpt.nano vit --data "$data/pictures.npz" --output "$parts" ${flags[@]+"${flags[@]}"} 2>&1 | tee -a "$OUTPUT/logs/vit.log"
}

# stage NAME: one of the five runs; the configuration names output/nano, so every path is given.
stage() {
    local codes=()
    [[ $1 == *comprehension ]] || codes=(--vq_indices "$data/vq_indices")
    healthgpt train --config "configs/train/nano/$1.yaml" --output_root "$OUTPUT" --data "$data/$1.yaml" \
        --base "$parts/base" --vit "$parts/vit" --vqgan "$parts/vqgan" --compile "$compile" ${codes[@]+"${codes[@]}"} 2>&1 | tee -a "$OUTPUT/logs/$1.log"
}
stage1_comprehension() { stage stage1_comprehension; }
stage1_generation() { stage stage1_generation; }
stage3_comprehension() { stage stage3_comprehension; }
stage3_generation() { stage stage3_generation; }

say "phantoms"
healthgpt prepare phantoms --split train --seed "$SEED" --count "$PATIENTS" --output "$data/train" --num_processes "$cores"
python -m healthgpt.nano gather --data "$data/train" --output "$data"
cp configs/data/nano/*.yaml "$data"
say "parts: VQGAN beside base and ViT"
side_by_side train_vqgan train_readers
say "stage 1"
side_by_side stage1_comprehension stage1_generation
say "stage 2"
stage stage2_fusion
say "stage 3"
side_by_side stage3_comprehension stage3_generation
say "packing"
[ -d "$OUTPUT/shipped" ] || python -m healthgpt.nano pack --data "$OUTPUT/model" --output "$OUTPUT/shipped"
say "evaluation"
healthgpt evaluate --benchmark phantoms --model "$OUTPUT/shipped" --output "$OUTPUT/evaluation" --batch_size 32 \
    --num_processes "$cores" | tee "$OUTPUT/logs/results.log"
python -m healthgpt.nano card --data "$OUTPUT" --output "$OUTPUT/shipped"
say "done: $OUTPUT/shipped, $(du -sh "$OUTPUT/shipped" | cut -f1)"
