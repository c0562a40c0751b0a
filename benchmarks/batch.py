"""What `healthgpt batch` gains, costs and survives, with the shipped model.

    python benchmarks/batch.py [--parts speed memory kills] [--folder DIR]

speed   questions and drawings a second, one by one and in batches, and what the machinery around the model costs
memory  peak memory for 100,000 and 1,000,000 questions to a model that says nothing
kills   a run of several processes, all of them killed at random moments; kept in DIR, so that it can be gone on with

Rates are of runs in turns, the best of several, without the start of processes; rows of parts that are left out stay.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from report import RESULTS, publish

from healthgpt import HealthGPT, Request
from healthgpt.batch.answer_file import AnswerFile, QuestionIndex
from healthgpt.batch.batches import batches_of
from healthgpt.batch.local import separated, work_here
from healthgpt.batch.pictures import pictures_of_batch
from healthgpt.batch.questions import Questions
from healthgpt.batch.run import run_batch, to_do
from healthgpt.batch.worker import Worker
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.exchange import Answer
from healthgpt.tasks import Task

ROOT = Path(__file__).parents[1]
PARTS = ("speed", "memory", "kills")
GOALS = {Task.COMPREHENSION: 3.0, Task.GENERATION: 2.5}
MOST_OVERHEAD, MOST_BYTES = 5.0, 64.0  # percent; of memory, a question
ASKED = (
    "What imaging modality is this?",
    "What organ is shown in this image?",
    "Is there evidence of a lesion?",
    "Is the finding on the left side, the right side or both?",
    "Describe this image.",
)
DRAWN = "Reconstruct the image."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="where the run that is killed is kept (default: a new one)")
    parser.add_argument("--questions", type=int, default=800, help="speed: that are answered")
    parser.add_argument("--drawings", type=int, default=120, help="speed: that are drawn")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--killed_questions", type=int, default=2000)
    parser.add_argument("--num_processes", type=int, default=2)
    parser.add_argument("--null", nargs=2, type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.null:
        _answer_nothing(*flags.null)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = flags.folder or Path(name)
        folder.mkdir(exist_ok=True)
        measures = {"speed": _speed, "memory": _memory, "kills": _kills}
        rows = _rows_of_others(flags.parts)
        for part in flags.parts:
            rows += [{"part": part, **row} for row in measures[part](folder, flags)]
    rows.sort(key=lambda row: PARTS.index(row["part"]))
    publish("batch", rows, batch_size=flags.batch_size)


def _rows_of_others(parts: Sequence[str]) -> list[dict[str, Any]]:
    path = RESULTS / "batch.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in rows if row["part"] not in parts]


def _row(what: str, value: float, unit: str, goal: str = "") -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit, "goal": goal}


def _write_images(folder: Path, count: int) -> list[str]:
    """So many images of phantoms, or a few more."""
    images: list[str] = []
    numbers = itertools.count()
    while len(images) < count:
        number = next(numbers)
        for modality, image in draw_patient("test", 9, number).images.items():
            images.append(f"{number}-{modality}.png")
            if not (folder / images[-1]).exists():
                Image.fromarray(image).save(folder / images[-1])
    return images


def _write_questions(
    folder: Path, count: int, texts: Sequence[str], task: Task | None = None, per_image: int = 6
) -> Path:
    """A file of questions about phantoms, so many in a row about one image; without a task, some are for drawings."""
    images = _write_images(folder, -(-count // per_image))
    path = folder / f"{task or 'both'}-{per_image}.jsonl"
    with path.open("w") as file:
        for i in range(count):
            draws = i % 20 == 19 if task is None else task is Task.GENERATION
            row = {"question_id": i, "image": images[i // per_image], "text": DRAWN if draws else texts[i % len(texts)]}
            file.write(json.dumps(row | {"task": Task.GENERATION if draws else Task.COMPREHENSION}) + "\n")
    return path


# Speed


def _speed(folder: Path, flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    model = HealthGPT.from_pretrained("nano", device="cpu")
    for task, per_image, count, unit in (
        (Task.COMPREHENSION, 6, flags.questions, "questions/s, six to an image"),
        (Task.COMPREHENSION, 1, flags.questions, "questions/s, one to an image"),
        (Task.GENERATION, 1, flags.drawings, "drawings/s"),
    ):
        questions = Questions(source=_write_questions(folder, count, ASKED, task, per_image))
        ways: dict[str, Callable[[], float]] = {
            "one by one": lambda questions=questions: _one_by_one(model, questions),
            "the model alone": lambda questions=questions: _model_alone(model, questions, flags.batch_size),
            "in batches": lambda questions=questions: _in_batches([lambda: Worker(model, {})], questions, flags),
            f"in batches, {flags.num_processes} processes": lambda questions=questions: _in_batches(
                [functools.partial(_worker_of_a_share, flags.num_processes)] * flags.num_processes, questions, flags
            ),
        }
        for way in ("one by one", "the model alone"):  # warm-up
            ways[way]()
        rates = dict.fromkeys(ways, 0.0)
        for _ in range(flags.rounds):
            for way, measure in ways.items():
                rates[way] = max(rates[way], measure())
        slowest, alone, batched, *shared = rates.values()
        for way, rate in rates.items():
            yield _row(way, rate, unit)
        yield _row("in batches / one by one", batched / slowest, "times")
        best = max(batched, *shared)
        yield _row("the faster of both ways in batches / one by one", best / slowest, "times", f">= {GOALS[task]}")
        # Below zero where what the machinery does beside the model saves more than it costs.
        yield _row("the machinery's time, of the model's", 100 * (alone / batched - 1), "%", f"<= {MOST_OVERHEAD}")


def _worker_of_a_share(num_processes: int) -> Worker:
    """One process's model, on its share of the cores."""
    import torch

    torch.set_num_threads(max((os.cpu_count() or 1) // num_processes, 1))
    return Worker(HealthGPT.from_pretrained("nano", device="cpu"), {})


def _one_by_one(model: HealthGPT, questions: Questions) -> float:
    started = time.perf_counter()
    count = 0
    for question in questions:
        ask = model.answer if question.task is Task.COMPREHENSION else model.draw
        ask(question.text, list(question.images))
        count += 1
    return count / (time.perf_counter() - started)


def _model_alone(model: HealthGPT, questions: Questions, batch_size: int) -> float:
    """The same batches, all images read before."""
    batches = [separated(batch, pictures_of_batch(batch))[1] for batch in batches_of(enumerate(questions), batch_size)]
    started = time.perf_counter()
    for requests in batches:
        model.run_batch(requests, batch_size=batch_size)
    return sum(map(len, batches)) / (time.perf_counter() - started)


def _in_batches(makers: Sequence[Callable[[], Worker]], questions: Questions, flags: argparse.Namespace) -> float:
    """Everything, from the first look at the file to the answers in order, but for the time until the first batch."""
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        index = QuestionIndex(questions)
        with AnswerFile(Path(name) / "a.jsonl", {"model_id": "nano"}, index) as answers:
            work = functools.partial(work_here, makers=makers, num_readers=1)
            run = run_batch(
                questions,
                answers,
                work,
                todo=to_do(answers),
                batch_size=flags.batch_size,
                drawings=Path(name) / "drawn",
            )
            opened = time.perf_counter()
            first = next(run)
            warm = time.perf_counter()
            *_, last = run
            answered = time.perf_counter()
            answers.put_in_order()
            ended = time.perf_counter()
        # The stretch from the first batch to the last, and what comes before and after it.
        share = (last.done - first.done) / last.done
        return (last.done - first.done) / (answered - warm + share * (opened - started + ended - answered))


# Memory


class Nothing:
    """A model that takes no time."""

    def run_batch(self, requests: Sequence[Request], **_: Any) -> list[Answer]:
        return [Answer(text="", token_ids=[0], prompt_ids=[0]) for _ in requests]


def _memory(folder: Path, flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    peaks, counts = [], (flags.lines // 10, flags.lines)
    for count in counts:
        source = folder / f"{count}.jsonl"
        with source.open("w") as file:
            for i in range(count):
                file.write(json.dumps({"question_id": i, "text": f"Is this the question of number {i}? " * 4}) + "\n")
        command = [sys.executable, __file__, "--null", source, source.with_suffix(".answers")]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, cwd=ROOT)
        peak, seconds, written = json.loads(done.stdout)
        assert written == count + 1
        peaks.append(peak)
        yield _row(f"peak for {count:,} questions", peak / 2**20, "MiB")
        yield _row(f"{count:,} questions, {source.stat().st_size / 2**20:.0f} MiB", 1e6 * seconds / count, "µs each")
        source.unlink()
        source.with_suffix(".answers").unlink()
    growth = (peaks[1] - peaks[0]) / (counts[1] - counts[0])
    yield _row("growth by a question", growth, "bytes", f"<= {MOST_BYTES:.0f}")


def _answer_nothing(source: Path, output: Path) -> None:
    started = time.perf_counter()
    questions = Questions(source=source)
    with AnswerFile(output, {"model_id": "nothing"}, QuestionIndex(questions)) as answers:
        work = functools.partial(work_here, makers=[lambda: Worker(Nothing(), {})], num_readers=0)
        for _ in run_batch(
            questions, answers, work, todo=to_do(answers), batch_size=256, drawings=output.with_name("drawn")
        ):
            pass
        answers.put_in_order()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with output.open("rb") as lines:
        print(json.dumps([peak, time.perf_counter() - started, sum(1 for _ in lines)]))


# Kills


def _kills(folder: Path, flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    source = _write_questions(folder, flags.killed_questions, ASKED, per_image=100)
    whole, killed = folder / "whole" / "a.jsonl", folder / "killed" / "a.jsonl"
    counted = folder / "killed" / "kills.json"
    for path in (whole, killed):
        path.parent.mkdir(exist_ok=True)
    _start(source, whole, flags).wait()
    hits = json.loads(counted.read_text()) if counted.exists() else []
    while len(hits) < flags.kills:
        hits.append(_kill(source, killed, flags, random.Random(len(hits))))
        counted.write_text(json.dumps(hits))
        print(f"kill {len(hits)}: {hits[-1]}", file=sys.stderr)
    _start(source, killed, flags).wait()
    ids = [json.loads(line)["question_id"] for line in killed.read_text().splitlines()[1:]]
    yield _row("kills", len(hits) - hits.count("ended"), "", f"{flags.kills}")
    yield _row("of them before the first answer of their run", hits.count("start"), "")
    yield _row("questions", len(ids), "", f"{flags.killed_questions}, each once")
    yield _row("of them once", sum(ids.count(i) == 1 for i in range(flags.killed_questions)), "")
    same = _digests(killed.parent) == _digests(whole.parent)
    yield _row("answers and pictures, byte by byte, are an uninterrupted run's", int(same), "", "1")


def _kill(source: Path, output: Path, flags: argparse.Namespace, rng: random.Random) -> str:
    """Starts a run and kills all its processes: a fifth of the runs before any answer, others after a few."""
    before = _num_lines(output)
    process = _start(source, output, flags)
    try:
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0.2, 5.0))
        else:
            more = rng.randint(1, 1 + flags.killed_questions // flags.kills)
            while process.poll() is None and _num_lines(output) < before + more:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.1))
        if process.poll() is not None:
            return "ended"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "answers" if _num_lines(output) > before else "start"


def _start(source: Path, output: Path, flags: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "healthgpt.cli", "batch", "--device", "cpu", "--input", source, "--output", output]
    command += ["--num_processes", flags.num_processes]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True)


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _digests(folder: Path) -> dict[str, str]:
    files = [folder / "a.jsonl", *(folder / "a_drawings").iterdir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()
