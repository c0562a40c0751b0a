"""What processes that read images do; it imports no torch, so that they start in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from healthgpt.images import ImageSource, View, read_images


@dataclass(frozen=True)
class Failure:
    """Why there is no answer, in one line."""

    reason: str


Look = tuple[tuple[ImageSource, ...], View]
Pictures = list[Image.Image] | Failure


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def pictures_of(look: Look) -> Pictures:
    """All pictures of some images in their order, or why there are none."""
    images, view = look
    try:
        return [picture for image in images for picture in read_images(image, view)]
    except (ValueError, OSError, MemoryError) as error:
        return Failure(one_line(error))


def pictures_of_each(looks: Sequence[Look]) -> list[Pictures]:
    """Those of several looks."""
    return [pictures_of(look) for look in looks]
