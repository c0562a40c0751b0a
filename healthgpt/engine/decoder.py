"""The LLM of one task as the engine runs it: Phi-3's, Qwen2's or a Llama-like body, without its modules.

Legend: B sequences, L new tokens of each, D width, H heads, H_kv key-value heads, W head width, S cache capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from healthgpt.engine.cache import CacheShape, KeyValueCache
from healthgpt.engine.linear import FusedLinear, fuse
from healthgpt.hlora import TaskLinear
from healthgpt.model import HealthGPTForConditionalGeneration
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

    norm: Tensor
    queries: FusedLinear
    out: FusedLinear
    second_norm: Tensor
    gates: FusedLinear
    down: FusedLinear


@dataclass(frozen=True, kw_only=True)
class Spots:
    """Where L new tokens of each sequence stand.

    Attributes:
        positions: (B, L) from 0.
        start: the first one where it is the same in all sequences, known to the host; else None.
        live: tokens of the longest sequence, these included, known to the host.
    """

    positions: Tensor
    start: int | None
    live: int


class Decoder:
    """The LLM of one task.

    Attributes:
        embeddings: (V, D); head: (V, D).
        cache_shape: what one token takes.
    """

    def __init__(self, body: Any, layers: Sequence[Layer], embeddings: Tensor, head: Tensor):
        config = body.config
        self.embeddings, self.head = embeddings, head
        self._layers = layers
        self._norm, self._epsilon = body.norm.weight, float(config.rms_norm_eps)
        self._activation: Callable[[Tensor], Tensor] = _activation_of(body.layers[0].mlp)
        self._heads = int(config.num_attention_heads)
        self._kv_heads = int(config.num_key_value_heads)
        self._head_width = int(getattr(config, "head_dim", None) or config.hidden_size // self._heads)
        self._window = _window_of(config)
        self._rotary = body.rotary_emb
        self._angles: tuple[Tensor, Tensor] | None = None
        self.cache_shape = CacheShape(
            num_layers=len(layers),
            num_heads=self._kv_heads,
            head_width=self._head_width,
            dtype=embeddings.dtype,
            device=embeddings.device,
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)"""
        return F.embedding(tokens, self.embeddings)

    def logits(self, hidden: Tensor, rows: slice = slice(None)) -> Tensor:
        """(..., D) -> (..., V), or only some rows of the head."""
        return F.linear(hidden, self.head[rows])

    def read(self, x: Tensor, cache: KeyValueCache, spots: Spots) -> Tensor:
        """Embeddings of new tokens -> what the head takes, keys and values going into the cache: (B, L, D) -> same."""
        batch, length, width = x.shape
        cos, sin = self._rotation(spots)
        mask = self._mask(spots, x.dtype)
        x = x.reshape(batch * length, width)
        for number, layer in enumerate(self._layers):
            seen = self._attend(layer.queries(self._normed(x, layer.norm)), number, cache, spots, cos, sin, mask)
            x = x + layer.out(seen)
            gate, up = layer.gates(self._normed(x, layer.second_norm)).chunk(2, dim=-1)
            x = x + layer.down(self._activation(gate) * up)
        return self._normed(x, self._norm).view(batch, length, width)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self._epsilon)

    def _attend(
        self,
        joined: Tensor,
        number: int,
        cache: KeyValueCache,
        spots: Spots,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """(B·L, (H + 2 H_kv) W) queries, keys and values -> (B·L, H W)"""
        batch, length = spots.positions.shape
        heads = joined.view(batch, length, -1, self._head_width).transpose(1, 2)  # (B, H + 2 H_kv, L, W)
        turned = _rotated(heads[:, : self._heads + self._kv_heads], cos, sin)
        query, key = turned.split((self._heads, self._kv_heads), dim=1)
        value = heads[:, self._heads + self._kv_heads :]
        keys, values = cache.keys[number], cache.values[number]
        if spots.start is not None:
            here = slice(spots.start, spots.start + length)
            keys[:batch, :, here], values[:batch, :, here] = key, value
        else:
            rows = torch.arange(batch, device=joined.device).unsqueeze(1)
            keys[rows, :, spots.positions] = key.transpose(1, 2)
            values[rows, :, spots.positions] = value.transpose(1, 2)
        seen = F.scaled_dot_product_attention(
            query,
            keys[:batch, :, : spots.live],
            values[:batch, :, : spots.live],
            attn_mask=mask,
            is_causal=mask is None and length > 1,
            enable_gqa=self._heads != self._kv_heads,
        )
        return seen.transpose(1, 2).reshape(batch * length, -1)

    def _rotation(self, spots: Spots) -> tuple[Tensor, Tensor]:
        """cos and signed sin of the positions' angles, each (B or 1, 1, L, rotated width)."""
        if self._angles is None or len(self._angles[0]) < spots.live:
            self._angles = self._all_angles(max(256, 2 * spots.live))
        if spots.start is not None:
            here = slice(spots.start, spots.start + spots.positions.shape[1])
            cos, sin = (angles[here][None, None] for angles in self._angles)
        else:
            cos, sin = (angles[spots.positions].unsqueeze(1) for angles in self._angles)
        return cos, sin

    def _all_angles(self, count: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(count, device=self.embeddings.device).unsqueeze(0)
        cos, sin = self._rotary(self.embeddings, positions)
        half = sin.shape[-1] // 2
        return cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)

    def _mask(self, spots: Spots, dtype: torch.dtype) -> Tensor | None:
        """(B, 1, L, S) of what each new token sees; None where it is everything, or everything before it."""
        length = spots.positions.shape[1]
        inside = self._window is None or spots.live <= self._window
        if inside and spots.start is not None and (length == 1 or spots.start == 0):
            return None
        slots = torch.arange(spots.live, device=spots.positions.device)
        behind = spots.positions.unsqueeze(-1) - slots  # (B, L, S)
        seen = behind >= 0
        if self._window is not None and not inside:
            seen &= behind < self._window
        return seen.unsqueeze(1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on the first of the head's width, the rest as it is; `sin` has the half's sign in it."""
    width = cos.shape[-1]
    turning = x if width == x.shape[-1] else x[..., :width]
    other = turning.unflatten(-1, (2, width // 2)).flip(-2).flatten(-2)
    turned = torch.addcmul(turning * cos, other, sin)
    return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], dim=-1)


def read_prompts(decoder: Decoder, prompts: Sequence[Tensor], room: int) -> tuple[KeyValueCache, Tensor]:
    """Reads prompts (each (L, D)) into a cache with room for so many more tokens.

    Returns:
        the cache, and what the head takes of each prompt's last token, (B, D).
    """
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    cache = KeyValueCache(decoder.cache_shape, len(prompts), longest + room)
    x = torch.nn.utils.rnn.pad_sequence(list(prompts), batch_first=True)
    positions = torch.arange(longest, device=x.device).expand(len(prompts), -1)
    hidden = decoder.read(x, cache, Spots(positions=positions, start=0, live=longest))
    ends = torch.tensor(lengths, device=x.device) - 1
    return cache, hidden[torch.arange(len(prompts), device=x.device), ends]


def decoders_of(network: HealthGPTForConditionalGeneration) -> dict[Task, Decoder]:
    """A decoder for every task of a network, over one copy of its weights.

    Raises:
        UnsupportedError: a body, a position encoding or a placement that the engine does not know.
    """
    body = network.model.language_model
    _refuse_what_is_unknown(body)
    tasks = network.tasks
    linears = [module for module in body.modules() if isinstance(module, nn.Linear | TaskLinear)]
    size = sum(_base(module).weight.nbytes for module in linears if not isinstance(module, TaskLinear))
    into_one = next(body.parameters()).device.type != "cpu" or size <= _SMALL
    layers: dict[Task, list[Layer]] = {task: [] for task in tasks}
    for block in body.layers:
        attention, mlp = block.self_attn, block.mlp
        parts = {
            "queries": fuse(_named(attention, _QUERIES), tasks, into_one=into_one),
            "out": fuse([attention.o_proj], tasks, into_one=into_one),
            "gates": fuse(_named(mlp, _GATES), tasks, into_one=into_one),
            "down": fuse([mlp.down_proj], tasks, into_one=into_one),
        }
        for task in tasks:
            layers[task].append(
                Layer(
                    norm=block.input_layernorm.weight,
                    second_norm=block.post_attention_layernorm.weight,
                    **{name: made[task] for name, made in parts.items()},
                )
            )
    embeddings: Any = network.embeddings
    heads: Any = network.heads
    return {task: Decoder(body, layers[task], embeddings[task].weight, heads[task].weight) for task in tasks}


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
    if len(set(getattr(config, "layer_types", None) or ["sliding_attention"])) > 1:
        raise UnsupportedError("only some of its layers have a sliding window")
    return int(window)
