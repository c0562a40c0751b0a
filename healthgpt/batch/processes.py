"""Several processes with a model each, on one machine; what one that dies was working on is given to another."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from healthgpt.batch.batches import Batch
from healthgpt.batch.reading import Failure
from healthgpt.batch.worker import Result, Worker
from healthgpt.child_processes import belong_to_parent, without_interrupts
from healthgpt.exchange import Request

logger = logging.getLogger(__name__)

_AHEAD = 2  # batches that a process has: one at work, one waiting
_DEATHS = 3  # of processes with the same request, before the request is given up
_LOADS = 3  # that may fail in a row
_READY = "ready"
Task = tuple[Batch, list[Request]]


class _Child:
    """A process, its connection, and what it was given, oldest first."""

    def __init__(self, make: Callable[[], Worker]):
        context = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
        self.connection, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(make, end), daemon=True)
        with without_interrupts():
            self.process.start()
        end.close()  # so that the end of the process is the end of the connection
        self.given: deque[Task] = deque()
        self.ready = False

    def give(self, task: Task) -> None:
        self.given.append(task)
        self.connection.send(task[1])

    @property
    def how(self) -> str:
        """How the process ended."""
        code = self.process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def run_in_processes(
    tasks: Iterable[Task], makers: Sequence[Callable[[], Worker]]
) -> Iterator[tuple[Batch, list[Result]]]:
    """Results of batches, in no order.

    Args:
        makers: one per process, functions of modules (or partials of them) that make its worker.

    Raises:
        ValueError, OSError: a model cannot be loaded, or processes end while they load it.
        RuntimeError: something unforeseen in a process, with its trace.
    """
    coming = iter(tasks)
    again: deque[Task] = deque()
    deaths: Counter[int] = Counter()
    failed_loads = 0
    children = {i: _Child(make) for i, make in enumerate(makers)}
    try:
        while True:
            for child in children.values():
                while len(child.given) < _AHEAD and (task := again.popleft() if again else next(coming, None)):
                    _try_to_give(child, task)
            busy = {child.connection: (i, child) for i, child in children.items() if child.given}
            if not busy:
                return
            for connection in wait(list(busy)):
                i, child = busy[connection]  # type: ignore[index]
                try:
                    message = child.connection.recv()
                except (EOFError, OSError):
                    child.end()
                    failed_loads = 0 if child.ready else failed_loads + 1
                    if failed_loads == _LOADS:
                        raise ChildProcessError(f"processes ended while they loaded the model ({child.how})") from None
                    yield from _taken_back(child, again, deaths)
                    children[i] = _Child(makers[i])
                    continue
                if message == _READY:
                    child.ready, failed_loads = True, 0
                elif isinstance(message, Exception):
                    raise message
                else:
                    yield child.given.popleft()[0], message
    finally:
        for child in children.values():
            child.end()


def _try_to_give(child: _Child, task: Task) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died, which its connection will say
        child.give(task)


def _taken_back(child: _Child, again: deque[Task], deaths: Counter[int]) -> Iterator[tuple[Batch, list[Result]]]:
    """Has what a dead process had done again, what it worked on in ever smaller parts; gives up what kills often."""
    logger.info("a process ended (%s): %d batches are done again", child.how, len(child.given))
    (batch, requests), *waiting = child.given
    again.extend(waiting)
    start = 0
    for part in batch.parts(1) if deaths[batch.places[0]] and child.ready else [batch]:
        deaths[part.places[0]] += child.ready
        if len(part) == 1 and deaths[part.places[0]] > _DEATHS:
            yield part, [Failure(f"each process that worked on it ended ({child.how})")]
        else:
            again.append((part, requests[start : start + len(part)]))
        start += len(part)


def _serve(make: Callable[[], Worker], connection: Connection) -> None:
    """A process's life: makes its worker, and runs what it is sent until nobody is there to send."""
    belong_to_parent()
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def receive() -> None:
        # Apart from the work, so that the parent never waits for a full pipe while this process waits for the parent.
        while True:
            try:
                inbox.put(connection.recv())
            except (EOFError, OSError):
                return

    threading.Thread(target=receive, daemon=True).start()
    try:
        worker = make()
        connection.send(_READY)
        while True:
            connection.send(worker.run(inbox.get()))
    except (ValueError, OSError) as error:
        connection.send(error)
    except Exception as error:
        import traceback

        connection.send(RuntimeError(f"{error}\n{traceback.format_exc()}"))
