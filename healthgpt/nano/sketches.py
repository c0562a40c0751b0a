"""Sketches: chest X-rays in symbols, drawn from reports, by which the nano base LLM learns to draw what words say.

A sketch has one symbol per code of an image, in the codes' order. Every symbol follows from the report: each half of
the chest is full of its finding's symbol, or in its lower half alone where that is small. In true codes a report tells
very little (a nodule is two codes of 64), too little for an LLM that has never drawn from words to notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from healthgpt.data.phantoms.source import PATIENTS_NAME
from healthgpt.data.phantoms.subjects import FINDINGS
from healthgpt.data.records import RecordFile
from healthgpt.nano.chats import Chat
from healthgpt.tasks import Task, TaskType

_SIDE = 8  # symbols
_CLEAR, *_FOUND = range(len(FINDINGS["chest", "chest"]) + 1)
_SYMBOLS = dict(zip(FINDINGS["chest", "chest"], _FOUND, strict=True))


def sketched(phantoms: Path) -> Iterator[Chat]:
    """Every report that is to be drawn, with its sketch.

    Args:
        phantoms: a folder of `healthgpt prepare phantoms`.
    """
    patients = {patient["id"]: patient for patient in RecordFile(phantoms / PATIENTS_NAME)}
    for record in RecordFile(phantoms / Task.GENERATION / f"{TaskType.REPORT_TO_CXR}.jsonl"):
        finding = patients[record["metadata"]["patient"]]["finding"]
        yield Chat(turns=(record["conversations"][0]["value"],), drawn=sketch(finding))


def sketch(finding: dict[str, Any] | None) -> tuple[int, ...]:
    """(64,) the sketch of a chest; the patient's left is on the right, and a finding without a side on both."""
    if finding is None:
        return (_CLEAR,) * _SIDE**2
    symbol, side = _SYMBOLS[finding["name"]], finding["side"] or "both"
    first_row = _SIDE // 2 if finding["size"] == "small" else 0
    columns = {"right": range(_SIDE // 2), "left": range(_SIDE // 2, _SIDE), "both": range(_SIDE)}[side]
    return tuple(
        symbol if row >= first_row and column in columns else _CLEAR for row in range(_SIDE) for column in range(_SIDE)
    )
