"""Steps as CUDA graphs: one launch for the hundreds of kernels of a token."""

from __future__ import annotations

from collections.abc import Callable

import torch

from healthgpt.engine.stepping import Steppers

_WARM_UPS = 3  # before a capture: libraries choose their kernels and take their workspaces, Triton compiles


class GraphCapture:
    """Captures work on a device; what it captures shares memory, so that only one of it may run at a time."""

    def __init__(self, device: torch.device):
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None], rewind: Callable[[], None]) -> Callable[[], None]:
        """What repeats the work; it is done some times before, each after a rewind, and left rewound."""
        with torch.cuda.device(self._device):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    rewind()
                    work()
                rewind()
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on with work of their own on the device.
            with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
                work()
        return graph.replay


def steppers_for(device: torch.device) -> Steppers | None:
    """Steppers that capture, on devices with CUDA graphs; None elsewhere, where waiting costs nothing."""
    return Steppers(lambda: GraphCapture(device)) if device.type == "cuda" else None
