"""Structural similarity (SSIM, Wang et al. 2004), differentiable, with a small Gaussian window."""

from __future__ import annotations

import torch
from torch import Tensor

_WINDOW, _SIGMA = 7, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """(B, C, H, W) twice, in [0, 1] -> (B,) mean SSIM, computed in float32 whatever autocast says."""
    with torch.autocast(first.device.type, enabled=False):
        first, second = first.float(), second.float()
        maps = torch.stack([first, second, first * first, second * second, first * second])
        mean_1, mean_2, square_1, square_2, product = _blurred(maps)
        variances = square_1 - mean_1**2 + square_2 - mean_2**2
        covariance = product - mean_1 * mean_2
        luminance = (2 * mean_1 * mean_2 + _C1) / (mean_1**2 + mean_2**2 + _C1)
        return (luminance * (2 * covariance + _C2) / (variances + _C2)).mean(dim=(1, 2, 3))


def _blurred(maps: Tensor) -> Tensor:
    """(..., H, W) -> the same, less the window's border."""
    rows, columns = (_window(size, maps) for size in maps.shape[-2:])
    return rows @ maps @ columns.T


def _window(size: int, like: Tensor) -> Tensor:
    """(size - 6, size) the window at every place: on a CPU, products with it beat a convolution of one channel."""
    centres = torch.arange(_WINDOW // 2, size - _WINDOW // 2, device=like.device, dtype=like.dtype)
    distances = torch.arange(size, device=like.device, dtype=like.dtype) - centres[:, None]
    weights = torch.exp(-(distances**2) / (2 * _SIGMA**2)) * (distances.abs() <= _WINDOW // 2)
    return weights / weights.sum(dim=1, keepdim=True)
