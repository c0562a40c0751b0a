"""Texts of many prompts: sequences that end leave, and waiting ones take their places while the others go on.

Legend: B sequences at work, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from healthgpt.engine.cache import KeyValueCache
from healthgpt.engine.choosing import Chooser, Memory, refuse_nan
from healthgpt.engine.decoder import Decoder, Spots
from healthgpt.engine.prompts import EmbeddedPrompt, read_prompts
from healthgpt.processor import Prompt

Embed = Callable[[Sequence[Prompt]], Sequence[EmbeddedPrompt]]

_HEADROOM = 64  # tokens that a cache has room for beyond a prompt before it has to grow


@dataclass(kw_only=True)
class Text:
    """One text in the making.

    Attributes:
        positions: that its prompt takes. most: tokens that it may have.
        first: (V,) logits of its first token, once they are known.
        watch: is told of every token, as soon as the host knows it; a false answer ends the text.
    """

    prompt: Prompt
    positions: int
    most: int
    watch: Callable[[int], bool] | None = None
    memory: Memory = field(default_factory=Memory)
    first: Tensor | None = None

    @property
    def first_logits(self) -> Tensor:
        """Those that its first token was chosen by.

        Raises:
            RuntimeError: it has not begun.
        """
        if self.first is None:
            raise RuntimeError("a text has no logits before it has begun")
        return self.first

    @property
    def tokens(self) -> list[int]:
        return self.memory.tokens

    @property
    def length(self) -> int:
        """Tokens whose keys and values are known before the last chosen one is read."""
        return self.positions + len(self.tokens) - 1


def may_join(waiting: int, working: int, places: int, at_once: int) -> int:
    """How many of those that wait are to be taken in now: none, until `at_once` places are free."""
    free = places - working
    return min(free, waiting) if free >= at_once else 0


class Answering:
    """Decodes texts, as many at once as there are places.

    Args:
        places: sequences at once. at_once: so many newcomers are read together.
        stop_ids: tokens that end a text, as its last one.
        embed: is called for prompts when their texts begin.
    """

    def __init__(
        self, decoder: Decoder, chooser: Chooser, stop_ids: Sequence[int], embed: Embed, places: int, at_once: int
    ):
        self._decoder, self._chooser, self._embed = decoder, chooser, embed
        self._stop_ids, self._places, self._at_once = frozenset(stop_ids), places, at_once
        self._waiting: deque[Text] = deque()
        self._working: list[Text] = []
        self._cache: KeyValueCache | None = None

    def add(self, text: Text) -> None:
        """Lets a text wait for its turn."""
        text.memory = self._chooser.memory()
        self._waiting.append(text)

    def run(self) -> Iterator[Text]:
        """Decodes until nothing waits; yields texts as they end.

        Raises:
            FloatingPointError: logits that are no numbers.
        """
        while self._waiting or self._working:
            if count := may_join(len(self._waiting), len(self._working), self._places, self._at_once):
                yield from self._take_in([self._waiting.popleft() for _ in range(count)])
            if self._working:
                yield from self._step()

    def _take_in(self, newcomers: list[Text]) -> Iterator[Text]:
        """Reads prompts and chooses each one's first token."""
        room = min(_HEADROOM, max(text.most for text in newcomers))
        read, hidden = read_prompts(self._decoder, self._embed([text.prompt for text in newcomers]), room)
        logits = self._decoder.logits(hidden)
        for text, row in zip(newcomers, logits, strict=True):
            text.first = row
        self._place(newcomers, read)
        yield from self._choose(newcomers, logits)

    def _place(self, newcomers: list[Text], read: KeyValueCache) -> None:
        """Gives newcomers rows behind those at work."""
        start = len(self._working)
        if self._cache is None or not self._working:
            self._cache = read
        else:
            self._cache = _joined(self._cache, start, read)
        self._working += newcomers

    def _step(self) -> Iterator[Text]:
        """One token more for each text at work."""
        texts, cache = list(self._working), self._cache
        assert cache is not None
        lengths = [text.length for text in texts]
        live = max(lengths) + 1
        cache.grow(live)
        device = cache.keys.device
        tokens = torch.tensor([[text.tokens[-1]] for text in texts], device=device)
        alike = lengths[0] if len(set(lengths)) == 1 else None
        positions = torch.tensor(lengths, device=device).unsqueeze(1)
        spots = Spots(positions=positions, start=alike, live=live)
        hidden = self._decoder.read(self._decoder.embed(tokens), cache, spots)
        yield from self._choose(texts, self._decoder.logits(hidden[:, 0]))

    def _choose(self, texts: Sequence[Text], logits: Tensor) -> Iterator[Text]:
        if self._chooser.plain:
            largest, chosen = logits.max(dim=-1)
        else:
            largest, chosen = logits.amax(dim=-1), self._chooser(logits, [text.memory for text in texts])
        if bool(largest.isnan().any()):
            refuse_nan(largest.unsqueeze(1), len(texts[0].tokens))
        ended = []
        for text, token in zip(texts, chosen.tolist(), strict=True):
            text.tokens.append(token)
            wanted = text.watch(token) if text.watch else True
            if not wanted or token in self._stop_ids or len(text.tokens) >= text.most:
                ended.append(text)
        for text in ended:
            self._leave(text)
        yield from ended

    def _leave(self, text: Text) -> None:
        """Frees a place: the last row takes it."""
        row, last = next(i for i, one in enumerate(self._working) if one is text), len(self._working) - 1
        if row != last:
            assert self._cache is not None
            kept = self._working[last].length + 1
            for buffer in (self._cache.keys, self._cache.values):
                buffer[:, row, :, :kept] = buffer[:, last, :, :kept]
            self._working[row] = self._working[last]
        self._working.pop()


def _joined(cache: KeyValueCache, kept: int, read: KeyValueCache) -> KeyValueCache:
    """The first rows of a cache, and behind them all of another's."""
    total = kept + len(read)
    if total > len(cache) or read.capacity > cache.capacity:
        bigger = KeyValueCache(cache.shape, max(total, len(cache)), max(cache.capacity, read.capacity))
        for new, old in zip((bigger.keys, bigger.values), (cache.keys, cache.values), strict=True):
            new[:, :kept, :, : cache.capacity] = old[:, :kept]
        cache = bigger
    for mine, theirs in zip((cache.keys, cache.values), (read.keys, read.values), strict=True):
        mine[:, kept:total, :, : read.capacity] = theirs
    return cache
