"""How fast medical files become values and records become data sets, beside the bare libraries.

    python benchmarks/images.py

Every pair is timed in turns in one process, the best of several; data sets are prepared in fresh processes, whose peak
memory is compared between a data set and one ten times as large.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from report import publish

from healthgpt.images import read_scan

TIMES = 5
_PREPARE = """
import json, resource, sys, time
from pathlib import Path
from healthgpt.data.preparation import prepare
from healthgpt.data.sources.vqa_csv import vqa_csv
started = time.perf_counter()
for done in prepare(vqa_csv(Path(sys.argv[1])), Path(sys.argv[2])):
    pass
print(json.dumps([done, time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=120)
    parser.add_argument("--records", type=int, default=3000)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [*_volumes(folder, flags.slices), *_data_sets(folder, flags.records)]
    publish("images", rows, slices=flags.slices)


def _volumes(folder: Path, slices: int) -> list[dict[str, object]]:
    values = np.random.default_rng(0).integers(-1000, 1500, (slices, 512, 512)).astype(np.int16)
    series = folder / "series"
    series.mkdir()
    for i, frame in enumerate(values):
        _ct(frame, i).save_as(series / f"{i:04d}.dcm", enforce_file_format=True)
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.eye(4))
    for ending in ("nii", "nii.gz"):
        nibabel.save(image, folder / f"v.{ending}")
    sitk.WriteImage(sitk.GetImageFromArray(values), folder / "v.mha")
    bare: dict[str, tuple[Path, Callable[[Path], object]]] = {
        "DICOM series": (series, _bare_series),
        "NIfTI": (folder / "v.nii", _bare_nifti),
        "NIfTI, packed": (folder / "v.nii.gz", _bare_nifti),
        "MetaImage": (folder / "v.mha", lambda path: sitk.GetArrayFromImage(sitk.ReadImage(path))),
    }
    rows = []
    for name, (path, library) in bare.items():
        ours, theirs = _in_turns(lambda path=path: read_scan(path).volume, lambda path=path, read=library: read(path))
        rows.append(
            {
                "what": name,
                "per second": slices / ours,
                "unit": "slices",
                "MB/s": values.nbytes / 1e6 / ours,
                "time / bare library's": ours / theirs,
                "peak memory, 10 times the records": None,
            }
        )
    return rows


def _bare_nifti(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).copy()  # a plain file is mapped, and read by being copied


def _bare_series(folder: Path) -> np.ndarray:
    files = [pydicom.dcmread(path) for path in folder.iterdir()]
    files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
    return np.stack([file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept) for file in files])


def _ct(values: np.ndarray, i: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = CTImageStorage, generate_uid(), "1.2"
    dataset.Modality, dataset.InstanceNumber = "CT", i
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, i], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [1, 1]
    dataset.PixelData = (values + 1024).astype(np.uint16).tobytes()
    return dataset


def _in_turns(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """The best times of two functions."""
    best = [float("inf"), float("inf")]
    for _ in range(TIMES):
        for i, function in enumerate((first, second)):
            started = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - started)
    return best[0], best[1]


def _data_sets(folder: Path, records: int) -> list[dict[str, object]]:
    images = folder / "pictures"
    images.mkdir()
    for i in range(50):
        Image.fromarray(np.full((64, 64), i, np.uint8)).save(images / f"{i}.png")
    found = []
    for times in (1, 10):
        table = folder / f"{times}.csv"
        lines = [f"pictures/{i % 50}.png,Is this picture number {i}?,no" for i in range(times * records)]
        table.write_text("image,question,answer\n" + "\n".join(lines) + "\n")
        command = [sys.executable, "-c", _PREPARE, str(table), str(folder / f"out-{times}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    (_, _, small), (count, seconds, large) = found
    return [
        {
            "what": "records of a table",
            "per second": count / seconds,
            "unit": "records",
            "MB/s": None,
            "time / bare library's": None,
            "peak memory, 10 times the records": large / small,
        }
    ]


if __name__ == "__main__":
    main()
