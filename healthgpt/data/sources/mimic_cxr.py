"""MIMIC-CXR (-JPG 2.1.0), 377,110 chest X-rays of 227,827 studies: their reports, drawings from reports, questions.

    ROOT/files/p10/p10000032/s50414267/<dicom_id>.jpg (or .dcm)    images; `p10` is the start of the subject's number
    ROOT/files/p10/p10000032/s50414267.txt                         reports, beside the folder of their study
    ROOT/mimic-cxr-2.0.0-split.csv[.gz]                            dicom_id, study_id, subject_id, split
    ROOT/mimic-cxr-2.0.0-metadata.csv[.gz]                         dicom_id, ViewPosition, ...
    ROOT/[dataset/ | mimiccxrvqa/dataset/]{train,valid,test}.json  MIMIC-CXR-VQA

Splits are the official ones, by subject; their `validate` is our validation. Reports and drawings are of the frontal
images (PA and AP); reports without findings and impression are passed over. Answers of MIMIC-CXR-VQA are lists, joined
by commas here; an empty one is "none".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthgpt.data.compact import CompactTable
from healthgpt.data.preparation import Sample, Source
from healthgpt.data.records import IMAGE_MARK
from healthgpt.data.sources.reports import WITHOUT_REPORT, report_question, report_text, split_report
from healthgpt.data.sources.shared import closed_by_answer, label_of, numbered_rows, plain, slug, text_of
from healthgpt.tasks import TaskType

SPLIT_NAME, METADATA_NAME = "mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.0.0-metadata.csv"
DRAWINGS = (
    "Draw the chest X-ray of this report: {}",
    "Generate a frontal chest X-ray: {}",
    "Generate an X-ray from the report. {}",
    "Please make the X-ray that fits this report: {}",
    "{}",
)
MODALITY = "x-ray"
_FRONTAL = ("PA", "AP")
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}
_VQA_SPLITS = {"train.json": "train", "valid.json": "validation", "test.json": "test"}
_VQA_FOLDERS = ("", "dataset", "mimiccxrvqa/dataset")


@dataclass(frozen=True, kw_only=True)
class _Frontal:
    """A frontal image and the report of its study; None where the report's file is missing."""

    name: str
    split: str
    subject: str
    image: Path
    view: str
    report_path: Path
    report: str | None


def mimic_cxr_reports(root: Path) -> Source:
    """Each frontal image, its report asked for."""
    return _source("mimic-cxr-reports", root, _reports)


def mimic_cxr_drawing(root: Path) -> Source:
    """Each report, its frontal X-ray to be drawn."""
    return _source("mimic-cxr-drawing", root, _drawings)


def mimic_cxr_vqa(root: Path) -> Source:
    """MIMIC-CXR-VQA's questions."""
    folders = [root / folder for folder in _VQA_FOLDERS]
    files = next((found for folder in folders if (found := _vqa_files(folder))), None)
    if files is None:
        raise FileNotFoundError(f"{root}: has no {', '.join(_VQA_SPLITS)}")
    return Source(name="mimic-cxr-vqa", samples=_questions(root, files), inputs=list(files), options={})


def _source(name: str, root: Path, make: Callable[[Iterator[_Frontal]], Iterator[Sample]]) -> Source:
    splits, metadata = _table(root, SPLIT_NAME), _table(root, METADATA_NAME)
    left_out: Counter[str] = Counter()
    samples = make(_frontal_images(root, splits, metadata, left_out))
    return Source(name=name, samples=samples, inputs=[splits, metadata], options={}, left_out=left_out)


def _table(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.exists():
            return path
    raise FileNotFoundError(f"{root}: has no {name} or {name}.gz")


def _vqa_files(folder: Path) -> dict[Path, str]:
    return {folder / name: split for name, split in _VQA_SPLITS.items() if (folder / name).exists()}


def _reports(frontal_images: Iterator[_Frontal]) -> Iterator[Sample]:
    for place, frontal in enumerate(frontal_images):
        yield Sample(
            id=f"mimic-cxr-report-{frontal.name}",
            split=frontal.split,
            group=frontal.subject,
            question=report_question(place),
            answer=frontal.report or "",
            images=(frontal.image, *_missing(frontal)),
            metadata={"kind": "report", "closed": False, "modality": MODALITY, "view": frontal.view},
        )


def _drawings(frontal_images: Iterator[_Frontal]) -> Iterator[Sample]:
    for place, frontal in enumerate(frontal_images):
        yield Sample(
            id=f"mimic-cxr-drawing-{frontal.name}",
            split=frontal.split,
            group=frontal.subject,
            question=DRAWINGS[place % len(DRAWINGS)].format(frontal.report),
            images=_missing(frontal),
            target=frontal.image,
            metadata={
                "kind": TaskType.REPORT_TO_CXR,
                "closed": False,
                "modality": MODALITY,
                "view": frontal.view,
            },
        )


def _missing(frontal: _Frontal) -> tuple[Path, ...]:
    """A report's file that is not there stands among the images: preparation lists it with all that is missing."""
    return () if frontal.report is not None else (frontal.report_path,)


def _frontal_images(root: Path, splits: Path, metadata: Path, left_out: Counter[str]) -> Iterator[_Frontal]:
    """In the order of the table of splits."""
    views = CompactTable(_views(metadata))
    for _, where, row in numbered_rows(splits):
        name, split = text_of(row, "dicom_id", where), text_of(row, "split", where)
        if split not in _SPLITS:
            raise ValueError(f"{where}: split is {split!r}, expected {', '.join(_SPLITS)}")
        folder = _study(root, row, where)
        view = views.get(name)
        if view is None:
            left_out["of another view than PA and AP"] += 1
            continue
        path = folder.with_suffix(".txt")
        report = _read_report(path)
        if report == "":
            left_out[WITHOUT_REPORT] += 1
            continue
        yield _Frontal(
            name=name,
            split=_SPLITS[split],
            subject=text_of(row, "subject_id", where),
            image=_image(folder, name),
            view=_FRONTAL[view],
            report_path=path,
            report=report,
        )


def _views(metadata: Path) -> Iterator[tuple[str, int]]:
    """Frontal images and their views."""
    for _, where, row in numbered_rows(metadata):
        if "ViewPosition" not in row:
            raise ValueError(f"{where}: expected a ViewPosition, found none")
        if (view := label_of(row, "ViewPosition").upper()) in _FRONTAL:
            yield text_of(row, "dicom_id", where), _FRONTAL.index(view)


def _study(root: Path, row: Mapping[str, Any], where: str) -> Path:
    subject, study = text_of(row, "subject_id", where), text_of(row, "study_id", where)
    if not (subject.isdigit() and study.isdigit()):
        raise ValueError(f"{where}: subject {subject!r} and study {study!r}, expected numbers")
    return root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"


def _image(folder: Path, name: str) -> Path:
    jpeg, dicom = folder / f"{name}.jpg", folder / f"{name}.dcm"
    return dicom if dicom.is_file() and not jpeg.is_file() else jpeg


def _read_report(path: Path) -> str | None:
    try:
        return report_text(*split_report(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as text ({error})") from None


def _questions(root: Path, files: Mapping[Path, str]) -> Iterator[Sample]:
    for path, split in files.items():
        for number, where, row in numbered_rows(path):
            folder, name = _study(root, row, where), text_of(row, "image_id", where)
            answer = _answer(row, where)
            yield Sample(
                id=f"mimic-cxr-vqa-{split}-{slug(plain(row.get('idx')) or str(number))}",
                split=split,
                group=text_of(row, "subject_id", where),
                question=f"{IMAGE_MARK}\n{text_of(row, 'question', where)}",
                answer=answer,
                images=(_image(folder, name),),
                metadata={
                    "kind": label_of(row, "content_type"),
                    "semantic_type": label_of(row, "semantic_type"),
                    "closed": closed_by_answer(answer),
                    "modality": MODALITY,
                },
            )


def _answer(row: Mapping[str, Any], where: str) -> str:
    answers = row.get("answer")
    if not isinstance(answers, list):
        raise ValueError(f"{where}: answer is {answers!r}, expected a list")
    return ", ".join(plain(answer) for answer in answers) or "none"
