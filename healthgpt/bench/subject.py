"""The network under measurement: a model's own or a random one of a true shape, its prompts, and how long they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageChops
from torch import Tensor

from healthgpt.bench.floor import Sizes
from healthgpt.bench.shapes import SHAPES, IdPrompts, Shape, random_network
from healthgpt.config import ModelSources
from healthgpt.engine.engine import Engine
from healthgpt.hlora import TaskLinear
from healthgpt.loading import LoadOptions, load_model
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import HealthGPTProcessor, Prompt
from healthgpt.targets import codes_of
from healthgpt.tasks import Task
from taming_transformers import GumbelVQ

_EXAMPLES = Path(__file__).parents[1] / "examples"
_IMAGES = ("brain_ct.png", "chest_xray.png", "brain_mri.png")
_ASKED = {
    Task.COMPREHENSION: (
        "Describe this image.",
        "What abnormality is seen in this image?",
        "What imaging modality is this?",
        "Which organ is shown, and is there a lesion?",
    ),
    Task.GENERATION: ("Reconstruct the image.", "Turn this CT into an MRI.", "Improve the resolution of the image."),
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured.

    Attributes:
        name: as the user gave it. load_seconds: until it could be used, the engine's own preparation included.
        engine: decodes until a number of tokens is reached, no token being one that ends a text.
        codes_per_image: 0 where it draws nothing.
        given: the codes of a drawing's input image, (rows, columns), for guessing; None where that would be no drawing.
        shape: of a random network.
    """

    name: str
    network: HealthGPTForConditionalGeneration
    processor: HealthGPTProcessor
    engine: Engine
    codes_per_image: int
    load_seconds: float
    given: Callable[[], Tensor] | None = None
    shape: Shape | None = None

    @classmethod
    def of_model(cls, name: str, sources: ModelSources, options: LoadOptions) -> Subject:
        """A model with its weights.

        Raises:
            FileNotFoundError, ValueError: see `loading.load_model`.
        """
        start = time.perf_counter()
        loaded = load_model(sources, options)
        engine = _endless(Engine(loaded.network, loaded.processor))
        seconds = time.perf_counter() - start
        vqgan = loaded.vqgan
        draws = vqgan is not None and Task.GENERATION in loaded.network.tasks
        return cls(
            name=name,
            network=loaded.network,
            processor=loaded.processor,
            engine=engine,
            codes_per_image=vqgan.config.num_codes if vqgan is not None and draws else 0,
            load_seconds=seconds,
            given=_given(vqgan) if vqgan is not None and draws else None,
        )

    @classmethod
    def of_shape(cls, name: str, options: LoadOptions, rank: int | None = None) -> Subject:
        """A random network of a shape that `SHAPES` names.

        Raises:
            ValueError: see `shapes.random_network`.
        """
        start = time.perf_counter()
        network, processor = random_network(SHAPES[name], options, rank)
        engine = _endless(Engine(network, processor))
        return cls(
            name=name,
            network=network,
            processor=processor,
            engine=engine,
            codes_per_image=SHAPES[name].codes_per_image if SHAPES[name].num_codes else 0,
            load_seconds=time.perf_counter() - start,
            shape=SHAPES[name],
        )

    @property
    def device(self) -> torch.device:
        return self.network.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.get_input_embeddings().weight.dtype

    def prompts(self, task: Task, count: int) -> list[Prompt]:
        """So many different prompts, each of an image of its own, so that nothing can be read once for several.

        The first one, of a drawing, is of the image that `given` knows the codes of.
        """
        if isinstance(self.processor, IdPrompts) and self.shape:
            return [self.processor.random_prompt(task, self.shape.text, seed) for seed in range(count)]
        asked = _ASKED[task]
        return [
            self.processor.prompt(task, asked[place // len(_IMAGES) % len(asked)], [_image(place)])
            for place in range(count)
        ]

    @property
    def captures(self) -> bool:
        """Whether the engine captures its steps, and keeps them and their memory between requests (`engine.graphs`)."""
        return self.device.type == "cuda"

    def release(self) -> None:
        """Makes the engine let go of the memory that it keeps between requests."""
        self.engine.release()

    def rank(self, task: Task) -> int:
        """Merged rank of a task's adapter."""
        return max((int(layer.r[task]) for layer in self._adapted() if task in layer.r), default=0)

    def sizes(self, task: Task) -> Sizes:
        """What the floor's formulas need to know."""
        routed = any(task in layer.lora_route for layer in self._adapted())
        experts = max((layer.num_experts[task] for layer in self._adapted()), default=0) if routed else 0
        return Sizes.of(self.network.config.text_config, experts=experts, itemsize=self.dtype.itemsize)

    def rows(self, task: Task) -> int:
        """Rows of the head that a choice needs: every word's, or every code's."""
        vocabulary = self.processor.image_vocabulary
        if task is Task.GENERATION and vocabulary is not None:
            return vocabulary.num_codes
        heads: Any = self.network.heads
        return len(heads[task].weight)

    def _adapted(self) -> list[TaskLinear]:
        return [layer for layer in self.network.model.language_model.modules() if isinstance(layer, TaskLinear)]


def _endless(engine: Engine) -> Engine:
    """Lets no token end a text, so that every way decodes as many."""
    engine.oracle.stop_ids = []
    return engine


def _given(vqgan: GumbelVQ) -> Callable[[], Tensor]:
    return lambda: codes_of(vqgan, _EXAMPLES / _IMAGES[0])


def _image(place: int) -> Image.Image:
    """A bundled image, from the second round on shifted to the right by a pixel more each time."""
    with Image.open(_EXAMPLES / _IMAGES[place % len(_IMAGES)]) as image:
        return ImageChops.offset(image.convert("RGB"), place // len(_IMAGES), 0)
