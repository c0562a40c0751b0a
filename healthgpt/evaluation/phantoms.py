"""How well a model understands and draws phantoms of the test split: every figure with its number of samples.

Questions are scored by exact match. Drawings are compared with the truth, and with the truth's own way through the
VQGAN, which is the best that any drawing can be.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.answers import exact_match
from healthgpt.data.phantoms.instructions import SHRINKING
from healthgpt.data.phantoms.phantom import SIDE
from healthgpt.data.phantoms.questions import Kind
from healthgpt.data.phantoms.source import FACTS_NAME, PATIENTS_NAME, TEXT_KIND, draw_patient
from healthgpt.data.records import IMAGE_MARK, RecordFile
from healthgpt.evaluation.chest_findings import read_findings
from healthgpt.evaluation.lesions import lesion_invented, lesions_kept
from healthgpt.evaluation.pictures import Picture, psnr, ssim
from healthgpt.files import read_json
from healthgpt.pipeline import HealthGPT, Request
from healthgpt.tasks import Task, TaskType

_BATCH = 32
_LONGEST = 64  # tokens of an answer
Report = Callable[[str], None]


def patients_needed(count: int, num_subjects: int) -> int:
    """How many patients hold `count` samples of the rarest task, chest X-rays, when subjects take turns."""
    return count * num_subjects


def evaluate_phantoms(model: HealthGPT, phantoms: Path, count: int, report: Report = print) -> dict[str, Any]:
    """Scores a model on a folder of phantoms.

    Args:
        count: samples per kind of question and type of drawing, at most.
        report: is told of progress, a line at a time.

    Returns:
        "comprehension" and "generation", each figure as {"value", "n"}.
    """
    started = time.monotonic()
    results = {"comprehension": _comprehension(model, phantoms, count, report)}
    patients = {patient["id"]: patient for patient in RecordFile(phantoms / PATIENTS_NAME)}
    results["generation"] = _generation(model, phantoms, patients, count, report)
    return results | {"seconds": round(time.monotonic() - started, 1)}


def figure(values: Iterable[float]) -> dict[str, float | int | None]:
    """The mean of some samples and how many they are; None where there are none."""
    listed = [float(value) for value in values]
    return {"value": round(float(np.mean(listed)), 4) if listed else None, "n": len(listed)}


def _requests(records: Sequence[dict[str, Any]], folder: Path, task: Task) -> list[Request]:
    return [
        Request(
            task=task,
            question=record["conversations"][0]["value"].removeprefix(IMAGE_MARK).lstrip(),
            images=[folder / record["image"]] if "image" in record else [],
        )
        for record in records
    ]


def _run(model: HealthGPT, requests: Sequence[Request], name: str, report: Report) -> list[Any]:
    started = time.monotonic()
    results = model.run_batch(requests, batch_size=_BATCH, max_new_tokens=_LONGEST)
    report(f"{name}: {len(requests)} in {time.monotonic() - started:.0f} s")
    return results


def _comprehension(model: HealthGPT, phantoms: Path, count: int, report: Report) -> dict[str, Any]:
    """Accuracy of closed and open questions, by kind, modality and both."""
    folder = phantoms / Task.COMPREHENSION
    hits: dict[str, list[bool]] = defaultdict(list)
    wrong = []
    for kind in (*Kind, TEXT_KIND):
        records = list(islice(RecordFile(folder / f"{kind}.jsonl"), count))
        answers = _run(model, _requests(records, folder, Task.COMPREHENSION), kind, report)
        for record, answer in zip(records, answers, strict=True):
            facts, truth = record["metadata"], record["conversations"][1]["value"]
            right = exact_match(answer.text, truth)
            form = "closed" if facts["closed"] else "open"
            names = [f"kind/{kind}"]
            if kind != TEXT_KIND:
                names += [form, f"modality/{facts['modality']}", f"{form}/{kind}", f"{form}/{facts['modality']}"]
            for name in names:
                hits[name].append(right)
            if not right:
                wrong.append({"id": record["id"], "truth": truth, "answer": answer.text})
    return {name: figure(hits[name]) for name in sorted(hits)} | {"wrong": wrong[:50]}


def _generation(
    model: HealthGPT, phantoms: Path, patients: dict[str, dict[str, Any]], count: int, report: Report
) -> dict[str, Any]:
    """Similarity to the truth by type of drawing, lesions in conversions, findings in X-rays from reports."""
    folder = phantoms / Task.GENERATION
    results = {}
    for kind in TaskType:
        if kind.task is Task.COMPREHENSION:
            continue
        records = list(islice(RecordFile(folder / f"{kind}.jsonl"), count))
        drawings = _run(model, _requests(records, folder, Task.GENERATION), kind, report)
        drawn = [np.asarray(drawing.image) for drawing in drawings]
        if kind is TaskType.REPORT_TO_CXR:
            results[str(kind)] = _score_reports(model, records, drawn, folder, patients)
        else:
            results[str(kind)] = _score_pictures(model, kind, records, drawn, folder)
        if kind in (TaskType.CT_TO_MRI, TaskType.MRI_TO_CT):
            results[str(kind)] |= _score_lesions(model, records, drawn, folder, patients, phantoms)
    return results


def _score_pictures(
    model: HealthGPT, kind: TaskType, records: Sequence[dict[str, Any]], drawn: Sequence[Picture], folder: Path
) -> dict[str, Any]:
    """SSIM and PSNR of the drawing, of the VQGAN's own round trip, and of what doing nothing would give."""
    truths = [_picture(folder / record["target_image"]) for record in records]
    ceilings = [np.asarray(model.through_codes(folder / record["target_image"])) for record in records]
    copies = [_copied(folder / record["image"]) for record in records]
    rows: dict[str, Any] = {}
    for name, measure in (("ssim", ssim), ("psnr", psnr)):
        pictures = (("", drawn), ("_ceiling", ceilings), ("_bicubic" if _shrunk(kind) else "_copied", copies))
        for suffix, found in pictures:
            rows[name + suffix] = figure(measure(a, b) for a, b in zip(found, truths, strict=True))
    rows["ssim_share"] = {
        "value": round(rows["ssim"]["value"] / rows["ssim_ceiling"]["value"], 4),
        "n": len(records),
    }
    by_modality: dict[str, list[float]] = defaultdict(list)
    for record, picture, truth in zip(records, drawn, truths, strict=True):
        by_modality[record["metadata"]["modality"]].append(ssim(picture, truth))
    return rows | {f"ssim/{name}": figure(values) for name, values in sorted(by_modality.items())}


def _shrunk(kind: TaskType) -> bool:
    return kind is TaskType.SUPER_RESOLUTION


def _picture(path: Path) -> Picture:
    return np.asarray(Image.open(path).convert("RGB"))


def _copied(path: Path) -> Picture:
    """The image given, brought to size by bicubic interpolation where it is smaller."""
    image = Image.open(path).convert("RGB")
    if image.size != (SIDE, SIDE):
        image = image.resize((image.width * SHRINKING, image.height * SHRINKING), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _score_lesions(
    model: HealthGPT,
    records: Sequence[dict[str, Any]],
    drawn: Sequence[Picture],
    folder: Path,
    patients: dict[str, dict[str, Any]],
    phantoms: Path,
) -> dict[str, Any]:
    """Lesions kept, and healthy patients left healthy: in the drawings, and in the VQGAN's round trip of the truth."""
    source = read_json(phantoms / FACTS_NAME)
    kept: dict[str, list[bool]] = defaultdict(list)
    clean: dict[str, list[bool]] = defaultdict(list)
    for record, picture in zip(records, drawn, strict=True):
        patient, path = patients[record["metadata"]["patient"]], folder / record["target_image"]
        truth = _picture(path)
        number = int(patient["id"].rpartition("-")[2])
        twin = draw_patient(source["split"], source["seed"], number, healthy=True).images[
            record["metadata"]["modality"]
        ]
        for name, image in (("", picture), ("_ceiling", np.asarray(model.through_codes(path)))):
            if patient["lesions"]:
                right = lesions_kept(image, truth, twin, np.asarray(Image.open(phantoms / patient["lesions"])))
                kept[name].append(right)
                kept[f"{name}/{patient['finding']['name']}"].append(right)
            else:
                clean[name].append(not lesion_invented(image, truth))
    return {f"lesions_kept{name}": figure(values) for name, values in sorted(kept.items())} | {
        f"healthy_kept{name}": figure(values) for name, values in sorted(clean.items())
    }


def _score_reports(
    model: HealthGPT,
    records: Sequence[dict[str, Any]],
    drawn: Sequence[Picture],
    folder: Path,
    patients: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Whether exactly the findings of a report, each on its side, can be read off the X-ray by pixel rules."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for record, picture in zip(records, drawn, strict=True):
        finding = patients[record["metadata"]["patient"]]["finding"]
        sides = {"both": ("left", "right")}.get(finding["side"], (finding["side"],)) if finding else ()
        expected = {(finding["name"], side) for side in sides}
        right = read_findings(picture) == expected
        hits["findings"].append(right)
        hits[f"findings/{finding['name'] if finding else 'normal'}"].append(right)
        truth = folder / record["target_image"]
        hits["findings_truth"].append(read_findings(_picture(truth)) == expected)
        hits["findings_ceiling"].append(read_findings(np.asarray(model.through_codes(truth))) == expected)
    return {name: figure(values) for name, values in sorted(hits.items())}
