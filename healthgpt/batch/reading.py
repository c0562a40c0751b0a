"""What processes that read images do; it imports no torch, so that they start in a moment."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from healthgpt.images import ImageSource, View, read_images


def read_pictures(images: Sequence[ImageSource], view: View) -> list[Image.Image]:
    """All pictures of some images, in order.

    Raises:
        FileNotFoundError, ValueError, OSError: an image that cannot be read.
    """
    return [picture for image in images for picture in read_images(image, view)]
