"""How tokens are chosen: the user's settings, checked, and seeded sampling that does not depend on the batch."""

from __future__ import annotations

import math
import numbers
import secrets
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

_COLDEST = 1e-6  # of temperatures: logits over it are still far from what float32 holds


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Decoding settings. Greedy by default.

    Attributes:
        max_new_tokens: bound on an answer's length in tokens (a drawing's is the VQGAN's grid).
        temperature, top_p: used only with `do_sample`.
        num_beams: beams of beam search; 1 is none.
        repetition_penalty: None takes the base's `generation_config.json`; only generated tokens are penalised.
        seed: None draws a fresh one. Each sample of a batch starts from the seed, as it would alone.
    """

    max_new_tokens: int = 1024
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    num_beams: int = 1
    repetition_penalty: float | None = None
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether every token is the most probable one."""
        return not self.do_sample and self.num_beams == 1

    def __post_init__(self) -> None:
        self._refuse_no_number("repetition_penalty", "temperature", "top_p")
        self._refuse_no_whole_number("max_new_tokens", "num_beams", "seed")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}, expected at least 1")
        if self.num_beams < 1:
            raise ValueError(f"num_beams is {self.num_beams}, expected at least 1")
        if self.repetition_penalty is not None and self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}, expected more than 0")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}, expected 0 or more")
        if self.do_sample and self.temperature is not None and self.temperature < _COLDEST:
            raise ValueError(f"temperature is {self.temperature}, sampling expects at least {_COLDEST}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected more than 0 and at most 1")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}, expected 0 ... 2**63 - 1")

    def _refuse_no_number(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, numbers.Real) and math.isfinite(value)):
                raise ValueError(f"{name} is {value!r}, expected a number")

    def _refuse_no_whole_number(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (isinstance(value, numbers.Integral) or (name == "seed" and value is None)):
                raise ValueError(f"{name} is {value!r}, expected a whole number")


class FirstTokenConfidence(LogitsProcessor):
    """Notes how probable the first token of greedy decoding is, and leaves all scores as they are.

    It has to come before whatever changes scores. Nothing of the vocabulary's size is kept.

    Attributes:
        values: (B,) largest probability of the first step's softmax, float32; None before that step.
    """

    def __init__(self) -> None:
        self.values: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores -> the same."""
        if self.values is None:
            logits = scores.float()
            self.values = (logits.amax(dim=1) - logits.logsumexp(dim=1)).exp()
        return scores


class GumbelSampling(LogitsProcessor):
    """Turns greedy choice into sampling: the largest score + Gumbel noise is a draw from the scores' softmax.

    Every row has a generator of its own on the CPU, so a sample is the same alone and in a batch, on every device.
    """

    def __init__(self, num_rows: int, seed: int | None):
        seeds = [secrets.randbits(63) if seed is None else seed for _ in range(num_rows)]
        self._generators = [torch.Generator().manual_seed(s) for s in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores -> (B, V) perturbed scores."""
        noise = torch.stack([gumbel_noise(generator, scores.shape[1]) for generator in self._generators])
        return scores + noise.to(scores.device)


def gumbel_noise(generator: torch.Generator, size: int) -> Tensor:
    """(V,) float32 on the CPU: the largest score + noise is a draw from the scores' softmax."""
    uniform = torch.rand(size, generator=generator, dtype=torch.float64).clamp_min(1e-300)
    return -(-uniform.log()).log().float()


def sampling_warpers(settings: Decoding, top_k: int) -> list[LogitsProcessor]:
    """What is done to scores before one is drawn: temperature, the k largest (0 is all), the nucleus."""
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(settings.temperature or 1.0))]
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if settings.top_p is not None:
        warpers.append(TopPLogitsWarper(settings.top_p))
    return warpers
