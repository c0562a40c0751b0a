"""A model at work on batches: what fails, fails alone, and what does not fit into memory is done in smaller parts."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from healthgpt.batch.reading import Failure, one_line
from healthgpt.config import ModelSources
from healthgpt.exchange import Answer, Drawing, Request
from healthgpt.loading import LoadOptions
from healthgpt.pipeline import HealthGPT

logger = logging.getLogger(__name__)

Result = Answer | Drawing | Failure
# What allocators say: CUDA's and MPS's own class or text, and the CPU's.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class BatchModel(Protocol):
    """What a worker needs of a model; `HealthGPT` is one."""

    def run_batch(self, requests: Sequence[Request], *, batch_size: int, **decoding: Any) -> list[Any]: ...


class Worker:
    """Runs requests of one task through a model.

    Attributes:
        most: requests at once; less once memory has run out.
    """

    def __init__(self, model: BatchModel, decoding: Mapping[str, Any]):
        self._model = model
        self._decoding = dict(decoding)
        self.most: int | None = None

    def run(self, requests: Sequence[Request]) -> list[Result]:
        """A result for each request, a `Failure` for those that the model refuses."""
        results: list[Result] = []
        while len(results) < len(requests):
            results += self._run_some(requests[len(results) :][: self.most])
        return results

    def _run_some(self, requests: Sequence[Request]) -> list[Result]:
        """Results of the requests, or of as many of the first ones as fit into memory."""
        try:
            return self._model.run_batch(requests, batch_size=len(requests), **self._decoding)
        except (ValueError, OSError, FloatingPointError) as error:
            if len(requests) == 1:
                return [Failure(one_line(error))]
            return [result for request in requests for result in self._run_some([request])]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(requests) == 1:
                return [Failure(f"out of memory: {one_line(error)}")]
        # Outside of `except`, as the error's traceback holds on to the tensors of the batch.
        self.most = len(requests) // 2
        logger.info("out of memory with %d at once: going on with %d", len(requests), self.most)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return []


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def worker_of(
    sources: ModelSources, options: LoadOptions, decoding: Mapping[str, Any], num_threads: int | None = None
) -> Worker:
    """A worker of its own model.

    Args:
        num_threads: cores of the CPU for it; None leaves that to torch.
    """
    if num_threads:
        torch.set_num_threads(num_threads)
    return Worker(HealthGPT.from_sources(sources, options), decoding)


MakeWorker = Callable[[], Worker]
