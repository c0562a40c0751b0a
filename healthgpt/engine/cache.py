"""Keys and values of what has been read, in buffers that never move while a sequence grows into them.

Legend: B sequences, H_kv key-value heads, S capacity in tokens, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from healthgpt.engine.memory import free_bytes, refuse_too_much

_LARGEST_FP8 = 448.0  # of e4m3, which has no infinity
_GRAIN = 64  # tokens; capacities are multiples, so that few shapes exist


@dataclass(frozen=True, kw_only=True)
class CacheShape:
    """What one token takes.

    Attributes:
        num_layers, num_heads, head_width: of the LLM, heads being those of keys and values.
        dtype: the LLM's, or float8_e4m3fn.
    """

    num_layers: int
    num_heads: int
    head_width: int
    dtype: torch.dtype
    device: torch.device

    def bytes_of(self, sequences: int, tokens: int) -> int:
        """Memory of so many sequences of so many tokens."""
        per_token = 2 * self.num_layers * self.num_heads * self.head_width * self.dtype.itemsize
        return sequences * rounded_up(tokens) * per_token


def rounded_up(tokens: int) -> int:
    """A capacity that has room for so many tokens."""
    return -(-max(tokens, 1) // _GRAIN) * _GRAIN


def as_kept(found: Tensor, dtype: torch.dtype) -> Tensor:
    """Keys or values in a cache's dtype; what is too large for 8 bits becomes the largest, not NaN."""
    if found.dtype == dtype:
        return found
    return found.clamp(-_LARGEST_FP8, _LARGEST_FP8).to(dtype)


def without_type(tensor: Tensor) -> Tensor:
    """Numbers of 8 bits as bytes, which may be indexed; others as they are."""
    return tensor.view(torch.uint8) if tensor.dtype.itemsize == 1 else tensor


class KeyValueCache:
    """Buffers of B sequences.

    Attributes:
        keys, values: a (B, H_kv, S, D) buffer per layer.

    Raises:
        MemoryError, torch.OutOfMemoryError: they do not fit into what is free; here and in `grow`.
    """

    def __init__(self, shape: CacheShape, sequences: int, tokens: int):
        self.shape = shape
        self.capacity = rounded_up(tokens)
        self._refuse_too_much(sequences, self.capacity)
        size = (2, shape.num_layers, sequences, shape.num_heads, self.capacity, shape.head_width)
        # Zeros: what is masked out is multiplied by 0, which garbage that happens to be NaN would survive.
        self.keys, self.values = torch.zeros(size, dtype=shape.dtype, device=shape.device).unbind(0)

    def __len__(self) -> int:
        return self.keys.shape[1]

    def grow(self, tokens: int) -> None:
        """Makes room for so many tokens, keeping what is there; at least doubles, so that it happens seldom."""
        if tokens <= self.capacity:
            return
        old, kept = (self.keys, self.values), self.capacity
        free = free_bytes(self.shape.device)
        wanted = max(tokens, 2 * kept)
        if free is not None and self.shape.bytes_of(len(self), wanted) > free:
            wanted = tokens
        self._refuse_too_much(len(self), wanted)
        self.capacity = rounded_up(wanted)
        size = (2, *old[0].shape[:3], self.capacity, self.shape.head_width)
        self.keys, self.values = torch.zeros(size, dtype=self.shape.dtype, device=self.shape.device).unbind(0)
        for new, before in zip((self.keys, self.values), old, strict=True):
            new[..., :kept, :] = before

    def clear(self) -> None:
        """Forgets everything, NaN included."""
        self.keys.zero_()
        self.values.zero_()

    def _refuse_too_much(self, sequences: int, tokens: int) -> None:
        what = f"the keys and values of {sequences} sequences of {rounded_up(tokens)} tokens"
        refuse_too_much(self.shape.bytes_of(sequences, tokens), what, self.shape.device)

    def put(self, source: KeyValueCache, rows: Sequence[int], tokens: int) -> None:
        """Copies the first tokens of all rows of another cache into rows of its own."""
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            without_type(mine)[:, rows, :, :tokens] = without_type(theirs)[:, :, :, :tokens]

    def take(self, source: KeyValueCache, rows: Tensor, tokens: int) -> None:
        """Copies the first tokens of rows of another cache into its own first rows, in their order."""
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            mine[:, : len(rows), :, :tokens] = without_type(theirs)[:, rows, :, :tokens].view(theirs.dtype)
