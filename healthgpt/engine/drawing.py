"""Images: for every prompt so many codes, without a look at them before the last one is chosen.

Legend: B prompts, L tokens, D width, N codes of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from healthgpt.engine.choosing import Chooser, refuse_nan
from healthgpt.engine.decoder import Decoder, Spots, read_prompts
from healthgpt.vocabulary import ImageVocabulary

Watch = Callable[[Tensor], None]


def draw_codes(
    decoder: Decoder,
    chooser: Chooser,
    prompts: Sequence[Tensor],
    vocabulary: ImageVocabulary,
    num_codes: int,
    watch: Watch | None = None,
) -> list[list[int]]:
    """The ids of each prompt's codes.

    Args:
        prompts: (L, D) embeddings of each.
        watch: is told of every code, (B,) indices, as soon as it is chosen.

    Raises:
        FloatingPointError: logits that are no numbers.
    """
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
