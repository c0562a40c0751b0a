"""The file of answers: lines are only ever added while a run goes on, and nothing that was answered can be lost.

The first line is a header, {"header": {..., "hash"}}, that says how the answers came about; every other line is an
answer, {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}, with "image" for a drawing and "error"
for a failure. Lines are written in groups and reach the disk before the next group. A line torn by a kill is cut off
when the file is opened again. At the end of a run the lines are put into the questions' order, in one atomic step, so
that a file does not tell how often its run was interrupted.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from healthgpt.batch.journal import HEADER, Journal, difference, hash_of, line_of
from healthgpt.batch.questions import Question, Questions
from healthgpt.data.compact import key_of
from healthgpt.files import write_atomically


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


class AnswerFile(Journal):
    """Answers to an index of questions, in a file that this object alone may write to while it is open.

    Attributes:
        done: for each question, whether it has an answer.
        failed: for each question, whether what it has is a failure.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], index: QuestionIndex, *, allow_mixed: bool = False):
        """Opens the file, new or as an earlier run left it.

        Args:
            header: how answers come about now; its hash is added.
            allow_mixed: go on with a file whose answers came about otherwise, after another header.

        Raises:
            ValueError: the file is in use, is no such file, holds other questions' answers or another run's.
        """
        self.header = {**header, "hash": hash_of(header)}
        self._index = index
        self._offsets = np.full(len(index), -1, np.int64)
        self.failed = np.zeros(len(index), bool)
        self._headers: list[bytes] = []
        self._num_lines = 0
        super().__init__(path, what="answers of a run", who="run", safe="what was answered before")
        try:
            self._resume(allow_mixed)
        except BaseException:
            self.close()
            raise

    @property
    def done(self) -> np.ndarray:
        return self._offsets >= 0

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
        lines = [line_of(answer) for _, answer in answers]
        offset = self.append(b"".join(lines))
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

    def _resume(self, allow_mixed: bool) -> None:
        """Reads what is there, and writes the header where it is missing."""
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
        if self._headers and not keys:  # a run that ended before its first answer binds nobody
            self.empty()
            self._headers.clear()
        self._refuse_mixing(allow_mixed)
        places = self._index.places(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.int64)
        self._refuse_strangers(places, np.frombuffer(prompts, np.uint64), np.frombuffer(offsets, np.int64))
        self._num_lines = len(places) + repeated
        # Of several lines about one question the last one holds; numpy takes the last of repeated places.
        self._offsets[places], self.failed[places] = np.frombuffer(offsets, np.int64), np.frombuffer(failed, np.int8)

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
                f"{self.path}: its answers came about with {difference(found[-1], self.header)}; "
                "name another file, or allow it by --allow_mixed"
            )
        line = line_of({HEADER: self.header})
        self.append(line)
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
