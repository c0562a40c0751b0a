"""How far a way's tokens are the original's, and whether they part where the original itself was undecided.

Legend: B prompts, N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Differences of logits that rounding makes, in units of the dtype's precision at the largest logit: every layer rounds.
_ROUNDINGS = 4


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Greedy tokens beside the original's.

    Attributes:
        percent: of all tokens; after the first other token of a prompt the rest mostly is other, too.
        parted: prompts with any other token.
        undecided: those of them whose first other token is where the original's two best logits are as near to each
            other as rounding.
    """

    percent: float
    parted: int = 0
    undecided: int = 0


@dataclass
class Margins:
    """Takes note of how decided the original was; to be told of its logits, step by step.

    Attributes:
        steps: per step, (B,) the two best logits' distance in units of what rounding makes.
    """

    precision: float
    steps: list[Tensor] = field(default_factory=list)

    def __call__(self, logits: Tensor) -> None:
        """(B, V), in which -inf is what cannot be chosen."""
        best = logits.topk(2, dim=-1).values
        largest = logits.masked_fill(logits.isinf(), 0).abs().amax(dim=-1)
        rounding = _ROUNDINGS * self.precision * largest.clamp_min(torch.finfo(logits.dtype).tiny)
        self.steps.append(((best[:, 0] - best[:, 1]) / rounding).cpu())

    def of(self, prompt: int, step: int) -> float:
        return float(self.steps[step][prompt])


def agreement(found: Sequence[Sequence[int]], expected: Sequence[Sequence[int]], margins: Margins) -> Agreement:
    """How a way's tokens stand to the original's, (B, N) each."""
    equal, total, parted, undecided = 0, 0, 0, 0
    for prompt, (mine, original) in enumerate(zip(found, expected, strict=True)):
        same = [a == b for a, b in zip(mine, original, strict=True)]
        equal, total = equal + sum(same), total + len(same)
        if not all(same):
            parted += 1
            undecided += margins.of(prompt, same.index(False)) <= 1
    return Agreement(percent=100 * equal / total, parted=parted, undecided=undecided)
