"""Whether a tensor is computed on by our Triton kernels or by PyTorch's; says once why it is the slower of the two."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
from types import ModuleType

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def kernels_for(tensor: Tensor) -> ModuleType | None:
    """The kernels, where they can run on a tensor; else None, and PyTorch does it."""
    if not tensor.is_cuda or tensor.dtype not in _DTYPES:
        return None
    return _kernels_of(tensor.device.index or 0, tensor.dtype)


def on_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Triton launches on whatever device is current, in each thread; within this, that is the given one."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@functools.cache
def _kernels_of(device: int, dtype: torch.dtype) -> ModuleType | None:
    with on_device(torch.device("cuda", device)):
        return _working_kernels(device, dtype)


def _working_kernels(device: int, dtype: torch.dtype) -> ModuleType | None:
    name = torch.cuda.get_device_name(device)
    if importlib.util.find_spec("triton") is None:
        logger.warning("%s: Triton is not installed, so decoding takes PyTorch's slower kernels", name)
        return None
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (7, 0):
        logger.warning("%s is too old for Triton, so decoding takes PyTorch's slower kernels", name)
        return None
    if dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        logger.warning(
            "%s has no bfloat16 of its own, so decoding takes PyTorch's slower kernels; FP16 is faster", name
        )
        return None
    if reason := _failure(dtype):
        logger.warning("%s: Triton does not run here (%s), so decoding takes PyTorch's slower kernels", name, reason)
        return None
    from healthgpt.engine import kernels

    return kernels


def _failure(dtype: torch.dtype) -> str | None:
    """Why the current device launches no kernel: Triton's launcher is built by a C compiler with Python's headers."""
    from healthgpt.engine import kernels

    try:
        x, weight = torch.ones(1, 16, dtype=dtype, device="cuda"), torch.ones(16, dtype=dtype, device="cuda")
        kernels.normed(x, weight, 1e-6)
    except Exception as error:  # whatever it is, PyTorch's kernels do the same
        return (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return None
