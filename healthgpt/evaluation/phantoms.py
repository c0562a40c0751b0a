"""Phantoms as a benchmark: questions of every kind and drawings of every type, whose truth is known to the pixel.

Questions have the columns of all questions (`vqa`). Drawings are compared with the truth; with what doing nothing
gives (the input as it is, or enlarged); and with the truth's own way through the VQGAN, which is the best that any
drawing can be.

    ssim, psnr (dB)   of the drawing; ..._ceiling of the VQGAN's round trip, ..._copied or ..._bicubic of the input
    ssim_share        ssim / ssim_ceiling, means over the samples
    lesions_kept      of conversions of the ill: every lesion is there, in place and of its contrast (`lesions`)
    healthy_kept      of conversions of the healthy: no lesion is invented
    findings          of X-rays out of reports: exactly the report's findings are read off, each on its side
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.data.phantoms.instructions import SHRINKING
from healthgpt.data.phantoms.phantom import SIDE
from healthgpt.data.phantoms.questions import Kind
from healthgpt.data.phantoms.source import FACTS_NAME, PATIENTS_NAME, TEXT_KIND, draw_patient
from healthgpt.data.phantoms.subjects import SUBJECTS
from healthgpt.data.records import RecordFile
from healthgpt.evaluation.benchmarks import PHANTOMS, Benchmark, Row, Scoring, Selection, truth_of
from healthgpt.evaluation.chest_findings import read_findings
from healthgpt.evaluation.figures import Figure
from healthgpt.evaluation.lesions import lesion_invented, lesions_kept
from healthgpt.evaluation.pictures import Picture, psnr, ssim
from healthgpt.evaluation.scored import Scored
from healthgpt.evaluation.vqa import groups_of, score_answer
from healthgpt.files import read_json
from healthgpt.targets import through_codes
from healthgpt.tasks import Task, TaskType
from taming_transformers import GumbelVQ

_DRAWN = tuple(kind for kind in TaskType if kind.task is Task.GENERATION)
_CONVERSIONS = (TaskType.CT_TO_MRI, TaskType.MRI_TO_CT)


def patients_needed(count: int) -> int:
    """How many patients hold `count` samples of the rarest task, chest X-rays, when subjects take turns."""
    return count * len(SUBJECTS)


@dataclass(frozen=True, kw_only=True)
class PhantomSelection(Selection):
    """The first samples of each kind of question and type of drawing.

    Attributes:
        phantoms: the folder of `healthgpt prepare phantoms`.
        count: of each kind, at most.
    """

    phantoms: Path
    count: int

    def __iter__(self) -> Iterator[Row]:
        kinds = [f"{Task.COMPREHENSION}/{kind}" for kind in (*Kind, TEXT_KIND)]
        for name in (*kinds, *(f"{Task.GENERATION}/{kind}" for kind in _DRAWN)):
            yield from islice(RecordFile(self.phantoms / f"{name}.jsonl"), self.count)


def select_phantoms(phantoms: Path, count: int) -> PhantomSelection:
    """The benchmark of a folder of phantoms.

    Raises:
        FileNotFoundError: it holds none.
    """
    facts = read_json(phantoms / FACTS_NAME)
    return PhantomSelection(
        benchmark=Benchmark(sources=(PHANTOMS,), scoring=Scoring.PHANTOMS),
        folder=phantoms / Task.COMPREHENSION,  # from which, as from its neighbour, the records' paths lead
        split=f"{facts['split']}, seed {facts['seed']}",
        missing=0,
        source=PHANTOMS,
        phantoms=phantoms,
        count=count,
    )


def score_phantoms(
    selection: PhantomSelection, output: Path, rows: Sequence[Row], answers: Sequence[Row], vqgan: GumbelVQ | None
) -> Scored:
    """The columns of all samples, and figures over kinds, modalities and findings.

    Args:
        output: what the paths in rows and answers are relative to.
        vqgan: the model's, for the ceilings.
    """
    truths = _Truths(selection.phantoms, vqgan)
    scores: list[dict[str, float]] = []
    for row, answer in zip(rows, answers, strict=True):
        if "target_image" not in row:
            scores.append(score_answer(answer["text"], truth_of(row), row["metadata"]))
        elif "error" in answer:
            scores.append({})
        else:
            scores.append(truths.score(row, output, picture_of(output / answer["image"])))
    groups = _groups(rows, truths.patients)
    missing = [] if vqgan else ["ceilings: the model has no VQGAN"]
    return Scored(scores=scores, groups=groups, more=_shares(scores, groups), not_measured=missing)


def picture_of(path: Path) -> Picture:
    """(S, S, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


class _Truths:
    """What is true of the patients of a folder of phantoms.

    Attributes:
        patients: their facts, by id.
    """

    def __init__(self, phantoms: Path, vqgan: GumbelVQ | None):
        self.patients = {patient["id"]: patient for patient in RecordFile(phantoms / PATIENTS_NAME)}
        self._phantoms = phantoms
        self._source = read_json(phantoms / FACTS_NAME)
        self._vqgan = vqgan

    def score(self, row: Row, output: Path, drawn: Picture) -> dict[str, float]:
        """The columns of a drawing."""
        kind, path = TaskType(row["metadata"]["kind"]), output / row["target_image"]
        truth = picture_of(path)
        shown = {"": drawn}
        if self._vqgan is not None:
            shown["_ceiling"] = np.asarray(through_codes(self._vqgan, path))
        if kind is TaskType.REPORT_TO_CXR:
            return self._findings(row, shown | {"_truth": truth})
        columns = {}
        if kind in _CONVERSIONS:
            columns = self._lesions(row, shown, truth)
        suffix = "_bicubic" if kind is TaskType.SUPER_RESOLUTION else "_copied"
        shown[suffix] = _enlarged(output / row["image"])
        for name, measure in (("ssim", ssim), ("psnr", psnr)):
            columns |= {f"{name}{suffix}": measure(picture, truth) for suffix, picture in shown.items()}
        return columns

    def _lesions(self, row: Row, shown: Mapping[str, Picture], truth: Picture) -> dict[str, float]:
        """Lesions kept, or a healthy patient left healthy: of the drawing, and of the VQGAN's round trip."""
        patient = self.patients[row["metadata"]["patient"]]
        if not patient["lesions"]:
            return {f"healthy_kept{name}": float(not lesion_invented(image, truth)) for name, image in shown.items()}
        number = int(patient["id"].rpartition("-")[2])
        twin = draw_patient(self._source["split"], self._source["seed"], number, healthy=True)
        healthy = twin.images[row["metadata"]["modality"]]
        with Image.open(self._phantoms / patient["lesions"]) as image:
            lesions = np.asarray(image)
        return {
            f"lesions_kept{name}": float(lesions_kept(picture, truth, healthy, lesions))
            for name, picture in shown.items()
        }

    def _findings(self, row: Row, shown: Mapping[str, Picture]) -> dict[str, float]:
        """Whether exactly the findings of a report, each on its side, can be read off X-rays by pixel rules."""
        finding = self.patients[row["metadata"]["patient"]]["finding"]
        sides = {"both": ("left", "right")}.get(finding["side"], (finding["side"],)) if finding else ()
        expected = {(finding["name"], side) for side in sides}
        return {f"findings{name}": float(read_findings(picture) == expected) for name, picture in shown.items()}


def _enlarged(path: Path) -> Picture:
    """The image given, brought to size by bicubic interpolation where it is smaller."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if image.size != (SIDE, SIDE):
        image = image.resize((image.width * SHRINKING, image.height * SHRINKING), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _groups(rows: Sequence[Row], patients: Mapping[str, Mapping[str, Any]]) -> dict[str, list[int]]:
    """Questions about images as everywhere, those without apart; drawings by type, and by finding or modality."""
    asked = [place for place, row in enumerate(rows) if "target_image" not in row and "image" in row]
    groups: dict[str, list[int]] = defaultdict(list)
    for name, places in groups_of([rows[place]["metadata"] for place in asked]).items():
        groups[name] = [asked[place] for place in places]
    for place, row in enumerate(rows):
        facts = row["metadata"]
        if "image" not in row and "target_image" not in row:
            groups[f"kind={TEXT_KIND}"].append(place)
        elif "target_image" in row:
            group = f"kind={facts['kind']}"
            groups[group].append(place)
            if facts["kind"] in (*_CONVERSIONS, TaskType.REPORT_TO_CXR):
                finding = patients[facts["patient"]]["finding"]
                groups[f"{group} finding={finding['name'] if finding else 'none'}"].append(place)
            else:
                groups[f"{group} modality={facts['modality']}"].append(place)
    return dict(groups)


def _shares(scores: Sequence[Mapping[str, float]], groups: Mapping[str, Sequence[int]]) -> dict[str, Figure]:
    """What part of the ceiling's similarity each type of drawing attains."""
    found = {}
    for kind in _DRAWN:
        here = [scores[place] for place in groups.get(f"kind={kind}", ()) if "ssim_ceiling" in scores[place]]
        if here:
            share = sum(score["ssim"] for score in here) / sum(score["ssim_ceiling"] for score in here)
            found[f"kind={kind}/ssim_share"] = Figure(share, len(here))
    return found
