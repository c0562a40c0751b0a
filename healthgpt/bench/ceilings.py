"""What a device moves and computes at the most, measured in the run whose figures are held against it.

The copy of a large buffer gives the bandwidth (read and written bytes count), one large matrix product the peak. Of
several trials the fastest counts: a ceiling is what can be reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from healthgpt.bench.floor import Ceilings

_TRIALS = 5
# Bytes of the buffer and width of the matrices: far beyond any cache, and short enough for a shared CPU.
_SIZES = {"cpu": (2**28, 2048), "cuda": (2**31, 8192)}


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """The ceilings of a device for a dtype."""
    size, width = _SIZES.get(device.type, _SIZES["cpu"])
    return Ceilings(bandwidth=_bandwidth(size, device), peak=_peak(width, device, dtype))


def _bandwidth(size: int, device: torch.device) -> float:
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device)


def _peak(width: int, device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
    return 2 * width**3 / _fastest(lambda: left @ right, device)


def synchronize(device: torch.device) -> None:
    """Waits until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several trials, the first of which does not count."""
    seconds = []
    for _ in range(_TRIALS + 1):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
