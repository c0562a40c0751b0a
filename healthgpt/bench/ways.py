"""The ways to decode that are held against each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import CompileConfig, GenerationConfig, LogitsProcessorList

from healthgpt.bench.original import Original
from healthgpt.bench.subject import Subject
from healthgpt.decoding import Decoding
from healthgpt.processor import Prompt
from healthgpt.tasks import Task
from healthgpt.vocabulary import ImageVocabulary, OnlyImageCodes

ORIGINAL, GENERATE, COMPILED, ENGINE, AHEAD = (
    "original",
    "generate",
    "static cache, compiled",
    "engine",
    "engine, guessing ahead",
)
_GREEDY = Decoding(repetition_penalty=1.0)  # whatever penalty the base's own settings name

Decode = Callable[[Sequence[Prompt], int], list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to decode.

    Attributes:
        decode: prompts and a number of tokens -> the ids of so many tokens for each.
        alone: it takes a single prompt only.
        keeps: what it captures serves the next request of its kind, unless others come between.
    """

    name: str
    decode: Decode
    alone: bool = False
    keeps: bool = False


def ways_of(subject: Subject, task: Task, *, compiled: bool) -> list[Way]:
    """All ways for a task, the original's first.

    Args:
        compiled: the compiled one, too.
    """
    vocabulary = subject.processor.image_vocabulary if task is Task.GENERATION else None
    oracle, engine = subject.engine.oracle, subject.engine

    def generate(prompts: Sequence[Prompt], num_tokens: int) -> list[list[int]]:
        return oracle.generate(prompts, _GREEDY, num_tokens, codes_of=vocabulary)

    def decode(prompts: Sequence[Prompt], num_tokens: int) -> list[list[int]]:
        if vocabulary is None:
            return engine.answer(prompts, _GREEDY, [num_tokens] * len(prompts))
        return engine.draw(prompts, _GREEDY, vocabulary, num_tokens)

    ways = [Way(name=ORIGINAL, decode=Original(subject, task).decode), Way(name=GENERATE, decode=generate)]
    if compiled:
        ways.append(Way(name=COMPILED, decode=_compiled(subject, task, vocabulary)))
    ways.append(Way(name=ENGINE, decode=decode, keeps=subject.captures))
    if vocabulary is not None and why_not_ahead(subject) is None:
        ways.append(Way(name=AHEAD, decode=_ahead(subject, vocabulary), alone=True))
    return ways


def why_not_ahead(subject: Subject) -> str | None:
    """Why the engine does not guess; None where it does."""
    if subject.captures:
        return "steps that are captured need no guesses"
    return "random weights draw no image that could be guessed" if subject.given is None else None


def _ahead(subject: Subject, vocabulary: ImageVocabulary) -> Decode:
    """The engine, guessing codes from those of the input image."""

    def decode(prompts: Sequence[Prompt], num_tokens: int) -> list[list[int]]:
        return subject.engine.draw(prompts, _GREEDY, vocabulary, num_tokens, given=subject.given)

    return decode


def _compiled(subject: Subject, task: Task, vocabulary: ImageVocabulary | None) -> Decode:
    """transformers' `generate` with a cache of fixed size and a compiled step."""
    settings = CompileConfig()
    settings._compile_all_devices = True  # else it compiles on accelerators only
    processors = LogitsProcessorList([OnlyImageCodes(vocabulary)] if vocabulary else [])

    def decode(prompts: Sequence[Prompt], num_tokens: int) -> list[list[int]]:
        network, device = subject.network, subject.device
        ids, mask, pixels = subject.processor.batch(prompts)
        config = GenerationConfig(
            max_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=0,
            cache_implementation="static",
            compile_config=settings,
        )
        # No inference mode: compiled code must not be handed tensors made in it.
        with subject.engine.oracle.lock, torch.no_grad():
            network.route(task)
            embeds = network.embed_prompt(ids.to(device), pixels)
            generated = network.generate(
                inputs_embeds=embeds,
                attention_mask=mask.to(device),
                generation_config=config,
                logits_processor=processors,
            )
        return generated.tolist()

    return decode


def why_not_compiled(device: torch.device) -> str | None:
    """What a compiled step lacks on this machine; None where it has everything."""
    if device.type not in ("cpu", "cuda"):
        return f"torch.compile is not tried on {device.type}"
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    if not any(map(shutil.which, compilers)):
        return "there is no C++ compiler"
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "there is no Triton for this GPU"
    return None
