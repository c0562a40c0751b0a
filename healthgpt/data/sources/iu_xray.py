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

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import Sample, Source, split_of
from healthgpt.data.sources.reports import WITHOUT_REPORT, normalised, report_question, report_text
from healthgpt.data.sources.shared import numbered_rows, plain, slug, text_of
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
    left_out: Counter[str] = Counter()
    if files:
        samples = _listed(root, files, multi_image, left_out)
        return Source(name="iu-xray", samples=samples, inputs=list(files), options=options, left_out=left_out)
    if not (root / REPORTS_NAME).exists():
        raise FileNotFoundError(f"{root}: has no test.json or {REPORTS_NAME}")
    reports, projections = root / REPORTS_NAME, require_file(root / PROJECTIONS_NAME)
    return Source(
        name="iu-xray",
        samples=_tabled(_image_folder(root), reports, projections, seed, multi_image, left_out),
        inputs=[reports, projections],
        options=options | {"seed": seed, "parts": PARTS},
        left_out=left_out,
    )


def _listed(root: Path, files: Mapping[Path, str], multi_image: bool, left_out: Counter[str]) -> Iterator[Sample]:
    place = 0
    for path, split in files.items():
        for _, where, row in numbered_rows(path):
            images = _listed_images(row, root, where)
            report = _report(row, where)
            if _is_whole(images, report, left_out):
                name = text_of(row, "id", where)
                yield _sample(name, split, images if multi_image else images[:1], report, place)
                place += 1


def _tabled(
    images: Path, reports: Path, projections: Path, seed: int, multi_image: bool, left_out: Counter[str]
) -> Iterator[Sample]:
    taken = _projected(projections)
    place = 0
    for _, where, row in numbered_rows(reports):
        subject = text_of(row, "uid", where)
        report = _report(row, where)
        names = taken.get(subject, [])
        if _is_whole(names, report, left_out):
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


def _is_whole(images: Sequence[Any], report: str, left_out: Counter[str]) -> bool:
    """Whether a study has images and a report; what is left out is counted."""
    if not images:
        left_out["without images"] += 1
    elif not report:
        left_out[WITHOUT_REPORT] += 1
    return bool(images and report)


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
    for _, where, row in numbered_rows(path):
        projection = text_of(row, "projection", where)
        if projection not in _PROJECTIONS:
            raise ValueError(f"{where}: projection is {projection!r}, expected {' or '.join(_PROJECTIONS)}")
        by_projection = found.setdefault(text_of(row, "uid", where), {name: [] for name in _PROJECTIONS})
        by_projection[projection].append(text_of(row, "filename", where))
    return {subject: [name for names in parts.values() for name in names] for subject, parts in found.items()}


def _report(row: Mapping[str, Any], where: str) -> str:
    if "findings" not in row and "impression" not in row:
        raise ValueError(f"{where}: expected findings or an impression, found neither")
    findings, impression = (normalised(plain(row.get(name))) for name in ("findings", "impression"))
    return report_text(findings, impression)
