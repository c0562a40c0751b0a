"""Rotary positions of queries and keys, and keys and values into the cache where their tokens stand.

Legend: B sequences, L new tokens of each, H heads, H_kv key-value heads, W head width, S cache capacity.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def turn_and_keep(
    joined: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, keys: Tensor, values: Tensor, heads: int
) -> Tensor:
    """Turns queries and keys; keys and values go into the cache.

    Args:
        joined: (B·L, (H + 2 H_kv) W) queries, keys and values.
        cos, sin: (more than the largest position, rotated width), `sin` with the half's sign in it.
        positions: (B, L), each less than S.
        keys, values: (at least B, H_kv, S, W), of the same strides; in the queries' dtype or in 8 bits.
        heads: H.

    Returns:
        (B, L, H, W) turned queries.
    """
    (batch, length), width, kv_heads = positions.shape, keys.shape[-1], keys.shape[1]
    assert keys.stride() == values.stride()
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    queries = torch.empty(batch, length, heads, width, dtype=joined.dtype, device=joined.device)
    if batch and length:
        _turn_and_keep[(batch * length, heads + 2 * kv_heads)](
            queries,
            joined,
            cos,
            sin,
            positions,
            keys,
            values,
            length,
            heads,
            kv_heads,
            width,
            cos.shape[1],
            *joined.stride(),
            *positions.stride(),
            *keys.stride(),
            WIDTH=triton.next_power_of_2(width),
            num_warps=1,
        )
    return queries


@triton.jit
def _turn_and_keep(
    queries,
    joined,
    cos,
    sin,
    positions,
    keys,
    values,
    length,
    heads,
    kv_heads,
    width,
    turning,
    joined_token,
    joined_column,
    position_row,
    position_token,
    cache_row,
    cache_head,
    cache_slot,
    cache_column,
    WIDTH: tl.constexpr,  # noqa: N803
):
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = token // length
    position = tl.load(positions + row * position_row + (token % length) * position_token).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    inside = columns < width
    half = turning // 2
    partners = tl.where(columns < half, columns + half, columns - half)
    turned = columns < tl.where(head < heads + kv_heads, turning, 0)
    place = joined + token * joined_token + head * width * joined_column
    x = tl.load(place + columns * joined_column, mask=inside, other=0.0)
    partner = tl.load(place + partners * joined_column, mask=turned, other=0.0).to(tl.float32)
    cosine = tl.load(cos + position * turning + columns, mask=turned, other=1.0).to(tl.float32)
    sine = tl.load(sin + position * turning + columns, mask=turned, other=0.0).to(tl.float32)
    dtype = joined.dtype.element_ty
    found = (x.to(tl.float32) * cosine).to(dtype).to(tl.float32) + (partner * sine).to(dtype).to(tl.float32)
    found = tl.where(turned, found.to(dtype), x)
    slot = row * cache_row + position * cache_slot + columns * cache_column
    if head < heads:
        tl.store(queries + (token * heads + head) * width + columns, found, mask=inside)
    elif head < heads + kv_heads:
        tl.store(keys + slot + (head - heads) * cache_head, _as_kept(found, keys.dtype.element_ty), mask=inside)
    else:
        kept = _as_kept(found, values.dtype.element_ty)
        tl.store(values + slot + (head - heads - kv_heads) * cache_head, kept, mask=inside)


@triton.jit
def _as_kept(found, dtype: tl.constexpr):
    """In a cache's dtype; what is too large for 8 bits becomes the largest, and NaN stays (`cache.as_kept`)."""
    if dtype == tl.float8e4nv:
        found = tl.clamp(found.to(tl.float32), -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
    return found.to(dtype)
