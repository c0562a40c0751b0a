"""The LLM of one task as the engine runs it: Phi-3's, Qwen2's or a Llama-like body, without its modules.

Legend: B sequences, L new tokens of each, D width, I width of an MLP, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from healthgpt.engine.attention import Attention, Spots
from healthgpt.engine.cache import CacheShape, KeyValueCache
from healthgpt.engine.linear import FusedLinear, fuse
from healthgpt.engine.norm import RmsNorm
from healthgpt.engine.numba_use import loops_for
from healthgpt.engine.small_passes import SmallPasses
from healthgpt.engine.triton_use import kernels_for, on_device
from healthgpt.hlora import TaskLinear
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.shortcuts import Shortcuts
from healthgpt.tasks import Task

# What the fused layers read: names of the linear layers in an attention and an MLP, joined or apart.
_QUERIES = (("qkv_proj",), ("q_proj", "k_proj", "v_proj"))
_GATES = (("gate_up_proj",), ("gate_proj", "up_proj"))
# Position encodings whose frequencies do not depend on how long the sequence is.
_STEADY_ROPE = ("default", "linear", "llama3", "yarn")
_SMALL = 2**28  # bytes of linear layers that may be copied on a CPU, where weights are mapped from their file


class UnsupportedError(ValueError):
    """The engine does not run such a network; transformers' `generate` does."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of the LLM for one task."""

    norm: RmsNorm
    queries: FusedLinear
    out: FusedLinear
    second_norm: RmsNorm
    gates: FusedLinear
    down: FusedLinear


class Decoder:
    """The LLM of one task.

    Args:
        loops: what reads few tokens, where that is faster and these layers can be read by it.

    Attributes:
        embeddings: (V, D); head: (V, D).
        cache_shape: what one token takes. attention: that of all layers.
    """

    def __init__(
        self,
        body: Any,
        layers: Sequence[Layer],
        embeddings: Tensor,
        head: Tensor,
        *,
        fp8_cache: bool = False,
        loops: ModuleType | None = None,
    ):
        config = body.config
        self.embeddings, self.head = embeddings, head
        self._layers = layers
        self._norm = RmsNorm(body.norm.weight, config.rms_norm_eps)
        self._activation: Callable[[Tensor], Tensor] = _activation_of(body.layers[0].mlp)
        self.attention = Attention(config, body.rotary_emb, embeddings, _window_of(config))
        self._small = self._small_passes(body.norm.weight, loops) if loops else None
        self.cache_shape = CacheShape(
            num_layers=len(layers),
            num_heads=self.attention.kv_heads,
            head_width=self.attention.width,
            dtype=torch.float8_e4m3fn if fp8_cache else embeddings.dtype,
            device=embeddings.device,
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)"""
        return F.embedding(tokens, self.embeddings)

    def logits(self, hidden: Tensor, rows: slice = slice(None)) -> Tensor:
        """(..., D) -> (..., V), or only some rows of the head."""
        if self._small and self._small.take(hidden):
            return self._small.logits(hidden, self.head[rows])
        return F.linear(hidden, self.head[rows])

    def read(self, x: Tensor, cache: KeyValueCache, spots: Spots, wanted: Tensor | None = None) -> Tensor:
        """Embeddings of new tokens -> what the head takes of them, keys and values going into the cache.

        Args:
            x: (B, L, D).
            wanted: tokens that the head is to see, their places in (B·L); None is all of them.

        Returns:
            (B, L, D), or (wanted, D).
        """
        batch, length, width = x.shape
        if self._small and self._small.take(x):
            hidden = self._small.read(x, cache, spots)
            return hidden.view(batch, length, width) if wanted is None else hidden[wanted]
        with on_device(x.device):
            x = self._read(x.reshape(batch * length, width), cache, spots, wanted)
        return x.view(batch, length, width) if wanted is None else x

    def _read(self, x: Tensor, cache: KeyValueCache, spots: Spots, wanted: Tensor | None) -> Tensor:
        """(B·L, D) -> (B·L, D), or (wanted, D)"""
        sight = self.attention.sight(spots, cache)
        for number, layer in enumerate(self._layers):
            seen = self.attention(layer.queries(layer.norm(x)), number, sight)
            if wanted is not None and layer is self._layers[-1]:  # the others have left their keys and values
                x, seen = x[wanted], seen[wanted]
            x = x + layer.out(seen)
            x = x + layer.down(self._gated(layer.gates(layer.second_norm(x))))
        return self._norm(x)

    def _small_passes(self, norm: Tensor, loops: ModuleType) -> SmallPasses | None:
        packed = []
        for layer in self._layers:
            linears = [linear.packed() for linear in (layer.queries, layer.out, layer.gates, layer.down)]
            if self._activation is not F.silu or None in linears:
                return None
            queries, out, gates, down = linears
            first, second = layer.norm.weight.numpy(), layer.second_norm.weight.numpy()
            packed.append((first, queries, out, second, gates, down))
        return SmallPasses(loops, packed, norm, self._norm.epsilon, self.attention)

    def _gated(self, joined: Tensor) -> Tensor:
        """(B·L, 2 I) gate and what it lets through -> (B·L, I)"""
        kernels = kernels_for(joined) if self._activation is F.silu else None
        if kernels:
            return kernels.gated(joined)
        gate, up = joined.chunk(2, dim=-1)
        return self._activation(gate) * up


def decoders_of(network: HealthGPTForConditionalGeneration, shortcuts: Shortcuts = Shortcuts()) -> dict[Task, Decoder]:
    """A decoder for every task of a network, over one copy of its weights.

    Raises:
        UnsupportedError: a body, a position encoding or a placement that the engine does not know.
        ValueError: a shortcut that this device does not have.
    """
    body = network.model.language_model
    _refuse_what_is_unknown(body)
    tasks, epsilon = network.tasks, body.config.rms_norm_eps
    plain = [module for module in body.modules() if isinstance(module, nn.Linear)]
    size = sum(module.weight.nbytes for module in plain)
    if shortcuts.fp8_cache:
        _refuse_fp8(plain[0].weight)
    into_one = next(body.parameters()).device.type != "cpu" or size <= _SMALL
    by_operators = shortcuts.int8_weights or shortcuts.fp8_cache  # loops read float32 alone
    loops = None if by_operators else loops_for(plain[0].weight, size // len(body.layers))
    layers: dict[Task, list[Layer]] = {task: [] for task in tasks}
    for block in body.layers:
        attention, mlp = block.self_attn, block.mlp
        linears = {
            "queries": _named(attention, _QUERIES),
            "out": [attention.o_proj],
            "gates": _named(mlp, _GATES),
            "down": [mlp.down_proj],
        }
        parts = {
            name: fuse(found, tasks, into_one=into_one, by_rows=loops is not None, int8=shortcuts.int8_weights)
            for name, found in linears.items()
        }
        for task in tasks:
            layers[task].append(
                Layer(
                    norm=RmsNorm(block.input_layernorm.weight, epsilon),
                    second_norm=RmsNorm(block.post_attention_layernorm.weight, epsilon),
                    **{name: made[task] for name, made in parts.items()},
                )
            )
    embeddings: Any = network.embeddings
    heads: Any = network.heads
    return {
        task: Decoder(
            body,
            layers[task],
            embeddings[task].weight,
            heads[task].weight,
            fp8_cache=shortcuts.fp8_cache,
            loops=loops,
        )
        for task in tasks
    }


def _refuse_fp8(weight: Tensor) -> None:
    """Kernels that read 8-bit floats compile from Ada and Hopper on; PyTorch's own read them everywhere."""
    if not kernels_for(weight) or torch.version.hip:
        return
    capability = torch.cuda.get_device_capability(weight.device)
    if capability < (8, 9):
        name, found = torch.cuda.get_device_name(weight.device), ".".join(map(str, capability))
        raise ValueError(f"fp8_cache: {name} has compute capability {found}, 8-bit floats take 8.9 or more")


def _refuse_what_is_unknown(body: Any) -> None:
    config, name = body.config, type(body).__name__
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in _STEADY_ROPE:
        raise UnsupportedError(f"{name}: position encoding {rope!r}")
    if len({parameter.device for parameter in body.parameters()}) > 1:
        raise UnsupportedError(f"{name}: spread over several devices")
    for block in body.layers:
        for owner, names in ((block, ("input_layernorm", "post_attention_layernorm")), (block.self_attn, ("o_proj",))):
            if any(not hasattr(owner, part) for part in names):
                raise UnsupportedError(f"{name}: its layers are none of Phi-3's or Qwen2's")
        if hasattr(block.self_attn, "q_norm") or hasattr(block, "pre_feedforward_layernorm"):
            raise UnsupportedError(f"{name}: its layers are none of Phi-3's or Qwen2's")
        for layer in (*_named(block.self_attn, _QUERIES), *_named(block.mlp, _GATES), block.self_attn.o_proj):
            base = _base(layer)
            if type(base) is not nn.Linear or not base.weight.is_floating_point():
                raise UnsupportedError(f"{name}: quantised weights")


def _named(owner: nn.Module, choices: Sequence[Sequence[str]]) -> list[nn.Module]:
    for names in choices:
        if all(hasattr(owner, name) for name in names):
            return [getattr(owner, name) for name in names]
    raise UnsupportedError(f"{type(owner).__name__}: has neither {' nor '.join('/'.join(names) for names in choices)}")


def _base(layer: Any) -> Any:
    return layer.base_layer if isinstance(layer, TaskLinear) else layer


def _activation_of(mlp: Any) -> Callable[[Tensor], Tensor]:
    found = getattr(mlp, "activation_fn", None) or mlp.act_fn
    return F.silu if type(found).__name__ in ("SiLU", "SiLUActivation") else found


def _window_of(config: Any) -> int | None:
    """Tokens that one sees, itself included; None is all."""
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return None
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    if len(kinds) > 1:
        raise UnsupportedError("only some of its layers have a sliding window")
    return None if kinds == {"full_attention"} else int(window)
