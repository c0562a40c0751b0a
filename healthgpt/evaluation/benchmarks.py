"""Benchmarks as data: which prepared records each one asks about, and how its answers are scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import MANIFEST_NAME, MISSING_NAME
from healthgpt.data.records import IMAGE_MARK, RecordFile
from healthgpt.files import read_json
from healthgpt.tasks import Task, TaskType

Row = dict[str, Any]
RECONSTRUCT = "Reconstruct the image."
PHANTOMS = "phantoms"  # a benchmark that is drawn, not prepared (`phantoms.select_phantoms`)


class Scoring(StrEnum):
    """What the answers are: replies to questions, reports, drawings, or those of phantoms, which are both."""

    QUESTIONS = "questions"
    REPORTS = "reports"
    DRAWINGS = "drawings"
    PHANTOMS = "phantoms"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        sources: of `healthgpt prepare`, any of which has its records.
        scoring: how answers are scored.
        row: a record -> what is asked, None where it is none of this benchmark's.
        splits: the first one that is there is taken.
    """

    sources: tuple[str, ...]
    scoring: Scoring = Scoring.QUESTIONS
    row: Callable[[Row], Row | None] = lambda row: row
    splits: tuple[str, ...] = ("test", "validation")

    @property
    def task(self) -> Task:
        return Task.GENERATION if self.scoring is Scoring.DRAWINGS else Task.COMPREHENSION


def _conversion(kind: TaskType, region: str) -> Benchmark:
    wanted = {"kind": str(kind), "region": region}

    def row(record: Row) -> Row | None:
        return record if wanted.items() <= record["metadata"].items() else None

    return Benchmark(sources=("synthrad2023",), scoring=Scoring.DRAWINGS, row=row)


def _reconstruction(record: Row) -> Row | None:
    """Of records of conversions, each image drawn from itself; of reconstructions, the records themselves."""
    facts = record["metadata"]
    if facts.get("kind") not in (TaskType.CT_TO_MRI, TaskType.MRI_TO_CT):
        return record if facts.get("kind") == TaskType.RECONSTRUCTION else None
    modality = "CT" if facts["kind"] == TaskType.CT_TO_MRI else "MRI"
    kept = {name: fact for name, fact in facts.items() if name != "ct_range" or modality == "CT"}
    return {
        **record,
        "id": f"{record['id']}-reconstruction",
        "conversations": [{"from": "human", "value": f"{IMAGE_MARK}\n{RECONSTRUCT}"}, {"from": "gpt", "value": ""}],
        "target_image": record["image"],
        "metadata": {**kept, "kind": f"{modality} {facts['region']}", "modality": modality},
    }


BENCHMARKS: Mapping[str, Benchmark] = {
    "vqa-rad": Benchmark(sources=("vqa-rad",)),
    "slake": Benchmark(sources=("slake",)),
    "pathvqa": Benchmark(sources=("pathvqa",)),
    "omnimedvqa": Benchmark(sources=("omnimedvqa",)),
    "mmmu-med": Benchmark(sources=("mmmu-med",)),
    "pmc-vqa": Benchmark(sources=("pmc-vqa",)),
    "medxpertqa-mm": Benchmark(sources=("medxpertqa-mm",)),
    "vqa-csv": Benchmark(sources=("vqa-csv",)),
    "report-generation": Benchmark(sources=("mimic-cxr-reports", "iu-xray"), scoring=Scoring.REPORTS),
    "synthrad-ct2mri-brain": _conversion(TaskType.CT_TO_MRI, "brain"),
    "synthrad-ct2mri-pelvis": _conversion(TaskType.CT_TO_MRI, "pelvis"),
    "synthrad-mri2ct-brain": _conversion(TaskType.MRI_TO_CT, "brain"),
    "synthrad-mri2ct-pelvis": _conversion(TaskType.MRI_TO_CT, "pelvis"),
    "ixi-sr": Benchmark(sources=("ixi",), scoring=Scoring.DRAWINGS),
    "reconstruction": Benchmark(
        sources=("synthrad2023", "llava-reconstruction", "pairs"),
        scoring=Scoring.DRAWINGS,
        row=_reconstruction,
        splits=("test", "validation", "train"),
    ),
    "report-to-cxr": Benchmark(sources=("mimic-cxr-drawing",), scoring=Scoring.DRAWINGS),
    "pairs": Benchmark(sources=("pairs",), scoring=Scoring.DRAWINGS),
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The records of a benchmark in a prepared folder.

    Attributes:
        folder: what image paths are relative to.
        missing: files that preparation left out.
    """

    benchmark: Benchmark
    folder: Path
    split: str
    missing: int
    source: str

    def __iter__(self) -> Iterator[Row]:
        for record in RecordFile(self.folder / f"{self.split}.jsonl"):
            if (row := self.benchmark.row(record)) is not None:
                yield row


def select(name: str, data: Path, *, split: str | None = None, allow_partial: bool = False) -> Selection:
    """The records of a benchmark.

    Args:
        data: a prepared folder, or one in which a folder of the benchmark's or its source's name is one.
        split: instead of the benchmark's own.
        allow_partial: take data from which files are missing.

    Raises:
        FileNotFoundError, ValueError: no prepared folder of its sources; no such split; files are missing.
    """
    benchmark = BENCHMARKS[name]
    folder = _prepared(name, benchmark, data)
    manifest = read_json(folder / MANIFEST_NAME)
    splits = [split] if split else list(benchmark.splits)
    there = [one for one in splits if one in manifest["records"]]
    if not there:
        has = ", ".join(manifest["records"])
        raise ValueError(f"{folder}: has no split {' or '.join(splits)}, only {has}")
    missing = int(manifest.get("missing_files", 0))
    if missing and not allow_partial:
        raise ValueError(
            f"{folder}: was prepared without {missing} missing files (listed in {MISSING_NAME}); scores of a part are "
            "no scores of the benchmark: prepare it again, or allow it by --allow_partial"
        )
    return Selection(
        benchmark=benchmark, folder=folder, split=there[0], missing=missing, source=str(manifest["source"])
    )


def _prepared(name: str, benchmark: Benchmark, data: Path) -> Path:
    found = []
    for folder in (data, data / name, *(data / source for source in benchmark.sources)):
        if (folder / MANIFEST_NAME).is_file():
            source = read_json(folder / MANIFEST_NAME).get("source")
            if source in benchmark.sources:
                return folder
            found.append(f"{folder} ({source})")
    wanted = " or ".join(f"`healthgpt prepare {source}`" for source in benchmark.sources)
    there = f"; there is {', '.join(found)}" if found else ""
    raise FileNotFoundError(f"{data}: has no records of {name}, which {wanted} makes{there}")


def truth_of(row: Mapping[str, Any]) -> str:
    """The answer in a record."""
    return str(row["conversations"][-1]["value"])


def line_of(row: Mapping[str, Any]) -> str:
    """A record as a line of a file."""
    return json.dumps(row, ensure_ascii=False) + "\n"
