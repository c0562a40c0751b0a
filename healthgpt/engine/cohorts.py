"""Greedy texts of many prompts that begin together, the host looking at them only every few steps.

Unlike in `answering`, nobody takes the place of a text that has ended: its steps go on unseen until all have.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from healthgpt.engine.answering import Text
from healthgpt.engine.choosing import refuse_nan
from healthgpt.engine.decoder import Decoder
from healthgpt.engine.stepping import Stepper, Steppers

_UNSEEN = 8  # steps between two looks
_ROOM = 256  # tokens that a new cache has room for beyond the prompts; it grows where texts are longer


def answer_together(
    decoder: Decoder, steppers: Steppers, texts: Sequence[Text], stop_ids: Collection[int], penalty: float = 1.0
) -> None:
    """Decodes texts to their ends.

    Args:
        penalty: of tokens that a text has; 1 is none.

    Raises:
        FloatingPointError: logits that are no numbers.
        MemoryError, torch.OutOfMemoryError: keys and values that do not fit.
    """
    longest, most = max(len(text.prompt) for text in texts), max(text.most for text in texts)
    buffer = -(-most // 1024) * 1024  # one length of most requests, so that the stepper serves them all
    stepper = steppers.take(decoder, slice(None), len(texts), longest + min(most, _ROOM), buffer, penalty)
    logits = stepper.begin([text.prompt for text in texts])
    for text, row in zip(texts, logits, strict=True):
        text.first = row
    working = list(range(len(texts)))
    seen = 0
    while working := _look(stepper, texts, working, seen, stop_ids):
        seen = stepper.known
        steps = min(_UNSEEN, max(texts[row].most for row in working) - seen)
        stepper.reserve(steps)
        for _ in range(steps):
            stepper.step()


def _look(
    stepper: Stepper, texts: Sequence[Text], working: Sequence[int], seen: int, stop_ids: Collection[int]
) -> list[int]:
    """Gives texts at work their new tokens, up to their ends; returns which go on."""
    fresh = stepper.ids[:, seen : stepper.known].tolist()
    refuse_nan(stepper.largest[list(working), seen : stepper.known], seen)
    return [row for row in working if all(_goes_on(texts[row], token, stop_ids) for token in fresh[row])]


def _goes_on(text: Text, token: int, stop_ids: Collection[int]) -> bool:
    """Takes one token more; whether the text has not ended by it."""
    text.tokens.append(token)
    wanted = text.watch(token) if text.watch else True
    return wanted and token not in stop_ids and len(text.tokens) < text.most
