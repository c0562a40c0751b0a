"""`healthgpt batch` in processes of its own: killed, interrupted and started again, its file ends up the same."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from healthgpt.batch.batches import batches_of
from healthgpt.batch.pictures import PictureReader
from healthgpt.batch.processes import run_in_processes
from healthgpt.batch.questions import Question
from healthgpt.batch.reading import Failure
from healthgpt.batch.worker import Worker
from healthgpt.cli import main
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.exchange import Answer, Request
from healthgpt.tasks import Task

ROOT = Path(__file__).parents[1]
COUNT = 60
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")


def flags(folder: Path, output: Path) -> list[str]:
    words = ["batch", "--device", "cpu", "--input", folder / "q.jsonl", "--output", output, "--batch_size", 2]
    return [str(word) for word in words]


class Run:
    """A run of the command in a process group of its own, its messages in a file."""

    def __init__(self, folder: Path, output: Path, *more: object):
        self.output = output
        self._messages = output.with_name("messages.txt")
        with self._messages.open("wb") as messages:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "healthgpt.cli", *flags(folder, output), *map(str, more)],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def messages(self) -> str:
        return self._messages.read_text()

    def workers(self) -> list[int]:
        """Its processes but for Python's own helper."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(number) for number in listed if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()]

    def wait_for_answers(self, count: int) -> None:
        wait(lambda: self.process.poll() is not None or num_lines(self.output) > count)
        assert self.process.poll() is None, f"it ended: {self.messages}"


def wait(condition: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def alive(number: int) -> bool:
    status = Path(f"/proc/{number}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    images = []
    for number in range(4):
        for modality, image in draw_patient("test", 6, number).images.items():
            images.append(f"{number}-{modality}.png")
            Image.fromarray(image).save(folder / images[-1])
    rows = [
        {"question_id": i, "image": images[i % len(images)], "text": "Is it an MRI?" if i % 5 else "Describe it."}
        for i in range(COUNT)
    ]
    for row in rows[::12]:
        row |= {"text": "Reconstruct the image.", "task": "generation"}
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory) -> dict[str, bytes]:
    """What a run leaves that nothing interrupts."""
    output = tmp_path_factory.mktemp("whole") / "a.jsonl"
    assert main([*flags(asked, output), "--num_readers", "0"]) == 0
    return left(output)


def left(output: Path) -> dict[str, bytes]:
    pictures = output.with_name("a_drawings").iterdir()
    return {"answers": output.read_bytes(), **{path.name: path.read_bytes() for path in pictures}}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_stops_after_a_batch_and_the_same_command_goes_on(asked, whole, tmp_path, number, code):
    output = tmp_path / "a.jsonl"
    with Run(asked, output) as run:
        run.wait_for_answers(4)
        os.killpg(run.process.pid, number)  # as a terminal does: readers of images get it, too
        assert run.process.wait(60) == code
        assert f"interrupted with {num_lines(output) - 1} answers; the same command goes on" in run.messages
        assert "Traceback" not in run.messages
        assert 4 < num_lines(output) < COUNT
        wait(lambda: not run_remains(run), 10)
    assert main([*flags(asked, output), "--num_readers", "0"]) == 0
    assert left(output) == whole


def run_remains(run: Run) -> bool:
    """Whether anything of its process group is left, but for what only waits to be reaped."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = status.read_text().rpartition(")")[2].split()[:3]
            if int(group) == run.process.pid and state != "Z":
                return True
    return False


def test_lost_workers_are_replaced_and_none_outlives_the_run(asked, whole, tmp_path):
    output = tmp_path / "a.jsonl"
    with Run(asked, output, "--num_processes", 2, "--num_readers", 0) as run:
        wait(lambda: len(run.workers()) == 2)
        os.killpg(run.process.pid, signal.SIGINT)  # while they import
        assert run.process.wait(180) == 130
        assert "Traceback" not in run.messages
    with Run(asked, output, "--num_processes", 2) as run:
        run.wait_for_answers(8)
        lost = run.workers()[0]
        os.kill(lost, signal.SIGKILL)
        run.wait_for_answers(num_lines(output) + 4)
        wait(lambda: len(run.workers()) >= 2)
        workers = run.workers()
        assert lost not in workers
        os.kill(run.process.pid, signal.SIGKILL)
        wait(lambda: not any(map(alive, workers)), 60)
    assert main([*flags(asked, output), "--num_readers", "0"]) == 0
    assert left(output) == whole


@pytest.mark.slow
def test_killed_at_random_moments_the_file_ends_up_the_same(asked, whole, tmp_path):
    output = tmp_path / "a.jsonl"
    rng = random.Random(3)
    for _ in range(5):
        with Run(asked, output, "--num_processes", 2) as run:
            run.wait_for_answers(num_lines(output))
            time.sleep(rng.uniform(0, 0.5))
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
    with Run(asked, output, "--num_processes", 2) as run:
        assert run.process.wait(180) == 0
    assert left(output) == whole
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "a_drawings", "messages.txt"}


def ray_workers(run: Run) -> list[int]:
    """The processes of a run's own cluster that hold a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            held = b"MapWorker" in (folder / "cmdline").read_bytes()
            if held and run.process.pid in ancestors(int(folder.name)):
                found.append(int(folder.name))
    return found


def ancestors(number: int) -> list[int]:
    found = []
    while number > 1:
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(number)
    return found


@pytest.mark.slow
def test_a_lost_worker_of_a_cluster_is_replaced(asked, whole, tmp_path):
    pytest.importorskip("ray")
    output = tmp_path / "a.jsonl"
    with Run(asked, output, "--ray", "local", "--num_processes", 2) as run:
        run.wait_for_answers(4)
        workers = ray_workers(run)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert run.process.wait(300) == 0, run.messages
        assert "Traceback" not in run.messages
    assert left(output) == whole


@pytest.mark.slow
def test_a_launcher_of_several_processes_has_one_do_the_work(asked, whole, tmp_path):
    output = tmp_path / "a.jsonl"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "healthgpt.cli", *flags(asked, output)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{COUNT} answers, 0 of them failures") == 1
    assert left(output) == whole


def test_what_a_launcher_started_has_to_fit_the_command(asked, tmp_path, monkeypatch, capsys):
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    assert main(flags(asked, tmp_path / "a.jsonl")) == 2
    assert "started 4 processes, 2 of them here; for several machines use --ray" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert main([*flags(asked, tmp_path / "a.jsonl"), "--num_processes", "3"]) == 2
    assert "--num_processes is 3, but the launcher started 4 processes" in capsys.readouterr().err
    assert main(flags(asked, tmp_path / "a.jsonl")) == 0
    assert not (tmp_path / "a.jsonl").exists()  # the first of the four writes it


@pytest.mark.parametrize("where", [(), pytest.param(("--ray", "local"), marks=pytest.mark.slow)])
def test_a_model_that_cannot_be_loaded_is_one_line(asked, tmp_path, where):
    with Run(asked, tmp_path / "a.jsonl", "--num_processes", 2, "--attn_implementation", "magic", *where) as run:
        assert run.process.wait(300) == 2, run.messages
        # Ray's core warns of how Ray Data starts its actors.
        lines = [line for line in run.messages.splitlines() if "kernels" not in line and "core_worker.cc" not in line]
        assert len(lines) == 1, run.messages
        assert "healthgpt batch: error: " in lines[0]
        assert "magic" in lines[0]


# The parts alone


class Deadly:
    """Ends its process at a question that says so."""

    def run_batch(self, requests, **_):
        if any("end" in request.question for request in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return [Answer(text=request.question, token_ids=[1], prompt_ids=[1]) for request in requests]


def deadly_worker() -> Worker:
    return Worker(Deadly(), {})


def no_worker() -> Worker:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def tasks(texts: list[str], size: int):
    questions = [Question(id=i, task=Task.COMPREHENSION, text=text) for i, text in enumerate(texts)]
    for batch in batches_of(enumerate(questions), size):
        yield batch, [Request(task=question.task, question=question.text) for question in batch.questions]


@pytest.mark.slow
def test_what_kills_its_worker_is_given_up_and_nothing_else():
    texts = [str(i) for i in range(9)]
    texts[4] = "end"
    found = {}
    for batch, results in run_in_processes(tasks(texts, 3), [deadly_worker, deadly_worker]):
        found |= dict(zip(batch.places, results, strict=True))
    failure = found.pop(4)
    assert failure == Failure("each process that worked on it ended (signal 9)")
    assert {place: result.text for place, result in found.items()} == {i: str(i) for i in range(9) if i != 4}


@pytest.mark.slow
def test_workers_that_never_start_end_the_run():
    with pytest.raises(ChildProcessError, match=r"ended while they loaded the model \(signal 9\)"):
        list(run_in_processes(tasks(["a", "b"], 1), [no_worker, no_worker]))


class Bomb:
    """An image that ends the process which reads it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_an_image_that_kills_its_reader_fails_alone(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "1.png")
    images = [str(tmp_path / "1.png")] * 9
    images[2] = Bomb()
    images[7] = Bomb()
    questions = [Question(id=i, task=Task.COMPREHENSION, text="A?", images=(one,)) for i, one in enumerate(images)]
    with PictureReader(2) as reader:
        found = {}
        for batch, pictures in reader.ahead(batches_of(enumerate(questions), 2), 2):
            found |= dict(zip(batch.places, pictures, strict=True))
    assert [i for i, pictures in sorted(found.items()) if isinstance(pictures, Failure)] == [2, 7]
    assert "was killed, twice" in found[2].reason
    assert all(pictures[0].size == (8, 8) for i, pictures in found.items() if i not in (2, 7))
