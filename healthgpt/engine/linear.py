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

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from healthgpt.engine.rounded import RoundedWeight
from healthgpt.engine.routing import add_routed
from healthgpt.hlora import TaskLinear
from healthgpt.tasks import Task

_MOST_PACKED = 3  # adapters of layers with a common input


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


def adapter_of(layer: Any, task: Task, *, copied: bool) -> Adapter | None:
    """The adapter of a layer, or None where it has none for the task.

    Args:
        copied: B may be a copy, else it stays where it is.
    """
    if task not in layer.lora_A:
        return None
    downs, ups = (_weights(module) for module in (layer.lora_A[task], layer.lora_B[task]))
    down, up = torch.cat(downs), torch.cat(ups, dim=1)
    if copied:
        up = _as_read(up)
    scale = float(layer.scaling[task])
    if scale and math.frexp(scale)[0] in (0.5, -0.5):  # a power of two changes no digit
        down, scale = down * scale, 1.0
    route = _weights(layer.lora_route[task])[0] if task in layer.lora_route else None
    return Adapter(down=down, route=route, up=up, scale=scale)


def _weights(module: Any) -> list[Tensor]:
    """Those of a linear layer, or of a list of them."""
    parts: list[Any] = list(module) if isinstance(module, nn.ModuleList) else [module]
    return [part.weight.detach() for part in parts]


def _as_read(weight: Tensor) -> Tensor:
    """A copy of a weight in the order that products with few tokens read fastest: on a CPU, columns together."""
    return weight.t().contiguous().t() if weight.device.type == "cpu" else weight


@dataclass(frozen=True)
class _Place:
    """Where an adapter's share of a product stands: the numbers of the stretches that are its A and its router."""

    adapter: Adapter
    layer: int
    low: int
    gates: int | None


class FusedLinear:
    """Layers with a common input, for one task: (N, D_in) -> (N, sum of D_out).

    Args:
        widths: D_out of each layer.
        stretches: widths of what stands side by side in the product with A and routers; the one numbered `own` is W's,
            None where W is a product of its own.

    Attributes:
        weights: (rows, D_in): one matrix of W and what stands beside it, or each layer's own W, where it is.
        beside: (rows, D_in): A and routers where they are a product of their own.
        rounded: the weights in 8 bits, for few tokens; where there are any, W stands alone.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        beside: Tensor | None,
        bias: Tensor | None,
        *,
        widths: Sequence[int],
        stretches: Sequence[int],
        own: int | None,
        places: Sequence[_Place],
        rounded: Sequence[RoundedWeight] = (),
    ):
        self.weights, self.beside, self.bias, self.rounded = weights, beside, bias, rounded
        self.width = sum(widths)
        self._widths, self._stretches, self._own, self._places = list(widths), list(stretches), own, places
        self._biases = self._biases_of_products()

    def __call__(self, x: Tensor) -> Tensor:
        if self.rounded and RoundedWeight.fits(len(x)):
            products = [rounded(x) for rounded in self.rounded]
            if self.bias is not None:
                products = [torch.cat(products, dim=-1) + self.bias]
        else:
            products = [F.linear(x, weight, bias) for weight, bias in zip(self.weights, self._biases, strict=True)]
        out = products[0] if len(products) == 1 else torch.cat(products, dim=-1)
        parts: Sequence[Tensor] = ()
        if self._places:
            parts = (out if self.beside is None else F.linear(x, self.beside)).split(self._stretches, dim=1)
        if self._places and self._own is not None:
            out = parts[self._own]
        layers = [out] if len(self._widths) == 1 else out.split(self._widths, dim=1)
        for place in self._places:
            gates = None if place.gates is None else parts[place.gates]
            add_routed(layers[place.layer], parts[place.low], gates, place.adapter.up, place.adapter.scale)
        return out

    def _biases_of_products(self) -> list[Tensor | None]:
        """Each weight's bias, added within its product, so that in 16 bits it is rounded once, as in the layers."""
        if self.bias is None:
            return [None] * len(self.weights)
        if self._own is None:
            return list(self.bias.split([len(weight) for weight in self.weights]))
        [whole] = self.weights
        start = sum(self._stretches[: self._own])
        padded = self.bias.new_zeros(len(whole))
        padded[start : start + self.width] = self.bias
        return [padded]

    def packed(self) -> tuple[Any, ...] | None:
        """The same as arrays, as `loops` takes them; None where it is not one matrix with its rows together."""
        if self.rounded or len(self.weights) > 1 or self.beside is not None or len(self._places) > _MOST_PACKED:
            return None
        [matrix] = self.weights
        if not matrix.is_contiguous():
            return None
        starts, outs = np.cumsum([0, *self._stretches]), np.cumsum([0, *self._widths])
        spans = [[0 if self._own is None else starts[self._own], self.width, 0, 0, 0, 0]]
        for place in self._places:
            adapter = place.adapter
            gates, experts = -1, 0
            if adapter.route is not None and place.gates is not None:
                gates, experts = starts[place.gates], len(adapter.route)
            out = (outs[place.layer], self._widths[place.layer])
            spans.append([starts[place.low], len(adapter.down), gates, experts, *out])
        ups = [place.adapter.up.t().contiguous().numpy() for place in self._places]
        ups += [np.empty((0, 0), np.float32)] * (_MOST_PACKED - len(ups))
        bias = np.empty(0, np.float32) if self.bias is None else self.bias.numpy()
        scales = np.array([place.adapter.scale for place in self._places], np.float32)
        return matrix.numpy(), bias, *ups, np.array(spans, np.int64), scales


def fuse(
    layers: Sequence[nn.Module],
    tasks: Sequence[Task],
    *,
    into_one: bool,
    by_rows: bool = False,
    int8: bool = False,
) -> dict[Task, FusedLinear]:
    """Layers with a common input as one product per task.

    Args:
        layers: plain or adapted.
        into_one: W beside the adapters in one matrix, of which the layers' own weights become views; else W stays
            where it is, and the adapters are a second product.
        by_rows: the rows of that matrix lie together, as `loops` read them, whatever products read fastest.
        int8: few tokens are multiplied with W in 8 bits; W stays where it is.

    Raises:
        ValueError: this device has no products in 8 bits.
    """
    into_one = into_one and not int8
    bases: list[Any] = [layer.base_layer if isinstance(layer, TaskLinear) else layer for layer in layers]
    weights = [base.weight.detach() for base in bases]
    adapters = {
        task: [adapter_of(x, task, copied=into_one) if isinstance(x, TaskLinear) else None for x in layers]
        for task in tasks
    }
    biases = [base.bias for base in bases]
    bias = None
    if any(one is not None for one in biases):
        pairs = zip(weights, biases, strict=True)
        bias = torch.cat([weight.new_zeros(len(weight)) if own is None else own.detach() for weight, own in pairs])
    if into_one:
        return _sandwich(bases, weights, adapters, bias, by_rows)
    rounded = [RoundedWeight(weight) for weight in weights] if int8 else []
    made = {}
    for task, found in adapters.items():
        places, rows = _placed(found, mirrored=False)
        made[task] = FusedLinear(
            weights,
            torch.cat(rows) if rows else None,
            bias,
            widths=[len(weight) for weight in weights],
            stretches=[len(row) for row in rows],
            own=None,
            places=places,
            rounded=rounded,
        )
    return made


def _sandwich(
    bases: Sequence[Any],
    weights: Sequence[Tensor],
    adapters: Mapping[Task, Sequence[Adapter | None]],
    bias: Tensor | None,
    by_rows: bool,
) -> dict[Task, FusedLinear]:
    """One matrix: the first task's router and A, W, the second task's A and router."""
    assert len(adapters) <= 2, "a sandwich has two sides"
    widths = [len(weight) for weight in weights]
    first, *second = adapters
    places, above = _placed(adapters[first], mirrored=True)
    under, below = _placed(adapters[second[0]], mirrored=False, start=1) if second else ([], [])
    top, total = sum(map(len, above)), sum(widths)
    whole = torch.cat([*above, *weights, *below])
    if not by_rows:
        whole = _as_read(whole)
    _share(bases, whole[top : top + total])

    def of(part: Tensor, stretches: list[int], own: int, places: list[_Place]) -> FusedLinear:
        return FusedLinear([part], None, bias, widths=widths, stretches=stretches, own=own, places=places)

    made = {first: of(whole[: top + total], [*map(len, above), total], len(above), places)}
    for task in second:
        made[task] = of(whole[top:], [total, *map(len, below)], 0, under)
    return made


def _placed(adapters: Sequence[Adapter | None], *, mirrored: bool, start: int = 0) -> tuple[list[_Place], list[Tensor]]:
    """Adapters' stretches, counted from `start`, and their rows: A of each before the routers, or mirrored after."""
    found = [(layer, adapter) for layer, adapter in enumerate(adapters) if adapter]
    downs = [adapter.down for _, adapter in found]
    routes = [adapter.route for _, adapter in found if adapter.route is not None]
    low, gates = (start + len(routes), start) if mirrored else (start, start + len(downs))
    places = []
    for i, (layer, adapter) in enumerate(found):
        places.append(_Place(adapter, layer, low + i, gates if adapter.route is not None else None))
        gates += adapter.route is not None
    return places, [*routes, *downs] if mirrored else [*downs, *routes]


def _share(bases: Sequence[Any], weight: Tensor) -> None:
    """The layers' own weights become views, so that there is one copy of W."""
    start = 0
    for base in bases:
        end = start + base.weight.shape[0]
        base.weight = nn.Parameter(weight[start:end], requires_grad=False)
        start = end
