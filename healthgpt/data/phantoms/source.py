"""Phantoms as a source of records: a split, a seed and a number give the same patients, files and records everywhere.

    DIR/phantoms.json              split, seed, count; written last
    DIR/patients.jsonl             one patient a line: what is true of it, its images, its lesions
    DIR/images/*.png, lesions/*.png
    DIR/comprehension/KIND.jsonl   records by kind of question (modality, organ, side, ...), `text` without images, and
                                   `conversation`, several questions about an image
    DIR/generation/TYPE.jsonl      records by kind of drawing (ct2mri, report-to-cxr, ...)

Every patient is drawn from a random stream of its own, of (split, seed, number), so that no patient is in two splits.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.data.phantoms.conversation import small_talk
from healthgpt.data.phantoms.instructions import instructions, shrink
from healthgpt.data.phantoms.phantom import Phantom
from healthgpt.data.phantoms.questions import Kind, ask
from healthgpt.data.phantoms.subjects import SUBJECTS
from healthgpt.files import read_json, write_atomically
from healthgpt.tasks import Task, TaskType

SPLITS = ("train", "validation", "test")
PATIENTS_NAME, FACTS_NAME = "patients.jsonl", "phantoms.json"
VERSION = 1  # of the generator: phantoms of one version are the same everywhere
_SHARE = 100  # patients that a process draws at a time
TEXT_KIND, CONVERSATION_KIND = "text", "conversation"  # comprehension without an image, and of several turns
_TURNS = 4  # of a conversation
_DRAWING, _ASKING = 0, 1  # what a patient's random streams are for


def draw_patient(split: str, seed: int, number: int, healthy: bool = False) -> Phantom:
    """The patient of a number; subjects take turns. With `healthy`, the same patient without any finding (but other
    noise): what a lesion changes is the difference.

    Raises:
        ValueError: no such split.
    """
    name = tuple(SUBJECTS)[number % len(SUBJECTS)]
    stream = _stream(split, seed, number, _DRAWING)
    return SUBJECTS[name](stream, healthy=1.0) if healthy else SUBJECTS[name](stream)


def _stream(split: str, seed: int, number: int, purpose: int) -> np.random.Generator:
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    return np.random.default_rng([SPLITS.index(split), seed, number, purpose])


def write_phantoms(folder: Path, *, split: str, seed: int, count: int, num_processes: int = 1) -> Iterator[int]:
    """Draws `count` patients and writes all the files; yields how many are done. What is there already is kept.

    Raises:
        ValueError: no such split, a count below 1, or the folder holds other phantoms.
    """
    if count < 1 or seed < 0:
        raise ValueError(f"count {count} and seed {seed}: expected at least 1 patient and a seed of 0 or more")
    facts = {"split": split, "seed": seed, "count": count, "version": VERSION}
    _stream(split, seed, 0, _DRAWING)  # refuses a wrong split
    if (folder / FACTS_NAME).exists():
        if read_json(folder / FACTS_NAME) != facts:
            raise ValueError(f"{folder}: holds other phantoms ({read_json(folder / FACTS_NAME)}); name another folder")
        yield count
        return
    for kind in ("images", "lesions", Task.COMPREHENSION, Task.GENERATION):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = defaultdict(list)
    shares = [(folder, split, seed, range(i, min(i + _SHARE, count))) for i in range(0, count, _SHARE)]
    # A process that is spawned, not forked, cannot inherit another library's threads in a bad state.
    with multiprocessing.get_context("spawn").Pool(num_processes) as pool:
        results = pool.imap(_write_share, shares) if num_processes > 1 else map(_write_share, shares)
        for share, found in zip(shares, results, strict=True):
            for name, texts in found.items():
                lines[name] += texts
            yield share[-1].stop
    for name, texts in sorted(lines.items()):
        text = "\n".join(texts) + "\n"
        write_atomically(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
    write_atomically(folder / FACTS_NAME, lambda path: path.write_text(json.dumps(facts) + "\n"))


def _write_share(share: tuple[Path, str, int, range]) -> dict[str, list[str]]:
    """Some patients' images, written; returns lines by the file they belong to."""
    folder, split, seed, numbers = share
    lines: dict[str, list[str]] = defaultdict(list)
    for number in numbers:
        phantom = draw_patient(split, seed, number)
        rng = _stream(split, seed, number, _ASKING)
        truth, records = _write_patient(folder, f"{split}-{seed}-{number:06d}", phantom, rng)
        lines[PATIENTS_NAME].append(json.dumps(truth))
        for kind, found in records.items():
            lines[f"{kind}.jsonl"] += [json.dumps(record) for record in found]
    return lines


def _write_patient(
    folder: Path, name: str, phantom: Phantom, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Writes a patient's images; returns what is true of the patient, and the records by file."""
    images = {modality: f"images/{name}-{_slug(modality)}.png" for modality in phantom.images}
    for modality, path in images.items():
        Image.fromarray(phantom.images[modality]).save(folder / path)
    lesions = f"lesions/{name}.png" if phantom.lesions.any() else None
    if lesions:
        Image.fromarray(phantom.lesions).save(folder / lesions)
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for modality, path in images.items():
        for question in ask(phantom, modality, rng):
            file = records[f"{Task.COMPREHENSION}/{question.kind}"]
            facts = {"kind": question.kind, "closed": question.closed, "modality": modality, "patient": name}
            file.append(_record(f"{name}-{question.kind}-{len(file)}", path, question.text, question.answer, facts))
    for modality, path in images.items():
        file = records[f"{Task.COMPREHENSION}/{CONVERSATION_KIND}"]
        questions = [question for question in ask(phantom, modality, rng) if question.kind != Kind.REPORT]
        chosen = [questions[i] for i in rng.permutation(len(questions))[:_TURNS]]
        facts = {"kind": CONVERSATION_KIND, "modality": modality, "patient": name}
        record = _record(f"{name}-{CONVERSATION_KIND}-{len(file)}", path, chosen[0].text, chosen[0].answer, facts)
        for question in chosen[1:]:
            record["conversations"] += _turns(question.text, question.answer)
        file.append(record)
    talk = _record(f"{name}-{TEXT_KIND}", None, *small_talk(rng), {"kind": TEXT_KIND, "closed": False})
    records[f"{Task.COMPREHENSION}/{TEXT_KIND}"].append(talk)
    for drawing in instructions(phantom, rng):
        file = records[f"{Task.GENERATION}/{drawing.type}"]
        source = images[drawing.source] if drawing.source else None
        if drawing.shrunk:
            source = f"images/{name}-{_slug(drawing.target)}-small.png"
            Image.fromarray(shrink(phantom.images[drawing.target])).save(folder / source)
        facts = {"kind": drawing.type, "modality": drawing.target, "patient": name}
        record = _record(f"{name}-{drawing.type}-{len(file)}", source, drawing.text, "", facts)
        record |= {"target_image": f"../{images[drawing.target]}"}
        file.append(record | ({"target_focus": f"../{lesions}"} if lesions else {}))
    return _truth(name, phantom, images, lesions), records


def _truth(name: str, phantom: Phantom, images: dict[str, str], lesions: str | None) -> dict[str, Any]:
    finding = asdict(phantom.finding) if phantom.finding else None
    return {
        "id": name,
        "subject": phantom.subject,
        "organ": phantom.organ,
        "plane": phantom.plane,
        "finding": finding,
        "facts": dict(phantom.facts),
        "images": images,
        "lesions": lesions,
    }


def _slug(modality: str) -> str:
    """A modality as part of a file name."""
    return modality.split()[0].lower()


def _record(record_id: str, image: str | None, text: str, answer: str, facts: dict[str, Any]) -> dict[str, Any]:
    """A record; image paths are from the records file's folder, which is one below the images' parent."""
    task = TaskType(facts["kind"]).task if facts["kind"] in set(TaskType) else Task.COMPREHENSION
    record: dict[str, Any] = {"id": record_id, "task": task}
    if image:
        record["image"] = f"../{image}"
    value = f"<image>\n{text}" if image else text
    return record | {"conversations": _turns(value, answer), "metadata": facts}


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
