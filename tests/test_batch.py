"""`healthgpt batch`: every question once, as it would be answered alone, and nothing lost or mixed up.

Kills and interrupts have a file of their own, test_batch_processes.py.
"""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TASKS
from PIL import Image

from healthgpt import HealthGPT
from healthgpt.batch.answer_file import AnswerFile, QuestionIndex
from healthgpt.batch.batches import batches_of
from healthgpt.batch.local import work_here
from healthgpt.batch.questions import Question, Questions
from healthgpt.batch.run import file_name, run_batch, to_do
from healthgpt.batch.worker import Worker, out_of_memory
from healthgpt.cli import main
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.exchange import Answer, Request
from healthgpt.tasks import Task

ROOT = Path(__file__).parents[1]
DRAW = {"CT": "Turn this CT into an MRI.", "MRI": "Turn this MRI into a CT."}


@pytest.fixture(scope="module")
def nano():
    return HealthGPT.from_pretrained("nano")


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    """A folder with a file of questions of both tasks, of all lengths, with no, one and two images."""
    folder = tmp_path_factory.mktemp("asked")
    rows: list[dict] = []
    for number in range(7):
        for modality, image in draw_patient("test", 5, number).images.items():
            name = f"{number}-{modality}.png"
            Image.fromarray(image).save(folder / name)
            texts = ["What imaging modality is this?", "Describe this image.", "Is there evidence of a lesion here?"]
            rows.append({"image": name, "text": texts[len(rows) % 3], "task": "comprehension"})
            if modality in DRAW:
                rows.append({"image": name, "text": DRAW[modality], "task": "generation"})
    rows.insert(3, {"image": "", "text": "Hello!", "task": "comprehension"})
    rows.insert(5, {"image": [rows[0]["image"], rows[1]["image"]], "text": "Which organ is this?", "task": ""})
    lines = [json.dumps({"question_id": f"q{i}", **row}) for i, row in enumerate(rows)]
    (folder / "q.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def questions(asked, tmp_path) -> Path:
    """The first eight of these questions, in a file that a test may change."""
    lines = (asked / "q.jsonl").read_text().splitlines()[:8]
    rows = [json.loads(line) for line in lines]
    for row in rows:
        images = row["image"] if isinstance(row["image"], list) else [row["image"]]
        row["image"] = [str(asked / name) for name in images if name]
    return write(tmp_path / "q.jsonl", rows)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def batch(source: Path, output: Path, *flags: object) -> int:
    words = ["batch", "--device", "cpu", "--num_readers", 0, "--input", source, "--output", output, *flags]
    return main([str(word) for word in words])


def records(path: Path) -> tuple[dict, list[dict]]:
    """The header of a file, and what follows."""
    header, *rest = (json.loads(line) for line in path.read_text().splitlines())
    return header["header"], rest


def mistake(capsys, source: Path, output: Path, *flags: object) -> str:
    """The one line that a run fails with."""
    capsys.readouterr()
    assert batch(source, output, *flags) == 2
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if "error:" in line]
    assert (len(errors), out) == (1, "")
    assert "Traceback" not in err
    return errors[0]


# Answers


@pytest.mark.parametrize(("batch_size", "ending"), [(1, "jsonl"), (3, "csv"), (8, "jsonl"), (64, "csv")])
def test_a_batch_answers_as_one_by_one(nano, asked, tmp_path, batch_size, ending):
    source = asked / "q.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    if ending == "csv":
        source = tmp_path / "q.csv"
        lines = ['{question_id},"{image}",{text},{task}'.format(**row) for row in rows]
        source.write_text("question_id,image,text,task\n" + "\n".join(lines) + "\n")
    output = tmp_path / "a.jsonl"
    assert batch(source, output, "--image_folder", asked, "--batch_size", batch_size) == 0
    header, answers = records(output)
    assert header["model_id"] == "nano"
    assert [answer["question_id"] for answer in answers] == [row["question_id"] for row in rows]
    for row, answer in zip(rows, answers, strict=True):
        images = row["image"] if isinstance(row["image"], list) else [row["image"]]
        images = [str(asked / name) for name in images if name]
        assert (answer["prompt"], answer["metadata"]["run"]) == (row["text"], header["hash"][:12])
        if row["task"] == "generation":
            alone = nano.draw(row["text"], images)
            assert np.array_equal(np.asarray(Image.open(output.parent / answer["image"])), np.asarray(alone))
            assert (answer["text"], answer["metadata"]["task"]) == ("", "generation")
        else:
            alone = nano.answer(row["text"], images, return_details=True)
            assert answer["text"] == alone.text
            assert answer["metadata"]["confidence"] == round(alone.confidence, 3)
            assert "image" not in answer


def test_the_original_answers_in_batches(golden, golden_model, tmp_path):
    rows = [
        {"id": case["case"], "text": case["question"], "image": golden.image(case), "task": TASKS[case["task"]]}
        for case in golden.cases
    ]
    source = Questions(source=write(tmp_path / "q.jsonl", rows))
    index = QuestionIndex(source)
    worker = Worker(golden_model, {"max_new_tokens": 24})
    with AnswerFile(tmp_path / "a.jsonl", {"model_id": "golden"}, index) as answers:
        work = functools.partial(work_here, makers=[lambda: worker], num_readers=0)
        list(run_batch(source, answers, work, todo=to_do(answers), batch_size=4, drawings=tmp_path / "drawn"))
        answers.put_in_order()
    for case, answer in zip(golden.cases, records(tmp_path / "a.jsonl")[1], strict=True):
        assert answer["question_id"] == case["case"]
        if TASKS[case["task"]] is Task.COMPREHENSION:
            assert (answer["text"], answer["metadata"]["tokens"]) == (case["decoded"], len(case["generated_ids"]))
        elif golden.draws:
            expected = np.asarray(Image.open(golden.folder / f"generated_{case['case']}.png").convert("RGB")).astype(
                int
            )
            assert np.abs(np.asarray(Image.open(tmp_path / answer["image"])).astype(int) - expected).max() <= 1
        else:
            assert "no generation plugin" in answer["error"]


def test_conversations_are_answered_with_their_history(nano, asked, tmp_path):
    image = next(asked.glob("*.png"))
    turns = [("human", "<image>\nWhich modality is this?"), ("gpt", "MRI"), ("human", "Which organ is shown?")]
    said = [{"from": name, "value": value} for name, value in turns]
    source = write(tmp_path / "q.jsonl", [{"id": 1, "image": str(image), "conversations": said}])
    assert batch(source, tmp_path / "a.jsonl") == 0
    history = [("Which modality is this?", "MRI")]
    (answer,) = records(tmp_path / "a.jsonl")[1]
    assert answer["text"] == nano.answer("Which organ is shown?", str(image), history=history)


def test_a_folder_of_images(asked, tmp_path):
    images = tmp_path / "images" / "deep"
    images.mkdir(parents=True)
    for path in sorted(asked.glob("*.png"))[:3]:
        shutil.copy(path, images)
    flags = ["--question", "Reconstruct the image.", "--task", "generation", "--drawings", tmp_path / "drawn"]
    assert batch(tmp_path / "images", tmp_path / "a.jsonl", *flags) == 0
    answers = records(tmp_path / "a.jsonl")[1]
    assert [answer["question_id"] for answer in answers] == sorted(f"deep/{path.name}" for path in images.iterdir())
    for answer in answers:
        assert (tmp_path / answer["image"]).parent == tmp_path / "drawn"
        assert Image.open(tmp_path / answer["image"]).size == (64, 64)


IDS = ["../x", "..", "a/b", "a_b", "a b", "ü", "u", ".x", "x", "x" * 300, "x" * 301, "con", "\ud800", 5, "-rf", "a\nb"]


def test_names_of_drawings_are_safe_and_unique():
    names = [file_name(name) for name in IDS]
    assert len(set(names)) == len(IDS)
    for name in names:
        assert name.isascii()
        assert Path(name).name == name
        assert len(name) < 100
        assert not name.startswith(".")
    assert (file_name("CT_12.a"), file_name(5)) == ("CT_12.a", "5")


def test_drawings_of_any_id_are_whole(nano, tmp_path):
    rows = [{"id": name, "text": "Draw a chest X-ray.", "task": "generation"} for name in IDS]
    source = tmp_path / "q.jsonl"
    write(source, rows)
    assert batch(source, tmp_path / "a.jsonl") == 0
    answers = records(tmp_path / "a.jsonl")[1]
    assert [answer["question_id"] for answer in answers] == IDS
    files = {(tmp_path / answer["image"]).resolve() for answer in answers}
    assert files == set((tmp_path / "a_drawings").resolve().iterdir())
    assert len(files) == len(IDS)
    for path in files:
        Image.open(path).load()


# Going on


def test_done_is_done(questions, tmp_path, capsys):
    output = tmp_path / "a.jsonl"
    assert batch(questions, output) == 0
    whole = output.read_bytes()
    changed = output.stat().st_mtime_ns
    assert batch(questions, output) == 0
    out, err = capsys.readouterr()
    assert "8 answers, 0 of them failures" in out
    assert "8 answers are there already" in err
    assert (output.read_bytes(), output.stat().st_mtime_ns) == (whole, changed)
    assert {path.name for path in tmp_path.iterdir()} == {"q.jsonl", "a.jsonl", "a_drawings"}

    lines = whole.splitlines(keepends=True)
    # Torn within a line, at the end of one (the line break missing), in the header, and in no order.
    for torn in (
        whole[: len(whole) // 2],
        whole[:-1],
        whole[:20],
        b"",
        b"".join([lines[0], *lines[5:], lines[2]]) + b'{"question_id": "q9", \xc3',
    ):
        output.write_bytes(torn)
        assert batch(questions, output) == 0
        assert output.read_bytes() == whole
        assert ("a torn line of" in capsys.readouterr().err) == (not torn.endswith(b"\n") and torn != b"")


def test_failures_are_records_and_can_be_retried(questions, tmp_path, capsys):
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    assert batch(questions, tmp_path / "a.jsonl") == 0
    whole = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl").unlink()
    late = tmp_path / "late.png"
    shutil.copy(rows[0]["image"][0], tmp_path / "kept.png")
    rows[0]["image"] = str(late)
    rows[4]["text"] = "word " * 5000
    write(questions, rows)
    assert batch(questions, tmp_path / "a.jsonl") == 1
    out, err = capsys.readouterr()
    assert "8 answers, 2 of them failures" in out
    assert "--retry_failed asks again" in err
    answers = records(tmp_path / "a.jsonl")[1]
    assert [i for i, answer in enumerate(answers) if "error" in answer] == [0, 4]
    assert "late.png: no such image" in answers[0]["error"]
    assert "context of 4096" in answers[4]["error"]
    late.write_bytes((tmp_path / "kept.png").read_bytes())
    assert batch(questions, tmp_path / "a.jsonl") == 1
    assert "late.png: no such image" in records(tmp_path / "a.jsonl")[1][0]["error"]
    assert batch(questions, tmp_path / "a.jsonl", "--retry_failed") == 1
    expected = whole.splitlines()
    found = (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert [line for i, line in enumerate(found) if i != 5] == [line for i, line in enumerate(expected) if i != 5]
    assert "context of 4096" in json.loads(found[5])["error"]


def test_llavas_flags_and_chunks(questions, asked, tmp_path):
    assert batch(questions, tmp_path / "a.jsonl") == 0
    whole = records(tmp_path / "a.jsonl")[1]
    chunks, lines = [], []
    for i in range(3):
        output = tmp_path / str(i) / "a.jsonl"
        output.parent.mkdir()
        words = ["--question-file", questions, "--answers-file", output, "--image-folder", asked, "--num-chunks", 3]
        assert main(["batch", "--device", "cpu", *map(str, words), "--chunk-idx", str(i)]) == 0
        chunks.append(records(output)[1])
        lines.append(output.read_bytes())
    assert [len(chunk) for chunk in chunks] == [3, 3, 2]
    assert [answer for chunk in chunks for answer in chunk] == whole
    # The files joined, in whatever order, are a file of the whole run.
    joined = tmp_path / "joined" / "a.jsonl"
    joined.parent.mkdir()
    joined.write_bytes(b"".join(reversed(lines)))
    assert batch(questions, joined) == 0
    assert joined.read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_max_samples_and_more_later(questions, tmp_path):
    output = tmp_path / "a.jsonl"
    assert batch(questions, output, "--max-samples", 3) == 0
    few = output.read_bytes()
    assert len(records(output)[1]) == 3
    assert batch(questions, output) == 0
    assert len(records(output)[1]) == 8
    assert output.read_bytes().startswith(few)


def test_another_run_is_not_mixed_in(questions, tmp_path, capsys):
    output = tmp_path / "a.jsonl"
    assert batch(questions, output, "--max_samples", 2, "--max_new_tokens", 5) == 0
    before = output.read_bytes()
    assert "decoding {'max_new_tokens': 5}, not {}" in mistake(capsys, questions, output)
    more = ["--max_new_tokens", 5]
    for flags, message in (
        (["--window", "brain", *more], "look"),
        (["--dtype", "BF16", *more], "dtype 'auto', not 'BF16'"),
        (["--template", "{question} Answer.", *more], "template None, not"),
        (["--apply_fusion", "False", *more], "model '"),
    ):
        line = mistake(capsys, questions, output, *flags)
        assert message in line
        assert "--allow_mixed" in line
    assert output.read_bytes() == before
    assert batch(questions, output, "--allow_mixed") == 0
    lines = output.read_bytes().splitlines(keepends=True)
    assert before.splitlines(keepends=True)[1:] == [line for line in lines if b'"header"' not in line][:2]
    runs = [json.loads(line)["metadata"]["run"] for line in lines if b'"header"' not in line]
    assert (len(runs), len(set(runs)), runs[0] == runs[1]) == (8, 2, True)


def test_a_run_without_an_answer_binds_nobody(questions, tmp_path, capsys):
    output = tmp_path / "a.jsonl"
    assert "device 'tpu' is none of" in mistake(capsys, questions, output, "--device", "tpu", "--dtype", "FP32")
    assert records(output)[1] == []
    assert batch(questions, output, "--max_samples", 2) == 0
    header, answers = records(output)
    assert (header["dtype"], len(answers), output.read_bytes().count(b'"header"')) == ("auto", 2, 1)


def test_other_questions_are_not_mixed_in(questions, tmp_path, capsys):
    output = tmp_path / "a.jsonl"
    assert batch(questions, output, "--max_samples", 4) == 0
    before = output.read_bytes()
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    write(questions, [{**row, "question_id": f"other{i}"} for i, row in enumerate(rows)])
    line = mistake(capsys, questions, output, "--allow_mixed")
    assert "4 answers, such as q0's, belong to none of the questions" in line
    write(questions, [{**row, "text": f"Now, {row['text']}"} for row in rows])
    assert "4 questions were others when they were answered, such as q0" in mistake(capsys, questions, output)
    assert output.read_bytes() == before
    write(questions, [*rows[::-1], {"question_id": "new", "text": "Hello!"}])  # in another order, and one more
    assert batch(questions, output) == 0
    assert [answer["question_id"] for answer in records(output)[1]] == [*(f"q{i}" for i in range(7, -1, -1)), "new"]


@pytest.mark.parametrize("room", ["for some answers", "for no picture"])
def test_a_full_disk(questions, tmp_path, capsys, room):
    """As seen through the limit on a file's size: a write gets in part of what it has, and then an error."""
    resource = pytest.importorskip("resource")
    output = tmp_path / "a.jsonl"
    assert batch(questions, output) == 0
    whole = output.read_bytes()
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "a_drawings").iterdir()}
    output.unlink()
    shutil.rmtree(tmp_path / "a_drawings")
    limit = len(whole) - 300 if room == "for some answers" else min(map(len, pictures.values())) // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        line = mistake(capsys, questions, output, "--batch_size", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in line
    kept = output.read_bytes()
    assert kept.endswith(b"\n")
    assert set(kept.splitlines()) < set(whole.splitlines())
    if room == "for some answers":
        assert len(kept.splitlines()) > 3
    else:
        assert b'"image"' not in kept
    assert not list(tmp_path.rglob(".*"))
    assert batch(questions, output) == 0
    assert output.read_bytes() == whole
    assert {path.name: path.read_bytes() for path in (tmp_path / "a_drawings").iterdir()} == pictures


# Bad input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"my diary, without a line break", "does not begin with a header"),
        (b'{"question_id": 1, "text": "LLaVA\'s"}\n', "does not begin with a header"),
        (b"\0" * 100, "does not begin with a header"),
        ("damage", "a.jsonl, line 3: is not a JSON object; the file is damaged there"),
        ("foreign", "a.jsonl, line 3: is no answer, it has no question_id"),
        ("prompt", "a.jsonl, line 3: is no answer, it has no prompt"),
    ],
)
def test_files_that_are_not_ours_stay_as_they_are(questions, tmp_path, capsys, content, message):
    output = tmp_path / "a.jsonl"
    if isinstance(content, str):
        assert batch(questions, output, "--max_samples", 3) == 0
        lines = output.read_bytes().splitlines(keepends=True)
        damaged = {"damage": lines[2][:-30] + b"\n", "foreign": b"{}\n", "prompt": b'{"question_id": "q1"}\n'}
        content = b"".join([*lines[:2], damaged[content], *lines[3:]])
    output.write_bytes(content)
    assert message in mistake(capsys, questions, output)
    assert output.read_bytes() == content


def test_two_runs_at_once(questions, tmp_path, capsys):
    index = QuestionIndex(Questions(source=questions))
    with AnswerFile(tmp_path / "a.jsonl", {"model_id": "x"}, index):
        assert "a.jsonl: another run is writing to it" in mistake(capsys, questions, tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--id_column", "nr"], "q.jsonl, record 1: has no column 'nr'; it has question_id, "),
        (["--image-column", "file"], "has no column 'file'"),
        (["--task_column", "do"], "has no column 'do'"),
        (["--template", "{age}"], "the template names age"),
        (["--output", "none/a.jsonl"], "none/a.jsonl: cannot be written, there is no folder none"),
        (["--output", "."], "cannot be written, it is a folder"),
        (["--output", "q.jsonl"], "q.jsonl: is the input; answers need a file of their own"),
        (["--input", "."], "a.jsonl: is inside of the input"),
        (["--input", "images", "--drawings", "images/drawn"], "drawn: is inside of the input"),
        (["--input", "images"], "images, record 1 (id 1.png): has no question"),
        (["--input", "empty.jsonl"], "empty.jsonl: has no questions"),
        (["--input", "empty"], "empty: has no questions"),
        (["--input", "none.csv"], "none.csv: no such file"),
        (["--input", "twice.csv"], "twice.csv: id 7 belongs to records 2 and 4, expected one each"),
        (["--batch_size", "0"], "--batch_size is 0, expected at least 1"),
        (["--num-chunks", "2", "--chunk-idx", "2"], "--chunk_idx is 2, expected 0 ... 1"),
        (["--max_samples", "0"], "--max_samples is 0"),
        (["--num_readers", "-1"], "--num_readers is -1"),
        (["--temperature", "-1", "--do_sample"], "temperature is -1.0"),
        (["--slice", "foo"], "slice 'foo' is none; expected an index, middle, 50%"),
        (["--drawings", "q.jsonl"], "q.jsonl: expected a folder, found a file"),
        (["--model", "none/model"], "none/model"),
        (["--device", "toaster"], "device 'toaster' is none of"),
        (["--device", "toaster", "--num_processes", "2"], "device 'toaster' is none of"),
    ],
)
def test_mistakes_are_one_line_before_any_work(questions, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "twice.csv").write_text("id,text\n1,A?\n7,B?\n2,C?\n7,D?\n")
    before = questions.read_bytes()
    assert message in mistake(capsys, Path("q.jsonl"), Path("a.jsonl"), *flags)
    assert questions.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_questions_that_change_meanwhile(tmp_path):
    source = write(tmp_path / "q.jsonl", [{"id": i, "text": "A?"} for i in range(6)])

    def changed(to: list[dict]) -> str:
        write(source, [{"id": i, "text": "A?"} for i in range(6)])
        found = Questions(source=source)
        with AnswerFile(tmp_path / "a.jsonl", {"model_id": "x"}, QuestionIndex(found)) as answers:
            write(source, to)
            work = functools.partial(work_here, makers=[lambda: Worker(Null(), {})], num_readers=0)
            with pytest.raises(ValueError, match=r"\.jsonl: ") as error:
                list(run_batch(found, answers, work, todo=to_do(answers), batch_size=2, drawings=tmp_path / "d"))
        (tmp_path / "a.jsonl").unlink()
        return str(error.value)

    assert "the questions changed while they were answered (id 9)" in changed(
        [{"id": i, "text": "A?"} for i in (0, 9, 2, 3, 4, 5)]
    )
    assert "4 of its questions are gone" in changed([{"id": i, "text": "A?"} for i in range(2)])


# Workers and batches


class Null:
    """A model that says the question again; `most` requests fit into its memory."""

    def __init__(self, most: int = 10**9, error: Exception | None = None):
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def run_batch(self, requests, *, batch_size, **decoding):
        assert batch_size == len(requests)
        self.sizes.append(len(requests))
        if len(requests) > self.most:
            raise self.error
        if any("refused" in request.question for request in requests):
            raise ValueError("refused,\nindeed")
        return [Answer(text=request.question, token_ids=[1], prompt_ids=[1]) for request in requests]


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:12])
def test_out_of_memory_halves_the_batch_and_goes_on(error):
    requests = [Request(task=Task.COMPREHENSION, question=f"{i}") for i in range(20)]
    model = Null(most=3, error=error)
    worker = Worker(model, {})
    assert [result.text for result in worker.run(requests)] == [f"{i}" for i in range(20)]
    assert (model.sizes[:4], max(model.sizes[4:]), worker.most) == ([20, 10, 5, 2], 2, 2)
    assert len(worker.run(requests[:6])) == 6
    assert max(model.sizes[4:]) == 2
    never = Worker(Null(most=0, error=error), {}).run(requests[:3])
    assert all(result.reason.startswith("out of memory: ") for result in never)


def test_a_real_allocation_that_fails_is_out_of_memory():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(error.value)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_model_in_too_little_memory_answers_the_same(nano, asked):
    class Tight:
        def run_batch(self, requests, **more):
            if len(requests) > 2:
                raise OUT_OF_MEMORY[0]
            return nano.run_batch(requests, **more)

    pending = list(enumerate(Questions(source=asked / "q.jsonl")))[:10]
    found = {}
    for model in (nano, Tight()):
        results = work_here(batches_of(pending, 5), makers=[lambda model=model: Worker(model, {})], num_readers=0)
        found[model] = {place: r for b, rs in results for place, r in zip(b.places, rs, strict=True)}
    roomy, tight = found.values()
    assert sorted(roomy) == sorted(tight) == list(range(10))
    assert all(roomy[i].token_ids == tight[i].token_ids for i in range(10))


def test_what_is_refused_fails_alone():
    texts = ["a", "refused", "b"]
    results = Worker(Null(), {}).run([Request(task=Task.COMPREHENSION, question=text) for text in texts])
    assert [getattr(result, "text", None) or result.reason for result in results] == ["a", "refused, indeed", "b"]
    with pytest.raises(RuntimeError, match="a bug"):
        Worker(Null(most=0, error=RuntimeError("a bug")), {}).run([Request(task=Task.COMPREHENSION, question="a")])


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches_are_of_one_task_and_of_about_one_length(size):
    rng = np.random.default_rng(size)
    pending = [
        (i, Question(id=i, task=list(Task)[i % 2], text="x" * int(rng.integers(1, 99)), images=("i",) * int(i % 3)))
        for i in range(200)
    ]
    batches = list(batches_of(pending, size))
    assert sorted(place for batch in batches for place in batch.places) == list(range(200))
    for one in batches:
        assert len(one) <= size
        assert {question.task for question in one.questions} == {one.task}
        assert [pending[place][1] for place in one.places] == list(one.questions)
    first = [one for one in batches[: 16 * size // size] if one.task is Task.COMPREHENSION][:3]
    lengths = [(len(q.images), len(q.text)) for one in first for q in one.questions]
    assert lengths == sorted(lengths)


_PEAKS = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_batch import run_null
peaks = []
for source in sys.argv[2:]:
    run_null(Path(source), Path(source).with_suffix(".answers"))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps(peaks))
"""


def run_null(source: Path, output: Path) -> None:
    found = Questions(source=source)
    with AnswerFile(output, {"model_id": "null"}, QuestionIndex(found)) as answers:
        work = functools.partial(work_here, makers=[lambda: Worker(Null(), {})], num_readers=0)
        for _ in run_batch(found, answers, work, todo=to_do(answers), batch_size=1000, drawings=output.parent / "d"):
            pass
        answers.put_in_order()


def test_memory_does_not_grow_with_the_input(tmp_path):
    counts = {tmp_path / "few.jsonl": 6_000, tmp_path / "many.jsonl": 20_000}
    for path, count in counts.items():
        write(path, [{"question_id": i, "text": f"Is this number {i}?" * 60} for i in range(count)])
    command = [sys.executable, "-c", _PEAKS, str(Path(__file__).parent), *map(str, counts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    few, many = json.loads(done.stdout)
    assert many - few < 6_000  # KiB; the questions that came to it are 16 MB
    for path, count in counts.items():
        with path.with_suffix(".answers").open() as lines:
            assert sum(1 for _ in lines) == count + 1
