"""H-LoRA (paper eq. 7-11) and its two baselines, LoRA and MoELoRA, as one kind of adapter on peft.

Legend: B batch, L tokens, D_in/D_out width of the linear layer, R (merged) rank, E experts.

H-LoRA is a mixture of E low-rank experts whose matrices are stored merged, expert i owning a contiguous block of R/E
columns of the rank axis:

    g = softmax(x · routeᵀ)                                  (B, L, E)   dense: no top-k, no load-balance loss
    y = x · Wᵀ + b + (repeat(g, R/E) ⊙ dropout(s · x · Aᵀ)) · Bᵀ         s = alpha / R · E

so that all experts cost two matrix products, whatever E is. MoELoRA is the same mixture as E separate pairs in a loop,
LoRA a single pair without a router.

One adapter per task lives on every linear layer of the language model, over one frozen W. Because g depends on the
token, an H-LoRA can *not* be merged into W; `merge` refuses. Two defaults of peft are overridden on purpose:
`set_adapter` only chooses what runs (peft's also flips `requires_grad`, behind the back of an optimizer), and a saved
adapter's `adapter_config.json` says `"peft_type": "HLORA"`, so that `PeftModel.from_pretrained` stops instead of
silently reading it as an ordinary LoRA.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as PeftLoraLinear
from peft.utils.integrations import gather_params_ctx
from torch import Tensor, nn


@dataclass
class HardRouter:
    """The one switch that every adapted layer of a model looks at.

    Attributes:
        task: whose adapter runs; one that a layer does not have leaves the layer plain.
    """

    task: str


class TaskLinear(PeftLoraLinear):
    """A frozen linear layer with one adapter per task; the routed one's `delta` is added to the layer's output.

    Subclasses say which parameters an adapter has (`create_parameters`) and what it computes (`delta`).
    """

    adapter_layer_names = (*PeftLoraLinear.adapter_layer_names, "lora_route")
    routed = True  # has a router, so needs num_experts

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: HLoraConfig, **kwargs: Any) -> None:
        """Adds the adapter `adapter_name` (peft calls this)."""
        if "lora_route" not in self._modules:
            self.router = HardRouter(adapter_name)
            self.lora_route = nn.ModuleDict()
            self.num_experts: dict[str, int] = {}
        self.r[adapter_name] = r
        self.lora_alpha[adapter_name] = lora_alpha
        self.num_experts[adapter_name] = config.num_experts
        self.scaling[adapter_name] = lora_alpha / r * (config.num_experts if self.routed else 1)
        self.use_dora[adapter_name] = self.use_rslora[adapter_name] = self.lora_bias[adapter_name] = False
        self.lora_dropout[adapter_name] = nn.Dropout(config.lora_dropout) if config.lora_dropout else nn.Identity()
        self.create_parameters(adapter_name, r, config.num_experts)
        if config.init_lora_weights:
            self.reset_adapter(adapter_name)
        self._move_adapter_to_device_of_base_layer(adapter_name)

    def create_parameters(self, task: str, r: int, num_experts: int) -> None:
        self.lora_A[task] = nn.Linear(self.in_features, r, bias=False)
        self.lora_B[task] = nn.Linear(r, self.out_features, bias=False)
        if self.routed:
            self.lora_route[task] = nn.Linear(self.in_features, num_experts, bias=False)

    def reset_adapter(self, task: str) -> None:
        """Router and A as nn.Linear starts (Kaiming-uniform, a = √5), B zero: an untrained adapter changes nothing."""
        for part in (self.lora_A, self.lora_route, self.lora_B):
            if task in part:
                for weight in part[task].parameters():
                    nn.init.zeros_(weight) if part is self.lora_B else nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

    @property
    def active_adapter(self) -> str:
        return self.router.task

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Chooses what runs, and nothing else: `requires_grad` is the training stage's business."""
        self.router.task = adapter_names if isinstance(adapter_names, str) else adapter_names[0]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, L, D_in) -> (B, L, D_out)"""
        y = self.base_layer(x, *args, **kwargs)
        task = self.router.task
        if self._disable_adapters or task not in self.lora_A:
            return y
        return y + self.delta(x, task).to(y.dtype)

    def delta(self, x: Tensor, task: str) -> Tensor:
        """What the adapter of `task` adds to the layer's output: (B, L, D_in) -> (B, L, D_out)."""
        raise NotImplementedError

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ValueError("a routed adapter depends on the token and cannot be merged into the layer's weight")

    def gates(self, x: Tensor, task: str) -> Tensor:
        """The router's weight of each expert at each token: (B, L, D_in) -> (B, L, E)."""
        return self.lora_route[task](x).softmax(dim=-1)

    def as_weights(self, x: Tensor, weight: Tensor) -> Tensor:
        """x in the dtype of a weight; under autocast as it is, since autocast would but round it back."""
        return x if torch.is_autocast_enabled(x.device.type) else self._cast_input_dtype(x, weight.dtype)


class HLoraLinear(TaskLinear):
    """H-LoRA: every expert in one A and one B."""

    def delta(self, x: Tensor, task: str) -> Tensor:
        x = self.as_weights(x, self.lora_A[task].weight)
        gates = self.gates(x, task)  # (B, L, E)
        low = self.lora_dropout[task](self.lora_A[task](x) * self.scaling[task])  # (B, L, R)
        per_expert = low.unflatten(-1, (gates.shape[-1], -1))  # (B, L, E, R/E)
        # The softmax stays in float32 under autocast; what it weighs does not have to follow it.
        return self.lora_B[task]((per_expert * gates.unsqueeze(-1).to(low.dtype)).flatten(-2))


class MoELoraLinear(TaskLinear):
    """MoELoRA, the paper's baseline: E separate experts of rank R/E, run one after the other."""

    def create_parameters(self, task: str, r: int, num_experts: int) -> None:
        rank = r // num_experts
        self.lora_A[task] = nn.ModuleList(nn.Linear(self.in_features, rank, bias=False) for _ in range(num_experts))
        self.lora_B[task] = nn.ModuleList(nn.Linear(rank, self.out_features, bias=False) for _ in range(num_experts))
        self.lora_route[task] = nn.Linear(self.in_features, num_experts, bias=False)

    def delta(self, x: Tensor, task: str) -> Tensor:
        x = self.as_weights(x, self.lora_A[task][0].weight)
        gates = self.gates(x, task)
        total = x.new_zeros(*x.shape[:-1], self.out_features)
        for i, (down, up) in enumerate(zip(self.lora_A[task], self.lora_B[task], strict=True)):
            low = self.lora_dropout[task](down(x) * self.scaling[task])  # (B, L, R/E)
            total = total + gates[..., i : i + 1] * up(low)
        return total


class LoraLinear(TaskLinear):
    """LoRA, the paper's other baseline: one pair of matrices, no router."""

    routed = False

    def delta(self, x: Tensor, task: str) -> Tensor:
        x = self.as_weights(x, self.lora_A[task].weight)
        return self.lora_B[task](self.lora_dropout[task](self.lora_A[task](x) * self.scaling[task]))


ADAPTERS: dict[str, type[TaskLinear]] = {"hlora": HLoraLinear, "moelora": MoELoraLinear, "lora": LoraLinear}


@dataclass
class HLoraConfig(LoraConfig):
    """peft's LoraConfig plus the mixture.

    Attributes:
        r: the merged rank R, that of all experts together (the release's `hlora_r`).
        lora_alpha: alpha of the scale s = alpha / R · E.
        num_experts: E (the release's `hlora_nums`); must divide R.
        adapter: one of `ADAPTERS`.
    """

    num_experts: int = field(default=4, metadata={"help": "experts per layer"})
    adapter: str = field(default="hlora", metadata={"help": "hlora, moelora or lora"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapter not in ADAPTERS:
            raise ValueError(f"adapter {self.adapter!r} is none of {', '.join(ADAPTERS)}")
        if self.r <= 0 or self.num_experts <= 0 or self.lora_alpha <= 0:
            raise ValueError(
                f"rank {self.r}, number of experts {self.num_experts} and alpha {self.lora_alpha} must be positive"
            )
        if ADAPTERS[self.adapter].routed and self.r % self.num_experts:
            raise ValueError(f"rank {self.r} is not divisible by the number of experts {self.num_experts}")
        self._register_custom_module({nn.Linear: ADAPTERS[self.adapter]})


def linear_names(body: nn.Module) -> list[str]:
    """The last name component of every linear layer of an LLM's body, adapted already or not: what H-LoRA adapts."""
    names = (
        name.removesuffix(".base_layer").rpartition(".")[2]
        for name, child in body.named_modules()
        if isinstance(child, nn.Linear) and ".lora_" not in name
    )
    return sorted(set(names))


def attach_adapter(body: nn.Module, task: str, config: HLoraConfig, on_meta: bool = False) -> HardRouter:
    """Puts the adapter of `task` on every linear layer of an LLM's body (its head is outside and stays plain).

    Args:
        on_meta: create the parameters without memory, to be assigned from a file.

    Returns:
        the router of all adapted layers of this body.
    """
    with warnings.catch_warnings():
        # peft warns of a second adapter; here every model has one per task.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        inject_adapter_in_model(config, body, adapter_name=task, low_cpu_mem_usage=on_meta)
    layers = [layer for layer in body.modules() if isinstance(layer, TaskLinear)]
    for layer in layers:
        layer.router = layers[0].router
    return layers[0].router


def adapter_parameters(body: nn.Module, task: str) -> dict[str, nn.Parameter]:
    """The parameters of one task's adapter under their released names, as `layers.0.mlp.down_proj.lora_A.weight`."""
    marker = f".{task}."
    return {
        name.replace(marker, ".", 1): parameter
        for name, parameter in body.named_parameters()
        if ".lora_" in name and marker in name
    }


def load_adapter(body: nn.Module, task: str, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Puts tensors in the place of an adapter's parameters, each on the device of the layer it adapts.

    Args:
        tensors: exactly those that `adapter_parameters` names.
    """
    marker = f".{task}."
    for name in [name for name, _ in body.named_parameters() if ".lora_" in name and marker in name]:
        layer: Any = body.get_submodule(name.partition(".lora_")[0])
        device = layer.base_layer.weight.device
        tensor = tensors[name.replace(marker, ".", 1)].to(device, dtype)
        body.get_submodule(name.removesuffix(".weight")).weight = nn.Parameter(tensor, requires_grad=False)


def gathered(parameters: Iterable[nn.Parameter]) -> contextlib.AbstractContextManager[None]:
    """Parameters that ZeRO-3 has spread over the processes are whole inside the block; others are as they are."""
    return gather_params_ctx(list(parameters))
