#!/usr/bin/env bash
# The paper's ablations in miniature, on the shipped model's frozen parts: adapters, depth of the features, stages, number
# of experts; two seeds of each. What is finished is kept, what was interrupted goes on: start it again as often as needed.
#   bash scripts/nano/ablations.sh
#   RESULTS  where each run's record is (default benchmarks/results/nano_ablations); a run with a record is not run again
#   OUTPUT   data and runs in progress (default output/nano_ablations)
#   PARTS    folder of base, vit and vqgan (default healthgpt/models/nano)
#   SEEDS    seeds of each variant, side by side (default "0 1")
#   COUNT    samples per kind of question and type of drawing that score a run (default 200)
# The recipe is a fraction of the shipped model's, 60 + 400 + 60 + 500 + 400 steps on 8,400 patients. Runs are scored on
# the validation split. About 3 hours on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/setup.sh train
export PATH="$PWD/.venv/bin:$PATH"
OUTPUT=${OUTPUT:-output/nano_ablations}
RESULTS=${RESULTS:-benchmarks/results/nano_ablations}
PARTS=${PARTS:-healthgpt/models/nano}
SEEDS=${SEEDS:-0 1}
COUNT=${COUNT:-200}
PATIENTS=8400
data=$OUTPUT/data
mkdir -p "$data"
compile=false
! command -v g++ >/dev/null || compile=true # see build.sh
declare -A steps=([stage1_comprehension]=60 [stage1_generation]=400 [stage2_fusion]=60 [stage3_comprehension]=500
    [stage3_generation]=400 [mixed]=1420)
stages="stage1_comprehension stage1_generation stage2_fusion stage3_comprehension stage3_generation"

# train FOLDER SEED STAGE FLAGS...: one training run of the reduced recipe.
train() {
    local folder=$1 seed=$2 stage=$3 config=$3
    shift 3
    local mixture=$data/$stage.yaml
    [ "$stage" != mixed ] || { config=stage3_generation; set -- --mixed "$@"; }
    healthgpt train --config "configs/train/nano/$config.yaml" --output_root "$folder" --data "$mixture" --seed "$seed" \
        --max_steps "${steps[$stage]}" --base "$PARTS/base" --vit "$PARTS/vit" --vqgan "$PARTS/vqgan" \
        --vq_indices "$data/vq_indices" --compile "$compile" "$@" >>"$folder/log.txt" 2>&1
}

# variant NAME SEED STAGES FLAGS...: trains and scores one model.
variant() {
    local name=$1 seed=$2 wanted=$3 folder=$OUTPUT/runs/$1-$2
    shift 3
    [ ! -f "$RESULTS/$name-$seed.json" ] || return 0
    mkdir -p "$folder"
    for stage in $wanted; do train "$folder" "$seed" "$stage" "$@" || { tail -3 "$folder/log.txt" >&2; return 1; }; done
    healthgpt evaluate --benchmark phantoms --split validation --phantoms "$data/validation" --count "$COUNT" \
        --batch_size 32 --model "$folder/model" --output "$folder/evaluation" >>"$folder/log.txt" 2>&1
    python -m healthgpt.nano record --data "$folder" --output "$RESULTS"
    echo "$name, seed $seed: done ($((SECONDS / 60)) min)"
}

# all_seeds NAME STAGES FLAGS...: a variant with every seed, side by side.
all_seeds() {
    local name=$1 status=0 jobs=()
    shift
    for seed in $SEEDS; do
        OMP_NUM_THREADS=$((($(nproc) + 1) / 2)) variant "$name" "$seed" "$@" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || status=$?; done
    return "$status"
}

healthgpt prepare phantoms --split train --seed 1 --count "$PATIENTS" --output "$data/train" --num_processes "$(nproc)"
healthgpt prepare phantoms --split validation --seed 0 --count $((7 * COUNT)) --output "$data/validation" --num_processes "$(nproc)"
cp configs/data/nano/*.yaml "$data"
healthgpt prepare vq-indices --vqgan_path "$PARTS/vqgan" --output "$data/vq_indices" --batch_size 64 \
    --data "$data"/{stage1_generation,stage2_fusion,stage3_generation,mixed}.yaml
all_seeds hlora "$stages"
all_seeds mixed mixed
all_seeds abstract "$stages" --vision_layers '{comprehension: -2, generation: -2}'
all_seeds concrete "$stages" --vision_layers '{comprehension: 1, generation: 1}'
all_seeds lora "$stages" --adapter lora
all_seeds moelora "$stages" --adapter moelora
for experts in 1 2 8; do all_seeds "experts$experts" "$stages" --num_experts "$experts"; done
python scripts/make_ablation_figure.py
python scripts/update_tables.py
