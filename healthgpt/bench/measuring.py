"""Measures rows: every way, for every task, at every batch, in turns.

A row is timed twice in each round, for one token and for all of them: the first is the prompts' time, and the
difference is that of the other steps. So every way is treated alike, whatever it does inside.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from healthgpt.batch.reading import one_line
from healthgpt.batch.worker import out_of_memory
from healthgpt.bench.agreement import Agreement, Margins, agreement
from healthgpt.bench.ceilings import synchronize
from healthgpt.bench.original import Original
from healthgpt.bench.subject import Subject
from healthgpt.bench.ways import COMPILED, ORIGINAL, Decode, Way
from healthgpt.processor import Prompt
from healthgpt.tasks import Task

_PROFILED = 16  # tokens, the first one not counted
_LONGEST = 160  # letters of a reason
_COPIES = ("Memcpy", "Memset")  # of the GPU's work, what is no kernel

Tell = Callable[[int, int, str], None]


@dataclass(kw_only=True)
class Row:
    """One way at one batch, and what was measured of it.

    Attributes:
        tokens: decoded per prompt. context: mean length of the prompts.
        first, whole: seconds for one token and for all, per round. start: for all, the very first time.
        peak_bytes: of the device's memory, all that it holds included; None on a CPU.
        launches: kernels of a GPU, or calls of PyTorch's operators on a CPU, per token.
        failure: why it has no figures.
    """

    task: Task
    way: Way
    prompts: Sequence[Prompt]
    tokens: int
    context: float
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    start: float | None = None
    peak_bytes: int | None = None
    launches: float | None = None
    agreement: Agreement | None = None
    failure: str | None = None

    @property
    def batch(self) -> int:
        return len(self.prompts)


class Measurement:
    """Rows of a subject.

    Args:
        ways: per task. tokens: to be decoded, per task. batches: numbers of prompts.
        tell: is told how many of how many turns are done, and what comes next.
    """

    def __init__(
        self,
        subject: Subject,
        ways: dict[Task, list[Way]],
        tokens: dict[Task, int],
        batches: Sequence[int],
        tell: Tell,
    ):
        self._subject, self._tell = subject, tell
        self.rows = list(_rows(subject, ways, tokens, batches))
        self._done, self._turns = 0, 0
        # What the original gave, and how decided it was, by task and batch.
        self._expected: dict[tuple[Task, int], tuple[list[list[int]], Margins]] = {}

    def run(self, rounds: int) -> None:
        """Measures. What a row fails by is noted in it; an interruption leaves what has been measured.

        Raises:
            KeyboardInterrupt: by the user.
        """
        steps = (self._warm_up, self._settle, *[self._time] * rounds)
        self._turns = len(self.rows) * len(steps)
        for step in steps:
            for row in self.rows:
                self._tell(self._done, self._turns, f"{row.task}, {row.way.name}, batch of {row.batch}")
                if row.failure is None:
                    self._attempt(step, row)
                self._done += 1
        self._tell(self._done, self._turns, "done")

    def _attempt(self, step: Callable[[Row], None], row: Row) -> None:
        if not row.way.keeps:
            self._subject.release()
        try:
            step(row)
        except (RuntimeError, MemoryError, ValueError, FloatingPointError) as error:
            if out_of_memory(error):
                said = one_line(error)
                row.failure = said if said.startswith("out of memory") else "out of memory"  # the engine's has numbers
            elif isinstance(error, ValueError | FloatingPointError) or row.way.name == COMPILED:
                row.failure = one_line(error)[:_LONGEST]  # refused, or a compiler that cannot
            else:
                raise
        if row.failure is not None:
            # Outside of `except`, as the error's traceback holds on to its tensors.
            gc.collect()
            if self._subject.device.type == "cuda":
                torch.cuda.empty_cache()

    def _warm_up(self, row: Row) -> None:
        """One run that is not timed: its tokens, its memory, its kernels."""
        on_gpu = self._subject.device.type == "cuda"
        self._subject.release()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self._subject.device)
        row.agreement = self._compare(row)
        if on_gpu:
            row.peak_bytes = torch.cuda.max_memory_allocated(self._subject.device)
        row.way.decode(row.prompts, 1)
        row.launches = launches_per_token(row.way.decode, row.prompts, row.tokens, self._subject.device)

    def _settle(self, row: Row) -> None:
        """What is compiled is compiled again once sizes have been seen to vary; that is no step's time either."""
        if row.way.name == COMPILED:
            for tokens in (1, row.tokens):
                row.way.decode(row.prompts, tokens)

    def _compare(self, row: Row) -> Agreement | None:
        """How the tokens stand to the original's, which comes first; None where that has none."""
        where = row.task, row.batch
        if row.way.name == ORIGINAL:
            margins = Margins(torch.finfo(self._subject.dtype).eps)
            start = time.perf_counter()
            tokens = Original(self._subject, row.task).decode(row.prompts, row.tokens, margins)
            row.start = time.perf_counter() - start
            self._expected[where] = tokens, margins
            return agreement(tokens, tokens, margins)
        start = time.perf_counter()
        found = row.way.decode(row.prompts, row.tokens)
        row.start = time.perf_counter() - start
        return agreement(found, *self._expected[where]) if where in self._expected else None

    def _time(self, row: Row) -> None:
        if row.way.keeps:
            row.way.decode(row.prompts, row.tokens)  # other rows came between
        whole, first = (self._seconds(row, tokens) for tokens in (row.tokens, 1))
        row.first.append(first)
        row.whole.append(whole)

    def _seconds(self, row: Row, tokens: int) -> float:
        synchronize(self._subject.device)
        start = time.perf_counter()
        row.way.decode(row.prompts, tokens)
        synchronize(self._subject.device)
        return time.perf_counter() - start


def _rows(
    subject: Subject, ways: dict[Task, list[Way]], tokens: dict[Task, int], batches: Sequence[int]
) -> Iterator[Row]:
    for task, those in ways.items():
        for batch in batches:
            prompts = subject.prompts(task, batch)
            context = sum(map(subject.processor.expanded_length, prompts)) / batch
            for way in those:
                if batch == 1 or not way.alone:
                    yield Row(task=task, way=way, prompts=prompts, tokens=tokens[task], context=context)


def launches_per_token(decode: Decode, prompts: Sequence[Prompt], tokens: int, device: torch.device) -> float:
    """Kernels of a GPU that a token after the first one takes; on other devices, calls of PyTorch's operators."""
    more = min(tokens, _PROFILED + 1)
    few, many = (_launches(lambda count=count: decode(prompts, count), device) for count in (1, more))  # type: ignore[misc]
    return (many - few) / (more - 1)


def _launches(work: Callable[[], object], device: torch.device) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler prints lines of its own
    on_gpu = device.type == "cuda"
    work()  # what is made once, such as a graph of this very length, is no step's
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        work()
        synchronize(device)
    events = found.events() or []
    if on_gpu:
        return sum(one.device_type == DeviceType.CUDA and not one.name.startswith(_COPIES) for one in events)
    # An operator that another one calls is a part of that one.
    return sum(
        one.name.startswith("aten::") and not (one.cpu_parent and one.cpu_parent.name.startswith("aten::"))
        for one in events
    )
