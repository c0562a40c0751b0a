"""The pixels of a DICOM frame, decoded by pydicom and its plugins."""

from __future__ import annotations

from typing import Any

import numpy as np

from healthgpt.images.dicom_header import Instance, code, readable
from healthgpt.images.quiet import quiet


class FrameReader:
    """Decodes frames: (R, C) after the modality's rescaling, or (R, C, 3) uint8."""

    def __init__(self, frames: list[tuple[Instance, int]], scale: float | None):
        self._frames = frames
        self._scale = scale  # of pictures of fewer bits than eight
        self._open: tuple[Instance, Any] | None = None

    def __call__(self, i: int) -> np.ndarray:
        instance, frame = self._frames[i]
        if self._open is None or self._open[0] is not instance:
            self._open = (instance, instance.read())
        pixels = _decoded(self._open[1], frame, instance.name)
        if pixels.ndim == 3:
            return pixels
        if self._scale is not None:
            return np.rint(pixels * self._scale).astype(np.uint8)
        with readable(instance.name):
            return _rescaled(pixels, instance, frame)


def _decoded(dataset: Any, frame: int, name: str) -> np.ndarray:
    """Stored values of a frame; colour as RGB of 8 bits."""
    from pydicom.pixels import apply_color_lut, pixel_array
    from pydicom.uid import RLELossless

    if not any(field in dataset for field in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError(f"{name}: a DICOM file without pixels ({code(dataset, 'Modality') or 'of no modality'})")
    with quiet("pydicom"):
        try:
            if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
                _assume_transfer_syntax(dataset)
            # Of run lengths, pydicom's own decoder refuses damaged ones; the plugin panics, over many lines.
            plugin = "pydicom" if dataset.file_meta.TransferSyntaxUID == RLELossless else ""
            pixels = pixel_array(dataset, index=frame, decoding_plugin=plugin)
            if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
                pixels = apply_color_lut(pixels, dataset)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # decoders raise errors of every kind at damaged data, panics of Rust among them
            raise ValueError(f"{name}: pixels that cannot be decoded ({type(error).__name__})") from None
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ValueError(f"{name}: pixels of shape {pixels.shape} are no picture")
    return _as_8_bit(pixels[:, :, :3], dataset, name)


def _as_8_bit(pixels: np.ndarray, dataset: Any, name: str) -> np.ndarray:
    """Colour of any depth -> uint8."""
    if pixels.dtype in (np.uint16, np.uint32):
        most = 2 ** int(dataset.get("BitsStored") or 8 * pixels.itemsize) - 1
        if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            most = 2 ** int(dataset.RedPaletteColorLookupTableDescriptor[2]) - 1
        pixels = np.rint(pixels * (255 / most)).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"{name}: colour of {pixels.dtype} cannot be shown")
    return pixels


def _assume_transfer_syntax(dataset: Any) -> None:
    """Files without a preamble do not name it: as they were read, so their pixels are."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta = getattr(dataset, "file_meta", FileMetaDataset())
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _rescaled(pixels: np.ndarray, instance: Instance, frame: int) -> np.ndarray:
    """Stored values -> the modality's."""
    from pydicom.pixels import apply_modality_lut

    if instance.dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(pixels, instance.dataset)
    slope, intercept = instance.rescale(frame)
    return pixels if (slope, intercept) == (1, 0) else pixels * slope + intercept
