"""IU X-ray: 7,470 chest X-rays of 3,955 studies with reports, as MedEvalKit has it, or as Open-i's tables.

    ROOT/{train,val,test}.json, ROOT/images/CXR1_1_IM-0001/0.png        [{"id", "image": [paths], findings, impression}]
    ROOT/indiana_reports.csv                                            uid, findings, impression, ...
    ROOT/indiana_projections.csv                                        uid, filename, projection (Frontal or Lateral)
    ROOT/images/images_normalized/1_IM-0001-4001.dcm.png                (or in ROOT/images)

A report is asked of all images of its study, frontal ones first. The files of the first form are its official splits;
those of the second, which has none, are by subject from a seed. Reports without findings and impression, and those
without images, are passed over. `XXXX` in place of what identifies a patient is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import Sample, Source, split_of
from healthgpt.data.sources.reports import normalised, report_question, report_text, required_text
from healthgpt.data.sources.shared import slug
from healthgpt.data.tables import rows_of
from healthgpt.files import require_file

REPORTS_NAME, PROJECTIONS_NAME = "indiana_reports.csv", "indiana_projections.csv"
PARTS = {"train": 0.7, "validation": 0.1, "test": 0.2}  # of Open-i's subjects
_SPLITS = {
    "train.json": "train",
    "val.json": "validation",
    "valid.json": "validation",
    "validation.json": "validation",
    "test.json": "test",
}
_PROJECTIONS = ("Frontal", "Lateral")


def iu_xray(root: Path, *, seed: int = 0, multi_image: bool = True) -> Source:
    """The source in a folder of either layout.

    Args:
        seed: of splits, where none are official.
        multi_image: all images of a study, or the first one only.
    """
    files = {root / name: split for name, split in _SPLITS.items() if (root / name).exists()}
    options: dict[str, Any] = {"multi_image": multi_image}
    if files:
        return Source(name="iu-xray", samples=_listed(root, files, multi_image), inputs=list(files), options=options)
    if not (root / REPORTS_NAME).exists():
        raise FileNotFoundError(f"{root}: has no test.json or {REPORTS_NAME}")
    reports, projections = root / REPORTS_NAME, require_file(root / PROJECTIONS_NAME)
    samples = _tabled(_image_folder(root), reports, projections, seed, multi_image)
    return Source(
        name="iu-xray", samples=samples, inputs=[reports, projections], options=options | {"seed": seed, "parts": PARTS}
    )


def _listed(root: Path, files: Mapping[Path, str], multi_image: bool) -> Iterator[Sample]:
    place = 0
    for path, split in files.items():
        for number, row in enumerate(rows_of(path), start=1):
            where = f"{path}, record {number}"
            images = _listed_images(row, root, where)
            report = _report(row, where)
            if images and report:
                name = required_text(row, "id", where)
                yield _sample(name, split, images if multi_image else images[:1], report, place)
                place += 1


def _tabled(images: Path, reports: Path, projections: Path, seed: int, multi_image: bool) -> Iterator[Sample]:
    taken = _projected(projections)
    place = 0
    for number, row in enumerate(rows_of(reports), start=1):
        where = f"{reports}, row {number}"
        subject = required_text(row, "uid", where)
        report = _report(row, where)
        names = taken.get(subject, [])
        if names and report:
            paths = [images / name for name in (names if multi_image else names[:1])]
            yield _sample(subject, split_of(subject, seed, PARTS), paths, report, place)
            place += 1


def _sample(name: str, split: str, images: Sequence[Path], report: str, place: int) -> Sample:
    return Sample(
        id=f"iu-xray-{slug(name)}",
        split=split,
        group=name,
        question=report_question(place, len(images)),
        answer=report,
        images=images,
        metadata={"kind": "report", "closed": False, "modality": "x-ray"},
    )


def _listed_images(row: Mapping[str, Any], root: Path, where: str) -> list[Path]:
    names = row.get("image")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{where}: image is {names!r}, expected a list of paths")
    return [root / "images" / name.removeprefix("images/") for name in names]


def _image_folder(root: Path) -> Path:
    normalized = root / "images" / "images_normalized"
    return normalized if normalized.is_dir() else root / "images"


def _projected(path: Path) -> dict[str, list[str]]:
    """Names of each subject's images, frontal ones first."""
    found: dict[str, dict[str, list[str]]] = {}
    for number, row in enumerate(rows_of(path), start=1):
        where = f"{path}, row {number}"
        projection = required_text(row, "projection", where)
        if projection not in _PROJECTIONS:
            raise ValueError(f"{where}: projection is {projection!r}, expected {' or '.join(_PROJECTIONS)}")
        by_projection = found.setdefault(required_text(row, "uid", where), {name: [] for name in _PROJECTIONS})
        by_projection[projection].append(required_text(row, "filename", where))
    return {subject: [name for names in parts.values() for name in names] for subject, parts in found.items()}


def _report(row: Mapping[str, Any], where: str) -> str:
    if "findings" not in row and "impression" not in row:
        raise ValueError(f"{where}: expected findings or an impression, found neither")
    findings, impression = (normalised(str(row.get(name) or "")) for name in ("findings", "impression"))
    return report_text(findings, impression)
