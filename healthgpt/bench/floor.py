"""The floor of decoding: what a step moves and computes by formula, and the time that takes at a device's ceilings.

    N = sum of in · out            weights of all linear layers
    H = sum of R (in + out) + E in  an H-LoRA of rank R with E experts on each of them
    K = 2 · layers · kv heads · head width   numbers that the cache has of a token

    step of B sequences that see T tokens:  bytes = s (N + H + rows · D) + B T K s
                                            FLOPs = B (2 (N + H + rows · D) + 4 T · heads · head width · layers)
    prompts of P tokens:                    FLOPs = B (2 (N + H) P + 2 P² · heads · head width · layers + 2 rows · D)

with s bytes per number. Every weight is read once in a step, however many sequences there are; what is small beside
that (norms, activations, the embeddings' rows) counts nothing. A floor is the longer of bytes / bandwidth and
FLOPs / peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from healthgpt.checking import base_shapes


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What a device does at the most.

    Attributes:
        bandwidth: bytes per second, read and written. peak: FLOPs per second.
    """

    bandwidth: float
    peak: float

    def or_higher(self, other: Ceilings) -> Ceilings:
        """The higher one of each."""
        return Ceilings(bandwidth=max(self.bandwidth, other.bandwidth), peak=max(self.peak, other.peak))


@dataclass(frozen=True, kw_only=True)
class Work:
    """What something moves and computes."""

    bytes: float
    flops: float

    def seconds(self, ceilings: Ceilings) -> float:
        """The time that it takes at the least."""
        return max(self.bytes / ceilings.bandwidth, self.flops / ceilings.peak)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the formulas need to know of a network.

    Attributes:
        linears: (in, out) of every linear layer of the LLM's body.
        width: D. layers, heads, kv_heads, head_width: of its attention.
        experts: E of its adapters, 0 without a router.
        itemsize: s, bytes per number.
    """

    linears: tuple[tuple[int, int], ...]
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    experts: int = 4
    itemsize: int = 2

    @classmethod
    def of(cls, config: Any, *, experts: int = 4, itemsize: int = 2) -> Sizes:
        """Those of an LLM's transformers configuration."""
        shapes = base_shapes(config, 0).linears.values()
        return cls(
            linears=tuple((width_in, width_out) for width_out, width_in in shapes),
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            experts=experts,
            itemsize=itemsize,
        )

    @property
    def weights(self) -> int:
        """N"""
        return sum(width_in * width_out for width_in, width_out in self.linears)

    def adapter(self, rank: int) -> int:
        """H; without an adapter the rank is 0."""
        if not rank:
            return 0
        return sum(rank * (width_in + width_out) + self.experts * width_in for width_in, width_out in self.linears)

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that a token takes."""
        return 2 * self.layers * self.kv_heads * self.head_width * self.itemsize

    def step(self, *, rank: int, batch: int, context: float, rows: int) -> Work:
        """One token more for each of B sequences.

        Args:
            context: tokens that each sees. rows: of the head that are computed.
        """
        read = self.weights + self.adapter(rank) + rows * self.width
        seen = 4 * context * self.heads * self.head_width * self.layers
        return Work(
            bytes=self.itemsize * read + batch * context * self.cache_bytes,
            flops=batch * (2 * read + seen),
        )

    def prompts(self, *, rank: int, batch: int, tokens: float, rows: int) -> Work:
        """Reading B prompts of so many tokens, the head being computed for the last one."""
        body = self.weights + self.adapter(rank)
        # Causal attention: a token sees half of them on average.
        seen = 2 * tokens**2 * self.heads * self.head_width * self.layers
        return Work(
            bytes=self.itemsize * (body + rows * self.width) + batch * tokens * self.cache_bytes,
            flops=batch * (2 * body * tokens + seen + 2 * rows * self.width),
        )
