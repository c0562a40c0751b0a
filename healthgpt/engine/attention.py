"""Attention of new tokens to all before them: their positions, their keys and values in the cache, what they see.

Legend: B sequences, L new tokens of each, H heads, H_kv key-value heads, W head width, S tokens that they see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from healthgpt.engine.cache import KeyValueCache, as_kept, without_type
from healthgpt.engine.triton_use import kernels_for

# New tokens times query heads of a key-value head that one program of the kernel takes: those of steps. Prompts go to
# PyTorch's, which is made for them.
_MOST_ROWS = 32


@dataclass(frozen=True, kw_only=True)
class Spots:
    """Where L new tokens of each sequence stand.

    Attributes:
        positions: (B, L) from 0.
        start: the first one where it is the same in all sequences, known to the host; else None.
        live: no sequence is longer, these tokens included; known to the host.
        seen: (B, L, live) what each token sees, where that is not all up to itself; a window narrows it.
    """

    positions: Tensor
    start: int | None
    live: int
    seen: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What all layers of one pass have in common.

    Attributes:
        kernels: ours, where they run; `few`: the tokens are few enough for their attention.
        cos, sin: of the angles, `sin` with the half's sign in it: of all positions (S, rotated width) with kernels,
            else of the tokens' (B or 1, 1, L, rotated width).
        mask: (B, 1, L, S) of what each token sees; None where it is everything, or everything before it.
        keys, values: of every layer, (sequences, H_kv, capacity, W): the cache's own.
        seen: of every layer, the keys and the values up to the last token, (B, H_kv, live, W) each.
        new: of every layer, where the keys and the values of the tokens stand, (B, H_kv, L, W) each; None where that
            is a different place in each sequence, `rows` (B, 1) then being their numbers.
    """

    spots: Spots
    kernels: ModuleType | None
    few: bool
    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    seen: Sequence[tuple[Tensor, Tensor]]
    new: Sequence[tuple[Tensor, Tensor]] | None
    rows: Tensor | None


class Attention:
    """That of every layer of an LLM, but for the products before and after it.

    Args:
        rotary: the LLM's position encoding, (x, positions) -> cos and sin.
        like: any tensor on the LLM's device in its dtype.
    """

    def __init__(self, config: Any, rotary: Any, like: Tensor, window: int | None):
        self.heads, self.kv_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.width = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self.window = window
        self._rotary, self._like = rotary, like
        self._angles: tuple[Tensor, Tensor] | None = None

    def sight(self, spots: Spots, cache: KeyValueCache) -> Sight:
        """What the layers of a pass need to know."""
        batch, length = spots.positions.shape
        kernels = kernels_for(self._like)
        rows_of_head = spots.positions.shape[1] * (self.heads // self.kv_heads)
        few = kernels is not None and spots.seen is None and rows_of_head <= _MOST_ROWS
        cos, sin = self.angles(spots.live)
        if kernels is None and spots.start is not None:
            here = slice(spots.start, spots.start + length)
            cos, sin = (angles[here][None, None] for angles in (cos, sin))
        elif kernels is None:
            cos, sin = (angles[spots.positions].unsqueeze(1) for angles in (cos, sin))
        new = rows = None
        if kernels is None and spots.start is not None:
            new = _views(cache, batch, spots.start, length)
        elif kernels is None:
            rows = torch.arange(batch, device=spots.positions.device).unsqueeze(1)
        return Sight(
            spots=spots,
            kernels=kernels,
            few=few,
            cos=cos,
            sin=sin,
            mask=None if few else self._mask(spots),
            keys=cache.keys.unbind(),
            values=cache.values.unbind(),
            seen=() if few else _views(cache, batch, 0, spots.live),
            new=new,
            rows=rows,
        )

    def __call__(self, joined: Tensor, layer: int, sight: Sight) -> Tensor:
        """(B·L, (H + 2 H_kv) W) queries, keys and values of a layer, counted from 0 -> (B·L, H W)."""
        spots = sight.spots
        batch, length = spots.positions.shape
        if sight.kernels:
            keys, values = sight.keys[layer], sight.values[layer]
            positions = (sight.cos, sight.sin, spots.positions)
            query = sight.kernels.turn_and_keep(joined, *positions, keys, values, self.heads)
            if sight.few:
                seen = sight.kernels.attend(query, keys, values, spots.positions, spots.live, self.window)
                return seen.view(batch * length, -1)
            query = query.transpose(1, 2)
        else:
            query = self._turn_and_keep(joined, layer, sight)
        keys, values = sight.seen[layer]
        if keys.dtype != query.dtype:
            keys, values = keys.to(query.dtype), values.to(query.dtype)
        seen = F.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=sight.mask,
            is_causal=sight.mask is None and length > 1,
            enable_gqa=self.heads != self.kv_heads,
        )
        return seen.transpose(1, 2).reshape(batch * length, -1)

    def _turn_and_keep(self, joined: Tensor, layer: int, sight: Sight) -> Tensor:
        """Keys and values go into the cache; returns the queries, (B, H, L, W)."""
        batch, length = sight.spots.positions.shape
        heads = joined.view(batch, length, -1, self.width).transpose(1, 2)  # (B, H + 2 H_kv, L, W)
        turning, value = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        query, key = _rotated(turning, sight.cos, sight.sin).split((self.heads, self.kv_heads), dim=1)
        kept = (as_kept(key, sight.keys[layer].dtype), as_kept(value, sight.values[layer].dtype))
        if sight.new is not None:
            for place, found in zip(sight.new[layer], kept, strict=True):
                place.copy_(found)
        else:
            for buffer, found in zip((sight.keys[layer], sight.values[layer]), kept, strict=True):
                buffer, found = without_type(buffer), without_type(found)
                buffer[sight.rows, :, sight.spots.positions] = found.transpose(1, 2)
        return query

    def angles(self, count: int) -> tuple[Tensor, Tensor]:
        """cos and signed sin of at least so many positions, (S, rotated width); the same tensors while they last."""
        if self._angles is None or len(self._angles[0]) < count:
            positions = torch.arange(max(256, 2 * count), device=self._like.device).unsqueeze(0)
            cos, sin = self._rotary(self._like, positions)
            half = sin.shape[-1] // 2
            self._angles = cos[0].contiguous(), torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)
        return self._angles

    def _mask(self, spots: Spots) -> Tensor | None:
        length = spots.positions.shape[1]
        inside = self.window is None or spots.live <= self.window
        if spots.seen is None and inside and spots.start is not None and (length == 1 or spots.start == 0):
            return None
        slots = torch.arange(spots.live, device=spots.positions.device)
        behind = spots.positions.unsqueeze(-1) - slots  # (B, L, S)
        seen = behind >= 0 if spots.seen is None else spots.seen
        if self.window is not None and not inside:
            seen = seen & (behind < self.window)
        return seen.unsqueeze(1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on the first of the head's width, the rest as it is; `sin` has the half's sign in it."""
    width = cos.shape[-1]
    turning = x if width == x.shape[-1] else x[..., :width]
    other = turning.roll(width // 2, dims=-1)
    # In 16 bits the library rounds both terms before it adds them.
    turned = turning * cos + other * sin if x.dtype.itemsize < 4 else torch.addcmul(turning * cos, other, sin)
    return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], dim=-1)


def _views(cache: KeyValueCache, batch: int, start: int, length: int) -> list[tuple[Tensor, Tensor]]:
    """Of every layer, keys and values of some tokens of the first sequences."""
    parts = [buffer[:, :batch, :, start : start + length].unbind() for buffer in (cache.keys, cache.values)]
    return list(zip(*parts, strict=True))
