"""Charts: images in symbols, by which the nano base LLM learns to read and to write what stands where.

A chart has one symbol per patch of an image, in the patches' order and at their place in the prompt: what image it is
(such as a CT of the brain) or, where a lesion covers the patch, which one. From charts the LLM, which is frozen later,
learns to hold an image against a question, to do as an instruction says at every place (a CT's symbols become an
MRI's), and to place what a report names; plugins then put true patches and codes in the symbols' stead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from healthgpt.data.phantoms.phantom import SIDE
from healthgpt.data.phantoms.source import CONVERSATION_KIND, PATIENTS_NAME
from healthgpt.data.phantoms.subjects import FINDINGS, IMAGED
from healthgpt.data.records import IMAGE_MARK, RecordFile
from healthgpt.nano.chats import Chat
from healthgpt.tasks import Task, TaskType

# Patches a side, and what part of a patch a lesion has to cover to be its symbol.
_PATCHES, _COVER = 8, 0.15
_UNCHARTED = re.compile("eye|white")  # what is asked of things that a chart does not show
# What a drawing is made from, where it is not of the kind that is drawn.
_SOURCES = {TaskType.CT_TO_MRI: "CT", TaskType.MRI_TO_CT: "MRI", TaskType.REPORT_TO_CXR: None}
# A symbol per kind of image, and per finding in one.
_SYMBOLS: dict[tuple[str, ...], int] = {
    key: symbol
    for symbol, key in enumerate(
        (modality, organ, *finding)
        for (organ, subject), names in FINDINGS.items()
        for modality in IMAGED[subject]
        for finding in ((), *((name,) for name in names))
    )
}


def charted(phantoms: Path) -> Iterator[Chat]:
    """Conversations about images, and drawings, in charts.

    Args:
        phantoms: a folder of `healthgpt prepare phantoms`.
    """
    patients = {patient["id"]: patient for patient in RecordFile(phantoms / PATIENTS_NAME)}
    lesions = {name: _lesion_grid(phantoms, patient) for name, patient in patients.items()}

    def chart(facts: dict[str, Any], modality: str) -> tuple[int, ...]:
        patient = patients[facts["patient"]]
        image, finding = _SYMBOLS[modality, patient["organ"]], patient["finding"]
        where = lesions[facts["patient"]]
        if finding is None or where is None:
            return (image,) * _PATCHES**2
        return tuple(_SYMBOLS[modality, patient["organ"], finding["name"]] if lesion else image for lesion in where)

    for record in RecordFile(phantoms / Task.COMPREHENSION / f"{CONVERSATION_KIND}.jsonl"):
        facts, turns = record["metadata"], [turn["value"] for turn in record["conversations"]]
        turns[0] = turns[0].removeprefix(IMAGE_MARK).lstrip()
        pairs = [pair for pair in zip(turns[::2], turns[1::2], strict=True) if not _UNCHARTED.search(pair[0])]
        if pairs:
            kept = tuple(text for pair in pairs for text in pair)
            yield Chat(turns=kept, given=chart(facts, facts["modality"]))
    for path in sorted((phantoms / Task.GENERATION).glob("*.jsonl")):
        for record in RecordFile(path):
            facts = record["metadata"]
            source = _SOURCES.get(facts["kind"], facts["modality"])
            text = record["conversations"][0]["value"].removeprefix(IMAGE_MARK).lstrip()
            given = chart(facts, source) if source else None
            yield Chat(turns=(text,), given=given, drawn=chart(facts, facts["modality"]))


def _lesion_grid(phantoms: Path, patient: dict[str, Any]) -> NDArray[np.bool_] | None:
    """(P,) which patches a patient's lesions cover, at least the one that they cover most; None for a healthy one."""
    if not patient["lesions"]:
        return None
    mask = np.asarray(Image.open(phantoms / patient["lesions"])) > 0
    size = SIDE // _PATCHES
    cover = mask.reshape(_PATCHES, size, _PATCHES, size).mean(axis=(1, 3)).ravel()
    return cover >= min(_COVER, cover.max())
