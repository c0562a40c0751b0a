"""Images: for every prompt so many codes, without a look at them before the last one is chosen.

Legend: B prompts, N codes of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from healthgpt.engine.choosing import Chooser, refuse_nan
from healthgpt.engine.decoder import Decoder, Spots
from healthgpt.engine.prompts import EmbeddedPrompt, read_prompts
from healthgpt.engine.stepping import Steppers
from healthgpt.vocabulary import ImageVocabulary

Watch = Callable[[Tensor], None]


def draw_codes(
    decoder: Decoder,
    chooser: Chooser,
    prompts: Sequence[EmbeddedPrompt],
    vocabulary: ImageVocabulary,
    num_codes: int,
    watch: Watch | None = None,
    steppers: Steppers | None = None,
) -> list[list[int]]:
    """The ids of each prompt's codes.

    Args:
        watch: is told of every code, (B,) indices, as soon as it is chosen.
        steppers: for greedy drawing without a look from the host; None draws step by step.

    Raises:
        FloatingPointError: logits that are no numbers.
        MemoryError, torch.OutOfMemoryError: keys and values that do not fit.
    """
    if steppers and chooser.greedy:
        return _draw_by_steps(decoder, steppers, chooser.penalty, prompts, vocabulary, num_codes, watch)
    lengths = [len(prompt) for prompt in prompts]
    cache, hidden = read_prompts(decoder, prompts, num_codes)
    start, longest, first = torch.tensor(lengths, device=hidden.device), max(lengths), vocabulary.first_code_id
    alike = len(set(lengths)) == 1
    rows = slice(first, vocabulary.end_id) if chooser.plain else slice(None)
    memories = [chooser.memory() for _ in prompts]
    ids = torch.empty(len(prompts), num_codes, dtype=torch.long, device=hidden.device)
    largest = hidden.new_empty(len(prompts), num_codes)
    for step in range(num_codes):
        logits = decoder.logits(hidden, rows)
        if chooser.plain:
            largest[:, step], chosen = logits.max(dim=-1)
            ids[:, step] = chosen + first
        else:
            largest[:, step], ids[:, step] = logits.amax(dim=-1), chooser(logits, memories)
            for memory, token in zip(memories, ids[:, step].tolist(), strict=True):
                memory.tokens.append(token)
        if watch:
            watch(ids[:, step] - first)
        if step + 1 < num_codes:
            spots = Spots(
                positions=(start + step).unsqueeze(1), start=longest + step if alike else None, live=longest + step + 1
            )
            hidden = decoder.read(decoder.embed(ids[:, step : step + 1]), cache, spots)[:, 0]
    refuse_nan(largest, 0)
    return ids.tolist()


def _draw_by_steps(
    decoder: Decoder,
    steppers: Steppers,
    penalty: float,
    prompts: Sequence[EmbeddedPrompt],
    vocabulary: ImageVocabulary,
    num_codes: int,
    watch: Watch | None,
) -> list[list[int]]:
    rows = slice(vocabulary.first_code_id, vocabulary.end_id)
    longest = max(len(prompt) for prompt in prompts)
    stepper = steppers.take(decoder, rows, len(prompts), longest + num_codes, num_codes, penalty)
    stepper.begin(range(len(prompts)), prompts)
    for place in range(num_codes):
        if place:
            stepper.step()
        if watch:
            watch(stepper.ids[:, place] - vocabulary.first_code_id)
    refuse_nan(stepper.largest[:, :num_codes], 0)
    return stepper.ids[:, :num_codes].tolist()
