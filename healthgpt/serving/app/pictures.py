"""Pictures as the page has them, in its own text, and as downloads; none of them is a file that others can get."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from healthgpt.images import Seen
from healthgpt.images.export import export_image

# Endings of downloads, and their media types.
KINDS = {".png": "image/png", ".dcm": "application/dicom", ".nii.gz": "application/gzip"}
_LARGEST = 1024  # pixels of a side, of what is shown; downloads have all


def as_address(image: Image.Image) -> str:
    """A picture as a data URL: a PNG, made smaller where it is very large."""
    shown = image.copy()
    shown.thumbnail((_LARGEST, _LARGEST))
    file = io.BytesIO()
    shown.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def as_file(image: Image.Image, kind: str, source: Seen | None, folder: Path) -> bytes:
    """A drawn picture as a file.

    Args:
        kind: one of `KINDS`.
        source: the slice that it was drawn from; medical files have its pixel grid.
        folder: for a moment's temporary file.

    Raises:
        KeyError: no such kind.
    """
    if kind not in KINDS:
        raise KeyError(kind)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / f"drawn{kind}"
        export_image(image, path, source)
        return path.read_bytes()
