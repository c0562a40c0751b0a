"""Training pictures of the VQGAN and the ViT: one `.npz` file, held in memory.

Legend: N pictures, C captions of each, S side in pixels.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from healthgpt.files import require_file

_DIMENSIONS = {"images": 4, "lesions": 3, "kinds": 1, "captions": 2}


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures with what is known of them.

    Attributes:
        images: (N, S, S, 3) uint8.
        lesions: (N, S, S) uint8, 0 for healthy pixels.
        kinds: (N,) int64, the class of a picture's finding, 0 for none.
        captions: (N, C) strings.
    """

    images: Tensor
    lesions: Tensor
    kinds: Tensor
    captions: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def split(self) -> tuple[Pictures, Pictures]:
        """All but the last 2 %, and these, which are held out."""
        cut = len(self) - max(1, len(self) // 50)
        return self._part(slice(None, cut)), self._part(slice(cut, None))

    def _part(self, places: slice) -> Pictures:
        return Pictures(
            images=self.images[places],
            lesions=self.lesions[places],
            kinds=self.kinds[places],
            captions=self.captions[places],
        )


def read_pictures(path: Path) -> Pictures:
    """Reads the pictures of a file.

    Raises:
        FileNotFoundError, ValueError: no such file, or it does not hold what is expected.
    """
    require_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _DIMENSIONS}
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no file of pictures ({error})") from None
    for name, dimensions in _DIMENSIONS.items():
        if arrays[name].ndim != dimensions or len(arrays[name]) != len(arrays["images"]):
            raise ValueError(f"{path}: {name} has shape {arrays[name].shape}, expected {dimensions} dimensions")
    if arrays["images"].dtype != np.uint8 or arrays["images"].shape[3] != 3:
        raise ValueError(f"{path}: images must be (N, S, S, 3) uint8")
    return Pictures(
        images=torch.from_numpy(arrays["images"]),
        lesions=torch.from_numpy(arrays["lesions"]),
        kinds=torch.from_numpy(arrays["kinds"].astype(np.int64)),
        captions=arrays["captions"],
    )


def moved(maps: Tensor, shift: int) -> Tensor:
    """(B, C, S, S) -> the same, all moved by one random distance of up to `shift` each way, edges repeated."""
    top, left = torch.randint(2 * shift + 1, (2,)).tolist()
    padded = F.pad(maps, (shift, shift, shift, shift), mode="replicate")
    side = maps.shape[2]
    return padded[:, :, top : top + side, left : left + side]
