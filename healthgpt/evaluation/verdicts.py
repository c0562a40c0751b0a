"""Verdicts of a judge on a run: a file that a kill cannot harm, and the figures of what is in it.

RUN/judge-NAME.jsonl: first a header, {"header": {..., "hash"}}, that says who judged and by which prompt; then a line
per sample, {"id", "key", "verdict", "reply"}, where the key is of question, truth and answer. So a verdict on an answer
that is no longer the run's does not count, and the same answer to the same question is asked about once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from healthgpt.batch.journal import HEADER, Journal, begins_as_journal, difference, line_of
from healthgpt.batch.run import file_name
from healthgpt.evaluation.endpoint import Endpoint, Reply
from healthgpt.evaluation.figures import figures_of
from healthgpt.evaluation.judge import Case, Judge, Verdict, case_of, read_verdict
from healthgpt.evaluation.vqa import groups_of

COLUMN = "judge"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, with the reply that it was read from, or with why there is no reply."""

    verdict: Verdict
    reply: str
    error: str | None = None

    @classmethod
    def of(cls, reply: Reply) -> Self:
        verdict = Verdict.UNREADABLE if reply.error else read_verdict(reply.text)
        return cls(verdict=verdict, reply=reply.text, error=reply.error)

    def to_line(self, case: Case) -> bytes:
        record = {"id": case.id, "key": case.key, "verdict": str(self.verdict), "reply": self.reply}
        return line_of(record | ({"error": self.error} if self.error else {}))


def verdicts_path(folder: Path, name: str) -> Path:
    """Where a judge's verdicts on a run are."""
    return folder / f"judge-{file_name(name)}.jsonl"


class VerdictFile(Journal):
    """An open file of verdicts, which one command at a time can have.

    Attributes:
        judgements: key -> the last judgement on it; done: ids and keys of the samples that have one.

    Raises:
        ValueError: it is in use, is no such file, is damaged or holds another judge's verdicts.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]):
        self.judgements: dict[str, Judgement] = {}
        self.done: set[tuple[str, str]] = set()
        super().__init__(path, what="verdicts", who="judge's command", safe="what was judged before")
        try:
            self._resume(header)
        except BaseException:
            self.close()
            raise

    def forget_unreadable(self) -> None:
        """Lets what has no readable verdict be asked again."""
        unreadable = {key for key, found in self.judgements.items() if found.verdict is Verdict.UNREADABLE}
        self.judgements = {key: found for key, found in self.judgements.items() if key not in unreadable}
        self.done = {(name, key) for name, key in self.done if key not in unreadable}

    def add(self, judged: Sequence[tuple[Case, Judgement]]) -> None:
        """Appends judgements, and waits until they are on the disk.

        Raises:
            OSError: the disk is full; what was judged before is safe.
        """
        if not judged:
            return
        self.append(b"".join(judgement.to_line(case) for case, judgement in judged))
        for case, judgement in judged:
            self.judgements[case.key] = judgement
            self.done.add((case.id, case.key))

    def _resume(self, header: Mapping[str, Any]) -> None:
        found, lines = _parsed(self.path, self.path.read_bytes())
        if found is None:
            self.append(line_of({HEADER: header}))
        elif found.get("hash") != header["hash"]:
            raise ValueError(
                f"{self.path}: its verdicts came about with {difference(found, header)}; give this judge a "
                "--judge_name of its own, or remove the file"
            )
        self.judgements = _judgements(lines)
        self.done = {(line["id"], line["key"]) for line in lines}


def judge_cases(
    cases: Sequence[Case],
    file: VerdictFile,
    known: MutableMapping[str, Judgement],
    judge: Judge,
    endpoint: Endpoint,
) -> Iterator[tuple[int, int]]:
    """Judges all cases that have no verdict; yields how many have one and how many there are, after each group.

    A case without an answer is wrong and is not asked about.

    Args:
        known: judgements of this judge by key, of this run and of others; what is found out is added.

    Raises:
        EndpointError: the endpoint does not work. OSError: the disk is full. What was judged is in the file.
    """
    todo: dict[str, list[Case]] = {}
    for case in cases:
        if case.answer and (case.id, case.key) not in file.done:
            todo.setdefault(case.key, []).append(case)
    file.add([(case, known[key]) for key, same in todo.items() if key in known for case in same])
    asked = [same for key, same in todo.items() if key not in known]
    total = len(cases)
    done = total - sum(map(len, asked))
    yield done, total
    with contextlib.closing(endpoint.ask((judge.asks(same[0]) for same in asked), works=bool(known))) as coming:
        for replies in coming:
            judged = [(case, Judgement.of(reply)) for place, reply in replies for case in asked[place]]
            file.add(judged)
            known.update((case.key, judgement) for case, judgement in judged)
            done += len(judged)
            yield done, total


def judged(
    header: Mapping[str, Any], judgements: Mapping[str, Judgement], samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What a judge found of a run, for its `results.json`: who judged, and figures of the column `judge`.

    An unreadable verdict is not in the column, but counted. Of a part of the samples there are no figures.
    """
    verdicts: list[Verdict | None] = []
    for case in map(case_of, samples):
        found = judgements.get(case.key)
        verdicts.append(Verdict.WRONG if not case.answer else found.verdict if found else None)
    scores = [
        {COLUMN: float(verdict is Verdict.RIGHT)} if verdict in (Verdict.RIGHT, Verdict.WRONG) else {}
        for verdict in verdicts
    ]
    unjudged = verdicts.count(None)
    figures = {} if unjudged else figures_of(scores, groups_of([sample.get("facts", {}) for sample in samples]))
    return {
        **{key: value for key, value in header.items() if key != "noted"},
        "samples": len(samples),
        "unreadable": verdicts.count(Verdict.UNREADABLE),
        "unjudged": unjudged,
        "figures": {name: found.to_dict() for name, found in figures.items()},
    }


def judged_in(folder: Path, samples: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What every judge found whose verdicts are in a run's folder, by the judge's name.

    Raises:
        ValueError: a file of verdicts is damaged.
    """
    results = {}
    for path in sorted(folder.glob("judge-*.jsonl")):
        header, lines = _parsed(path, path.read_bytes())
        if header is not None:
            results[str(header["judge"])] = judged(header, _judgements(lines), samples)
    return results


def _parsed(path: Path, data: bytes) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The header and the lines of a file, without a torn one; a header that is torn itself is none."""
    if not begins_as_journal(data):
        raise ValueError(f"{path}: does not begin with a header, so it is no file of verdicts")
    lines = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            value = json.loads(line)
            wanted = {HEADER} if number == 1 else {"id", "key", "verdict", "reply"}
            if not wanted <= value.keys() or (number > 1 and value["verdict"] not in set(Verdict)):
                raise ValueError
        except (ValueError, AttributeError):
            raise ValueError(f"{path}, line {number}: is no verdict; the file is damaged there") from None
        lines.append(value)
    return (lines[0][HEADER], lines[1:]) if lines else (None, [])


def _judgements(lines: Sequence[Mapping[str, Any]]) -> dict[str, Judgement]:
    return {
        line["key"]: Judgement(verdict=Verdict(line["verdict"]), reply=line["reply"], error=line.get("error"))
        for line in lines
    }
