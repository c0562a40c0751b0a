"""What is done to one row at a time: RMSNorm, and the gate of an MLP.

Legend: N tokens, D width of a row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_WIDE = 1024  # columns of the gate that one program does


def normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMSNorm in float32, rounded before its weight is applied: (N, D) -> the same, dense."""
    tokens, width = x.shape
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if tokens:
        block = triton.next_power_of_2(width)
        _normed[(tokens,)](
            out,
            x,
            weight,
            epsilon,
            width,
            *x.stride(),
            weight.stride(0),
            WIDTH=block,
            num_warps=8 if block > 2048 else 4,
        )
    return out


def gated(joined: Tensor) -> Tensor:
    """SiLU of the first half of the columns, times the second half: (N, 2 D) -> (N, D)."""
    tokens, width = joined.shape[0], joined.shape[1] // 2
    out = joined.new_empty(tokens, width)
    if tokens:
        _gated[(tokens, triton.cdiv(width, _WIDE))](out, joined, width, *joined.stride(), WIDTH=_WIDE)
    return out


@triton.jit
def _normed(out, x, weight, epsilon, width, x_token, x_column, weight_column, WIDTH: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    inside = columns < width
    values = tl.load(x + row * x_token + columns * x_column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values * values, axis=0) / width
    values = (values * (1.0 / tl.sqrt(mean + epsilon))).to(x.dtype.element_ty)
    weights = tl.load(weight + columns * weight_column, mask=inside, other=0.0)
    found = values.to(tl.float32) * weights.to(tl.float32)
    tl.store(out + row * width + columns, found.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gated(out, joined, width, token, column, WIDTH: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = columns < width
    place = joined + row * token
    gate = tl.load(place + columns * column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(place + (width + columns) * column, mask=inside, other=0.0).to(tl.float32)
    silu = (gate / (1.0 + tl.exp(-gate))).to(joined.dtype.element_ty).to(tl.float32)
    tl.store(out + row * width + columns, (silu * up).to(out.dtype.element_ty), mask=inside)
