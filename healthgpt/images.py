"""Any image -> square-able RGB pixels, by Pillow, the same pixels as the original's `Image.open(...).convert("RGB")`.

Read: PNG, JPEG, BMP, TIFF and WebP (known by content, whatever the name), PIL images and 8- or 16-bit arrays.
Refused, with the reason: what cannot be read, animations and multi-page files (which page was meant?), floating-point
and 32-bit data (which range is black to white?), and medical formats, whose intensities need a window. Nothing is
ever replaced by a blank image.

As in the original, transparency is dropped without compositing and EXIF orientation is not applied.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

ImageSource = Any  # a path, bytes, a PIL image or an array; anything else is refused by name

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 178_956_970  # Pillow's own bound on decompression bombs
# A 16-bit image whose brightest pixel is darker than this is 12-bit (or rarer) data in a 16-bit file.
_FULL_RANGE_16 = 8192

_MEDICAL_SIGNATURES = (
    (128, b"DICM", "a DICOM file"),
    (344, b"n+1\0", "a NIfTI volume"),
    (344, b"ni1\0", "a NIfTI header"),
    (0, b"\x1f\x8b", "a gzip file (a compressed NIfTI volume?)"),
    (0, b"NRRD", "an NRRD volume"),
    (0, b"ObjectType", "a MetaImage (MHA/MHD) volume"),
    (0, b"\x93NUMPY", "a NumPy array file"),
)


def read_image(source: ImageSource) -> Image.Image:
    """Reads an image as 8-bit RGB.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array of shape (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4) with dtype uint8 or uint16.

    Raises:
        FileNotFoundError: no file at the path.
        ValueError: not an image that can be shown to the model without a guess; the message says why.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the image")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes):
        return _decode(source, "the image")
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such image")
        if path.is_dir():
            raise ValueError(f"{path}: expected an image file, found a folder")
        try:
            return _decode(path.read_bytes(), str(path))
        except PermissionError:
            raise ValueError(f"{path}: no permission to read it") from None
    if type(source).__module__.startswith("pydicom"):
        raise ValueError(f"the image is a DICOM dataset; {_MEDICAL_ADVICE}")
    raise ValueError(f"cannot read an image from a {type(source).__name__}; expected a path, PIL image or array")


_MEDICAL_ADVICE = "medical formats are not read by this version: export the slice as an 8-bit PNG, with its window"


def _decode(data: bytes, name: str) -> Image.Image:
    if not data:
        raise ValueError(f"{name}: an empty file")
    for offset, signature, kind in _MEDICAL_SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            raise ValueError(f"{name}: {kind}; {_MEDICAL_ADVICE}")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image.size, name)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a phone's JPEG with its preview behind it
            raise ValueError(f"{name}: has {frames} frames or pages; save the one that is meant as an image")
        image.load()
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name}: more than {MAX_PIXELS} pixels") from None
    except (OSError, SyntaxError, EOFError, MemoryError) as error:
        raise ValueError(f"{name}: a damaged or truncated image ({error})") from None
    return _to_rgb(image, name)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width == 0 or height == 0:
        raise ValueError(f"{name}: an image of size {width}x{height} has no pixels")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name}: {width}x{height} is more than {MAX_PIXELS} pixels")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.size, name)
    if image.mode.startswith("I;16"):
        return _from_16_bit(np.asarray(image).astype(np.uint16), name)
    if image.mode == "I" and image.format == "PNG":  # older Pillow's mode for 16-bit PNG
        return _from_16_bit(np.asarray(image).astype(np.uint16), name)
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise ValueError(f"{name}: {kind} pixels have no known black and white; save it as 8 or 16 bit")
    try:
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise ValueError(f"{name}: pixels of mode {image.mode} cannot be shown as RGB ({error})") from None


def _from_16_bit(pixels: np.ndarray, name: str) -> Image.Image:
    """(H, W) or (H, W, C) uint16 over the full range 0...65535 -> 8-bit RGB."""
    brightest = int(pixels.max())
    if 0 < brightest < _FULL_RANGE_16:
        raise ValueError(
            f"{name}: 16-bit pixels up to {brightest} only, which would be nearly black over the full range of 65535; "
            "rescale them to 8 bit with the window that is meant"
        )
    return _from_array(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _from_array(pixels: np.ndarray) -> Image.Image:
    """An array of pixels -> RGB; see `read_image` for the shapes and dtypes."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise ValueError(f"an array of shape {pixels.shape} is no image; expected (H, W), (H, W, 3) or (H, W, 4)")
    _check_size((pixels.shape[1], pixels.shape[0]), "the array")
    if pixels.dtype == np.uint16:
        return _from_16_bit(pixels, "the array")
    if pixels.dtype != np.uint8:
        raise ValueError(f"an array of {pixels.dtype} has no known black and white; expected uint8 or uint16")
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


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
    from healthgpt.files import write_atomically

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
