"""A codebook of unit vectors that is learnt by moving averages, and that does not collapse.

Legend: B batch, D width of a code, K codes, h/w the grid.

The nearest code on the unit sphere is the one of largest cosine: the argmax of a 1x1 convolution whose rows are the
codes, which is how a GumbelVQ chooses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DECAY = 0.99
_DEAD = 0.05  # uses per step, averaged, below which a code is put somewhere else (2 with 1,024 codes at batch 32)


class Codebook(nn.Module):
    """Quantises features; all it learns is in buffers, so that a checkpoint holds it.

    Attributes:
        codes: (K, D), each of length 1.
        step: training steps seen. The first `free_steps` only normalise: a codebook that starts before the features
            mean anything collapses.
    """

    codes: Tensor
    uses: Tensor
    step: Tensor

    def __init__(self, num_codes: int, width: int, free_steps: int):
        super().__init__()
        self.free_steps = free_steps
        self.register_buffer("codes", F.normalize(torch.randn(num_codes, width), dim=1))
        self.register_buffer("uses", torch.ones(num_codes))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, h, w) -> the codes in their place (gradients pass straight through), and the commitment loss."""
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(features.float(), dim=1)
            if self.step < self.free_steps:
                self.step += int(self.training)
                return unit, unit.new_zeros(())
            flat = unit.detach().permute(0, 2, 3, 1).flatten(0, 2)
            if self.training and self.step == self.free_steps:
                self.codes.copy_(_drawn(flat, len(self.codes)))
            chosen = (flat @ self.codes.T).argmax(dim=1)
            quantised = self.codes[chosen].view(len(unit), *unit.shape[2:], -1).permute(0, 3, 1, 2)
            if self.training:
                self._learn(flat, chosen)
                self.step += 1
            commitment = (unit - quantised).square().sum(dim=1).mean()
            return unit + (quantised - unit).detach(), commitment

    def _learn(self, flat: Tensor, chosen: Tensor) -> None:
        """Moves each code towards the (n, D) features that chose it, and dead codes to some of the features."""
        counts = torch.bincount(chosen, minlength=len(self.codes)).to(flat.dtype)
        sums = torch.zeros_like(self.codes).index_add_(0, chosen, flat)
        # A code's past counts by its uses, so a rare code moves as far per use as a common one.
        past = self.codes * self.uses.unsqueeze(1) * _DECAY
        self.codes.copy_(F.normalize(past + (1 - _DECAY) * sums, dim=1))
        self.uses.mul_(_DECAY).add_(counts, alpha=1 - _DECAY)
        dead = (self.uses < _DEAD).nonzero().squeeze(1)
        if len(dead):
            self.codes[dead] = _drawn(flat, len(dead))
            self.uses[dead] = 1.0


def _drawn(flat: Tensor, number: int) -> Tensor:
    """(number, D) random rows of (n, D), each one at most once where there are enough."""
    repeats = -(-number // len(flat))
    places = torch.cat([torch.randperm(len(flat), device=flat.device) for _ in range(repeats)])
    return flat[places[:number]]
