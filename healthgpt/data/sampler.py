"""The order of samples: shuffled by seed and epoch, one task per global batch, similar lengths together.

The order depends on the data, the seed, the epoch and the global batch alone, not on how many processes share it. One
task per global batch is what keeps every rank on the same path through the network (the plugins differ per task).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from healthgpt.tasks import Task

# Samples are sorted by length within windows of this many global batches.
_WINDOW = 50


class TaskBatches(Sampler[int]):
    """Yields indices so that every `global_batch` in a row are of one task.

    A task's last batch is filled up from the beginning of its own shuffled order.

    Args:
        rows: the indices to yield; tasks and lengths are theirs.
    """

    def __init__(
        self, rows: Sequence[int], tasks: Sequence[Task], lengths: Sequence[int], global_batch: int, seed: int
    ):
        self._rows = np.asarray(rows)
        self._tasks = np.array([list(Task).index(task) for task in tasks])
        self._lengths = np.asarray(lengths)
        self._global_batch = global_batch
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    @property
    def num_batches(self) -> int:
        """Global batches of one epoch."""
        _, counts = np.unique(self._tasks, return_counts=True)
        return int(np.ceil(counts / self._global_batch).sum())

    def __len__(self) -> int:
        return self.num_batches * self._global_batch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self._seed, self._epoch))
        batches = [batch for task in np.unique(self._tasks) for batch in self._task_batches(task, rng)]
        for i in rng.permutation(len(batches)):
            yield from self._rows[batches[i]].tolist()

    def _task_batches(self, task: int, rng: np.random.Generator) -> list[np.ndarray]:
        """All samples of one task in global batches of similar length."""
        order = rng.permutation(np.flatnonzero(self._tasks == task))
        missing = -len(order) % self._global_batch
        order = np.concatenate([order, np.resize(order, missing)])
        window = _WINDOW * self._global_batch
        batches = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            batches += np.split(part, len(part) // self._global_batch)
        return batches
