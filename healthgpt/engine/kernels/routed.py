"""`y += (softmax(g) ⊙ s · a) · Bᵀ` in one kernel: the gates' softmax, the weighing and the product never leave it.

Legend: N tokens, R rank, E experts, D_out width of the output.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_LOWEST = 16  # the smallest side of a product on tensor cores


def add_routed(out: Tensor, low: Tensor, gates: Tensor | None, up: Tensor, scale: float) -> None:
    """Adds the term to `out`, in place.

    Args:
        out: (N, D_out). low: (N, R) x · Aᵀ. gates: (N, E) x · routeᵀ, None without a router; E divides R.
        up: (D_out, R). All are of one dtype of at most 32 bits, and any may be a view.
        scale: s, 1 where it is in A.
    """
    (tokens, width), rank = out.shape, low.shape[1]
    if not tokens:
        return
    if tokens == 1:  # a product of a vector: read B once, and add up
        rows, columns, ranks = 1, 32, min(256, triton.next_power_of_2(rank))
    else:
        rows = min(64, max(_LOWEST, triton.next_power_of_2(tokens)))
        columns, ranks = 64, min(64, max(_LOWEST, triton.next_power_of_2(rank)))
    router = low if gates is None else gates
    experts = router.shape[1]
    _add_routed[(triton.cdiv(width, columns), triton.cdiv(tokens, rows))](
        out,
        low,
        router,
        up,
        scale,
        tokens,
        width,
        rank,
        experts,
        *out.stride(),
        *low.stride(),
        *router.stride(),
        *up.stride(),
        ROUTED=gates is not None,
        SCALED=scale != 1,
        EXPERTS=triton.next_power_of_2(experts) if gates is not None else 1,
        ROWS=rows,
        COLUMNS=columns,
        RANKS=ranks,
    )


@triton.jit
def _add_routed(
    out,
    low,
    gates,
    up,
    scale,
    tokens,
    width,
    rank,
    experts,
    out_token,
    out_column,
    low_token,
    low_rank,
    gate_token,
    gate_expert,
    up_column,
    up_rank,
    ROUTED: tl.constexpr,  # noqa: N803
    SCALED: tl.constexpr,  # noqa: N803
    EXPERTS: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    RANKS: tl.constexpr,  # noqa: N803
):
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    here = (rows < tokens)[:, None]
    gate_row = gates + rows[:, None] * gate_token
    if ROUTED:
        expert = tl.arange(0, EXPERTS)[None, :]
        logits = tl.load(gate_row + expert * gate_expert, mask=here & (expert < experts), other=float("-inf"))
        logits = tl.where(here, logits.to(tl.float32), 0.0)
        top = tl.max(logits, axis=1)[:, None]
        total = tl.sum(tl.exp(logits - top), axis=1)[:, None]
    found = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, rank, RANKS):
        ranks = start + tl.arange(0, RANKS)
        inside = (ranks < rank)[None, :]
        term = tl.load(low + rows[:, None] * low_token + ranks[None, :] * low_rank, mask=here & inside, other=0.0)
        if SCALED:
            term = (term.to(tl.float32) * scale).to(low.dtype.element_ty)
        if ROUTED:
            owner = (ranks // (rank // experts))[None, :]
            logit = tl.load(gate_row + owner * gate_expert, mask=here & inside, other=float("-inf"))
            share = (tl.exp(logit.to(tl.float32) - top) / total).to(low.dtype.element_ty)
            term = (term.to(tl.float32) * share.to(tl.float32)).to(low.dtype.element_ty)
        weights = tl.load(
            up + columns[:, None] * up_column + ranks[None, :] * up_rank,
            mask=(columns < width)[:, None] & inside,
            other=0.0,
        )
        if ROWS == 1:
            found += tl.sum(weights.to(tl.float32) * term.to(tl.float32), axis=1)[None, :]
        else:
            found = tl.dot(term, tl.trans(weights), found, input_precision="ieee")
    place = out + rows[:, None] * out_token + columns[None, :] * out_column
    inside = here & (columns < width)[None, :]
    before = tl.load(place, mask=inside, other=0.0)
    found = found.to(out.dtype.element_ty).to(tl.float32)  # the layer rounds the term before it adds it
    tl.store(place, (before.to(tl.float32) + found).to(out.dtype.element_ty), mask=inside)
