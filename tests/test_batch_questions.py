"""What `healthgpt batch` reads: every format gives the same questions, every mistake one line with file and record."""

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from healthgpt.batch.questions import Columns, Question, Questions
from healthgpt.batch.reading import pictures_of
from healthgpt.images import Plane, View
from healthgpt.images.windows import WINDOWS
from healthgpt.tasks import Task

ROWS = [
    {"question_id": "a", "image": "x/1.png", "text": "Which organ?"},
    {"question_id": "b/2", "image": "x/2.png", "text": 'A "quoted", long\nquestion?'},
    {"question_id": "ü", "image": "", "text": "No image?"},
]
OWN = {"question_id": "Nr", "image": "file name", "text": "ask"}


def write_json_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_table(path: Path, rows: list[dict]) -> Path:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
    table.writeheader()
    table.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


WRITERS = {
    "jsonl": write_json_lines,
    "json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)) and path,
    "csv": write_table,
    "csv.gz": write_table,
    "tsv": write_table,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("own", [False, True], ids=["usual columns", "own columns"])
@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_questions(tmp_path, ending, own):
    rows = [{OWN[key]: value for key, value in row.items()} for row in ROWS] if own else ROWS
    path = WRITERS[ending](tmp_path / f"q.{ending}", rows)
    columns = Columns(id=OWN["question_id"], image=OWN["image"], question=OWN["text"]) if own else Columns()
    expected = [
        Question(
            id=row["question_id"],
            task=Task.COMPREHENSION,
            text=row["text"],
            images=(str(tmp_path / row["image"]),) if row["image"] else (),
        )
        for row in ROWS
    ]
    questions = Questions(source=path, columns=columns)
    assert list(questions) == expected
    assert list(questions) == expected  # reading them again is the same


def one(tmp_path: Path, row: dict, **more) -> Question:
    (question,) = Questions(source=write_json_lines(tmp_path / "q.jsonl", [row]), **more)
    return question


def test_records_for_training_are_questions(tmp_path):
    turns = ["<image>\n<image>\nWhich organ?", "The brain.", "And which modality?", "CT"]
    said = [{"from": ("human", "gpt")[i % 2], "value": turn} for i, turn in enumerate(turns)]
    question = one(tmp_path, {"id": 7, "image": ["1.png", "2.png"], "conversations": said})
    assert (question.id, question.task, question.text) == (7, Task.COMPREHENSION, "And which modality?")
    assert question.images == (str(tmp_path / "1.png"), str(tmp_path / "2.png"))
    assert question.history == (("Which organ?", "The brain."),)
    drawn = {"id": 1, "image": ["1.png", "2.png"], "conversations": said[:3], "target_image": "t.png"}
    question = one(tmp_path, drawn)
    assert (question.task, question.text) == (Task.GENERATION, "And which modality?")
    roles = [{"from": {"human": "user", "gpt": "assistant"}[turn["from"]], "value": turn["value"]} for turn in said]
    assert one(tmp_path, {"id": 7, "image": ["1.png", "2.png"], "conversations": roles}).history == question.history


def test_rows_without_ids_are_numbered(tmp_path):
    path = write_json_lines(tmp_path / "q.jsonl", [{"text": "A?"}, {"text": "B?"}])
    assert [question.id for question in Questions(source=path)] == [1, 2]


def test_a_folder_is_one_question_for_all(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "sub/a.png", ".hidden.png", "a b.dcm"):
        (tmp_path / name).touch()
    questions = list(Questions(source=tmp_path, text="Draw.", task=Task.GENERATION))
    assert [question.id for question in questions] == ["a b.dcm", "b.png", "sub/a.png"]
    assert {(question.text, question.task) for question in questions} == {("Draw.", Task.GENERATION)}
    assert questions[2].images == (str(tmp_path / "sub/a.png"),)


@pytest.mark.parametrize("wrapped", [False, True], ids=["bytes", "datasets library"])
def test_parquet_may_hold_the_images(tmp_path, wrapped):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "1.png")
    data = (tmp_path / "1.png").read_bytes()
    rows = [{"image": {"bytes": data, "path": "gone.png"} if wrapped else data, "question": "Which?", "slice": None}]
    (question,) = Questions(source=write_parquet(tmp_path / "q.parquet", rows))
    (picture,) = pictures_of((question.images, question.view))
    assert np.asarray(picture.convert("L")).ravel().tolist() == list(range(64))


@pytest.mark.parametrize("cell", ['["1.png", "2.png"]', "['1.png','2.png']", ["1.png", "2.png"]])
def test_several_images_of_a_row(tmp_path, cell):
    question = one(tmp_path, {"question": "<image><image> Compare.", "image": cell}, image_folder=Path("/far"))
    assert (question.images, question.text) == (("/far/1.png", "/far/2.png"), "Compare.")


def test_rows_say_how_their_images_are_seen(tmp_path):
    look = {"window": "brain", "slice": 3, "plane": "axial", "volume": None}
    rows = [{"text": "A?"}, {"text": "B?", "window": "40/20", "slice": "50%", "plane": "coronal", "volume": "1"}]
    first, second = Questions(source=write_json_lines(tmp_path / "q.jsonl", rows), look=look)
    assert first.view == View(window=WINDOWS["brain"], slice="3", plane=Plane.AXIAL)
    assert second.view == View.of(window="40/20", slice="50%", plane="coronal", volume=1)
    table = write_table(tmp_path / "q.csv", [{"text": "A?", "window": "", "slice": "", "plane": "", "volume": ""}])
    assert next(iter(Questions(source=table, look=look))).view == first.view


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{question} Answer with one word.", "Which? Answer with one word."),
        ("The {age}-year-old. {question}", "The 61-year-old. Which?"),
        ("{question} {{}} {A. liver}", "Which? {{}} {A. liver}"),
    ],
)
def test_templates(tmp_path, template, expected):
    assert one(tmp_path, {"text": "Which?", "age": 61}, template=template).text == expected


def test_the_task_of_a_row(tmp_path):
    rows = [{"text": "A?", "do": ""}, {"text": "B", "do": "generation"}, {"text": "C?", "do": "comprehension"}]
    path = write_json_lines(tmp_path / "q.jsonl", rows)
    found = [question.task for question in Questions(source=path, columns=Columns(task="do"))]
    assert found == [Task.COMPREHENSION, Task.GENERATION, Task.COMPREHENSION]
    assert {question.task for question in Questions(source=path, task=Task.GENERATION)} == {Task.GENERATION}


Q = {"text": "Which?"}


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([], {}, "q.jsonl: has no questions"),
        ([{"id": 1, **Q}, Q], {}, "record 2: has no id, unlike the records before it"),
        ([Q, {"id": 1, **Q}], {}, "record 2: has an id, unlike"),
        ([{"id": [1], **Q}], {}, "record 1: its id is [1], expected text or a whole number"),
        ([{"id": True, **Q}], {}, "its id is True"),
        ([{"id": 1.5, **Q}], {}, "its id is 1.5"),
        ([{"id": " ", **Q}], {}, "its id is ' '"),
        ([{"id": "x"}], {}, "record 1 (id x): has no question (text or question or prompt or instruction)"),
        ([{"text": " "}], {}, "has no question"),
        ([{"text": 4}], {}, "has no question"),
        ([{"text": "<image>", "image": "1.png"}], {}, "has no question"),
        ([{"text": "a \ud83d"}], {}, "half of a character"),
        ([Q], {"columns": Columns(question="ask")}, "has no column 'ask'; it has text"),
        ([Q], {"columns": Columns(image="file")}, "has no column 'file'"),
        ([Q], {"columns": Columns(id="nr")}, "has no column 'nr'"),
        ([Q], {"columns": Columns(task="do")}, "has no column 'do'"),
        ([{**Q, "task": "draw"}], {}, "task is 'draw', expected comprehension or generation"),
        ([{**Q, "task": ["generation"]}], {}, "task is ['generation']"),
        ([{**Q, "image": 5}], {}, "image is a int, expected a path"),
        ([{**Q, "image": "[1.png"}], {}, "expected a list written as text"),
        ([{"text": "<image> A?"}], {}, "1 <image> marks for 0 images"),
        ([{"text": "<image> A?", "image": ["1", "2"]}], {}, "1 <image> marks for 2 images"),
        ([{"conversations": []}], {}, "conversations is empty"),
        ([{"conversations": "hello"}], {}, "conversations is a str"),
        ([{"conversations": [{"from": "gpt", "value": "x"}]}], {}, "turn 0 is from 'gpt', expected human"),
        ([{"conversations": [{"from": ["human"], "value": "x"}]}], {}, "turn 0 is from ['human']"),
        ([{"conversations": ["x"]}], {}, "turn 0 is 'x', expected from and value"),
        ([Q], {"template": "{question} {age}"}, "the template names age, which is none of text, question"),
        ([{**Q, "window": "navel"}], {}, "record 1 (id 1): window 'navel'"),
        ([{**Q, "window": 40}], {}, "window '40'"),
        ([{**Q, "plane": ["axial"]}], {}, "plane"),
        ([{**Q, "volume": "one"}], {}, "'one'"),
    ],
)
def test_every_mistake_names_file_and_record(tmp_path, rows, more, message):
    path = write_json_lines(tmp_path / "q.jsonl", rows)
    with pytest.raises(ValueError, match=r"q\.jsonl") as error:
        list(Questions(source=path, **more))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", "Which?", "expected .json, .jsonl"),
        ("q.jsonl", '{"text": "A?"}\n{"text"', "record 2: not readable as JSON"),
        ("q.json", '[{"text": "A?"}, {"text"', "after record 1: not readable as JSON"),
        ("q.json", '[{"text": "A?"}] [', r"after record 1: not readable as JSON \(Extra data\)"),
        ("q.jsonl", '"A?"\n', "record 1: expected an object"),
        ("q.csv", "id,text\n1,A?,more\n", "line 2: has other columns than the first line"),
        ("q.csv", "id,text\n", "has no questions"),
        ("q.parquet", "PAR1", "not readable as Parquet"),
        ("none/q.jsonl", None, "no such file or folder"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list(Questions(source=tmp_path / name))
