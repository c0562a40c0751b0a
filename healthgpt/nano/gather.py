"""From a folder of phantoms to what the parts learn from: two files of pictures, and chats without images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.data.phantoms.phantom import SIDE
from healthgpt.data.phantoms.source import PATIENTS_NAME, TEXT_KIND
from healthgpt.data.phantoms.subjects import FINDINGS
from healthgpt.data.records import IMAGE_MARK, RecordFile
from healthgpt.files import write_atomically
from healthgpt.nano.chats import Chat, chat_line
from healthgpt.nano.sketches import sketched
from healthgpt.tasks import Task, TaskType

ALL_NAME, DRAWN_NAME, CHATS_NAME = "pictures.npz", "drawn.npz", "chats.jsonl"
# What is drawn, the VQGAN learns.
DRAWN = ("CT", "MRI", "X-ray")
_CLASSES = {name: i for i, name in enumerate(((*key, f) for key, found in FINDINGS.items() for f in found), start=1)}
_MOST_CAPTIONS, _MOST_QUESTIONS = 2, 8  # of one image
# How often a fact that needs no image is there, and a sketch: they are few beside the rest.
_FACTS_COUNT, _SKETCHES_COUNT = 40, 3
# What a model that cannot draw yet says to an instruction.
_REPLIES = {
    TaskType.CT_TO_MRI: "Here is the MRI.",
    TaskType.MRI_TO_CT: "Here is the CT.",
    TaskType.SUPER_RESOLUTION: "Here is the image in a better resolution.",
    TaskType.RECONSTRUCTION: "Here is the image again.",
}


def gather(phantoms: Path, output: Path) -> Path:
    """Writes `pictures.npz` (all), `drawn.npz` (what is drawn) and `chats.jsonl`, but those that are there.

    Raises:
        FileNotFoundError, ValueError: the folder does not hold phantoms.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name, wanted in ((ALL_NAME, None), (DRAWN_NAME, DRAWN)):
        if not (output / name).exists():
            write_atomically(output / name, partial(_write_pictures, phantoms, wanted))
    if not (output / CHATS_NAME).exists():
        chats = sorted({chat_line(chat) for chat in (*_chats(phantoms), *_described(phantoms))})
        chats += sorted(chat_line(chat) for chat in sketched(phantoms)) * _SKETCHES_COUNT
        facts = {chat_line(chat) for chat in _spoken(phantoms / Task.COMPREHENSION / f"{TEXT_KIND}.jsonl")}
        chats += sorted(facts) * _FACTS_COUNT
        text = "".join(chats[i] for i in np.random.default_rng(0).permutation(len(chats)))
        write_atomically(output / CHATS_NAME, partial(Path.write_text, data=text, encoding="utf-8"))
    return output


def _write_pictures(phantoms: Path, wanted: tuple[str, ...] | None, path: Path) -> None:
    """The arrays that `read_pictures` reads, patients in their order."""
    images, lesions, kinds, captions = [], [], [], []
    for patient in RecordFile(phantoms / PATIENTS_NAME):
        finding = patient["finding"]
        kind = _CLASSES[patient["organ"], patient["subject"], finding["name"]] if finding else 0
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if patient["lesions"]:
            mask = np.asarray(Image.open(phantoms / patient["lesions"]))
        for modality, name in patient["images"].items():
            if wanted is None or modality in wanted:
                images.append(np.asarray(Image.open(phantoms / name)))
                lesions.append(mask)
                kinds.append(kind)
                captions.append([caption(patient, modality)])
    np.savez(
        path,
        images=np.stack(images),
        lesions=np.stack(lesions),
        kinds=np.array(kinds, np.int16),
        captions=np.array(captions),
    )


def caption(patient: dict[str, Any], modality: str) -> str:
    """All that is true of an image, in one wording: images of the same caption show the same."""
    finding = patient["finding"] or {"name": "no abnormality", "side": None, "size": None, "count": 0}
    words = [modality, "of the", patient["organ"], ":"]
    words += [str(finding["count"])] if finding["count"] > 1 else []
    words += [finding[key] for key in ("size", "side", "name") if finding[key]]
    words += [f", {value} {name}" for name, value in patient["facts"].items()]
    return " ".join(words)


def _described(phantoms: Path) -> Iterator[Chat]:
    """A conversation about every image, words in its place: what is asked has to be compared with what is there.

    The words come once or twice, as an image, too, says a thing in many of its patches.
    """
    patients = {patient["id"]: patient for patient in RecordFile(phantoms / PATIENTS_NAME)}
    questions: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    for path in sorted((phantoms / Task.COMPREHENSION).glob("*.jsonl")):
        for record in RecordFile(path):
            facts, turns = record["metadata"], [turn["value"] for turn in record["conversations"]]
            if facts.get("patient") and len(turns) == 2:
                asked = turns[0].removeprefix(IMAGE_MARK).strip()
                questions[facts["patient"], facts["modality"]].append([asked, turns[1]])
    random = np.random.default_rng(0)
    for (patient, modality), pairs in questions.items():
        chosen = [pairs[i] for i in random.permutation(len(pairs))[:_MOST_QUESTIONS]]
        seen = [caption(patients[patient], modality)] * int(random.integers(1, _MOST_CAPTIONS + 1))
        first, *turns = (text for pair in chosen for text in pair)
        yield Chat(turns=("\n".join([*seen, first]), *turns))


def _chats(phantoms: Path) -> Iterator[Chat]:
    """Questions and answers without their images; instructions with a reply, or the report that they are made of."""
    for path in sorted((phantoms / Task.COMPREHENSION).glob("*.jsonl")):
        yield from _spoken(path)
    reports = {
        record["metadata"]["patient"]: record["conversations"][1]["value"]
        for record in RecordFile(phantoms / Task.COMPREHENSION / "report.jsonl")
    }
    for path in sorted((phantoms / Task.GENERATION).glob("*.jsonl")):
        for record in RecordFile(path):
            question = record["conversations"][0]["value"].removeprefix(IMAGE_MARK).strip()
            facts = record["metadata"]
            yield Chat(turns=(question, _REPLIES.get(facts["kind"]) or reports[facts["patient"]]))


def _spoken(records: Path) -> Iterator[Chat]:
    """Every question of a file of records with its answer, without the image."""
    for record in RecordFile(records):
        turns = [turn["value"].removeprefix(IMAGE_MARK).strip() for turn in record["conversations"]]
        yield from (Chat(turns=pair) for pair in zip(turns[::2], turns[1::2], strict=True))
