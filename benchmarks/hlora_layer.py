"""Forward of one adapted linear layer: H-LoRA against its original formula, its baselines and the bare layer.

    python benchmarks/hlora_layer.py [--tokens 640] [--shape 3072 9216] [--rank 64] [--rounds 15]

All variants run in turn within each round, so that they share whatever the machine is doing; figures are medians, and
ratios are medians of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from report import publish
from torch import Tensor, nn

from healthgpt.hlora import HLoraConfig, TaskLinear, attach_adapter

EXPERTS = (2, 4, 8, 32)


class Body(nn.Module):
    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.proj: nn.Module = nn.Linear(width_in, width_out, bias=False)


def adapted(adapter: str, linear: nn.Linear, rank: int, num_experts: int) -> TaskLinear:
    """A layer around the one shared weight, with random adapter matrices."""
    body = Body(1, 1)
    body.proj = linear
    config = HLoraConfig(
        r=rank, lora_alpha=2 * rank, num_experts=num_experts, adapter=adapter, target_modules=["proj"]
    )  # fmt: skip
    attach_adapter(body, "comprehension", config)
    layer = body.proj
    assert isinstance(layer, TaskLinear)
    for name, parameter in layer.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.02)
    return layer.to(linear.weight.device, linear.weight.dtype).requires_grad_(False)


def original_formula(layer: TaskLinear) -> Callable[[Tensor], Tensor]:
    """H-LoRA as the original computes it: every operation by itself, the gates repeated to the full rank."""
    route, a, b = (part["comprehension"].weight for part in (layer.lora_route, layer.lora_A, layer.lora_B))
    scale, times = layer.scaling["comprehension"], a.shape[0] // route.shape[0]

    def forward(x: Tensor) -> Tensor:
        gates = torch.softmax(x @ route.T, dim=-1)
        low = x @ a.T * scale
        return layer.base_layer(x) + (gates.repeat_interleave(times, dim=-1) * low) @ b.T

    return forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=640)
    parser.add_argument("--shape", type=int, nargs=2, default=(3072, 9216), metavar=("IN", "OUT"))
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    flags = parser.parse_args()

    torch.manual_seed(0)
    dtype = torch.bfloat16 if flags.device != "cpu" else torch.float32
    linear = nn.Linear(*flags.shape, bias=False, device=flags.device, dtype=dtype).requires_grad_(False)
    x = torch.randn(1, flags.tokens, flags.shape[0], device=flags.device, dtype=dtype)
    variants: dict[tuple[str, int], Callable[[Tensor], Tensor]] = {("nn.Linear", 0): linear}
    variants["LoRA", 0] = adapted("lora", linear, flags.rank, 1)
    for k in EXPERTS:
        hlora = adapted("hlora", linear, flags.rank, k)
        variants["H-LoRA", k] = hlora
        variants["original formula", k] = original_formula(hlora)
        variants["MoELoRA", k] = adapted("moelora", linear, flags.rank, k)

    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in variants}
    with torch.inference_mode():
        for round_number in range(flags.rounds + 2):  # two rounds of warm-up
            for key, layer in variants.items():
                start = time.perf_counter()
                layer(x)
                if flags.device != "cpu":
                    torch.cuda.synchronize()
                if round_number >= 2:
                    seconds[key].append(time.perf_counter() - start)

    def ratio(key: tuple[str, int], other: tuple[str, int]) -> float:
        return statistics.median(a / b for a, b in zip(seconds[key], seconds[other], strict=True))

    rows = [
        {
            "layer": name,
            "k": k or "-",
            "ms": 1000 * statistics.median(seconds[name, k]),
            "× nn.Linear": ratio((name, k), ("nn.Linear", 0)),
            "× LoRA": ratio((name, k), ("LoRA", 0)),
            "× original formula": ratio((name, k), ("original formula", k)) if k else "-",
        }
        for name, k in variants
    ]
    publish(
        "hlora_layer",
        rows,
        tokens=flags.tokens,
        shape=list(flags.shape),
        rank=flags.rank,
        dtype=str(dtype).removeprefix("torch."),
        rounds=flags.rounds,
    )


if __name__ == "__main__":
    main()
