"""Pictures on their way out: the square that the model takes, and files, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from healthgpt.files import write_atomically
from healthgpt.images.pictures import FORMATS


def pad_to_square(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Centres an RGB image on a square of its longer side, as the original's `expand2square` (offsets rounded down)."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), background)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def save_image(image: Image.Image, path: Path) -> None:
    """Writes an image, whole or not at all, in the format of the path's ending.

    Raises:
        ValueError: an ending without a format, or a place that cannot be written.
    """
    image_format = format_of(path)
    write_atomically(path, lambda temporary: image.save(temporary, format=image_format))


def format_of(path: Path) -> str:
    """The image format of a path's ending.

    Raises:
        ValueError: it has none of `FORMATS`.
    """
    Image.init()
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format not in FORMATS:
        raise ValueError(f"{path}: the ending {path.suffix!r} names none of the formats {', '.join(FORMATS)}")
    return image_format
