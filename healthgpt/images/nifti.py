"""NIfTI, by nibabel: `.nii`, packed or not, and `.hdr` beside `.img`, in nibabel's orientation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from healthgpt.images.limits import check_size
from healthgpt.images.quiet import quiet
from healthgpt.images.scan import Plane, Scan, choose_volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SINGLE, _PAIR = (b"n+1", b"n+2"), (b"ni1", b"ni2")
_CHANNELS = "RGB"
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}  # what is no unit is taken for them


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins so is NIfTI, or the header of one."""
    return head[344:347] in (*_SINGLE, *_PAIR) or head[4:7] in (*_SINGLE, *_PAIR)


def read_nifti(source: Any, name: str, volume: int | None = None) -> Scan:
    """A NIfTI file.

    Args:
        source: a path, a file's bytes, or an image of nibabel.
        volume: which of a 4-D file's volumes.

    Raises:
        ValueError: damaged, more than one volume where none is chosen, or values that are no numbers.
    """
    try:
        with quiet("nibabel.global"):
            image = _opened(source, name)
            header, kind = image.header, image.get_data_dtype()
            shape = tuple(int(length) for length in image.shape)
            affine = np.asarray(image.affine, float)
            scaling = header.get_slope_inter() if hasattr(header, "get_slope_inter") else (None, None)
            unit = header.get_xyzt_units()[0] if hasattr(header, "get_xyzt_units") else "mm"
    except Exception as error:  # damaged headers end in errors of every kind
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise ValueError(f"{name}: a damaged NIfTI file ({type(error).__name__})") from None
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"{name}: values of shape {'x'.join(map(str, shape))}, expected two to four dimensions")
    check_size(shape, name)
    place = choose_volume(shape[3] if len(shape) > 3 else 1, volume, name)
    colour = kind.names is not None and kind.names[:3] == tuple(_CHANNELS)
    if not colour and not np.issubdtype(kind, np.number):
        raise ValueError(f"{name}: values of type {kind} are no picture")
    if np.issubdtype(kind, np.complexfloating):
        raise ValueError(f"{name}: complex values; save their magnitude")

    def values(frames: Any) -> np.ndarray:
        """Of one frame (an index) or of all of them (a slice), rows first."""
        cut: tuple[Any, ...] = (slice(None), slice(None), frames, place, *[0] * len(image.shape))[: len(image.shape)]
        try:
            with quiet("nibabel.global"):
                found = np.asarray(image.dataobj[cut])
        except Exception as error:
            raise ValueError(f"{name}: a truncated or damaged NIfTI file ({type(error).__name__})") from None
        return np.stack([found[channel].T for channel in _CHANNELS], axis=-1) if colour else found.T

    known = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-12
    affine = np.diag([*[_MILLIMETRES.get(unit, 1.0)] * 3, 1.0]) @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    columns, rows, count = (*shape, 1)[:3]
    scan = Scan(
        name=name,
        num_frames=count,
        frame=values,
        frames=(lambda: values(slice(None))) if len(shape) > 2 else None,
        shape=(rows, columns),
        spacing=(float(spacing[1]), float(spacing[0])) if known else None,
        affine=_RAS_TO_LPS @ affine if known else None,
        ready=colour or (kind == np.uint8 and scaling in ((1.0, 0.0), (None, None))),
        source=header,
    )
    return oriented(scan)


def _opened(source: Any, name: str) -> Any:
    import nibabel

    if isinstance(source, Path) and source.suffix.lower() in (".nii", ".hdr"):  # nibabel goes by endings
        if source.suffix.lower() == ".hdr" and not source.with_suffix(".img").is_file():
            raise ValueError(f"{name}: its values are in {source.with_suffix('.img').name}, which is not beside it")
        return nibabel.load(source, mmap=False)  # a file that is cut short while it is mapped ends the process
    data = source.read_bytes() if isinstance(source, Path) else source
    if not isinstance(data, bytes):
        return data
    if data[344:347] in _PAIR or data[4:7] in _PAIR:
        raise ValueError(f"{name}: a header of NIfTI alone, expected a .hdr file beside its .img, or a .nii file")
    kind = nibabel.Nifti2Image if data[4:7] in _SINGLE else nibabel.Nifti1Image
    return kind.from_bytes(data)


def oriented(scan: Scan) -> Scan:
    """A volume is looked at in axial slices, one slice in its own plane; nothing else says how to look at it."""
    plane = scan.frame_plane if scan.num_frames == 1 else Plane.AXIAL
    return dataclasses.replace(scan, default_plane=plane if scan.axes is not None else None)
