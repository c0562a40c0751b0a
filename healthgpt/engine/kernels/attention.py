"""Attention of few new tokens to the cache, split over its length so that one sequence too keeps the device busy.

All query heads of a key-value head, of all new tokens, are the rows of one product, so grouped heads cost no copies.
How long each sequence is, is read on the device: programs beyond its end do nothing, whatever the cache's capacity.

Legend: B sequences, L new tokens of each, H heads, H_kv key-value heads, W head width, S cache capacity.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

_SLOTS = 64  # of the cache that a program reads at once in 16 bits; half as many in 32, for its shared memory
_MOST_SPLITS = 32


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    live: int,
    window: int | None = None,
    splits: int | None = None,
) -> Tensor:
    """Attention whose keys and values, the new tokens' own included, are in the cache.

    Args:
        queries: (B, L, H, W), dense; L · H / H_kv is at most 32.
        keys, values: (at least B, H_kv, S, W), of the same strides; in the queries' dtype or in 8 bits.
        positions: (B, L) rising without gaps; a token sees all up to its own position.
        live: no sequence is longer; only how the work is split depends on it.
        window: how many tokens one sees, itself included; None is all.
        splits: parts of each sequence; None chooses them for the device.

    Returns:
        (B, L, H, W)
    """
    batch, length, heads, width = queries.shape
    kv_heads, group = keys.shape[1], queries.shape[2] // keys.shape[1]
    assert queries.is_contiguous()
    assert keys.stride() == values.stride()
    if splits is None:
        splits = _splits_for(batch * kv_heads, live, _processors(queries.device))
    out = torch.empty_like(queries)
    if not batch:
        return out
    size = (batch, length, heads, splits)
    partial = torch.empty(*size, width, dtype=torch.float32, device=queries.device) if splits > 1 else out
    weights = torch.empty(size, dtype=torch.float32, device=queries.device)
    padded = max(16, triton.next_power_of_2(width))
    _attend_part[(batch * kv_heads, splits)](
        partial,
        weights,
        queries,
        keys,
        values,
        positions,
        width**-0.5,
        width,
        kv_heads,
        window or 0,
        length,
        *positions.stride(),
        *keys.stride(),
        GROUP=group,
        SPLITS=splits,
        WINDOWED=window is not None,
        ROWS=max(16, triton.next_power_of_2(length * group)),
        WIDTH=padded,
        SLOTS=_SLOTS * 2 // queries.element_size(),
        num_stages=2,
    )
    if splits > 1:
        _combine[(batch * length * heads,)](out, partial, weights, width, SPLITS=splits, WIDTH=padded, num_warps=2)
    return out


def _splits_for(programs: int, live: int, processors: int) -> int:
    """A power of two: as many as make two programs for each processor, none of less than two steps."""
    wanted = min(2 * processors // max(programs, 1), live // (2 * _SLOTS), _MOST_SPLITS)
    return 1 << max(wanted, 1).bit_length() - 1


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@triton.jit
def _attend_part(
    partial,
    weights,
    queries,
    keys,
    values,
    positions,
    scale,
    width,
    kv_heads,
    window,
    length,
    position_row,
    position_token,
    cache_row,
    cache_head,
    cache_slot,
    cache_column,
    GROUP: tl.constexpr,  # noqa: N803
    SPLITS: tl.constexpr,  # noqa: N803
    WINDOWED: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    SLOTS: tl.constexpr,  # noqa: N803
):
    """One split of one sequence and key-value head: its weighted mean of values, and the logarithm of its weight."""
    sequence, kv_head = (tl.program_id(0) // kv_heads).to(tl.int64), tl.program_id(0) % kv_heads
    split = tl.program_id(1)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    token = rows // GROUP
    is_row, is_column = rows < length * GROUP, columns < width
    at = positions + sequence * position_row
    position = tl.load(at + token * position_token, mask=is_row, other=0)
    end = tl.load(at + (length - 1) * position_token) + 1
    begin = end * 0
    if WINDOWED:
        begin = tl.maximum(tl.load(at) + 1 - window, 0)
    share = tl.cdiv(tl.cdiv(end - begin, SPLITS), SLOTS) * SLOTS
    begin += split * share
    end = tl.minimum(begin + share, end)
    place = (sequence * length + token) * (kv_heads * GROUP) + kv_head * GROUP + rows % GROUP  # of (B, L, H)
    inside = is_row[:, None] & is_column[None, :]
    query = tl.load(queries + place[:, None] * width + columns[None, :], mask=inside, other=0.0)
    cache = sequence * cache_row + kv_head * cache_head
    top = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    mean = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for start in range(begin, end, SLOTS):
        slots = start + tl.arange(0, SLOTS)
        there = slots < end
        key = tl.load(
            keys + cache + columns[:, None] * cache_column + slots[None, :] * cache_slot,
            mask=is_column[:, None] & there[None, :],
            other=0.0,
        )
        scores = tl.dot(query, key.to(query.dtype), input_precision="ieee") * scale
        seen = there[None, :] & (slots[None, :] <= position[:, None])
        if WINDOWED:
            seen = seen & (position[:, None] - slots[None, :] < window)
        scores = tl.where(seen, scores, float("-inf"))
        highest = tl.maximum(top, tl.max(scores, axis=1))
        level = tl.where(highest == float("-inf"), 0.0, highest)  # rows that have seen nothing yet
        share_of = tl.exp(scores - level[:, None])
        kept = tl.exp(top - level)
        value = tl.load(
            values + cache + slots[:, None] * cache_slot + columns[None, :] * cache_column,
            mask=there[:, None] & is_column[None, :],
            other=0.0,
        )
        mean = tl.dot(share_of.to(query.dtype), value.to(query.dtype), mean * kept[:, None], input_precision="ieee")
        total = total * kept + tl.sum(share_of, axis=1)
        top = highest
    empty = total == 0.0
    mean = mean / tl.where(empty, 1.0, total)[:, None]
    spot = place * SPLITS + split
    tl.store(partial + spot[:, None] * width + columns[None, :], mean.to(partial.dtype.element_ty), mask=inside)
    weight = tl.where(empty, float("-inf"), top + tl.log(tl.where(empty, 1.0, total)))
    tl.store(weights + spot, weight, mask=is_row)


@triton.jit
def _combine(out, partial, weights, width, SPLITS: tl.constexpr, WIDTH: tl.constexpr):  # noqa: N803
    """The splits' means, weighted: one token's head per program."""
    place = tl.program_id(0).to(tl.int64)
    splits, columns = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    weight = tl.load(weights + place * SPLITS + splits)
    weight = tl.exp(weight - tl.max(weight, axis=0))
    means = tl.load(
        partial + (place * SPLITS + splits)[:, None] * width + columns[None, :],
        mask=(columns < width)[None, :],
        other=0.0,
    )
    mean = tl.sum(means * weight[:, None], axis=0) / tl.sum(weight, axis=0)
    tl.store(out + place * width + columns, mean.to(out.dtype.element_ty), mask=columns < width)
