"""Greedy steps of which the host sees nothing: tokens, positions and what was chosen stay on the device.

A step is the same work whether it is done at once or replayed from a CUDA graph; only `graphs` knows the difference.

Legend: B sequences, V rows of the head, N tokens that there is room for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from healthgpt.engine.cache import KeyValueCache
from healthgpt.engine.decoder import Decoder, Spots
from healthgpt.engine.memory import free_bytes
from healthgpt.engine.prompts import EmbeddedPrompt, read_prompts

_GRAIN = 512  # sequences up to a multiple of so many tokens share a captured step
_MOST_CAPTURES = 6  # of a stepper; the one not used for longest goes first
_MOST_STEPPERS = 2  # of all: usually that of texts and that of drawings


class Capture(Protocol):
    """Makes a piece of work into something that repeats it faster."""

    def __call__(self, work: Callable[[], None], rewind: Callable[[], None]) -> Callable[[], None]:
        """May do the work any number of times, each after a rewind, and leaves it rewound."""
        ...


class Stepper:
    """B sequences and their greedy steps.

    Args:
        rows: of the head that are chosen from.
        tokens: of the longest sequence that the cache has room for. most: N.
        new_capture: makes a `Capture` whose steps may share memory; None does every step's work itself.
        penalty: of tokens that were chosen before; 1 is none.

    Attributes:
        cache: never moves, but by `reserve`.
        ids: (B, N) chosen tokens; largest: (B, N) their logits. Only the first `known(row)` of a row are.
    """

    def __init__(
        self,
        decoder: Decoder,
        rows: slice,
        sequences: int,
        tokens: int,
        most: int,
        new_capture: Callable[[], Capture] | None = None,
        penalty: float = 1.0,
    ):
        self._decoder, self._rows, self._penalty = decoder, rows, penalty
        self._new_capture = new_capture
        self._capture = new_capture() if new_capture else None
        # By the most tokens of a sequence: what repeats the step, and the tables that it must find where they were.
        self._captured: dict[int, tuple[Callable[[], None], Any]] = {}
        device = decoder.cache_shape.device
        self.cache = KeyValueCache(decoder.cache_shape, sequences, tokens)
        self.ids = torch.zeros(sequences, most, dtype=torch.long, device=device)
        self.largest = torch.zeros(sequences, most, dtype=decoder.embeddings.dtype, device=device)
        # The token that is read next, where it stands, and which of the sequence's new tokens it is.
        self._token, self._position, self._place = torch.zeros(3, sequences, 1, dtype=torch.long, device=device)
        # Which of the rows each sequence has chosen; none are noted where that makes no difference.
        noted = len(decoder.head[rows]) if penalty != 1 else 0
        self._chosen = torch.zeros(sequences, noted, dtype=torch.bool, device=device)
        self._begun: dict[int, tuple[int, int]] = {}  # of each row at work, its prompt's tokens and when it began
        self._steps = 0

    def begin(self, rows: Collection[int], prompts: Sequence[EmbeddedPrompt]) -> Tensor:
        """Reads prompts into rows, and chooses their first tokens; returns the logits of these, (rows, V).

        Args:
            rows: that are not at work; all of them, in order, to begin anew.
        """
        lengths = [len(prompt) for prompt in prompts]
        if len(rows) == len(self.cache):
            self._begun.clear()
            self.cache.clear()
            _, hidden = read_prompts(self._decoder, prompts, cache=self.cache)
        else:
            self._room(max(lengths))
            read, hidden = read_prompts(self._decoder, prompts)
            self.cache.put(read, list(rows), max(lengths))
        self._begun |= {row: (length, self._steps) for row, length in zip(rows, lengths, strict=True)}
        logits = self._decoder.logits(hidden, self._rows)
        self._restart(rows, lengths, logits)
        return logits

    def _restart(self, rows: Collection[int], lengths: Sequence[int], logits: Tensor) -> None:
        """The state of rows whose prompts have just been read."""
        at = torch.tensor(list(rows), device=logits.device)
        largest, chosen = logits.max(dim=-1, keepdim=True)
        self._token[at] = token = chosen + (self._rows.start or 0)
        self._position[at] = torch.tensor(lengths, device=logits.device).unsqueeze(1)
        self._place[at] = 0
        self.ids[at, 0], self.largest[at, 0] = token[:, 0], largest[:, 0]
        self._chosen[at] = False
        if self._penalty != 1:
            self._chosen[at, chosen[:, 0]] = True

    def known(self, row: int) -> int:
        """Tokens that a row at work has."""
        return self._steps - self._begun[row][1] + 1

    def end(self, rows: Collection[int]) -> None:
        """These are no longer at work. Whoever is not makes steps all the same, from here on from the beginning.

        To be called every few steps, with or without rows, as there is no room for more than a few of those.
        """
        for row in rows:
            del self._begun[row]
        if idle := [row for row in range(len(self.cache)) if row not in self._begun]:
            self._position[idle] = 0
            self._place[idle] = 0

    def reserve(self, steps: int) -> None:
        """Room for so many more steps; a cache that has to move for it makes what was captured worthless."""
        self._room(self._live() + steps)

    def _live(self) -> int:
        """Tokens that the longest row at work has once its last one is read."""
        return max(length + self.known(row) for row, (length, _) in self._begun.items())

    def _room(self, needed: int) -> None:
        if needed > self.cache.capacity:
            self._captured.clear()
            self._capture = self._new_capture() if self._new_capture else None
            self.cache.grow(needed)

    def step(self) -> None:
        """One more token of each sequence."""
        live = self._live()
        self._steps += 1
        assert all(self.known(row) <= self.ids.shape[1] for row in self._begun)
        if self._capture is None:
            self._advance(live)
            return
        bound = min(-(-live // _GRAIN) * _GRAIN, self.cache.capacity)
        captured = self._captured.pop(bound, None) or self._capture_step(self._capture, bound)
        self._captured[bound] = captured  # behind all others
        captured[0]()
        if len(self._captured) > _MOST_CAPTURES:
            del self._captured[next(iter(self._captured))]

    def _capture_step(self, capture: Capture, live: int) -> tuple[Callable[[], None], Any]:
        """The next step, not done yet: however often trying it did it, it is taken back."""
        state = (self._token, self._position, self._place, self._chosen)
        before = [one.clone() for one in state]

        def rewind() -> None:
            for mine, kept in zip(state, before, strict=True):
                mine.copy_(kept)

        tables = self._decoder.attention.angles(live)
        return capture(lambda: self._advance(live), rewind), tables

    def _advance(self, live: int) -> None:
        """A step's work: nothing of it waits, allocates on the host or depends on numbers of the device."""
        spots = Spots(positions=self._position, start=None, live=live)
        hidden = self._decoder.read(self._decoder.embed(self._token), self.cache, spots)[:, 0]
        self._position += 1
        self._place += 1
        self._choose(self._decoder.logits(hidden, self._rows))

    def _choose(self, logits: Tensor) -> None:
        if self._penalty != 1:  # as transformers does it
            logits = logits.float()
            penalised = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
            logits = torch.where(self._chosen, penalised, logits)
        largest, chosen = logits.max(dim=-1, keepdim=True)
        if self._penalty != 1:
            self._chosen.scatter_(1, chosen, True)
        self._token.copy_(chosen + (self._rows.start or 0))
        self.ids.scatter_(1, self._place, self._token)
        self.largest.scatter_(1, self._place, largest.to(self.largest.dtype))


class Steppers:
    """Those used last, with their caches and what they captured, for the next requests of their kind."""

    def __init__(self, new_capture: Callable[[], Capture] | None = None):
        self._new_capture = new_capture
        self._kept: dict[tuple[Decoder, int, int, float], Stepper] = {}

    def take(
        self, decoder: Decoder, rows: slice, sequences: int, tokens: int, most: int, penalty: float = 1.0
    ) -> Stepper:
        """A stepper for so many sequences of so many tokens, `most` of them chosen.

        Raises:
            MemoryError, torch.OutOfMemoryError: their keys and values do not fit.
        """
        kind = (decoder, rows.start or 0, sequences, penalty)
        stepper = self._kept.pop(kind, None)
        if stepper is None or stepper.cache.capacity < tokens or stepper.ids.shape[1] < most:
            del stepper  # before another one needs its memory
            self.make_room(decoder, sequences, tokens)
            stepper = Stepper(decoder, rows, sequences, tokens, most, self._new_capture, penalty)
        self._kept[kind] = stepper  # behind all others
        while len(self._kept) > _MOST_STEPPERS:
            del self._kept[next(iter(self._kept))]
        return stepper

    def make_room(self, decoder: Decoder, sequences: int, tokens: int) -> None:
        """Lets go of everything where so many sequences of so many tokens would not fit beside it."""
        shape = decoder.cache_shape
        free = free_bytes(shape.device) if self._kept else None
        if free is not None and shape.bytes_of(sequences, tokens) > free:
            self.clear()

    def clear(self) -> None:
        """Lets go of everything."""
        self._kept.clear()
