"""What each measure of the engine brings to a single drawing of the shipped model: python benchmarks/ladder.py

Two cores, float32, all rungs in turns. Each adds to the one before it:

    original                        the original's layer and loop
    own loop and buffers            its layer still, but no modules, no growing cache, small operations joined
    [A; R] in one product           beside W
    [R; A; W] in one product        W's rows between those of the adapters
    its columns together            as products with few tokens read them fastest
    the codes' rows of the head     instead of the whole vocabulary's
    a layer as loops                compiled, not operators of PyTorch; rows together again, as loops read them
    guessing ahead                  several codes in a pass

Predicted are floor + operators · c, with the c that makes it right for the original: every operator takes so long to
start. A pass that checks guesses is taken to cost what a step does.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from report import publish
from torch import Tensor

from healthgpt.bench.ceilings import measure_ceilings
from healthgpt.bench.measuring import launches_per_token
from healthgpt.bench.original import Original, OriginalLinear
from healthgpt.bench.subject import Subject
from healthgpt.config import NANO
from healthgpt.decoding import Decoding
from healthgpt.engine import loops
from healthgpt.engine.choosing import Chooser
from healthgpt.engine.decoder import Decoder, decoders_of
from healthgpt.engine.drawing import draw_codes
from healthgpt.engine.linear import fuse
from healthgpt.engine.speculation import Guesser, draw_codes_ahead
from healthgpt.loading import LoadOptions
from healthgpt.processor import Prompt
from healthgpt.sources import named_sources
from healthgpt.tasks import Task

CORES = 2
TASK = Task.GENERATION
Decode = Callable[[Sequence[Prompt], int], list[list[int]]]


class Plain:
    """Layers with a common input, each by the original's formula."""

    def __init__(self, layers: Sequence[Any]):
        self._layers = [OriginalLinear(layer, TASK) for layer in layers]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D_in) -> (N, sum of D_out)"""
        found = [layer(x) for layer in self._layers]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


class WholeHead(Decoder):
    """Computes all rows of the head, whichever are asked for."""

    def logits(self, hidden: Tensor, rows: slice = slice(None)) -> Tensor:
        return F.linear(hidden, self.head)[..., rows]


def decoder(
    subject: Subject, kind: type[Decoder], part: Callable[[Sequence[Any]], Any], loops: ModuleType | None = None
) -> Decoder:
    """The engine's decoder of the task, with other products, and without loops unless they are given."""
    body: Any = subject.network.model.language_model
    mine = decoders_of(subject.network)[TASK]
    layers = [
        dataclasses.replace(
            layer,
            queries=part([block.self_attn.qkv_proj]),
            out=part([block.self_attn.o_proj]),
            gates=part([block.mlp.gate_up_proj]),
            down=part([block.mlp.down_proj]),
        )
        for layer, block in zip(mine._layers, body.layers, strict=True)
    ]
    return kind(body, layers, mine.embeddings, mine.head, loops=loops)


def drawing(subject: Subject, drawn_by: Decoder, passes: list[int] | None = None) -> Decode:
    """Draws plainly or, where passes are to be counted, by guessing ahead."""
    vocabulary = subject.processor.image_vocabulary
    assert vocabulary
    assert subject.given
    chooser = Chooser(Decoding(repetition_penalty=1.0), 1.0, 0, vocabulary)
    grid = subject.given()

    def decode(prompts: Sequence[Prompt], count: int) -> list[list[int]]:
        with torch.inference_mode():
            embedded = subject.engine._embedded(prompts)
            if passes is None:
                return draw_codes(drawn_by, chooser, embedded, vocabulary, count)
            guesser = Guesser(grid.flatten().tolist(), columns=grid.shape[1])
            ids, tally = draw_codes_ahead(drawn_by, embedded[0], vocabulary, count, guesser)
            passes.append(tally.passes)
            return [ids]

    return decode


def rungs(subject: Subject, passes: list[int]) -> dict[str, Decode]:
    """All ways, from the bottom up."""
    tasks = subject.network.tasks

    def fused(into_one: bool, by_rows: bool = False) -> Callable[[Sequence[Any]], Any]:
        return lambda layers: fuse(layers, tasks, into_one=into_one, by_rows=by_rows)[TASK]

    with torch.inference_mode():
        own = decoder(subject, WholeHead, Plain)
        beside = decoder(subject, WholeHead, fused(False))
        one = decoder(subject, WholeHead, fused(True, by_rows=True))
        columns = decoder(subject, WholeHead, fused(True))
        rows = decoder(subject, Decoder, fused(True))
        last = decoder(subject, Decoder, fused(True, by_rows=True), loops)
    return {
        "original": Original(subject, TASK).decode,
        "own loop and buffers": drawing(subject, own),
        "[A; R] in one product": drawing(subject, beside),
        "[R; A; W] in one product": drawing(subject, one),
        "its columns together": drawing(subject, columns),
        "the codes' rows of the head": drawing(subject, rows),
        "a layer as loops": drawing(subject, last),
        "guessing ahead": drawing(subject, last, passes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    flags = parser.parse_args()
    torch.set_num_threads(CORES)
    subject = Subject.of_model(NANO, named_sources(NANO), LoadOptions(device="cpu", dtype="FP32"))
    passes: list[int] = []
    ways, prompts, count = rungs(subject, passes), subject.prompts(TASK, 1), subject.codes_per_image
    drawn = {name: decode(prompts, count) for name, decode in ways.items()}
    assert all(ids == drawn["original"] for ids in drawn.values()), "not the original's codes"
    before, times = measure_ceilings(subject.device, subject.dtype), {name: list[float]() for name in ways}
    for _ in range(flags.rounds):
        for name, decode in ways.items():
            whole, first = (seconds(decode, prompts, tokens) for tokens in (count, 1))
            times[name].append((whole - first) / (count - 1))
    ceilings = before.or_higher(measure_ceilings(subject.device, subject.dtype))
    context = subject.processor.expanded_length(prompts[0]) + count / 2
    work = subject.sizes(TASK).step(rank=subject.rank(TASK), batch=1, context=context, rows=subject.rows(TASK))
    floor = work.seconds(ceilings)
    operators = {
        name: launches_per_token(decode, prompts, count, subject.device)
        for name, decode in ways.items()
        if name != "guessing ahead"
    }
    measured = {name: statistics.median(found) for name, found in times.items()}
    each = (measured["original"] - floor) / operators["original"]
    predicted = {name: floor + each * number for name, number in operators.items()}
    predicted["guessing ahead"] = predicted["a layer as loops"] * max(passes) / (count - 1)
    rows = [
        {
            "rung": name,
            "operators": operators.get(name),
            "predicted_ms": 1000 * predicted[name],
            "measured_ms": 1000 * measured[name],
            "times_the_original": measured["original"] / measured[name],
        }
        for name in ways
    ]
    publish("ladder", rows, floor_ms=1000 * floor, passes=max(passes), codes=count, rounds=flags.rounds)


def seconds(decode: Decode, prompts: Sequence[Prompt], tokens: int) -> float:
    start = time.perf_counter()
    decode(prompts, tokens)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
