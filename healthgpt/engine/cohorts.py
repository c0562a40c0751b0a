"""Greedy texts of many prompts by steps that the host does not look at, but for every few of them.

As in `answering`, texts that end leave, and ones that wait go in for them; a row whose text has ended meanwhile goes on
unseen. Where nobody waits any more, it goes on from the beginning, to stay short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from healthgpt.engine.answering import Embed, Text, may_join
from healthgpt.engine.choosing import refuse_nan
from healthgpt.engine.decoder import Decoder
from healthgpt.engine.stepping import Stepper, Steppers

_UNSEEN = 8  # steps between two looks
_ROOM = 256  # tokens that a new cache has room for beyond the prompts; it grows where texts are longer


def answer_together(
    decoder: Decoder,
    steppers: Steppers,
    texts: Sequence[Text],
    stop_ids: Collection[int],
    embed: Embed,
    *,
    places: int,
    at_once: int,
    penalty: float = 1.0,
) -> None:
    """Decodes texts to their ends.

    Args:
        embed: is called for prompts when their texts begin.
        places: sequences at once, no more than texts. at_once: so many newcomers are read together.
        penalty: of tokens that a text has; 1 is none.

    Raises:
        FloatingPointError: logits that are no numbers.
        MemoryError, torch.OutOfMemoryError: keys and values that do not fit.
    """
    waiting = deque(texts)
    longest, most = max(text.positions for text in texts), max(text.most for text in texts)
    buffer = -(-most // 1024) * 1024 + _UNSEEN  # one length of most requests, so that the stepper serves them all
    stepper = steppers.take(decoder, slice(None), places, longest + min(most, _ROOM), buffer, penalty)
    working: dict[int, Text] = {}
    while waiting or working:
        if count := may_join(len(waiting), len(working), places, at_once):
            free = [row for row in range(places) if row not in working][:count]
            newcomers = {row: waiting.popleft() for row in free}
            logits = stepper.begin(newcomers, embed([text.prompt for text in newcomers.values()]))
            for text, row in zip(newcomers.values(), logits, strict=True):
                text.first = row
            working |= newcomers
        else:
            steps = min(_UNSEEN, max(text.most - len(text.tokens) for text in working.values()))
            stepper.reserve(steps)
            for _ in range(steps):
                stepper.step()
        ended = _look(stepper, working, stop_ids)
        working = {row: text for row, text in working.items() if row not in ended}
        stepper.end(ended)


def _look(stepper: Stepper, working: dict[int, Text], stop_ids: Collection[int]) -> list[int]:
    """Gives texts at work their new tokens, up to their ends; returns the rows of those that have ended."""
    ids, largest = stepper.ids.cpu(), stepper.largest.cpu()
    ended = []
    for row, text in working.items():
        fresh = slice(len(text.tokens), stepper.known(row))
        refuse_nan(largest[row : row + 1, fresh], fresh.start)
        if not all(_goes_on(text, token, stop_ids) for token in ids[row, fresh].tolist()):
            ended.append(row)
    return ended


def _goes_on(text: Text, token: int, stop_ids: Collection[int]) -> bool:
    """Takes one token more; whether the text has not ended by it."""
    text.tokens.append(token)
    wanted = text.watch(token) if text.watch else True
    return wanted and token not in stop_ids and len(text.tokens) < text.most
