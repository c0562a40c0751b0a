"""An answer's text while it is being generated: tokens through a queue, text as soon as nothing can change it."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterable, Iterator

from healthgpt.tokenization import SlowTokenizer


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


def settled_pieces(tokens: Iterable[int], tokenizer: SlowTokenizer, stop_ids: Iterable[int]) -> Iterator[str]:
    """Pieces of the text of `tokens` up to a stop token, each as soon as further tokens can no longer change it."""
    stops = set(stop_ids)
    ids: list[int] = []
    sent = 0
    for token in tokens:
        if token in stops:
            break
        ids.append(token)
        text = tokenizer.decode(ids)
        if (settled := tokenizer.settled(text)) > sent:
            yield text[sent:settled]
            sent = settled
    if rest := tokenizer.decode(ids)[sent:]:
        yield rest
