"""`healthgpt prepare SOURCE`: every command fits its source, results are whole, kept and never mixed."""

import inspect
import json
import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from healthgpt.cli import main
from healthgpt.cli.preparing import SOURCES
from healthgpt.data.compact import CompactTable
from healthgpt.data.preparation import MANIFEST_NAME, Sample, Source, split_of
from healthgpt.data.preparation import prepare as write
from healthgpt.data.processes import results_in_order
from healthgpt.data.records import RecordFile
from healthgpt.data.sorted_lines import SortedLines
from healthgpt.data.sources.iu_xray import PARTS as IU_XRAY_PARTS
from healthgpt.data.sources.shared import PARTS

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
    assert "already" not in capsys.readouterr().out
    assert prepare(tmp_path / "in" / "table.csv", output, "--seed", "3") == 0
    assert "out: is finished already and stays as it is: " in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert prepare(tmp_path / "in" / "table.csv", output, "--seed", "4") == 2
    assert "holds another preparation (its options" in capsys.readouterr().err


@pytest.mark.parametrize(("source", "parts"), [("ixi", PARTS), ("synthrad2023", PARTS), ("iu-xray", IU_XRAY_PARTS)])
def test_the_lists_of_subjects_are_the_rules(source, parts):
    for split in parts:
        subjects = (ROOT / "configs" / "splits" / source / f"{split}.txt").read_text().split()
        assert subjects == sorted(subjects)
        assert {split_of(subject, 0, parts) for subject in subjects} == {split}


def test_missing_files_are_listed_at_once(tmp_path, capsys):
    root = table(tmp_path / "in")
    for i in (2, 5):
        (root.parent / f"{i}.png").unlink()
    assert prepare(root, tmp_path / "out", "--num_processes", "1") == 2
    message = "error: 2 files are missing, which 10 of 40 records need, such as "
    assert message in capsys.readouterr().err
    assert len((tmp_path / "out" / "missing.txt").read_text().split()) == 2
    assert not (tmp_path / "out" / "train.jsonl").exists()
    assert prepare(root, tmp_path / "out", "--skip_missing") == 0
    manifest = json.loads((tmp_path / "out" / MANIFEST_NAME).read_text())
    assert (sum(manifest["records"].values()), manifest["missing_files"]) == (30, 2)
    assert manifest["left_out"] == {"with missing files": 10}
    when = (tmp_path / "out" / MANIFEST_NAME).stat().st_mtime_ns
    assert prepare(root, tmp_path / "out", "--skip_missing") == 0  # finished
    assert prepare(root, tmp_path / "out") == 2  # not without skipping them; what is there stays
    assert (tmp_path / "out" / MANIFEST_NAME).stat().st_mtime_ns == when
    for i in (2, 5):
        Image.new("L", (8, 8)).save(root.parent / f"{i}.png")
    assert prepare(root, tmp_path / "out") == 0  # they have come
    manifest = json.loads((tmp_path / "out" / MANIFEST_NAME).read_text())
    assert (sum(manifest["records"].values()), manifest["missing_files"], manifest["left_out"]) == (40, 0, {})
    assert not (tmp_path / "out" / "missing.txt").exists()
    capsys.readouterr()
    assert main(["prepare", "slake", "--root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "o")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_paths_hold_behind_links(tmp_path):
    root = table(tmp_path / "in")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert prepare(root, tmp_path / "link" / "out") == 0
    for record in RecordFile(tmp_path / "link" / "out" / "train.jsonl"):
        assert (tmp_path / "link" / "out" / record["image"]).is_file()


def test_files_that_are_links_keep_their_names(tmp_path):
    root = table(tmp_path / "in")
    (tmp_path / "blob").write_bytes((root.parent / "1.png").read_bytes())
    (root.parent / "1.png").unlink()
    (root.parent / "1.png").symlink_to(tmp_path / "blob")
    assert prepare(root, tmp_path / "out") == 0
    images = {record["image"] for path in (tmp_path / "out").glob("*.jsonl") for record in RecordFile(path)}
    assert "../in/1.png" in images


def of(*samples: Sample) -> Source:
    return Source(name="made", samples=samples, inputs=[], options={"range": (0, 1)})


def sample(name: str, split: str = "train", group: str = "g") -> Sample:
    return Sample(id=name, split=split, group=group, question="Is it?", answer="yes")


def test_an_id_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^made: 1 ids are there more than once: b \(records 2, 4\)$"):
        list(write(of(sample("a"), sample("b"), sample("c"), sample("b", "test")), tmp_path))
    assert not (tmp_path / MANIFEST_NAME).exists()


def test_nothing_of_an_earlier_preparation_remains(tmp_path):
    list(write(of(sample("a"), sample("b", "test")), tmp_path))
    (tmp_path / MANIFEST_NAME).unlink()
    leftovers = [tmp_path / "images" / "ab" / ".x-0123_abc.png", tmp_path / ".validation.jsonl"]
    kept = [tmp_path / "images" / ".DS_Store", tmp_path / ".gitignore"]
    for path in leftovers + kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    list(write(of(sample("a")), tmp_path))
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in kept)
    assert {path.name for path in tmp_path.rglob("*.jsonl")} == {"train.jsonl"}
    assert [path.name for path in (tmp_path / "splits").iterdir()] == ["train.txt"]
    assert list(write(of(sample("a")), tmp_path)) == [1]  # options that JSON has no word for are the same, too
    (tmp_path / "train.jsonl").unlink()
    list(write(of(sample("a")), tmp_path))
    assert (tmp_path / "train.jsonl").exists()


def test_a_source_is_never_written_over(tmp_path, capsys):
    root = table(tmp_path / "in")
    rows = [{"image": "1.png", "question": "Is it?", "answer": "yes"}]
    own = root.parent / "train.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["prepare", "vqa-csv", "--root", str(own), "--output", str(root.parent)]) == 2
    assert "its train.jsonl is a file of the source; name another folder" in capsys.readouterr().err
    assert json.loads(own.read_text()) == rows[0]
    assert prepare(root, own) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_lines_are_sorted_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("healthgpt.data.sorted_lines._RUN", 7)
    texts = [f"ä{i * 7919 % 50}" for i in range(100)] + ["two\nlines"]
    with SortedLines(tmp_path) as lines:
        for text in texts:
            lines.add(text)
        assert list(lines) == sorted(text.replace("\n", " ") for text in texts)
        assert list(lines.unique()) == sorted({text.replace("\n", " ") for text in texts})
    assert not any(tmp_path.iterdir())


def test_a_compact_table_is_a_dictionary():
    entries = [(f"t{i}", i % 3) for i in range(200)]
    table = CompactTable(entries)
    assert [table.get(text) for text, _ in entries] == [value for _, value in entries]
    assert table.get("other") is None
    assert not table.has_contradictions()
    torn = CompactTable([("a", 1), ("b", 0), ("a", 1), ("b", 2)])
    assert (torn.has_contradictions(), torn.values("a"), torn.values("b"), torn.values("c")) == (
        True,
        {1},
        {0, 2},
        set(),
    )
    assert CompactTable([]).get("a") is None


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_dies_does_not_hang_the_others():
    with pytest.raises(ValueError, match="a process was killed, perhaps for want of memory"):
        list(results_in_order(die, range(20), 2))
    assert list(results_in_order(partial(max, 5), range(9), 2)) == [5, 5, 5, 5, 5, 5, 6, 7, 8]


ORPHANED = """
import os, time
from healthgpt.data.processes import results_in_order
from tests_of_orphans import pid
for number in results_in_order(pid, range(9), 2):
    print(number, flush=True)
    time.sleep(60)
"""


def test_processes_end_with_their_parent(tmp_path):
    (tmp_path / "tests_of_orphans.py").write_text("import os\ndef pid(_): return os.getpid()\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", ORPHANED], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    assert parent.stdout
    child = Path("/proc") / parent.stdout.readline().decode().strip()
    assert child.exists()
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not child.exists() or "Z" in (child / "stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    pytest.fail("it goes on without its parent")


def test_progress_on_a_terminal_ends_its_line(tmp_path):
    root, (ours, theirs) = table(tmp_path / "in", rows=3), pty.openpty()
    command = [sys.executable, "-m", "healthgpt.cli", "prepare", "vqa-csv", "--root", str(root), "--output",
               str(tmp_path / "out"), "--image_column", "picture", "--question_column", "ask", "--answer_column", "say",
               "--num_processes", "1"]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, stdout=theirs, stderr=theirs)
    shown = os.read(ours, 10_000).decode().splitlines()
    assert shown[-2].endswith("3 records (0/s)")
    assert shown[-1].startswith(str(tmp_path / "out"))


MEASURED = """
import resource, sys
from pathlib import Path
from healthgpt.data.preparation import prepare
from healthgpt.data.sources.{module} import {function}
list(prepare({function}(Path(sys.argv[1])), Path(sys.argv[2])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "function", "header"),
    [("vqa_csv", "vqa_csv", "image,question,answer"), ("pairs", "pairs", "source,target,subject")],
)
def test_ten_times_the_records_take_no_more_memory(tmp_path, module, function, header):
    peaks = []
    for count in (6_000, 60_000):
        root = tmp_path / str(count)
        root.mkdir()
        Image.new("L", (8, 8)).save(root / "a.png")
        lines = [f"a.png,{'Q?' if module == 'vqa_csv' else 'a.png'},s{i}" for i in range(count)]
        (root / "table.csv").write_text("\n".join([header, *lines]))
        command = [sys.executable, "-c", MEASURED.format(module=module, function=function)]
        # A process starts from the peak of the one that starts it, so that this one is started by a shell.
        done = subprocess.run(
            ["sh", "-c", '"$@"; exit $?', "sh", *command, str(root / "table.csv"), str(root / "out")],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.2 * peaks[0]


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
