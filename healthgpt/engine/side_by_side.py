"""Drawing several rows at once, each some codes behind the one above it (ZipAR, arXiv 2412.04062).

A code depends mostly on those near it, of which the ones above are known early. So a row may begin once the one above
has a lead, and from then on all rows under way get a code in every pass: a grid of H rows takes W + (H - 1) · lead
passes, not H · W. Codes that are not there yet are not seen, so what is drawn is not what code after code would have
drawn; with a lead of the whole row it is.

Legend: B prompts, N = H · W codes of an image in W columns, S slots of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import torch
from torch import Tensor

from healthgpt.engine.choosing import refuse_nan
from healthgpt.engine.decoder import Decoder, Spots
from healthgpt.engine.prompts import EmbeddedPrompt, read_prompts
from healthgpt.vocabulary import ImageVocabulary


def passes_of(num_codes: int, columns: int, lead: int) -> list[list[int]]:
    """The codes that each pass chooses, by their places, the first being what the prompt's own pass gives."""
    lead, passes = min(lead, columns), []
    for time in range(columns + (num_codes // columns - 1) * lead):
        rows = range(max(0, -(-(time - columns + 1) // lead)), min(num_codes // columns - 1, time // lead) + 1)
        passes.append([row * columns + time - row * lead for row in rows])
    return passes


def stand_in(place: int, known: Set[int], columns: int) -> int:
    """The place whose code is read where that of the last place of a row is not known yet.

    The nearest known one above it, which is of the same border of the picture; where there is none, the first one of
    its row, as borders are mostly alike. (The latest code of its row, out of the midst of the picture, led the rows
    below astray: of 30 reports 3 % were drawn as they say with a lead of half a row, 60 % so.)
    """
    above = (one for one in range(place - columns, -1, -columns) if one in known)
    return next(above, place - place % columns)


def draw_codes_side_by_side(
    decoder: Decoder,
    prompts: Sequence[EmbeddedPrompt],
    vocabulary: ImageVocabulary,
    num_codes: int,
    columns: int,
    lead: int,
    watch: Callable[[Tensor], None] | None = None,
) -> list[list[int]]:
    """The ids of each prompt's codes, greedily.

    Args:
        columns: W. lead: codes that a row is ahead of the next.
        watch: is told of every code, (B,) indices, from the first on, as soon as it and all before it are known.

    Raises:
        FloatingPointError: logits that are no numbers.
        MemoryError, torch.OutOfMemoryError: keys and values that do not fit.
    """
    first, rows = vocabulary.first_code_id, slice(vocabulary.first_code_id, vocabulary.end_id)
    cache, hidden = read_prompts(decoder, prompts, num_codes)
    device = hidden.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device).unsqueeze(1)
    live = int(lengths.max()) + num_codes
    slots = torch.arange(live, device=device)
    ids = torch.full((len(prompts), num_codes), first, dtype=torch.long, device=device)
    largest = hidden.new_zeros(len(prompts), num_codes)
    there = slots < lengths  # (B, S) slots that hold keys and values
    chosen: list[int] = []
    known, told = set[int](), 0
    hidden = hidden.unsqueeze(1)
    for number, places in enumerate(passes := passes_of(num_codes, columns, lead)):
        wanted = [chosen.index(place - 1) for place in places] if number else [0]
        highest, found = decoder.logits(hidden[:, wanted], rows).max(dim=-1)
        ids[:, places], largest[:, places] = found + first, highest
        known.update(places)
        while watch and told in known:
            watch(ids[:, told] - first)
            told += 1
        if number + 1 == len(passes):
            break
        # What is read next: the codes just chosen, and for a row that begins before the one above has ended, what
        # stands in for the last one there.
        chosen = sorted({*places, *(place - 1 for place in passes[number + 1])})
        tokens = [place if place in known else stand_in(place, known, columns) for place in chosen]
        at = torch.tensor(chosen, device=device)
        positions = lengths + at
        there = there.scatter(1, positions, True)
        spots = Spots(
            positions=positions,
            start=None,
            live=live,
            seen=there.unsqueeze(1) & (slots <= positions.unsqueeze(-1)),
        )
        hidden = decoder.read(decoder.embed(ids[:, tokens]), cache, spots)
    refuse_nan(largest, 0)
    return ids.tolist()
