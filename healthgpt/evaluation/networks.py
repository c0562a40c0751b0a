"""Measures that need a network: LPIPS and FID, where their weights are on this machine; nothing is downloaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from healthgpt.evaluation.pictures import Picture

# Names under which torchvision and torch-fidelity keep what they download.
ALEXNET = "alexnet-owt-7be5be79.pth"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
_LEAST = 2  # images that a covariance needs


class Lpips:
    """LPIPS (Zhang et al. 2018) with AlexNet, by torchmetrics."""

    def __init__(self, network: Any):
        self._network = network

    @classmethod
    def load(cls) -> Self:
        """The metric.

        Raises:
            ValueError: torchmetrics, torchvision or AlexNet's weights are not there; the message says which.
        """
        _require_file(ALEXNET, "LPIPS", "AlexNet's weights")
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            return cls(LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).eval())
        except (ImportError, RuntimeError) as error:
            raise ValueError(f"LPIPS is not measured: {' '.join(str(error).split())}") from None

    def __call__(self, drawn: Picture, truth: Picture) -> float:
        with torch.inference_mode():
            return float(self._network(_tensor(drawn)[None] / 255, _tensor(truth)[None] / 255))


def frechet_distance(
    drawn: Iterable[Picture], truths: Iterable[Picture], network: torch.nn.Module | None = None
) -> float:
    """FID (Heusel et al. 2017) of drawings and truths, both brought to 299 x 299 by the network's own resize.

    Args:
        network: (B, 3, H, W) uint8 -> (B, F) features; None is the Inception of the original TensorFlow code.

    Raises:
        ValueError: torchmetrics, torch-fidelity or the weights are not there, or there are fewer than two images.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        weights = None if network is not None else str(_require_file(INCEPTION, "FID", "Inception's weights"))
        metric = FrechetInceptionDistance(feature=network or 2048, feature_extractor_weights_path=weights)
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"FID is not measured: {' '.join(str(error).split())}") from None
    counts = []
    with torch.inference_mode():
        for real, pictures in ((False, drawn), (True, truths)):
            count = 0
            for picture in pictures:
                metric.update(_tensor(picture)[None], real=real)
                count += 1
            counts.append(count)
    if min(counts) < _LEAST:
        raise ValueError(f"FID is not measured: {min(counts)} images, expected at least {_LEAST}")
    return float(metric.compute())


def _tensor(picture: Picture) -> Tensor:
    """(S, S) or (S, S, 3) uint8 -> (3, S, S) uint8."""
    colour = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(colour.transpose(2, 0, 1)))


def _require_file(name: str, metric: str, what: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    with contextlib.suppress(OSError):
        if path.is_file():
            return path
    raise ValueError(f"{metric} is not measured: {what} are not at {path}")
