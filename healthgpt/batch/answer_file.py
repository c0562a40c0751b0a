"""The file of answers: lines are only ever added while a run goes on, and nothing that was answered can be lost.

The first line is a header, {"header": {..., "hash"}}, that says how the answers came about; every other line is an
answer, {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}, with "image" for a drawing and "error"
for a failure. Lines are written in groups and reach the disk before the next group. A line torn by a kill is cut off
when the file is opened again. At the end of a run the lines are put into the questions' order, in one atomic step, so
that a file does not tell how often its run was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from filelock import FileLock, Timeout

from healthgpt.batch.questions import Question, Questions
from healthgpt.data.compact import key_of
from healthgpt.files import writable_target, write_atomically

HEADER = "header"
_BEGINNING = b'{"header": {'  # of every file of ours
_AT_ONCE = 2**20  # bytes copied at a time


def bytes_of(text: str | int) -> bytes:
    """Text as UTF-8; names of files may hold what is none."""
    return str(text).encode("utf-8", "surrogatepass")


class QuestionIndex:
    """Which questions there are: checks all of them once, and keeps 16 bytes of each.

    Raises:
        ValueError: two questions have one id; what `Questions` raises.
    """

    def __init__(self, questions: Questions):
        ids, prompts = array("Q"), array("Q")
        for question in questions:
            ids.append(key_of(str(question.id)))
            prompts.append(key_of(question.text))
        self.prompts = np.frombuffer(prompts, np.uint64)
        keys = np.frombuffer(ids, np.uint64)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        repeated = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if len(repeated):
            first, second = sorted(self._order[repeated[0] : repeated[0] + 2].tolist())
            name = next(question.id for i, question in enumerate(questions) if i == first)
            others = f"; {len(repeated)} ids are used again" if len(repeated) > 1 else ""
            raise ValueError(
                f"{questions.source}: id {name} belongs to records {first + 1} and {second + 1}, "
                f"expected one each{others}"
            )

    def __len__(self) -> int:
        return len(self._sorted)

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Positions of the questions with these keys; -1 for those of none."""
        spots = np.minimum(np.searchsorted(self._sorted, keys), len(self) - 1)
        return np.where(self._sorted[spots] == keys, self._order[spots], -1)


class AnswerFile:
    """Answers to an index of questions, in a file that this object alone may write to while it is open.

    Attributes:
        done: for each question, whether it has an answer.
        failed: for each question, whether what it has is a failure.
        repaired: bytes of a torn line that were cut off.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], index: QuestionIndex, *, allow_mixed: bool = False):
        """Opens the file, new or as an earlier run left it.

        Args:
            header: how answers come about now; its hash is added.
            allow_mixed: go on with a file whose answers came about otherwise, after another header.

        Raises:
            ValueError: the file is in use, is no such file, holds other questions' answers or another run's.
        """
        self.path = writable_target(path)
        self.header = {**header, "hash": hash_of(header)}
        self._index = index
        self._offsets = np.full(len(index), -1, np.int64)
        self.failed = np.zeros(len(index), bool)
        self._headers: list[bytes] = []
        self._num_lines = 0
        self.repaired = 0
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"{path}: another run is writing to it") from None
        try:
            self._file = path.open("a+b", buffering=0)
            self._resume(allow_mixed)
        except BaseException:
            self.close()
            raise

    @property
    def done(self) -> np.ndarray:
        return self._offsets >= 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        if not self._lock.is_locked:
            return
        if file := getattr(self, "_file", None):
            file.close()
        with contextlib.suppress(OSError):  # Windows does not delete what is open
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def answer(self, question: Question, text: str, **more: Any) -> dict[str, Any]:
        """The record of an answer; `metadata` is added to, other keywords come before it."""
        run = self.header["hash"]
        metadata = {"task": str(question.task), **more.pop("metadata", {}), "run": run[:12]}
        return {
            "question_id": question.id,
            "prompt": question.text,
            "text": text,
            "answer_id": hashlib.sha256(bytes_of(f"{run}:{question.id}")).hexdigest()[:22],
            "model_id": self.header["model_id"],
            **more,
            "metadata": metadata,
        }

    def add(self, answers: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Appends answers, each with its question's position, and waits until they are on the disk.

        Raises:
            OSError: the disk is full; none of these answers is in the file then.
        """
        lines = [_line(answer) for _, answer in answers]
        offset = self._append(b"".join(lines))
        for (place, answer), line in zip(answers, lines, strict=True):
            self._offsets[place], self.failed[place] = offset, "error" in answer
            offset += len(line)
        self._num_lines += len(lines)

    def refuse_others(self, questions: Sequence[Question], places: Sequence[int]) -> None:
        """Checks that these are the questions that the index has at these places.

        Raises:
            ValueError: they are not.
        """
        keys = np.array([key_of(str(question.id)) for question in questions], np.uint64)
        strangers = np.flatnonzero(self._index.places(keys) != np.array(places))
        if len(strangers):
            name = questions[int(strangers[0])].id
            raise ValueError(f"{self.path}: the questions changed while they were answered (id {name})")

    def put_in_order(self) -> None:
        """Puts the answers into the questions' order, one each, and closes the file."""
        offsets = self._offsets[self.done]
        if len(offsets) < self._num_lines or np.any(offsets[1:] < offsets[:-1]):
            with self.path.open("rb") as file:
                write_atomically(self.path, lambda path: self._copy(file, offsets, path))
        self.close()

    def _copy(self, file: BinaryIO, offsets: np.ndarray, path: Path) -> None:
        with path.open("wb") as ordered:
            ordered.writelines(self._headers)
            for offset in offsets.tolist():
                file.seek(offset)
                ordered.write(file.readline())

    def _append(self, data: bytes) -> int:
        """Adds bytes, all of them or none, and returns where they begin."""
        start = self._file.seek(0, os.SEEK_END)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(start)
            raise OSError(error.errno, f"{error.strerror}; what was answered before is safe", str(self.path)) from None
        return start

    def _resume(self, allow_mixed: bool) -> None:
        """Reads what is there, cuts off a torn line, and writes the header where it is missing."""
        self._refuse_other_files()
        self._cut_torn_line()
        keys, prompts, offsets, failed = array("Q"), array("Q"), array("q"), array("b")
        repeated = 0
        for number, offset, value, line in self._lines():
            if isinstance(value.get(HEADER), dict):
                if line in self._headers:  # files of several machines were joined
                    repeated += 1
                else:
                    self._headers.append(line)
            elif missing := [name for name in ("question_id", "prompt") if name not in value]:
                raise ValueError(f"{self.path}, line {number}: is no answer, it has no {missing[0]}")
            else:
                keys.append(key_of(str(value["question_id"])))
                prompts.append(key_of(value["prompt"]))
                offsets.append(offset)
                failed.append("error" in value)
        self._refuse_mixing(allow_mixed)
        places = self._index.places(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.int64)
        self._refuse_strangers(places, np.frombuffer(prompts, np.uint64), np.frombuffer(offsets, np.int64))
        self._num_lines = len(places) + repeated
        # Of several lines about one question the last one holds; numpy takes the last of repeated places.
        self._offsets[places], self.failed[places] = np.frombuffer(offsets, np.int64), np.frombuffer(failed, np.int8)

    def _refuse_other_files(self) -> None:
        """Before anything is cut off, as it may be a file of something else, named by mistake."""
        self._file.seek(0)
        if not _BEGINNING.startswith(self._file.read(len(_BEGINNING))):
            raise ValueError(f"{self.path}: does not begin with a header, so it is no file of answers of a run")

    def _cut_torn_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end:
            start = max(end - _AT_ONCE, 0)
            self._file.seek(start)
            found = self._file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        self.repaired = size - end
        if self.repaired:
            self._file.truncate(end)

    def _lines(self) -> Iterator[tuple[int, int, dict[str, Any], bytes]]:
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    value = json.loads(line)
                except ValueError:
                    value = None
                if not isinstance(value, dict):
                    raise ValueError(f"{self.path}, line {number}: is not a JSON object; the file is damaged there")
                yield number, offset, value, line
                offset += len(line)

    def _refuse_mixing(self, allow_mixed: bool) -> None:
        found = [json.loads(line)[HEADER] for line in self._headers]
        if found and found[-1].get("hash") == self.header["hash"]:
            return
        if found and not allow_mixed:
            raise ValueError(
                f"{self.path}: its answers came about with {_difference(found[-1], self.header)}; "
                "name another file, or allow it by --allow_mixed"
            )
        line = _line({HEADER: self.header})
        self._append(line)
        self._headers.append(line)

    def _refuse_strangers(self, places: np.ndarray, prompts: np.ndarray, offsets: np.ndarray) -> None:
        strangers = np.flatnonzero(places < 0)
        if len(strangers):
            name = self._at(offsets[strangers[0]])["question_id"]
            raise ValueError(
                f"{self.path}: {len(strangers)} answers, such as {name}'s, belong to none of the questions; "
                "it is another run's file"
            )
        changed = np.flatnonzero(self._index.prompts[places] != prompts)
        if len(changed):
            old = self._at(offsets[changed[0]])
            raise ValueError(
                f"{self.path}: {len(changed)} questions were others when they were answered, such as "
                f"{old['question_id']}: {old['prompt']!r:.80}"
            )

    def _at(self, offset: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(offset)
            return json.loads(file.readline())


def hash_of(values: Mapping[str, Any]) -> str:
    """A hash of everything that answers depend on; of a header, what is listed under `"noted"` is left out."""
    kept = {key: value for key, value in values.items() if key not in ("noted", "hash")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = sorted({*found, *wanted} - {"hash", "noted"})
    key = next((name for name in names if found.get(name) != wanted.get(name)), "hash")
    return f"{key} {found.get(key)!r:.120}, not {wanted.get(key)!r:.120}"


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
