"""Ordinary pictures (PNG, JPEG, BMP, TIFF, WebP), by Pillow: the same pixels as the original's `convert("RGB")`.

They are known by their content, whatever the name. As in the original, transparency is dropped without compositing and
EXIF orientation is not applied. Files of several frames or pages are scans of several slices.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from healthgpt.images.limits import MAX_PIXELS, check_size
from healthgpt.images.scan import Scan
from healthgpt.images.windows import Window

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# A 16-bit image whose brightest pixel is darker than this is 12-bit (or rarer) data in a 16-bit file.
_FULL_RANGE_16 = 8192
_FULL_RANGE = Window(65535, 32767.5, "full range", "LINEAR_EXACT")
_GREY = ("1", "L", "LA")


def read_picture(data: bytes, name: str) -> Scan:
    """A picture file's bytes.

    Raises:
        ValueError: of no known format, damaged, or too large.
    """
    image = _decoded(lambda: _opened(data, name), name)
    return scan_of_picture(image, name)


def scan_of_picture(image: Image.Image, name: str) -> Scan:
    """A PIL image, decoded frame by frame."""
    check_size(image.size, name)
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a phone's JPEG with its preview behind it

    def frame(i: int) -> np.ndarray:
        if count == 1:
            return _decoded(lambda: _pixels(image, name), name)
        return _decoded(lambda: _pixels(_page(image, i), name), name)

    first = frame(0)
    settings: dict[str, Any] = {"ready": first.dtype == np.uint8}
    if first.dtype == np.uint16:
        settings |= _as_16_bit(first)
    elif first.dtype != np.uint8:
        kind = "32-bit integer" if np.issubdtype(first.dtype, np.integer) else "floating-point"
        settings["unclear"] = f"{kind} pixels have no known black and white"
    return Scan(
        name=name, num_frames=count, frame=frame if count > 1 else lambda _: first, shape=first.shape[:2], **settings
    )


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
        settings |= _as_16_bit(values)
        if values.ndim == 3 and "unclear" not in settings:
            values = np.rint(values / 257).astype(np.uint8)
            settings = {"ready": True}
    elif values.dtype != np.uint8:
        settings["unclear"] = f"an array of {values.dtype} has no known black and white; expected uint8 or uint16"
    pixels = values[:, :, :3] if values.ndim == 3 else values
    return Scan(name=name, num_frames=1, frame=lambda _: pixels, shape=pixels.shape[:2], **settings)


def _as_16_bit(pixels: np.ndarray) -> dict[str, Any]:
    """The full range 0...65535, unless it would leave the image nearly black."""
    brightest = int(pixels.max())
    if not 0 < brightest < _FULL_RANGE_16:
        return {"windows": (_FULL_RANGE,)}
    return {
        "unclear": f"16-bit pixels up to {brightest} only, which would be nearly black over the full range of 65535"
    }


def _opened(data: bytes, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    check_size(image.size, name)
    return image


def _page(image: Image.Image, i: int) -> Image.Image:
    image.seek(i)
    return image


def _decoded(read: Callable[[], Any], name: str) -> Any:
    """What `read` gives, Pillow's errors in words of ours."""
    try:
        return read()
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image of a known format ({', '.join(FORMATS)}, DICOM, NIfTI, ...)") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name}: more than {MAX_PIXELS} pixels") from None
    except (OSError, SyntaxError, EOFError, MemoryError) as error:
        raise ValueError(f"{name}: a damaged or truncated image ({error})") from None


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    """(H, W) of uint8, uint16, int32 or float32, or (H, W, 3) uint8."""
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillow's 16-bit PNG
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return np.asarray(image)
    try:
        return np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{name}: pixels of mode {image.mode} cannot be shown as RGB ({error})") from None
