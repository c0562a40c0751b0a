"""Drawing by guessing codes ahead and checking all guesses in one pass: the codes are those of plain greedy drawing.

A pass over a guess of n codes gives the true code after each of them. As many guesses as were right, and one code more,
are known after it. What is drawn mostly resembles what was given, place by place, so guesses come from

    given     the input image's own code at the place, or what such a code was drawn as before
    above     the code one row higher
    before    the code just drawn

whichever has been right most often lately. Conversions resemble what was given in shape, not in codes; so `Hopes`
remembers, by what was asked for, whether guesses were right often enough to be worth their time.

Legend: N codes of an image, W codes in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from healthgpt.engine.choosing import refuse_nan
from healthgpt.engine.decoder import Decoder, Spots
from healthgpt.engine.prompts import EmbeddedPrompt, read_prompts
from healthgpt.vocabulary import ImageVocabulary

_MOST_GUESSES = 15  # in a pass: with the code before them as many tokens as loops read at once
_FORGETTING = 0.9  # of the record of right guesses, per code
_HOPE = 0.45  # a guess is worth its computing, some 0.45 of a step, where it, and all before it, are right as often
_FIRST = 0.5  # how often a code of the input is taken to be right before anything is known
_DOUBT = 16  # codes that have to be seen before what is seen counts more than that
_MOST_REMEMBERED = 256  # kinds of requests
_PLAIN = 16  # drawings of a kind without guesses before these are tried again


class Guesser:
    """Guesses the codes of an image while it is drawn.

    Args:
        given: (N,) codes of the input image on the same grid, None without one.
        columns: W.
        share: how often a code of the input is expected to be right.

    Attributes:
        right, seen: codes of the input that were right, of so many.
    """

    def __init__(self, given: Sequence[int] | None, columns: int, share: float = _FIRST):
        self._given, self._columns = given, columns
        self._drawn_as: dict[int, int] = {}
        self.right = self.seen = 0
        start = {"given": share, "above": 0.3, "before": 0.2}  # how often each is right; the drawing will tell
        self._record = {way: expected for way, expected in start.items() if given or way != "given"}

    def guess(self, codes: Sequence[int], most: int) -> list[int]:
        """The next codes after those known, by the best way so far; none where that is seldom right."""
        way = max(self._record, key=lambda name: self._record[name])
        guessed, hope = list(codes), self._record[way]
        while len(guessed) < len(codes) + most and hope >= _HOPE:
            guessed.append(self._one(way, guessed))
            hope *= self._record[way]
        return guessed[len(codes) :]

    def learn(self, codes: Sequence[int], known: int) -> None:
        """Takes note of codes from place `known` on."""
        for place in range(known, len(codes)):
            before = codes[:place]
            for way in self._record:
                right = bool(before) and self._one(way, before) == codes[place]
                self._record[way] = _FORGETTING * self._record[way] + (1 - _FORGETTING) * right
                self.right += right and way == "given"
            self.seen += 1
            if self._given:
                self._drawn_as[self._given[place]] = codes[place]

    def _one(self, way: str, codes: Sequence[int]) -> int:
        """The code after those known."""
        place = len(codes)
        if way == "given" and self._given:
            return self._drawn_as.get(self._given[place], self._given[place])
        if way == "above" and place >= self._columns:
            return codes[place - self._columns]
        return codes[-1]


class Hopes:
    """How often codes of the input were right lately, by what was asked for."""

    def __init__(self) -> None:
        # Right ones and all, older ones counting less; how many drawings went without guesses since.
        self._known: dict[Hashable, tuple[float, float, int]] = {}

    def share(self, asked: Hashable) -> float | None:
        """What to expect of such a drawing; None where guesses would cost more than they save."""
        right, seen, plain = self._known.get(asked, (0.0, 0.0, 0))
        share = (right + _FIRST * _DOUBT) / (seen + _DOUBT)
        if share >= _HOPE:
            return share
        if plain == _PLAIN:
            return _FIRST
        self._known[asked] = (right, seen, plain + 1)
        return None

    def learn(self, asked: Hashable, guesser: Guesser) -> None:
        """Takes note of a drawing that was guessed ahead."""
        right, seen, _ = self._known.pop(asked, (0.0, 0.0, 0))
        self._known[asked] = (right / 2 + guesser.right, seen / 2 + guesser.seen, 0)  # behind all others
        if len(self._known) > _MOST_REMEMBERED:
            del self._known[next(iter(self._known))]


@dataclass(kw_only=True)
class Tally:
    """How a drawing went.

    Attributes:
        passes: through the LLM, the prompt's not counted.
        guessed, accepted: guesses of each pass, and those that were right.
    """

    passes: int = 0
    guessed: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)


def draw_codes_ahead(
    decoder: Decoder,
    prompt: EmbeddedPrompt,
    vocabulary: ImageVocabulary,
    num_codes: int,
    guesser: Guesser,
    watch: Callable[[Tensor], None] | None = None,
) -> tuple[list[int], Tally]:
    """The ids of one prompt's codes, as `drawing.draw_codes` chooses them greedily.

    Args:
        watch: is told of every code, (1,) indices, as soon as it is known.

    Raises:
        FloatingPointError: logits that are no numbers.
    """
    first, rows = vocabulary.first_code_id, slice(vocabulary.first_code_id, vocabulary.end_id)
    cache, hidden = read_prompts(decoder, [prompt], num_codes + _MOST_GUESSES)
    codes: list[int] = []
    tally, guesses = Tally(), list[int]()
    while True:
        largest, chosen = decoder.logits(hidden, rows).max(dim=-1)  # (guesses + 1,)
        found = chosen.tolist()
        right = next((i for i, guess in enumerate(guesses) if guess != found[i]), len(guesses))
        known = len(codes)
        codes += found[: min(right + 1, num_codes - known)]
        refuse_nan(largest[: right + 1].unsqueeze(0), known)
        if known:
            tally.guessed.append(len(guesses))
            tally.accepted.append(right)
        if watch:
            for code in codes[known:]:
                watch(torch.tensor([code]))
        if len(codes) == num_codes:
            return [first + code for code in codes], tally
        guesser.learn(codes, known)
        guesses = guesser.guess(codes, min(_MOST_GUESSES, num_codes - len(codes) - 1))
        start = len(prompt) + len(codes) - 1
        ids = torch.tensor([[first + code for code in (codes[-1], *guesses)]], device=hidden.device)
        positions = torch.arange(start, start + ids.shape[1], device=hidden.device).unsqueeze(0)
        spots = Spots(positions=positions, start=start, live=start + ids.shape[1])
        hidden = decoder.read(decoder.embed(ids), cache, spots)[0]
        tally.passes += 1
