"""Images that are drawn: as the VQGAN takes them, through its codes, and back as pictures.

Legend: S the VQGAN's resolution in pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from healthgpt.images import ImageSource, read_image
from taming_transformers import GumbelVQ


def image_as_target(image: ImageSource, resolution: int) -> Tensor:
    """An image as the VQGAN encodes it: (3, S, S) in [-1, 1], by LANCZOS without keeping the aspect, as the original.

    Raises:
        FileNotFoundError, ValueError: an image that cannot be read.
    """
    resized = read_image(image).resize((resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 127.5 - 1


def mask_as_cells(mask: ImageSource, cells: int) -> np.ndarray:
    """(cells, cells) bool: which cells of an image a mask of it touches, with any pixel that is not 0.

    Raises:
        FileNotFoundError, ValueError: a mask that cannot be read.
    """
    touched = Image.fromarray(np.asarray(np.asarray(read_image(mask)).any(axis=2), dtype=np.float32))
    return np.asarray(touched.resize((cells, cells), Image.Resampling.BOX)) > 0


def as_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] -> an 8-bit RGB image; values are clamped and truncated, as in the original."""
    scaled = (pixels.clamp(-1, 1).permute(1, 2, 0).float().cpu() + 1) / 2
    return Image.fromarray((scaled * 255).numpy().astype(np.uint8))


@torch.inference_mode()
def codes_of(vqgan: GumbelVQ, image: ImageSource) -> Tensor:
    """The codes of an image, (rows, columns).

    Raises:
        FileNotFoundError, ValueError: an image that cannot be read.
    """
    device = next(vqgan.parameters()).device
    pixels = image_as_target(image, vqgan.config.resolution).unsqueeze(0).to(device)
    return vqgan.encode(pixels)[0]


@torch.inference_mode()
def through_codes(vqgan: GumbelVQ, image: ImageSource) -> Image.Image:
    """An image encoded and decoded again: the best that a drawing of it can be.

    Raises:
        FileNotFoundError, ValueError: an image that cannot be read.
    """
    return as_image(vqgan.decode(codes_of(vqgan, image).unsqueeze(0))[0])
