"""Reckons what every stage takes, by formula, into benchmarks/results/training_cost.json.

    .venv/bin/python scripts/site/make_training_cost.py

Sizes and memory are those of `healthgpt train --dry_run`. Work per token, with N weights in the linear layers, H in the
plugin, V x D in the head, tokens that see T others in L layers of h heads of width d:

    4 N + 6 H (4 H where the plugin is frozen) + 4 V D s + 7 T h d L      s: share of tokens with a label

Samples are the paper's counts; a sample's tokens are its patches, its codes and TEXT tokens of words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from healthgpt.bench.floor import Sizes
from healthgpt.config import RELEASED
from healthgpt.tasks import Task
from healthgpt.training.assembly import trained_parameters
from healthgpt.training.config import read_train_config
from healthgpt.training.dry_run import GPUS, build_on_meta, memory

ROOT = Path(__file__).parents[2]
PATH = ROOT / "benchmarks" / "results" / "training_cost.json"
TEXT, CODES = 110, 1026
# The paper, section 4.4 and appendix A.3: LLaVA-558k with PubMedVision's alignment half, the images of the first alone,
# Mixed-47k, and of VL-Health what is asked and what is drawn beside reconstruction.
SAMPLES = {
    "stage1_comprehension": {Task.COMPREHENSION: 558_128 + 647_031},
    "stage1_generation": {Task.GENERATION: 558_128},
    "stage2_fusion": {Task.COMPREHENSION: 23_500, Task.GENERATION: 23_500},
    "stage3_comprehension": {Task.COMPREHENSION: 765_802},
    "stage3_generation": {Task.GENERATION: 783_045 - 558_128},
}


def main() -> None:
    rows = [reckoned(model, stage) for model in ("m3", "l14") for stage in SAMPLES]
    PATH.write_text(json.dumps({"text_tokens": TEXT, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(PATH.relative_to(ROOT))


def reckoned(model: str, stage: str) -> dict[str, Any]:
    """Sizes, memory, tokens and work of one stage of one model."""
    config = read_train_config(ROOT / "configs" / "train" / model / f"{stage}.yaml", {})
    network, patches = build_on_meta(config)
    numbers = {name: parameter.numel() for name, parameter in network.named_parameters()}
    trained = {name for names in trained_parameters(network, config.row).values() for name in names}
    num_trained = sum(numbers[name] for name in trained)
    released = RELEASED[model]
    sizes = Sizes.of(AutoConfig.for_model(**released.architecture), experts=config.num_experts)
    rows = released.len_tokenizer + config.num_image_tokens + 3
    tokens = work = 0.0
    for task, samples in SAMPLES[stage].items():
        codes = CODES if task is Task.GENERATION else 0
        length = patches + codes + TEXT
        plugin = sizes.adapter(config.rank(task)) * (6 if any(".lora_" in name for name in trained) else 4)
        labelled = (codes or TEXT / 2) / length
        seen = 7 * length * sizes.heads * sizes.head_width * sizes.layers
        tokens += samples * length
        work += samples * length * (4 * sizes.weights + plugin + 4 * rows * sizes.width * labelled + seen)
    return {
        "model": model,
        "stage": stage,
        "samples": sum(SAMPLES[stage].values()),
        "trained": num_trained,
        "memory_bytes": {
            str(gpus): {
                str(zero): size for zero, size in memory(sum(numbers.values()) - num_trained, num_trained, gpus).items()
            }
            for gpus in GPUS
        },
        "tokens": tokens,
        "flops": work,
    }


if __name__ == "__main__":
    main()
