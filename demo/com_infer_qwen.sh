#!/usr/bin/env bash
# HealthGPT-XL32 (Qwen2.5-32B) from its released files; paths as in com_infer.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/com_infer.sh" --instruct_template qwen_2 --hlora_r 32 --hlora_alpha 64 "$@"
