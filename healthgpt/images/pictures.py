"""Ordinary pictures (PNG, JPEG, BMP, TIFF, WebP), by Pillow: the same pixels as the original's `convert("RGB")`.

They are known by their content, whatever the name. As in the original, transparency is dropped without compositing and
EXIF orientation is not applied. Files of several frames or pages are scans of several slices.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from healthgpt.images.limits import MAX_PIXELS, check_size
from healthgpt.images.quiet import quiet
from healthgpt.images.scan import Scan
from healthgpt.images.windows import Window

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# A 16-bit image whose brightest pixel is darker than this is 12-bit (or rarer) data in a 16-bit file.
_FULL_RANGE_16 = 8192
_FULL_RANGE = Window(65535, 32767.5, "full range", "LINEAR_EXACT")
_GREY = ("1", "L", "LA")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# TIFF's tags: bits of each channel, whether 0 is white, whether channels are apart (2), what numbers are (1: unsigned).
_BITS, _INTERPRETATION, _PLANES, _KIND = 258, 262, 284, 339


def read_picture(source: Path | bytes, name: str) -> Scan:
    """A picture's file, or its bytes.

    Raises:
        ValueError: of no known format, damaged, or too large.
    """
    return scan_of_picture(_decoded(lambda: _opened(source, name), name), name)


def scan_of_picture(image: Image.Image, name: str) -> Scan:
    """A PIL image, decoded frame by frame."""
    check_size(image.size, name)
    count = 1  # of an MPO, too: a phone's JPEG with its preview behind it
    if image.format != "MPO":
        count = _decoded(lambda: getattr(image, "n_frames", 1), name)

    def page(i: int) -> np.ndarray:
        return _decoded(lambda: _pixels(image if count == 1 else _page(image, i), name), name)

    first = page(0)

    def frame(i: int) -> np.ndarray:
        pixels = page(i) if i else first
        if (pixels.dtype, pixels.ndim) != (first.dtype, first.ndim):
            kinds = [f"{'colour' if kind.ndim == 3 else 'grey'} of {kind.dtype}" for kind in (pixels, first)]
            raise ValueError(f"{name}: page {i} is {kinds[0]}, and page 0 is {kinds[1]}; save it as a file of its own")
        return pixels

    settings: dict[str, Any] = {"ready": first.dtype == np.uint8}
    if first.dtype == np.uint16:
        others = (page(i) for i in range(1, count))
        settings |= _as_16_bit(max([int(first.max()), *(int(o.max()) for o in others if o.dtype == np.uint16)]))
    elif first.dtype != np.uint8:
        kind = "integer" if np.issubdtype(first.dtype, np.integer) else "floating-point"
        settings["unclear"] = f"32-bit {kind} pixels have no known black and white"
    if first.dtype != np.uint8 and image.format == "TIFF":  # of 8 bits, Pillow itself turns them
        settings["inverted"] = image.tag_v2.get(_INTERPRETATION) == 0  # type: ignore[attr-defined]
    return Scan(name=name, num_frames=count, frame=frame, shape=first.shape[:2], picture=True, **settings)


def scan_of_pixels(values: np.ndarray, name: str) -> Scan:
    """An array of 8 or 16 bits: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Raises:
        ValueError: another shape, or values of which black and white are not known.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ValueError(f"an array of shape {values.shape} is no image; expected (H, W), (H, W, 3) or (H, W, 4)")
    check_size((values.shape[1], values.shape[0]), name)
    settings: dict[str, Any] = {"ready": values.dtype == np.uint8}
    if values.dtype == np.uint16:
        settings |= _as_16_bit(int(values.max()))
        if values.ndim == 3 and "unclear" not in settings:
            values = np.rint(values / 257).astype(np.uint8)
            settings = {"ready": True}
    elif values.dtype != np.uint8:
        settings["unclear"] = f"an array of {values.dtype} has no known black and white; expected uint8 or uint16"
    pixels = values[:, :, :3] if values.ndim == 3 else values
    return Scan(name=name, num_frames=1, frame=lambda _: pixels, shape=pixels.shape[:2], picture=True, **settings)


def _as_16_bit(brightest: int) -> dict[str, Any]:
    """The full range 0...65535, unless it would leave the image nearly black."""
    if not 0 < brightest < _FULL_RANGE_16:
        return {"own_window": lambda _: _FULL_RANGE}
    return {"unclear": _too_dark(brightest)}


def _too_dark(brightest: int) -> str:
    return f"16-bit pixels up to {brightest} only, which would be nearly black over the full range of 65535"


def _opened(source: Path | bytes, name: str) -> Image.Image:
    if isinstance(source, bytes):
        return _checked(io.BytesIO(source), name)
    with source.open("rb") as file:  # what is no picture, or too large a one, is not read to its end
        _checked(file, name)
    return _checked(io.BytesIO(source.read_bytes()), name)


def _checked(file: BinaryIO, name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        if file.read(4) in _TIFF:
            raise ValueError(f"{name}: a damaged TIFF, or one of a kind that is not read") from None
        raise
    check_size(image.size, name)
    return image


def _page(image: Image.Image, i: int) -> Image.Image:
    image.seek(i)
    return image


def _decoded(read: Callable[[], Any], name: str) -> Any:
    """What `read` gives, Pillow's errors in words of ours."""
    try:
        with quiet("PIL"):
            return read()
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image of a known format ({', '.join(FORMATS)}, DICOM, NIfTI, ...)") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name}: more than {MAX_PIXELS} pixels") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged files end in errors of every kind
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise ValueError(f"{name}: a damaged or truncated image ({error})") from None


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    """(H, W) of uint8, uint16, int32, uint32 or float32, or (H, W, 3) uint8."""
    shortened = _is_shortened(image, name)
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillow's 16-bit PNG
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I" and image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        unsigned = tags.get(_BITS) == (32,) and tags.get(_KIND, (1,)) == (1,)
        return np.asarray(image).view(np.uint32) if unsigned else np.asarray(image)
    if image.mode in ("I", "F"):
        return np.asarray(image)
    try:
        pixels = np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{name}: pixels of mode {image.mode} cannot be shown as RGB ({error})") from None
    brightest = int(pixels.max()) * 256 + 255
    if shortened and brightest < _FULL_RANGE_16:
        raise ValueError(f"{name}: {_too_dark(brightest)}; save it with 8 bits a channel")
    return pixels


def _is_shortened(image: Image.Image, name: str) -> bool:
    """Whether Pillow, where it decodes, keeps 8 of 16 bits: of colour, and of grey with transparency."""
    if image.mode.startswith("I"):
        return False
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == 2 and max(tags.get(_BITS, (8,))) > 8:  # Pillow would take their bytes for pixels
        raise ValueError(f"{name}: a TIFF with channels of 16 bits apart from each other, expected them together")
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
