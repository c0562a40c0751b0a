"""What is being generated, while it is: tokens through a queue, text that nothing changes any more, rows of codes."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from healthgpt.targets import as_image
from healthgpt.tokenization import SlowTokenizer
from taming_transformers import GumbelVQ

if TYPE_CHECKING:
    from PIL import Image


class StoppedError(Exception):
    """Nobody wants any more of it."""


class TokenQueue:
    """Hands token ids from the thread that generates to the one that iterates; an error there is raised here."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

    def put(self, token: int) -> None:
        """Takes a new token."""
        self._queue.put(token)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Ends the iteration when the block ends, with its error if it had one."""
        outcome: BaseException | None = None
        try:
            yield
        except BaseException as error:  # re-raised in the reader's thread
            outcome = error
        finally:
            self._queue.put(outcome)

    def __iter__(self) -> Iterator[int]:
        while isinstance(item := self._queue.get(), int):
            yield item
        if item is not None:
            raise item


def tokens_of(work: Callable[[Callable[[int], bool]], object]) -> Generator[int, None, None]:
    """Tokens that `work` tells its argument of, from a thread of its own.

    Once the iterator is closed the argument returns false, and closing waits for the work to end.
    """
    tokens, stopped = TokenQueue(), threading.Event()

    def tell(token: int) -> bool:
        tokens.put(token)
        return not stopped.is_set()

    def run() -> None:
        with tokens.closing():
            work(tell)

    worker = threading.Thread(target=run, name="healthgpt-stream", daemon=True)
    worker.start()
    try:
        yield from tokens
    finally:
        stopped.set()
        worker.join()


class SettledText:
    """A text whose tokens come one by one, given out as soon as further tokens can no longer change it."""

    def __init__(self, tokenizer: SlowTokenizer, stop_ids: Iterable[int]):
        self._tokenizer, self._stops = tokenizer, frozenset(stop_ids)
        self._ids: list[int] = []
        self._sent = 0

    def add(self, token: int) -> str:
        """Takes a token; returns what is settled by it, often nothing. A stop token is no text."""
        if token in self._stops:
            return ""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        return self._more(text, self._tokenizer.settled(text))

    def rest(self) -> str:
        """What is left when no token comes any more."""
        text = self._tokenizer.decode(self._ids)
        return self._more(text, len(text))

    def _more(self, text: str, settled: int) -> str:
        more = text[self._sent : settled]
        self._sent = max(self._sent, settled)
        return more


def settled_pieces(tokens: Iterable[int], text: SettledText, stop_ids: Iterable[int]) -> Iterator[str]:
    """Pieces of a text up to a stop token."""
    stops = frozenset(stop_ids)
    for token in tokens:
        if token in stops:
            break
        if piece := text.add(token):
            yield piece
    if rest := text.rest():
        yield rest


class Told:
    """A watch of one answer, which ends where nobody wants more of it and where it is as long as it may be.

    Attributes:
        count: tokens that it was told of.
    """

    def __init__(self, watch: Callable[[int], bool], most: int):
        self._watch, self._most = watch, most
        self.count = 0

    def __call__(self, token: int) -> bool:
        self.count += 1
        return self._watch(token) and self.count < self._most


@dataclass(frozen=True, kw_only=True)
class PartialDrawing:
    """The upper rows of a drawing.

    Attributes:
        indices: the codes known so far, whole rows in row-major order.
        share: the part of the drawing that they are, above 0 and up to 1.
    """

    indices: list[int]
    share: float
    _vqgan: GumbelVQ = field(repr=False, compare=False)

    @cached_property
    def image(self) -> Image.Image:
        """The picture's upper rows, decoded when first asked for; the last of them may still change a little."""
        rows, columns = self._vqgan.config.grid
        known = torch.tensor(self.indices).view(-1, columns)
        missing = known[-1:].expand(rows - len(known), columns)  # the likeliest neighbours of the last row
        grid = torch.cat([known, missing]).to(next(self._vqgan.parameters()).device)
        with torch.inference_mode():
            whole = as_image(self._vqgan.decode(grid.unsqueeze(0))[0])
        return whole.crop((0, 0, whole.width, whole.height * len(known) // rows))


def telling_rows(tells: Sequence[Callable[[int], bool]], columns: int) -> Callable[[Tensor], None]:
    """A watch of drawings that tells of the codes of each row by row, so that a device is waited for once a row.

    The watch raises `StoppedError` where nobody wants more of any of them.
    """
    row: list[Tensor] = []

    def watch(codes: Tensor) -> None:
        row.append(codes.clone())
        if len(row) == columns:
            rows = torch.stack(row, dim=1).tolist()  # (B, columns)
            row.clear()
            wanted = [all(tell(code) for code in codes) for tell, codes in zip(tells, rows, strict=True)]
            if not any(wanted):
                raise StoppedError

    return watch


def partial_drawings(codes: Iterable[int], vqgan: GumbelVQ) -> Iterator[PartialDrawing]:
    """A drawing's codes so far, whenever a row of them is whole."""
    columns, total = vqgan.config.grid[1], vqgan.config.num_codes
    known: list[int] = []
    for code in codes:
        known.append(code)
        if len(known) % columns == 0:
            yield PartialDrawing(indices=known.copy(), share=len(known) / total, _vqgan=vqgan)
