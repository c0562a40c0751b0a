"""What an H-LoRA adds to a layer's output: the routed low-rank term, `y += (softmax(g) ⊙ s · a) · Bᵀ`."""

from __future__ import annotations

from torch import Tensor

from healthgpt.engine.triton_use import kernels_for

_FEW = 64  # tokens up to which one kernel beats a product by the vendor's library


def add_routed(out: Tensor, low: Tensor, gates: Tensor | None, up: Tensor, scale: float) -> None:
    """Adds the term to `out`, in place.

    Args:
        out: (N, D_out), may be a view. low: (N, R) x · Aᵀ. gates: (N, E) x · routeᵀ, None without a router.
        up: (D_out, R). scale: s, 1 where it is in A.
    """
    kernels = kernels_for(out) if len(out) <= _FEW else None
    if kernels:
        kernels.add_routed(out, low, gates, up, scale)
        return
    if scale != 1:
        low = low * scale
    if gates is not None:
        shares = gates.softmax(dim=-1)
        experts, rank = shares.shape[1], low.shape[1]
        low = (low.view(-1, experts, rank // experts) * shares.unsqueeze(-1)).view(-1, rank)
    if out.dtype.itemsize < 4:  # the layers round the term before they add it, and so do we
        out += low @ up.T
    else:
        out.addmm_(low, up.T)
