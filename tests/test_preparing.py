"""`healthgpt prepare SOURCE`: every command fits its source, results are whole, kept and never mixed."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from healthgpt.cli import main
from healthgpt.cli.preparing import SOURCES
from healthgpt.data.preparation import MANIFEST_NAME, split_of
from healthgpt.data.records import RecordFile

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", SOURCES)
def test_every_flag_is_a_keyword_of_its_source(name):
    keywords = inspect.signature(SOURCES[name].load()).parameters
    assert set(SOURCES[name].flags) <= set(keywords)


def table(folder: Path, rows: int = 40) -> Path:
    folder.mkdir()
    for i in range(8):
        Image.fromarray(np.full((8, 8), i * 9, np.uint8)).save(folder / f"{i}.png")
    lines = [f"{i % 8}.png,Is it number {i}?,{'yes' if i % 2 else 'no'},s{i % 8}" for i in range(rows)]
    (folder / "table.csv").write_text("picture,ask,say,who\n" + "\n".join(lines) + "\n")
    return folder / "table.csv"


def prepare(root: Path, output: Path, *flags: str) -> int:
    columns = [
        "--image_column",
        "picture",
        "--question_column",
        "ask",
        "--answer_column",
        "say",
        "--subject_column",
        "who",
    ]
    return main(["prepare", "vqa-csv", "--root", str(root), "--output", str(output), *columns, *flags])


def test_a_table_becomes_records_split_by_subject(tmp_path, capsys):
    output = tmp_path / "out"
    assert prepare(table(tmp_path / "in"), output, "--num_processes", "2", "--seed", "3") == 0
    manifest = json.loads((output / MANIFEST_NAME).read_text())
    assert sum(manifest["records"].values()) == 40
    subjects: dict[str, str] = {}
    for split in manifest["records"]:
        for record in RecordFile(output / f"{split}.jsonl"):
            assert (output / record["image"]).resolve().is_file()
            assert subjects.setdefault(record["image"], split) == split
        for subject in (output / "splits" / f"{split}.txt").read_text().split():
            assert split_of(subject, 3, {"train": 0.8, "validation": 0.1, "test": 0.1}) == split
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert prepare(tmp_path / "in" / "table.csv", output, "--seed", "3") == 0
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert prepare(tmp_path / "in" / "table.csv", output, "--seed", "4") == 2
    assert "holds another preparation (its options" in capsys.readouterr().err


def test_missing_files_are_listed_at_once(tmp_path, capsys):
    root = table(tmp_path / "in")
    for i in (2, 5):
        (root.parent / f"{i}.png").unlink()
    assert prepare(root, tmp_path / "out", "--num_processes", "1") == 2
    assert "2 files are missing" in capsys.readouterr().err
    assert len((tmp_path / "out" / "missing.txt").read_text().split()) == 2
    assert not (tmp_path / "out" / "train.jsonl").exists()
    assert prepare(root, tmp_path / "out", "--skip_missing") == 0
    manifest = json.loads((tmp_path / "out" / MANIFEST_NAME).read_text())
    assert (sum(manifest["records"].values()), manifest["missing_files"]) == (30, 2)
    assert main(["prepare", "slake", "--root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "o")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_paths_hold_behind_links(tmp_path):
    root = table(tmp_path / "in")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert prepare(root, tmp_path / "link" / "out") == 0
    for record in RecordFile(tmp_path / "link" / "out" / "train.jsonl"):
        assert (tmp_path / "link" / "out" / record["image"]).is_file()


@pytest.mark.slow
def test_a_killed_preparation_goes_on(tmp_path):
    root = table(tmp_path / "in", rows=60_000)
    command = [sys.executable, "-m", "healthgpt.cli", "prepare", "vqa-csv", "--root", str(root), "--output",
               str(tmp_path / "out"), "--image_column", "picture", "--question_column", "ask", "--answer_column", "say",
               "--num_processes", "1"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    for _ in range(600):
        if any((tmp_path / "out").glob(".*.jsonl")):
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    manifest = json.loads((tmp_path / "out" / MANIFEST_NAME).read_text())
    assert sum(manifest["records"].values()) == 60_000
    assert not any((tmp_path / "out").glob(".*.jsonl"))
