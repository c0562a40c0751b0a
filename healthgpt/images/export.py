"""A drawn picture as a medical file: DICOM secondary capture, or NIfTI in the geometry of the slice it was drawn from.

Nothing of a patient is written unless it is asked for: a new study, with references to the source's images.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.files import write_atomically
from healthgpt.images.saving import format_of, save_image
from healthgpt.images.view import Seen

DICOM_ENDINGS = (".dcm", ".dicom")
NIFTI_ENDINGS = (".nii", ".nii.gz")
_DERIVATION = "Drawn by HealthGPT, a generative model; synthetic, not for diagnosis"
# What of a source's header `keep_patient` copies: patient and study (PS3.3 C.7.1.1, C.7.2.1).
_PATIENT_FIELDS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "StudyDescription",
)  # fmt: skip
# Attributes of type 2, which have to be there, if empty.
_EMPTY_FIELDS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_BASIC_PROFILE = ("113100", "DCM", "Basic Application Confidentiality Profile")


def kind_of(path: Path) -> str:
    """dicom, nifti, or Pillow's name of the ending's format.

    Raises:
        ValueError: an ending without a format.
    """
    name = path.name.lower()
    if name.endswith(DICOM_ENDINGS):
        return "dicom"
    return "nifti" if name.endswith(NIFTI_ENDINGS) else format_of(path)


def export_image(
    image: Image.Image,
    path: Path,
    source: Seen | None = None,
    *,
    keep_patient: bool = False,
    deidentify: bool = False,
) -> None:
    """Writes a drawn picture, whole or not at all, in the format of the path's ending.

    Args:
        image: what was drawn; medical files hold it as 8-bit grey, on the pixel grid of `source`.
        source: the slice that it was drawn from; None for what was drawn from words.
        keep_patient: copy the source's patient and study into a DICOM file.
        deidentify: write no reference to the source either, as DICOM PS3.15's basic profile has it, and say so.

    Raises:
        ValueError: an ending without a format, a place that cannot be written, flags that exclude each other, or no
            patient to keep.
    """
    check_export(path, source, keep_patient, deidentify)
    kind = kind_of(path)
    if kind == "dicom":
        dataset = _secondary_capture(image, source, keep_patient, deidentify)
        write_atomically(path, partial(dataset.save_as, enforce_file_format=True))
    elif kind == "nifti":
        _write_nifti(image, path, source)
    else:
        save_image(image, path)


def check_export(path: Path, source: Seen | None, keep_patient: bool, deidentify: bool) -> None:
    """Fails before a picture is drawn where it could not be exported as asked.

    Raises:
        ValueError: as `export_image`.
    """
    kind = kind_of(path)
    if keep_patient and deidentify:
        raise ValueError("keeping the patient and deidentifying exclude each other")
    if keep_patient and kind != "dicom":
        raise ValueError(f"{path}: holds no patient to keep, expected a name that ends in {' or '.join(DICOM_ENDINGS)}")
    if keep_patient and (source is None or not _is_dicom(source)):
        raise ValueError("there is no patient to keep: the picture is not drawn from one DICOM image")


def on_source_grid(image: Image.Image, source: Seen) -> np.ndarray:
    """A drawn square back on its slice's own pixels: padding cut off, stretched pixels undone: (R, C) uint8."""
    picture = source.picture()
    side = max(picture.size)
    left, top = (side - picture.width) // 2, (side - picture.height) // 2
    square = image.convert("L").resize((side, side), Image.Resampling.BICUBIC)
    cut = square.crop((left, top, left + picture.width, top + picture.height))
    rows, columns = source.pixels.shape[:2]
    return np.asarray(cut.resize((columns, rows), Image.Resampling.BICUBIC))


def _write_nifti(image: Image.Image, path: Path, source: Seen | None) -> None:
    import nibabel

    pixels = np.asarray(image.convert("L")) if source is None else on_source_grid(image, source)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    if source is not None and source.affine is not None:
        affine = affine @ source.affine
    volume = nibabel.Nifti1Image(np.ascontiguousarray(pixels.T[..., None]), affine)
    volume.header.set_xyzt_units("mm")
    # nibabel goes by the ending, and the temporary file has another.
    data = volume.to_bytes()
    if path.name.lower().endswith(".gz"):
        import gzip

        data = gzip.compress(data, mtime=0)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def _secondary_capture(image: Image.Image, source: Seen | None, keep_patient: bool, deidentify: bool) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    headers: Sequence[Any] = source.scan.source if source is not None and _is_dicom(source) else ()
    pixels = np.asarray(image.convert("L")) if source is None else on_source_grid(image, source)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    for field in _EMPTY_FIELDS:
        setattr(dataset, field, "")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    if keep_patient and headers:
        for field in _PATIENT_FIELDS:
            if field in headers[0]:
                setattr(dataset, field, headers[0][field].value)
    now = datetime.now()
    dataset.ContentDate, dataset.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.Modality, dataset.ConversionType, dataset.ImageType = "OT", "WSD", ["DERIVED", "SECONDARY"]
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.DerivationDescription = _DERIVATION
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    if source is not None and source.spacing is not None:
        dataset.PixelSpacing = [round(length, 8) for length in source.spacing]
    if source is not None and headers and not deidentify:
        files = source.frames if len(headers) > 1 else (0,)  # else the file holds all frames
        dataset.SourceImageSequence = [_reference(headers[i]) for i in files]
    if deidentify:
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "DICOM PS3.15 Basic Application Level Confidentiality Profile"
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = _BASIC_PROFILE
        dataset.DeidentificationMethodCodeSequence = [code]
        dataset.ContentDate = dataset.ContentTime = ""
    return dataset


def _is_dicom(source: Seen) -> bool:
    return isinstance(source.scan.source, tuple)


def _reference(header: Any) -> Any:
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = header.get("SOPClassUID", "")
    reference.ReferencedSOPInstanceUID = header.get("SOPInstanceUID", "")
    return reference
