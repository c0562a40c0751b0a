"""Questions out of a file or a folder: what is to be answered or drawn, one row at a time.

    {"question_id": 1, "image": "1.png", "text": "Is there a fracture?"}                         LLaVA's
    {"id": "a", "image": [...], "conversations": [{"from": "human", "value": "..."}, ...], ...}  records for training
    id,image,question,task                                                                       tables
    FOLDER/**                                                                                    one question for all

JSON Lines, JSON lists, CSV (compressed too), TSV and Parquet are streamed. Of a conversation, the last question is
asked and what came before is its history; an answer at its end is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from healthgpt.data.records import IMAGE_MARK
from healthgpt.data.sources.questions import literal_of
from healthgpt.data.tables import rows_of
from healthgpt.images import ImageSource, View
from healthgpt.tasks import Task
from healthgpt.templates import is_unicode

# Names that columns go by where the user names none, the first one present being taken.
_KNOWN = {
    "id": ("question_id", "id", "qid"),
    "question": ("text", "question", "prompt", "instruction"),
    "image": ("image", "images", "img_path", "image_path"),
    "task": ("task",),
}
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}
_FIELD = re.compile(r"\{(\w+)\}")
_LOOK = ("window", "slice", "plane", "volume")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One thing to do.

    Attributes:
        id: as the file has it, unique as text.
        images: paths, or the bytes of image files.
        history: earlier (question, answer) turns.
        view: how its images are to be looked at.
    """

    id: str | int
    task: Task
    text: str
    images: tuple[ImageSource, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    view: View = field(default_factory=View)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of a table's columns; None takes the first of the usual ones that is there."""

    id: str | None = None
    question: str | None = None
    image: str | None = None
    task: str | None = None


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The questions of a file or folder; every iteration reads them again.

    Attributes:
        source: a file, or a folder of images, all of which are asked `text`.
        text: the question where the rows have none.
        template: text around each question, `{question}` and `{COLUMN}` standing for the row's.
        image_folder: what image paths are relative to; None is the file's folder.
        task: that of rows which do not say theirs (a record with a target is a drawing's).
        look: window, slice, plane and volume, as text; rows may have columns of these names.
    """

    source: Path
    columns: Columns = Columns()
    text: str | None = None
    template: str | None = None
    image_folder: Path | None = None
    task: Task = Task.COMPREHENSION
    look: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Question]:
        """The questions in order.

        Raises:
            FileNotFoundError, ValueError: no such file; a row without what is needed. The message names file and row.
        """
        if not self.source.exists():
            raise FileNotFoundError(f"{self.source}: no such file or folder")
        if self.source.is_dir():
            rows: Iterator[dict[str, Any]] = ({"id": name, "image": name} for name in _files(self.source))
        else:
            rows = rows_of(self.source)
        numbered: bool | None = None
        number = 0
        for number, row in enumerate(rows, start=1):
            where = f"{self.source}, record {number}"
            given = _value(row, self.columns.id, "id", where)
            # A table without any ids is numbered; one that lacks some is a mistake.
            numbered = given is None if numbered is None else numbered
            if numbered != (given is None):
                raise ValueError(f"{where}: has {'an' if numbered else 'no'} id, unlike the records before it")
            yield self._question(row, number if given is None else given, where)
        if not number:
            raise ValueError(f"{self.source}: has no questions")

    def _question(self, row: Mapping[str, Any], given: Any, where: str) -> Question:
        if isinstance(given, bool) or not isinstance(given, str | int) or not str(given).strip():
            raise ValueError(f"{where}: its id is {given!r}, expected text or a whole number")
        where = f"{where} (id {given})"
        history, text = self._conversation(row, where)
        if not all(is_unicode(said) for said in (text, *chain(*history))):
            raise ValueError(f"{where}: its text holds half of a character (a lone surrogate), which no model can read")
        images = self._images(_value(row, self.columns.image, "image", where), where)
        marks = text.count(IMAGE_MARK) + sum(asked.count(IMAGE_MARK) for asked, _ in history)
        if marks not in (0, len(images)):
            raise ValueError(f"{where}: {marks} {IMAGE_MARK} marks for {len(images)} images")
        return Question(
            id=given,
            task=self._task(row, where),
            text=_unmarked(text),
            images=images,
            history=tuple((_unmarked(asked), answered) for asked, answered in history),
            view=self._view(row, where),
        )

    def _conversation(self, row: Mapping[str, Any], where: str) -> tuple[list[tuple[str, str]], str]:
        """What came before, and the question itself inside the template."""
        history: list[tuple[str, str]] = []
        text: Any
        if "conversations" in row and self.columns.question is None:
            history, text = _turns(row["conversations"], where)
        else:
            found = _value(row, self.columns.question, "question", where)
            text = self.text if found is None else found
        if not isinstance(text, str) or not text.replace(IMAGE_MARK, "").strip():
            wanted = self.columns.question or " or ".join(_KNOWN["question"])
            raise ValueError(f"{where}: has no question ({wanted}), and none is given for all")
        if self.template is None:
            return history, text
        fields = {**row, "question": text}
        if unknown := [name for name in _FIELD.findall(self.template) if name not in fields]:
            raise ValueError(f"{where}: the template names {unknown[0]}, which is none of {', '.join(fields)}")
        return history, _FIELD.sub(lambda match: str(fields[match[1]]), self.template)

    def _images(self, cell: Any, where: str) -> tuple[ImageSource, ...]:
        if isinstance(cell, str) and cell.lstrip().startswith("["):
            cell = literal_of(cell, where)
        cells = cell if isinstance(cell, list) else [cell]
        return tuple(self._image(entry, where) for entry in cells if entry is not None and entry != "")

    def _image(self, cell: Any, where: str) -> ImageSource:
        if isinstance(cell, dict):  # the `datasets` library's image
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return cell
        if not isinstance(cell, str) or not cell.strip():
            raise ValueError(f"{where}: image is a {type(cell).__name__}, expected a path or a list of paths")
        folder = self.image_folder or (self.source if self.source.is_dir() else self.source.parent)
        return str(folder / cell.strip())

    def _task(self, row: Mapping[str, Any], where: str) -> Task:
        named = _value(row, self.columns.task, "task", where)
        if named in (None, ""):
            draws = "target_image" in row or "target_indices" in row
            return Task.GENERATION if draws else self.task
        if str(named) not in set(Task):
            raise ValueError(f"{where}: {self.columns.task or 'task'} is {named!r}, expected {' or '.join(Task)}")
        return Task(named)

    def _view(self, row: Mapping[str, Any], where: str) -> View:
        look = {name: str(row[name]) for name in _LOOK if row.get(name) not in (None, "")}
        look = {name: str(value) for name, value in self.look.items() if value is not None} | look
        volume = look.pop("volume", None)
        try:
            return View.of(**look, volume=None if volume is None else int(volume))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _value(row: Mapping[str, Any], column: str | None, kind: str, where: str) -> Any:
    """A cell; None where there is none and the user named no column."""
    if column is not None:
        if column not in row:
            raise ValueError(f"{where}: has no column {column!r}; it has {', '.join(row)}")
        return row[column]
    return next((row[name] for name in _KNOWN[kind] if row.get(name) not in (None, "")), None)


def _turns(conversations: Any, where: str) -> tuple[list[tuple[str, str]], str]:
    """Earlier (question, answer) turns, and the last question."""
    texts: list[str] = []
    if not isinstance(conversations, list):
        raise ValueError(f"{where}: conversations is a {type(conversations).__name__}, expected a list of turns")
    for i, turn in enumerate(conversations):
        expected = "gpt" if i % 2 else "human"
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise ValueError(f"{where}: turn {i} is {turn!r:.80}, expected from and value")
        if _ROLES.get(str(turn.get("from"))) != expected:
            raise ValueError(f"{where}: turn {i} is from {turn.get('from')!r}, expected {expected}")
        texts.append(turn["value"])
    if not texts:
        raise ValueError(f"{where}: conversations is empty")
    last = len(texts) - 1 - (len(texts) % 2 == 0)
    return list(zip(texts[:last:2], texts[1:last:2], strict=True)), texts[last]


def _unmarked(text: str) -> str:
    """A question without image marks: images stand before the first one, as LLaVA puts them, too."""
    return text.replace(IMAGE_MARK, "").strip() if IMAGE_MARK in text else text


def _files(folder: Path) -> Sequence[str]:
    """Paths below a folder, in order; hidden files are left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts))
