"""Networks of the released models' shapes with random weights, made where they are to run and without any file.

The weights are random, never zeros, whose products are faster. There is no tokenizer: prompts are random ids and
pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, GenerationConfig

from healthgpt.checking import base_shapes
from healthgpt.config import RELEASED, VISION_LAYERS
from healthgpt.engine.memory import refuse_too_much
from healthgpt.loading import ORIGINAL_ATTENTION, LoadOptions, choose_device, choose_dtype, install_plugin
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import IMAGE_PLACEHOLDER, HealthGPTProcessor, Prompt
from healthgpt.random_model import random_plugin
from healthgpt.tasks import Task
from healthgpt.vocabulary import ImageVocabulary

_EXPERTS = 4
_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides the shape of a model.

    Attributes:
        architecture: the base's, as in its `config.json`. vision: the ViT's.
        len_tokenizer: rows of embeddings and head before image tokens.
        num_codes: in the codebook; 0 draws nothing. codes_per_image: tokens of an image.
        ranks: merged H-LoRA rank per task. text: tokens of a prompt beside its image.
    """

    architecture: Mapping[str, Any]
    len_tokenizer: int
    num_codes: int
    ranks: Mapping[Task, int]
    codes_per_image: int = 1024
    vision: Mapping[str, Any] = field(default_factory=lambda: _CLIP)
    text: int = 64


def _released(name: str, comprehension: int, generation: int) -> Shape:
    model = RELEASED[name]
    ranks = {Task.COMPREHENSION: comprehension, Task.GENERATION: generation}
    return Shape(
        architecture=model.architecture,
        # Without image tokens, the base keeps the rows that it has beyond its tokenizer.
        len_tokenizer=model.len_tokenizer if model.num_image_tokens else model.architecture["vocab_size"],
        num_codes=model.num_image_tokens,
        ranks=ranks if model.num_image_tokens else {Task.COMPREHENSION: comprehension},
    )


SHAPES: Mapping[str, Shape] = {
    "m3": _released("m3", 64, 256),
    "l14": _released("l14", 32, 128),  # the paper's Table 6; only its comprehension plugin is released
    "xl32": _released("xl32", 32, 128),  # its rank is not published: L14's
    "tiny": Shape(
        architecture={
            "model_type": "phi3",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
        },
        len_tokenizer=200,
        num_codes=64,
        ranks={Task.COMPREHENSION: 8, Task.GENERATION: 16},
        codes_per_image=16,
        vision={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        text=8,
    ),
}


class IdPrompts(HealthGPTProcessor):
    """Prompts of random ids and pixels: the part of a processor that needs no files."""

    def __init__(self, num_patches: int, side: int, vocabulary: ImageVocabulary | None, num_words: int):
        self.num_patches = num_patches
        self.image_vocabulary = vocabulary
        self._side, self._num_words = side, num_words

    def random_prompt(self, task: Task, num_words: int, seed: int) -> Prompt:
        """So many words around an image."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(1, self._num_words, (num_words,), generator=generator).tolist()
        pixels = torch.randn(1, 3, self._side, self._side, generator=generator)
        return Prompt(task, [*ids[: num_words // 2], IMAGE_PLACEHOLDER, *ids[num_words // 2 :]], pixels)


def random_network(
    shape: Shape, options: LoadOptions, rank: int | None = None, seed: int = 0
) -> tuple[HealthGPTForConditionalGeneration, IdPrompts]:
    """A network of a shape and what makes its prompts.

    Args:
        options: its device and dtype; auto is bfloat16 on a GPU and float32 on a CPU.
        rank: of every plugin, in place of the shape's own.

    Raises:
        ValueError: a device that is not there, a dtype that is none, a rank that the experts do not divide.
        MemoryError, torch.OutOfMemoryError: its weights do not fit.
    """
    device = choose_device(options.device)
    vocabulary = ImageVocabulary(shape.len_tokenizer, shape.num_codes) if shape.num_codes else None
    rows = vocabulary.num_rows if vocabulary else shape.len_tokenizer
    config: Any = AutoConfig.for_model(**{**shape.architecture, "vocab_size": rows, "eos_token_id": 0})
    config.dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = choose_dtype(options.dtype, config, device)
    attention = options.attn_implementation or ORIGINAL_ATTENTION.get(config.model_type)
    vision = CLIPVisionConfig(**shape.vision)
    ranks = {task: own if rank is None else rank for task, own in shape.ranks.items()}
    if wrong := [number for number in ranks.values() if number < 1 or number % _EXPERTS]:
        raise ValueError(f"rank {wrong[0]} is not a multiple of {_EXPERTS}, the number of experts")
    with torch.device("meta"):
        needed = sum(one.nbytes for one in AutoModelForCausalLM.from_config(config, dtype=dtype).parameters())
    refuse_too_much(needed, f"the weights of a base of {shape.architecture['model_type']}'s shape", device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        base.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0)
        vit = CLIPVisionModel._from_config(vision, dtype=dtype, attn_implementation=attention)
        network = HealthGPTForConditionalGeneration.from_parts(base, vit, {task: VISION_LAYERS[task] for task in ranks})
        shapes = base_shapes(config, vision.hidden_size)
        for task, merged in ranks.items():
            install_plugin(network, task, random_plugin(shapes, merged, _EXPERTS, dtype), 0.0, dtype)
    network.eval().requires_grad_(False)
    network.route(network.tasks[0])
    num_patches = (vision.image_size // vision.patch_size) ** 2
    return network, IdPrompts(num_patches, vision.image_size, vocabulary, shape.len_tokenizer)
