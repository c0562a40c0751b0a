# Sourced by the training scripts: launch STAGE [FLAGS...] runs one stage of $MODEL on this machine's GPUs, on the nodes of
# a hostfile, or without GPUs in one process.
#   MODEL       m3 (default), l14, xl32 or nano
#   CONFIG_DIR  folder of its five YAML files (default configs/train/$MODEL)
#   NUM_GPUS    GPUs of this machine (default: all of them)
#   HOSTFILE    DeepSpeed's hostfile, for several nodes
#   LAUNCHER    deepspeed (default), torchrun or accelerate
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
bash scripts/setup.sh train
MODEL=${MODEL:-m3}
CONFIG_DIR=${CONFIG_DIR:-configs/train/$MODEL}
if [ -z "${NUM_GPUS:-}" ]; then
    NUM_GPUS=$(.venv/bin/python -c 'import torch; print(torch.cuda.device_count())')
fi
export PATH="$root/.venv/bin:$PATH"

launch() {
    local stage=$1
    shift
    local command=(train --config "$CONFIG_DIR/$stage.yaml" "$@")
    if [ -n "${HOSTFILE:-}" ]; then
        deepspeed --hostfile "$HOSTFILE" --module healthgpt.cli "${command[@]}"
    elif [ "$NUM_GPUS" -eq 0 ]; then
        python -m healthgpt.cli "${command[@]}"
    elif [ "${LAUNCHER:-deepspeed}" = torchrun ]; then
        torchrun --nproc_per_node "$NUM_GPUS" --module healthgpt.cli "${command[@]}"
    elif [ "${LAUNCHER:-deepspeed}" = accelerate ]; then
        accelerate launch --num_processes "$NUM_GPUS" --module healthgpt.cli "${command[@]}"
    else
        deepspeed --num_gpus "$NUM_GPUS" --module healthgpt.cli "${command[@]}"
    fi
}
