"""RMSNorm as the engine runs it: `w ⊙ x / sqrt(mean(x²) + ε)`.

Legend: N tokens, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from healthgpt.engine.triton_use import kernels_for


class RmsNorm:
    """(N, D) -> (N, D); in 16 bits rounded before the weight is applied, as the library does.

    Attributes:
        weight: (D,). epsilon: ε.
    """

    def __init__(self, weight: Tensor, epsilon: float):
        self.weight, self.epsilon = weight.detach(), float(epsilon)
        width = len(self.weight)
        # In 32 bits, few operators: x / hypot(|x|, sqrt(D ε)) times sqrt(D) w.
        self._scaled = self.weight * math.sqrt(width)
        self._least = torch.tensor(math.sqrt(width * self.epsilon), dtype=weight.dtype, device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        kernels = kernels_for(x)
        if kernels:
            return kernels.normed(x, self.weight, self.epsilon)
        if x.dtype.itemsize < 4:
            return self.weight * F.rms_norm(x.float(), (x.shape[-1],), None, self.epsilon).to(x.dtype)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x.div(torch.hypot(length, self._least)).mul_(self._scaled)
