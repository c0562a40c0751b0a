"""H-LoRA layers as few matrix products (see `hlora` for the formula).

Legend: N tokens, D_in/D_out width of a linear layer, R rank, E experts.

Everything that is multiplied with x stands in one matrix, so that x is read once:

    [z_R | z_A | z_W] = x · [R; A; W]ᵀ        y = z_W + b + (softmax(z_R) ⊙ s · z_A) · Bᵀ

Both tasks share one copy of W between their adapters, `[R_1; A_1; W; A_2; R_2]`: each task's matrix is a stretch of it.
Layers with the same input (Qwen2's q, k and v) share a product. LoRA has no router, and MoELoRA's experts are blocks of
one A and one B, so both baselines are the same computation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from healthgpt.engine.routing import add_routed
from healthgpt.hlora import TaskLinear
from healthgpt.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One task's adapter of one layer, its experts merged.

    Attributes:
        down: (R, D_in) A, with s in it where that loses nothing; route: (E, D_in), None without a router.
        up: (D_out, R) B.
        scale: what is left of s.
    """

    down: Tensor
    route: Tensor | None
    up: Tensor
    scale: float


def adapter_of(layer: Any, task: Task) -> Adapter | None:
    """The adapter of a layer, or None where it has none for the task."""
    if task not in layer.lora_A:
        return None
    downs, ups = (_weights(module) for module in (layer.lora_A[task], layer.lora_B[task]))
    down, up = torch.cat(downs), torch.cat(ups, dim=1)
    scale = float(layer.scaling[task])
    if scale and math.frexp(scale)[0] in (0.5, -0.5):  # a power of two changes no digit
        down, scale = down * scale, 1.0
    route = _weights(layer.lora_route[task])[0] if task in layer.lora_route else None
    return Adapter(down=down, route=route, up=up, scale=scale)


def _weights(module: Any) -> list[Tensor]:
    """Those of a linear layer, or of a list of them."""
    parts: list[Any] = list(module) if isinstance(module, nn.ModuleList) else [module]
    return [part.weight.detach() for part in parts]


@dataclass(frozen=True)
class _Place:
    """Where a layer's share of a product stands: columns of its W, A and router, and of the output."""

    adapter: Adapter
    low: slice
    gates: slice | None
    out: slice


class FusedLinear:
    """Layers with a common input, for one task: (N, D_in) -> (N, sum of D_out).

    Attributes:
        weights: (rows, D_in): one matrix of W and what stands beside it, or each layer's own W, where it is.
        beside: (rows, D_in): A and routers where they are a product of their own.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        beside: Tensor | None,
        bias: Tensor | None,
        own: slice,
        places: Sequence[_Place],
    ):
        self.weights, self.beside, self.bias = weights, beside, bias
        self._own, self._places = own, places
        self.width = own.stop - own.start

    def __call__(self, x: Tensor) -> Tensor:
        products = [F.linear(x, weight) for weight in self.weights]
        found = products[0] if len(products) == 1 else torch.cat(products, dim=-1)
        low = found if self.beside is None else F.linear(x, self.beside)
        out = found[:, self._own]
        if self.bias is not None:
            out = out + self.bias
        for place in self._places:
            gates = None if place.gates is None else low[:, place.gates]
            add_routed(out[:, place.out], low[:, place.low], gates, place.adapter.up, place.adapter.scale)
        return out


def fuse(layers: Sequence[nn.Module], tasks: Sequence[Task], *, into_one: bool) -> dict[Task, FusedLinear]:
    """Layers with a common input as one product per task.

    Args:
        layers: plain or adapted.
        into_one: W beside the adapters in one matrix, of which the layers' own weights become views; else W stays
            where it is, and the adapters are a second product.
    """
    bases: list[Any] = [layer.base_layer if isinstance(layer, TaskLinear) else layer for layer in layers]
    weights = [base.weight.detach() for base in bases]
    adapters = {task: [adapter_of(x, task) if isinstance(x, TaskLinear) else None for x in layers] for task in tasks}
    biases = [base.bias for base in bases]
    bias = None
    if any(one is not None for one in biases):
        pairs = zip(weights, biases, strict=True)
        bias = torch.cat([weight.new_zeros(len(weight)) if own is None else own.detach() for weight, own in pairs])
    widths = [len(weight) for weight in weights]
    if not into_one:
        made = {}
        for task, found in adapters.items():
            places, rows = _placed(found, widths, start=0, mirrored=False)
            beside = torch.cat(rows) if rows else None
            made[task] = FusedLinear(weights, beside, bias, slice(0, sum(widths)), places)
        return made
    return _sandwich(bases, weights, adapters, widths, bias)


def _sandwich(
    bases: Sequence[Any],
    weights: Sequence[Tensor],
    adapters: Mapping[Task, Sequence[Adapter | None]],
    widths: Sequence[int],
    bias: Tensor | None,
) -> dict[Task, FusedLinear]:
    """One matrix: the first task's router and A, W, the second task's A and router."""
    first, *others = adapters
    above = _placed(adapters[first], widths, start=0, mirrored=True)
    top = sum(map(len, above[1]))
    total = sum(widths)
    below = {task: _placed(adapters[task], widths, start=total, mirrored=False) for task in others}
    whole = torch.cat([*above[1], *weights, *(row for _, rows in below.values() for row in rows)])
    _share(bases, whole[top : top + total])
    made = {first: FusedLinear([whole[: top + total]], None, bias, slice(top, top + total), above[0])}
    for task, (places, rows) in below.items():
        end = top + total + sum(map(len, rows))
        made[task] = FusedLinear([whole[top:end]], None, bias, slice(0, total), places)
    return made


def _placed(
    adapters: Sequence[Adapter | None], widths: Sequence[int], *, start: int, mirrored: bool
) -> tuple[list[_Place], list[Tensor]]:
    """Where each adapter's rows stand when they begin at `start`, and the rows: A before routers, or mirrored after."""
    downs = [adapter.down for adapter in adapters if adapter]
    routes = [adapter.route for adapter in adapters if adapter and adapter.route is not None]
    rows = [*routes, *downs] if mirrored else [*downs, *routes]
    at_low = start + (sum(map(len, routes)) if mirrored else 0)
    at_gates = start + (0 if mirrored else sum(map(len, downs)))
    places = []
    at_out = 0
    for adapter, width in zip(adapters, widths, strict=True):
        if adapter:
            gates = None
            if adapter.route is not None:
                gates = slice(at_gates, at_gates + len(adapter.route))
                at_gates = gates.stop
            low = slice(at_low, at_low + len(adapter.down))
            at_low = low.stop
            places.append(_Place(adapter, low, gates, slice(at_out, at_out + width)))
        at_out += width
    return places, rows


def _share(bases: Sequence[Any], weight: Tensor) -> None:
    """The layers' own weights become views, so that there is one copy of W."""
    start = 0
    for base in bases:
        end = start + base.weight.shape[0]
        base.weight = nn.Parameter(weight[start:end], requires_grad=False)
        start = end
