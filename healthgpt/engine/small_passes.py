"""Passes of few tokens through small layers on a CPU: by compiled loops, one call a layer, not by PyTorch's operators.

Legend: B sequences, L new tokens of each, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from healthgpt.engine.attention import Attention, Spots
from healthgpt.engine.cache import KeyValueCache
from healthgpt.engine.numba_use import few

_EVERYTHING = 2**62  # a window that nothing is outside of
_ALL_BEFORE = np.empty((0, 0, 0), np.bool_)


class SmallPasses:
    """Through one task's layers, and its head.

    Args:
        layers: as `loops.read_layer` takes them. norm: (D,) weight of the last norm.
    """

    def __init__(self, loops: ModuleType, layers: Sequence[Any], norm: Tensor, epsilon: float, attention: Attention):
        self._loops, self._layers, self._attention = loops, layers, attention
        self._norm, self._epsilon = norm.detach().numpy(), np.float32(epsilon)
        self._window = _EVERYTHING if attention.window is None else attention.window

    def take(self, x: Tensor) -> bool:
        """Whether they are the way for these tokens, (..., D)."""
        return few(x.shape[:-1].numel())

    def read(self, x: Tensor, cache: KeyValueCache, spots: Spots) -> Tensor:
        """(B, L, D) embeddings -> (B L, D) what the head takes of them, keys and values going into the cache."""
        if spots.live > cache.capacity or len(x) > len(cache):  # loops look at no bounds
            raise IndexError(f"{len(x)} x {spots.live} tokens, the cache has room for {len(cache)} x {cache.capacity}")
        rows = x.reshape(-1, x.shape[-1]).numpy().copy()
        angles = tuple(one.numpy() for one in self._attention.angles(spots.live))
        positions = spots.positions.contiguous().numpy()
        seen = _ALL_BEFORE if spots.seen is None else spots.seen.contiguous().numpy()
        places = (angles, positions, seen, self._window, cache.keys.numpy(), cache.values.numpy())
        for number, layer in enumerate(self._layers):
            self._loops.read_layer(rows, layer, number, self._epsilon, self._attention.heads, *places)
        self._loops.normalise(rows, self._norm, self._epsilon)
        return torch.from_numpy(rows)

    def logits(self, hidden: Tensor, head: Tensor) -> Tensor:
        """(..., D) and (V, D) -> (..., V)"""
        rows = hidden.reshape(-1, hidden.shape[-1]).numpy()
        return torch.from_numpy(self._loops.product(rows, head.detach().numpy())).view(*hidden.shape[:-1], len(head))
