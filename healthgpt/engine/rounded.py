"""Weights in 8 bits, for the steps of the engine's `int8_weights`."""

from __future__ import annotations

import torch
from torch import Tensor

_FEW = 16  # tokens up to which a product waits for its weights, so that smaller weights are faster


class RoundedWeight:
    """A weight in 8 bits, for few tokens: (N, D_in) -> (N, D_out).

    Args:
        weight: (D_out, D_in).

    Raises:
        ValueError: this device has no such products.
    """

    def __init__(self, weight: Tensor):
        exact = weight.float()
        largest = exact.abs().amax(dim=1).clamp(min=torch.finfo(torch.bfloat16).tiny * 127)
        self._scales = (largest / 127).to(torch.bfloat16)
        self._int8 = (exact / self._scales.float().unsqueeze(1)).round().clamp(-127, 127).to(torch.int8).contiguous()
        try:
            self(weight.new_zeros(1, weight.shape[1]))
        except (NotImplementedError, RuntimeError) as error:
            raise ValueError(f"int8_weights: {weight.device.type} has no products in 8 bits here ({error})") from None

    def __call__(self, x: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x.to(torch.bfloat16), self._int8, self._scales).to(x.dtype)

    @staticmethod
    def fits(tokens: int) -> bool:
        """Whether so many tokens are few; none at all are not, of which a GPU's product knows nothing."""
        return 0 < tokens <= _FEW
