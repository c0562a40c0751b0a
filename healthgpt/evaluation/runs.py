"""A benchmark's run: what is asked, what is answered, how it is scored, and what came out, each in a file of its own.

OUTPUT/questions.jsonl   the records, as they are asked
OUTPUT/answers.jsonl     the answers, by `healthgpt.batch`, so that a run can be interrupted
OUTPUT/drawings/         drawn images
OUTPUT/samples.jsonl     every answer with its truth and its scores
OUTPUT/judge-NAME.jsonl  verdicts of a language model (`verdicts`)
OUTPUT/results.json      figures with their numbers of samples, and everything that they depend on
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt import __version__
from healthgpt.batch.answer_file import AnswerFile, QuestionIndex
from healthgpt.batch.journal import HEADER
from healthgpt.batch.questions import Questions
from healthgpt.batch.run import Progress, Work, run_batch, to_do
from healthgpt.data.records import RecordFile
from healthgpt.evaluation.benchmarks import Row, Scoring, Selection, line_of, truth_of
from healthgpt.evaluation.clinical import clinical_scores
from healthgpt.evaluation.drawings import score_drawing
from healthgpt.evaluation.figures import Figure, figures_of
from healthgpt.evaluation.generated_text import bleu, meteor, rouge
from healthgpt.evaluation.networks import Lpips, frechet_distance
from healthgpt.evaluation.phantoms import PhantomSelection, score_phantoms
from healthgpt.evaluation.scored import Scored
from healthgpt.evaluation.verdicts import judged_in
from healthgpt.evaluation.vqa import groups_of, score_answer
from healthgpt.evaluation.words import overlap
from healthgpt.files import write_atomically
from healthgpt.provenance import commit, version_of
from taming_transformers import load_vqgan

QUESTIONS_NAME, ANSWERS_NAME = "questions.jsonl", "answers.jsonl"
SAMPLES_NAME, RESULTS_NAME = "samples.jsonl", "results.json"
DRAWINGS_NAME = "drawings"
FORMAT = 1
_PACKAGES = ("torch", "transformers", "peft", "torchmetrics", "radgraph", "scikit-image", "scipy", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A benchmark in a folder.

    Attributes:
        limit: only so many of its first records; the result is marked as partial.
        template: text around each question.
        look: window, slice, plane and volume of its images, for `Questions`.
        vqgan: the model's, for the ceilings of phantoms.
    """

    name: str
    selection: Selection
    output: Path
    limit: int | None = None
    template: str | None = None
    look: Mapping[str, Any] = field(default_factory=dict)
    vqgan: Path | None = None

    def ask(
        self, work: Work, header: Mapping[str, Any], *, batch_size: int, stop: Callable[[], bool], retry_failed: bool
    ) -> Iterator[Progress]:
        """Answers what is not answered yet.

        Args:
            header: what answers depend on, for `AnswerFile`.

        Raises:
            ValueError: the folder holds another run.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        self._write_questions()
        questions = Questions(
            source=self.output / QUESTIONS_NAME,
            template=self.template,
            task=self.selection.benchmark.task,
            look=self.look,
        )
        index = QuestionIndex(questions)
        with AnswerFile(self.output / ANSWERS_NAME, header, index) as answers:
            yield from run_batch(
                questions,
                answers,
                work,
                todo=to_do(answers, retry_failed=retry_failed),
                batch_size=batch_size,
                drawings=self.output / DRAWINGS_NAME,
                stop=stop,
            )
            if answers.done.all():
                answers.put_in_order()

    def score(self) -> dict[str, Any]:
        """Scores all answers; writes samples and results, and returns the latter."""
        with (self.output / ANSWERS_NAME).open(encoding="utf-8") as lines:
            header = json.loads(next(lines))[HEADER]
            answers = [json.loads(line) for line in lines]
        rows = list(RecordFile(self.output / QUESTIONS_NAME))
        scored = _SCORED[self.selection.benchmark.scoring](self, rows, answers)
        samples = [
            {
                "id": row["id"],
                "prompt": answer["prompt"],
                "truth": row.get("target_image") or truth_of(row),
                "answer": answer.get("image") or answer["text"],
                **({"error": answer["error"]} if "error" in answer else {}),
                **({"confidence": said["confidence"]} if "confidence" in (said := answer["metadata"]) else {}),
                "facts": row.get("metadata", {}),
                "scores": {name: round(value, 6) for name, value in scores.items()},
            }
            for row, answer, scores in zip(rows, answers, scored.scores, strict=True)
        ]
        figures = {**figures_of(scored.scores, scored.groups), **scored.more}
        failed = sum("error" in answer for answer in answers)
        results = {
            "benchmark": self.name,
            "format": FORMAT,
            "samples": len(samples),
            "failed": failed,
            "partial": bool(self.limit or self.selection.missing or failed),
            "missing_files": self.selection.missing,
            "source": self.selection.source,
            "split": self.selection.split,
            "split_sha256": hashlib.sha256("\n".join(str(row["id"]) for row in rows).encode()).hexdigest(),
            "template": self.template,
            "model_id": header["model_id"],
            "model_sha256": header["model"],
            "run": header,
            "versions": _versions(),
            "git_commit": commit(),
            "figures": {name: found.to_dict() for name, found in figures.items()},
            "not_measured": scored.not_measured,
        }
        if judged := judged_in(self.output, samples):
            results["judged"] = judged
        _write(self.output / SAMPLES_NAME, (line_of(sample) for sample in samples))
        _write(self.output / RESULTS_NAME, [json.dumps(results, indent=1, ensure_ascii=False) + "\n"])
        return results

    def _write_questions(self) -> None:
        """Writes what is asked; refuses a folder in which something else was asked."""
        rows = islice((self._placed(row) for row in self.selection), self.limit)
        text = "".join(map(line_of, rows))
        if not text:
            raise ValueError(f"{self.selection.folder}: has no records of {self.name} in split {self.selection.split}")
        path = self.output / QUESTIONS_NAME
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{path}: other records were asked in this folder; name another --output")
        _write(path, [text])

    def _placed(self, row: Row) -> Row:
        """A record whose image paths hold from the output's folder, wherever both are."""
        placed = dict(row)
        for key in ("image", "target_image", "target_focus"):
            value = row.get(key)
            if isinstance(value, str):
                placed[key] = self._path(value)
            elif value:
                placed[key] = [self._path(one) for one in value]
        return placed

    def _path(self, name: str) -> str:
        return os.path.relpath((self.selection.folder / name).resolve(), self.output.resolve())


def _score_questions(run: Run, rows: Sequence[Row], answers: Sequence[Row]) -> Scored:
    facts = [row.get("metadata", {}) for row in rows]
    # A question that failed has no answer, which is wrong.
    scores = [
        score_answer(answer["text"], truth_of(row), fact)
        for row, answer, fact in zip(rows, answers, facts, strict=True)
    ]
    return Scored(scores=scores, groups=groups_of(facts))


def _score_reports(run: Run, rows: Sequence[Row], answers: Sequence[Row]) -> Scored:
    said, true = [answer["text"] for answer in answers], [truth_of(row) for row in rows]
    scores = []
    without_meteor = False
    for one, other in zip(said, true, strict=True):
        columns = {**rouge(one, other), "f1": overlap(one, other).f1}
        found = meteor(one, other)
        without_meteor |= found is None
        scores.append(columns if found is None else {**columns, "meteor": found})
    more = {f"all/{name}": Figure(value, len(said)) for name, value in bleu(said, true).items()}
    missing = ["METEOR: nltk with its WordNet is not installed"] if without_meteor else []
    clinical = clinical_scores(said, true)
    return Scored(
        scores=[columns | found for columns, found in zip(scores, clinical.scores, strict=True)],
        groups={"all": range(len(rows))},
        more={**more, **clinical.more},
        not_measured=[*missing, *clinical.not_measured],
    )


def _score_drawings(run: Run, rows: Sequence[Row], answers: Sequence[Row]) -> Scored:
    not_measured, lpips = [], None
    try:
        lpips = Lpips.load()
    except ValueError as error:
        not_measured.append(str(error))
    scores: list[dict[str, float]] = []
    drawn: list[tuple[Path, Path]] = []
    for row, answer in zip(rows, answers, strict=True):
        if "error" in answer:
            scores.append({})
            continue
        pair = (run.output / answer["image"], run.output / row["target_image"])
        mask = run.output / row["target_focus"] if row.get("target_focus") else None
        scores.append(score_drawing(*pair, row.get("metadata", {}), mask, lpips))
        drawn.append(pair)
    more = {}
    try:
        more["all/fid"] = Figure(frechet_distance(_pictures(drawn, 0), _pictures(drawn, 1)), len(drawn))
    except ValueError as error:
        not_measured.append(str(error))
    groups: dict[str, list[int]] = {"all": list(range(len(rows)))}
    for place, row in enumerate(rows):
        groups.setdefault(f"kind={row.get('metadata', {}).get('kind', '')}", []).append(place)
    return Scored(scores=scores, groups=groups, more=more, not_measured=not_measured)


def _score_phantoms(run: Run, rows: Sequence[Row], answers: Sequence[Row]) -> Scored:
    assert isinstance(run.selection, PhantomSelection)
    return score_phantoms(run.selection, run.output, rows, answers, load_vqgan(run.vqgan) if run.vqgan else None)


def _pictures(pairs: Sequence[tuple[Path, Path]], which: int) -> Iterator[np.ndarray]:
    """Drawings or truths; truths at the drawing's size, as everywhere."""
    for pair in pairs:
        with Image.open(pair[0]) as drawing, Image.open(pair[which]) as image:
            yield np.asarray(image.convert("RGB").resize(drawing.size, Image.Resampling.LANCZOS))


_SCORED: Mapping[Scoring, Callable[[Run, Sequence[Row], Sequence[Row]], Scored]] = {
    Scoring.QUESTIONS: _score_questions,
    Scoring.REPORTS: _score_reports,
    Scoring.DRAWINGS: _score_drawings,
    Scoring.PHANTOMS: _score_phantoms,
}


def _write(path: Path, lines: Iterator[str] | Sequence[str]) -> None:
    def fill(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(lines)

    write_atomically(path, fill)


def _versions() -> dict[str, str]:
    found = {name: version_of(name) for name in _PACKAGES}
    return {
        "healthgpt": __version__,
        "python": platform.python_version(),
        **{name: version for name, version in found.items() if version},
    }
