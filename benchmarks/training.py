"""Time of one training step with H-LoRA, LoRA and MoELoRA, over the number of experts and several sizes of LLM.

    python benchmarks/training.py                         # small sizes on this machine
    python benchmarks/training.py --shape m3 --tokens 8192   # M3's true shape, random weights, on a GPU in bfloat16

A step is forward, chunked loss, backward and AdamW over the adapters; all variants run in turn within each round, and
ratios are medians of the rounds' own. Goals: H-LoRA at k = 4 at most 1.05 x LoRA and flat in k; MoELoRA at k = 4 at
least 1.3 x (paper, Table 4: 1.00 and 1.49). On an H200 with M3's shape and rank 64: 20,000 tokens per second.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from report import publish
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from healthgpt.config import RELEASED
from healthgpt.hlora import HLoraConfig, adapter_parameters, attach_adapter, linear_names
from healthgpt.training.step import summed_cross_entropy

EXPERTS = (2, 4, 8, 32)
SMALL = {"width 256": (256, 4), "width 512": (512, 4), "width 1024": (1024, 2)}
PEAK_FLOPS = 790e12  # of one H200 in bfloat16, measured on large matrix products


def architecture(name: str) -> dict[str, object]:
    if name in RELEASED:
        return dict(RELEASED[name].architecture)
    width, layers = SMALL[name]
    return {
        "model_type": "phi3",
        "hidden_size": width,
        "intermediate_size": 8 * width // 3,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "vocab_size": 4096,
        "pad_token_id": 0,
    }


def make_step(base: nn.Module, adapter: str, k: int, rank: int, ids: torch.Tensor) -> Callable[[], None]:
    """A training step with a fresh adapter on the one shared base."""
    body, task = base.model, f"{adapter}_{k}"
    config = HLoraConfig(
        r=rank, lora_alpha=2 * rank, num_experts=k, adapter=adapter, target_modules=linear_names(body)
    )  # fmt: skip
    attach_adapter(body, task, config)
    parameters = list(adapter_parameters(body, task).values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    dtype = next(base.lm_head.parameters()).dtype
    autocast = torch.autocast(ids.device.type, dtype=dtype, enabled=dtype is not torch.float32)

    def step() -> None:
        embeds = body.embed_tokens(ids)
        with autocast:
            hidden = body(inputs_embeds=embeds, use_cache=False).last_hidden_state
            loss = summed_cross_entropy(hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), base.lm_head) / ids.numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(name: str, flags: argparse.Namespace) -> list[dict[str, object]]:
    """Rows of one size. LoRA, H-LoRA and MoELoRA each need their own layers, so each kind has a copy of the base."""
    dtype = torch.bfloat16 if flags.device != "cpu" else torch.float32
    config = AutoConfig.for_model(**architecture(name))
    ids = torch.randint(5, 4000, (flags.tokens // 512, 512), device=flags.device)
    steps: dict[tuple[str, int], Callable[[], None]] = {}
    weights = None
    for adapter in ("lora", "hlora", "moelora"):
        torch.manual_seed(0)
        with torch.device(flags.device):
            base = AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False)
        if weights is None:
            weights = base.state_dict()
        else:
            base.load_state_dict(weights, assign=True)  # one copy of the frozen weights for all kinds
        for k in (1,) if adapter == "lora" else EXPERTS:
            run = make_step(base, adapter, k, flags.rank, ids)

            def routed(base: nn.Module = base, task: str = f"{adapter}_{k}", run: Callable[[], None] = run) -> None:
                first = next(layer for layer in base.modules() if hasattr(layer, "router"))
                first.router.task = task
                run()

            steps[adapter, k] = routed
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
    shuffler = random.Random(0)
    for round_number in range(flags.rounds + 1):  # one round of warm-up
        for key, step in shuffler.sample(list(steps.items()), len(steps)):  # no variant always follows the same one
            _wait(flags.device)
            start = time.perf_counter()
            step()
            _wait(flags.device)
            if round_number:
                seconds[key].append(time.perf_counter() - start)
    num_linear = sum(p.numel() for n, p in weights.items() if "proj" in n)
    rows = []
    for (adapter, k), times in seconds.items():
        median = statistics.median(times)
        ratios = [a / b for a, b in zip(times, seconds["lora", 1], strict=True)]
        row: dict[str, object] = {
            "size": name,
            "adapter": adapter,
            "k": k,
            "ms": 1000 * median,
            "× LoRA": statistics.median(ratios),
            "tokens/s": ids.numel() / median,
        }
        if flags.device != "cpu":
            row["share of peak"] = 4 * num_linear * ids.numel() / median / PEAK_FLOPS
            row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
        rows.append(row)
    return rows


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(RELEASED), help="a released model's shape instead of the small ones")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens per step, in rows of 512")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    flags = parser.parse_args()
    rows = [row for name in ([flags.shape] if flags.shape else SMALL) for row in measure(name, flags)]
    publish(
        f"training_{flags.shape}" if flags.shape else "training",
        rows,
        tokens=flags.tokens,
        rank=flags.rank,
        rounds=flags.rounds,
        device=flags.device,
    )


if __name__ == "__main__":
    main()
