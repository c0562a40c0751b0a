"""Whether few tokens are read by our loops, which Numba compiles, or by PyTorch's operators, and why by these."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from types import ModuleType

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Beyond these PyTorch's threads, and its blocks of many tokens, make up for the starting of its operators: on two cores
# the loops read a token through four layers of 3, 13 and 52 MiB 3.9, 1.7 and 1.3 times as fast, and sixteen tokens 1.5,
# 0.9 and 0.9 times; with more cores the operators gain, as loops use one.
_LARGEST_LAYER = 2**24  # bytes
_MOST_TOKENS = 16


def loops_for(weight: Tensor, layer_size: int) -> ModuleType | None:
    """The loops, where they are the faster of the two, or None.

    Args:
        weight: any of the LLM. layer_size: bytes of a layer.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or layer_size > _LARGEST_LAYER:
        return None
    return _loops()


def few(tokens: int) -> bool:
    """Whether loops are the faster way to read so many at once."""
    return tokens <= _MOST_TOKENS


@functools.cache
def _loops() -> ModuleType | None:
    if importlib.util.find_spec("numba") is None:
        logger.info("Numba is not installed, so decoding takes PyTorch's slower operators")
        return None
    try:
        return importlib.import_module("healthgpt.engine.loops")
    except (ImportError, RuntimeError) as error:  # a Numba too old for this NumPy; no folder to keep what is compiled
        logger.warning("decoding takes PyTorch's slower operators: Numba (cache: NUMBA_CACHE_DIR): %s", error)
        return None
