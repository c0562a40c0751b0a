"""Records: one conversation about images, or one drawing, as a line of JSON.

    {"id", "image": path | [paths] | absent, "conversations": [{"from": "human"|"gpt", "value": "<image>\\n..."}, ...],
     "task": "comprehension"|"generation", "target_image": path | "target_indices": [...], "target_focus": path}

Files are JSON Lines, or JSON lists as LLaVA's and VL-Health's. `<image>` in a human turn is an image's place, anywhere
in the text; every image has exactly one. A drawing's target is an image, a list of codes, or `<idx_N>` tokens in the
last answer. Its focus is a mask over the target, not 0 where the drawing matters most, a lesion's place for instance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthgpt.files import require_file
from healthgpt.tasks import Task
from healthgpt.templates import IMAGE, Part, Turn

IMAGE_MARK = "<image>"
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}
_CODE = re.compile(r"<idx_(\d+)>")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample.

    Attributes:
        images: paths, in the order of their places.
        turns: alternating user and assistant turns, the last one the assistant's.
        target: the image to be drawn (generation), unless `codes` are given.
        codes: VQGAN codes of the image to be drawn, row-major.
        focus: a mask of any size over the target; not 0 where the drawing matters most.
    """

    id: str
    task: Task
    turns: tuple[Turn, ...]
    images: tuple[Path, ...] = ()
    target: Path | None = None
    codes: tuple[int, ...] | None = None
    focus: Path | None = None

    @property
    def num_characters(self) -> int:
        return sum(len(part) for turn in self.turns for part in turn.parts if isinstance(part, str))


def parse_record(value: Any, *, where: str, image_folder: Path, task: Task | None = None) -> Record:
    """Checks one JSON value and makes a record of it.

    Args:
        where: file and position, for messages.
        image_folder: what relative paths are relative to.
        task: that of records which do not say theirs; None takes generation where there is a target.

    Raises:
        ValueError: a field is missing or wrong, roles do not alternate, or placeholders do not match the images.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, found {type(value).__name__}")
    record_id = str(value.get("id", where))
    here = f"{where} (id {record_id})"
    turns = _parse_turns(value.get("conversations"), here)
    images = _paths(value.get("image"), image_folder, here)
    places = sum(part is IMAGE for turn in turns for part in turn.parts)
    if places != len(images):
        raise ValueError(f"{here}: {places} {IMAGE_MARK} placeholders for {len(images)} images")
    target = _paths(value.get("target_image"), image_folder, here)
    codes = _codes(value.get("target_indices"), turns, here)
    focus = _paths(value.get("target_focus"), image_folder, here)
    named = value.get("task")
    if named is not None and named not in set(Task):
        raise ValueError(f"{here}: task is {named!r}, expected {' or '.join(Task)}")
    task = Task(named) if named else task or (Task.GENERATION if target or codes is not None else Task.COMPREHENSION)
    if len(target) > 1:
        raise ValueError(f"{here}: {len(target)} target images, expected one")
    if len(focus) > 1 or (focus and task is Task.COMPREHENSION):
        raise ValueError(
            f"{here}: {len(focus)} masks in target_focus of a {task} record, expected one of a generation's"
        )
    if task is Task.GENERATION and not target and codes is None:
        raise ValueError(f"{here}: a generation record without target_image, target_indices or <idx_N> tokens")
    if task is Task.COMPREHENSION and not _answers(turns):
        raise ValueError(f"{here}: a comprehension record without an answer's text")
    return Record(
        id=record_id,
        task=task,
        turns=turns,
        images=images,
        target=target[0] if target else None,
        codes=codes,
        focus=focus[0] if focus else None,
    )


def _parse_turns(conversations: Any, here: str) -> tuple[Turn, ...]:
    if not isinstance(conversations, list) or not conversations:
        raise ValueError(f"{here}: conversations is {_shown(conversations)}, expected a list of turns")
    turns: list[Turn] = []
    for i, turn in enumerate(conversations):
        expected = "user" if i % 2 == 0 else "assistant"
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise ValueError(f"{here}: turn {i} is {_shown(turn)}, expected from and value")
        role = _ROLES.get(turn.get("from", ""))
        if role != expected:
            raise ValueError(f"{here}: turn {i} is from {turn.get('from')!r}, expected the {expected}")
        turns.append(Turn(role, _parts(turn["value"]) if role == "user" else (turn["value"],)))
    if len(turns) % 2:
        raise ValueError(f"{here}: the last turn is the user's, expected an answer")
    return tuple(turns)


def _parts(text: str) -> tuple[Part, ...]:
    """Text with `<image>` marks -> text and image places; empty text between them is left out."""
    parts: list[Part] = []
    for i, piece in enumerate(text.split(IMAGE_MARK)):
        if i:
            parts.append(IMAGE)
        if piece:
            parts.append(piece)
    return tuple(parts)


def _paths(value: Any, folder: Path, here: str) -> tuple[Path, ...]:
    if value is None or value == []:
        return ()
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{here}: image is {_shown(value)}, expected a path or a list of paths")
    return tuple(folder / name for name in names)


def _codes(value: Any, turns: Sequence[Turn], here: str) -> tuple[int, ...] | None:
    if value is None:
        found = [int(code) for part in turns[-1].parts if isinstance(part, str) for code in _CODE.findall(part)]
        return tuple(found) or None
    if not isinstance(value, list) or not all(isinstance(code, int) and code >= 0 for code in value):
        raise ValueError(f"{here}: target_indices is {_shown(value)}, expected a list of codes")
    return tuple(value)


def _answers(turns: Sequence[Turn]) -> bool:
    return all(part.strip() for turn in turns[1::2] for part in turn.parts if isinstance(part, str))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class RecordFile:
    """A file of records, read lazily: JSON Lines by their offsets, a JSON list as a whole.

    Raises:
        FileNotFoundError, ValueError: no such file, not JSON, or empty.
    """

    def __init__(self, path: Path):
        self.path = require_file(path)
        self._values: list[Any] | None = None
        self._offsets: list[int] = []
        with path.open("rb") as file:
            first = file.read(1)
            while first.isspace():
                first = file.read(1)
            file.seek(0)
            if first == b"[":
                try:
                    self._values = json.load(file)
                except ValueError as error:
                    raise ValueError(f"{path}: not readable as a JSON list ({error})") from None
            else:
                while line := file.readline():
                    if line.strip():
                        self._offsets.append(file.tell() - len(line))
        if not len(self):
            raise ValueError(f"{path}: has no records")

    def __len__(self) -> int:
        return len(self._offsets) if self._values is None else len(self._values)

    def value(self, i: int) -> Any:
        """The i-th JSON value."""
        if self._values is not None:
            return self._values[i]
        with self.path.open("rb") as file:
            file.seek(self._offsets[i])
            line = file.readline()
        try:
            return json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.where(i)}: not readable as JSON ({error})") from None

    def where(self, i: int) -> str:
        """File and position of the i-th record, for messages."""
        return f"{self.path}, record {i + 1}"

    def __iter__(self) -> Iterator[Any]:
        return (self.value(i) for i in range(len(self)))
