"""A run's sizes without its weights: trained parameters, memory per GPU under each ZeRO stage, steps and tokens.

The network is built on the meta device, from the base's configuration or, where the base is not at hand, from the named
model's architecture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel

from healthgpt.config import RELEASED
from healthgpt.data.mixture import Mixture
from healthgpt.hlora import HLoraConfig, attach_adapter, linear_names
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.tasks import Task
from healthgpt.tokenization import load_tokenizer
from healthgpt.training.assembly import install_vocabulary, trained_parameters
from healthgpt.training.config import TrainConfig
from healthgpt.training.run import codes_per_drawing
from healthgpt.vocabulary import ImageVocabulary

GPUS = (1, 8)
_GIB = 2**30
# Bytes per parameter: bf16 weights; of trained ones also a bf16 gradient, and AdamW's float32 copy and two moments.
_WEIGHT, _GRADIENT, _OPTIMIZER = 2, 2, 12


def dry_run(config: TrainConfig) -> Iterator[str]:
    """The report, line by line.

    Raises:
        ValueError: neither is the base at hand nor is `model` the name of a known architecture.
    """
    network, num_patches = build_on_meta(config)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    parts = trained_parameters(network, config.row)
    trained = {name for names in parts.values() for name in names}
    num_trained = sum(sizes[name] for name in trained)
    num_frozen = sum(sizes.values()) - num_trained
    yield f"{config.stage}: {num_frozen:,} frozen and {num_trained:,} trained parameters"
    for part, names in parts.items():
        routers = sum(sizes[name] for name in names if ".lora_route." in name)
        note = f" (of these {routers:,} in routers)" if routers else ""
        yield f"  {part}: {sum(sizes[name] for name in names):,}{note}"
    yield "memory per GPU for weights, gradients and AdamW, without activations:"
    for gpus in GPUS:
        shown = ", ".join(
            f"ZeRO-{stage} {size / _GIB:.1f} GiB" for stage, size in memory(num_frozen, num_trained, gpus).items()
        )
        yield f"  {gpus} GPU{'s' if gpus > 1 else ''}: {shown}"
    yield from _schedule(config, num_patches)


def memory(num_frozen: int, num_trained: int, gpus: int) -> dict[int, float]:
    """Bytes per GPU under ZeRO 0 (plain data parallel), 2 and 3."""
    whole = _WEIGHT * (num_frozen + num_trained)
    states = (_GRADIENT + _OPTIMIZER) * num_trained
    return {0: whole + states, 2: whole + states / gpus, 3: (whole + states) / gpus}


def build_on_meta(config: TrainConfig) -> tuple[HealthGPTForConditionalGeneration, int]:
    """The run's network without memory, and its patches per image."""
    language, vision, len_tokenizer = _architecture(config)
    row = config.row
    with torch.device("meta"):
        base: Any = AutoModelForCausalLM.from_config(language)
        network = HealthGPTForConditionalGeneration.from_parts(
            base, CLIPVisionModel(vision), {task: config.vision_layers[task] for task in row.tasks}
        )
        names = linear_names(base.model)
        for task in row.tasks:
            settings = HLoraConfig(
                r=config.rank(task),
                lora_alpha=config.alpha_per_rank * config.rank(task),
                num_experts=config.num_experts if config.adapter != "lora" else 1,
                adapter=config.adapter,
                target_modules=names,
            )
            attach_adapter(base.model, task, settings, on_meta=True)
        if config.num_image_tokens:
            vocabulary = ImageVocabulary(start_id=len_tokenizer, num_codes=config.num_image_tokens)
            install_vocabulary(network, vocabulary, row, None)
    network.route(row.tasks[0])
    return network, (vision.image_size // vision.patch_size) ** 2


def _architecture(config: TrainConfig) -> tuple[Any, CLIPVisionConfig, int]:
    """Configurations of LLM and ViT, and the tokenizer's length."""
    base, vit = Path(config.base), Path(config.vit)
    if base.is_dir() and vit.is_dir():
        return (
            AutoConfig.from_pretrained(base),
            CLIPVisionConfig.from_pretrained(vit),
            len(load_tokenizer(base)),
        )
    if config.model is None or config.model not in RELEASED:
        raise ValueError(
            f"neither is the base at hand ({config.base}) nor is model {config.model!r} one of {', '.join(RELEASED)}"
        )
    released = RELEASED[config.model]
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    return AutoConfig.for_model(**released.architecture), vision, released.len_tokenizer


def _schedule(config: TrainConfig, num_patches: int) -> Iterator[str]:
    """Steps and tokens, where the data is at hand."""
    if not config.data.exists():
        yield f"steps and tokens: not known, {config.data} is not here"
        return
    mixture = Mixture(config.data)
    per_drawing = codes_per_drawing(config) or 0
    tokens = dict.fromkeys(Task, 0)
    counts = dict.fromkeys(Task, 0)
    for i in range(len(mixture)):
        record = mixture.record(i)
        counts[record.task] += 1
        codes = per_drawing if record.task is Task.GENERATION else 0
        tokens[record.task] += record.num_characters // 4 + num_patches * len(record.images) + codes
    per_epoch = sum(math.ceil(count / config.global_batch_size) for count in counts.values())
    steps = config.max_steps if config.max_steps > 0 else math.ceil(per_epoch * config.num_epochs)
    epochs = steps / max(per_epoch, 1)
    yield (
        f"{len(mixture):,} samples, {steps:,} steps of {config.global_batch_size}, "
        f"about {int(sum(tokens.values()) * epochs):,} tokens in {epochs:.2g} epochs"
    )
