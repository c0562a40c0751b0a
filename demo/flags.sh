# Sourced by the demos: turns the environment variables that are set into flags.
flags=()
for name in MODEL MODEL_NAME_OR_PATH VIT_PATH HLORA_PATH FUSION_LAYER_PATH VQGAN_PATH INSTRUCT_TEMPLATE QUESTION IMG_PATH; do
    if [ -n "${!name:-}" ]; then
        flags+=("--$(echo "$name" | tr '[:upper:]' '[:lower:]')" "${!name}")
    fi
done
