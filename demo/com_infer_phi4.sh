#!/usr/bin/env bash
# HealthGPT-L14 (Phi-4) from its released files; paths as in com_infer.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/com_infer.sh" --instruct_template phi4_instruct --hlora_r 32 --hlora_alpha 64 "$@"
