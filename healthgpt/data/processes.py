"""Work that is read in one process and done in several, its results in order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from healthgpt.child_processes import belong_to_parent, without_interrupts

Given = TypeVar("Given")
Result = TypeVar("Result")


def results_in_order(
    function: Callable[[Given], Result], items: Iterable[Given], num_processes: int
) -> Generator[Result, None, None]:
    """The results of a function, in the order of what it is given. With one process, they come about in this one.

    Few items are handed out and not yet taken: they are read faster than the work is done, and memory is bounded.

    Raises:
        ValueError: a process was killed; and whatever the function raises.
    """
    if num_processes == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=belong_to_parent) as pool:
        try:
            for item in items:
                with without_interrupts():  # as it may start the processes
                    waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * num_processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise ValueError(
                "a process was killed, perhaps for want of memory; start the command again, it goes on (with "
                "--num_processes lower, if memory is short)"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
