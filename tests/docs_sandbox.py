"""A folder in which the documentation's commands find what they name: small images, volumes, tables and data sets, and
small models in the layout of the released files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "healthgpt" / "examples"
GOLDEN = ROOT / "tests" / "golden"
# What commands name as if they stood in the repository.
REPOSITORY = (
    ".venv", "benchmarks", "configs", "demo", "healthgpt", "pyproject.toml", "setup.py", "taming_transformers",
)  # fmt: skip
# What stands in for the released files.
RELEASED = {
    "Phi-3-mini-4k-instruct": "m3/base",
    "clip-vit-large-patch14-336": "m3/vit",
    "com_hlora_weights.bin": "m3/com_hlora_weights.bin",
    "gen_hlora_weights.bin": "m3/gen_hlora_weights.bin",
    "fusion_layer_weights.bin": "m3/fusion_layer_weights.bin",
    "vqgan": "vqgan",
}
PICTURES = {
    "chest.png": "chest_xray.png", "xray.png": "chest_xray.png", "ct.png": "brain_ct.png", "mri.png": "brain_mri.png",
    "before.png": "brain_ct.png", "after.png": "brain_mri.png", "a.png": "brain_ct.png", "b.png": "chest_xray.png",
}  # fmt: skip


def write_sandbox(folder: Path) -> Path:
    """Fills an empty folder."""
    for name in (*REPOSITORY, *(path.name for path in ROOT.glob("requirements*.txt"))):
        (folder / name).symlink_to(ROOT / name)
    write_scripts(folder / "scripts")
    for name, golden in RELEASED.items():
        (folder / name).symlink_to(GOLDEN / golden)
    for name, example in PICTURES.items():
        (folder / name).write_bytes((EXAMPLES / example).read_bytes())
    write_scans(folder)
    write_questions(folder)
    write_slake(folder / "raw" / "slake")
    write_synthrad(folder / "raw" / "synthrad2023")
    return folder


def write_scripts(folder: Path) -> None:
    """The scripts; setting up happens where the environment is, else it would be taken for one of this folder."""
    folder.mkdir()
    for path in (ROOT / "scripts").iterdir():
        if path.name != "setup.sh":
            (folder / path.name).symlink_to(path)
    (folder / "setup.sh").write_text(f'exec bash {ROOT / "scripts" / "setup.sh"} "$@"\n', encoding="utf-8")


def hounsfield(slices: int = 40, side: int = 32) -> NDArray[np.int16]:
    """(slices, side, side): a ball of soft tissue with a ball of bone in it, in air."""
    z, y, x = np.mgrid[:slices, :side, :side].astype(np.float32)
    far = np.sqrt(((z - slices / 2) * 0.7) ** 2 + (y - side / 2) ** 2 + (x - side / 2) ** 2)
    values = np.full((slices, side, side), -1000, np.int16)
    values[far < side * 0.4] = 40
    values[far < side * 0.15] = 900
    return values


def write_scans(folder: Path) -> None:
    """A volume, a series and one file of it."""
    values = hounsfield()
    save_nifti(folder / "volume.nii.gz", values)
    series = folder / "series_folder"
    scans = folder / "scans"
    series.mkdir()
    scans.mkdir()
    uids = generate_uid(), generate_uid()
    for number, slice_values in enumerate(values):
        save_slice(series / f"{number:03d}.dcm", slice_values, number, uids)
    save_slice(folder / "scan.dcm", values[20], 0, uids)
    for name in ("one", "two"):
        save_nifti(scans / f"{name}.nii.gz", values)


def save_nifti(path: Path, values: NDArray[np.int16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), np.diag([-1.0, -1.0, 2.0, 1.0]))
    nibabel.save(image, path)


def save_slice(path: Path, values: NDArray[np.int16], number: int, uids: tuple[str, str]) -> None:
    """A slice of a CT series, without a patient."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    slice_ = Dataset()
    slice_.file_meta = meta
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, generate_uid()
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID = uids
    slice_.Modality, slice_.InstanceNumber = "CT", number + 1
    slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
    slice_.PixelSpacing, slice_.SliceThickness = [1, 1], 2
    slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
    slice_.Rows, slice_.Columns = values.shape
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation = 15, 0
    slice_.PixelData = (values.astype(np.int32) + 1024).astype(np.uint16).tobytes()
    slice_.save_as(path, enforce_file_format=True)


def write_questions(folder: Path) -> None:
    """Files for `healthgpt batch`."""
    rows = [
        {"question_id": "q1", "text": "Is there a pleural effusion?", "image": "chest.png"},
        {"question_id": "d1", "text": "Turn this CT into an MRI.", "image": "ct.png", "task": "generation"},
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, columns in (("questions.csv", ("question_id", "text", "image", "task")), ("cases.csv", ("id", "file"))):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for number, row in enumerate(rows):
                cells = {**row, "id": number, "file": row["image"]}
                writer.writerow([cells.get(column, "comprehension") for column in columns])


def write_slake(root: Path) -> None:
    """SLAKE as it is distributed, with a question per split and language."""
    picture = (EXAMPLES / "chest_xray.png").read_bytes()
    for number, split in enumerate(("train", "validation", "test")):
        image = root / "imgs" / f"xmlab{number}" / "source.jpg"
        image.parent.mkdir(parents=True)
        image.write_bytes(picture)
        rows = [
            {
                "img_id": number, "img_name": f"xmlab{number}/source.jpg", "question": question, "answer": answer,
                "q_lang": language, "location": "Lung", "modality": "X-Ray", "answer_type": kind,
                "base_type": "vqa", "content_type": "Abnormality", "triple": ["vhead", "_", "_"],
                "qid": 10 * number + place,
            }
            for place, (question, answer, language, kind) in enumerate(
                (("Is there an effusion?", "Yes", "en", "CLOSED"), ("这是什么?", "胸部", "zh", "OPEN"))
            )
        ]  # fmt: skip
        (root / f"{split}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def write_synthrad(root: Path) -> None:
    """Patients of SynthRAD2023's first task, small ones."""
    values = hounsfield(6)
    mask = (values > -500).astype(np.int16)
    for region, letter in (("brain", "B"), ("pelvis", "P")):
        for number in range(1, 4):
            patient = root / "Task1" / region / f"1{letter}A{number:03d}"
            for name, volume in (("ct", values), ("mr", np.abs(values)), ("mask", mask)):
                save_nifti(patient / f"{name}.nii.gz", volume)


def grey(path: Path) -> NDArray[np.uint8]:
    """An image's grey values."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))
