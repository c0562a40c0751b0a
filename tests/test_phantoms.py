"""Phantoms are the same for the same seed, no patient is in two splits, and what is said of them is true."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from healthgpt.cli import main
from healthgpt.data.mixture import Mixture
from healthgpt.data.phantoms.phantom import SIDE
from healthgpt.data.phantoms.questions import Kind, ask
from healthgpt.data.phantoms.reports import report
from healthgpt.data.phantoms.source import draw_patient, write_phantoms
from healthgpt.data.phantoms.subjects import FINDINGS, MODALITIES, ORGANS, SUBJECTS
from healthgpt.data.records import RecordFile, parse_record
from healthgpt.evaluation.chest_findings import read_findings
from healthgpt.evaluation.lesions import lesion_invented, lesions_kept
from healthgpt.tasks import Task, TaskType

COUNT = 70  # ten of each subject


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    assert list(write_phantoms(folder, split="test", seed=3, count=COUNT))[-1] == COUNT
    return folder


def patients(split: str, count: int, subject: str, seed: int = 5):
    step = list(SUBJECTS).index(subject)
    return [draw_patient(split, seed, number) for number in range(step, count * len(SUBJECTS), len(SUBJECTS))]


@pytest.mark.parametrize("number", range(len(SUBJECTS)))
def test_a_patient_depends_on_split_seed_and_number_alone(number):
    first, again = draw_patient("train", 1, number), draw_patient("train", 1, number)
    others = (draw_patient("test", 1, number), draw_patient("train", 2, number), draw_patient("train", 1, number + 7))
    for modality, image in first.images.items():
        assert np.array_equal(image, again.images[modality])
        assert not any(np.array_equal(image, other.images[modality]) for other in others)
    assert first.finding == again.finding
    assert first.facts == again.facts


@pytest.mark.parametrize("subject", SUBJECTS)
def test_lesions_are_where_and_as_many_as_the_finding_says(subject):
    healthy = 0
    for phantom in patients("validation", 60, subject):
        assert set(phantom.images) <= set(MODALITIES)
        assert phantom.organ in ORGANS
        for image in phantom.images.values():
            assert image.shape == (SIDE, SIDE, 3)
            assert image.dtype == np.uint8
            assert image.std() > 10
        finding = phantom.finding
        assert phantom.lesions.max() == (finding.count if finding else 0)
        if finding is None:
            healthy += 1
            continue
        assert finding.name in FINDINGS[phantom.organ, phantom.subject]
        assert {finding.side, finding.size} <= {None, "left", "right", "both", "small", "large"}
        if finding.side in ("left", "right"):  # of the patient: the other side of the image
            column = np.nonzero(phantom.lesions)[1].mean() - (SIDE - 1) / 2
            assert (column > 0) == (finding.side == "left")
    assert 5 < healthy < 35


def test_ct_and_mri_show_the_same_anatomy_in_their_own_contrast():
    for phantom in patients("validation", 5, "brain"):
        ct, mri = (phantom.images[name][..., 0].astype(int) for name in ("CT", "MRI"))
        rim = [np.argmax(image[SIDE // 2] > 60) for image in (ct, mri)]  # where the head begins
        assert abs(rim[0] - rim[1]) <= 2
        skull = ct > 220
        assert ct[skull].mean() > 2 * mri[skull].mean()
    bright = [p for p in patients("validation", 60, "brain") if p.finding and p.finding.name == "hemorrhage"]
    for phantom in bright:
        inside = phantom.lesions > 0
        assert phantom.images["CT"][inside].mean() > 150 > 100 > phantom.images["MRI"][inside].mean()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_answers_are_true(subject):
    rng = np.random.default_rng(0)
    kinds = set()
    for phantom in patients("validation", 40, subject):
        finding = phantom.finding
        for modality in phantom.images:
            for question in ask(phantom, modality, rng):
                kinds.add(question.kind)
                if question.text.startswith(("Is ", "Was ", "Does ")) and " or " not in question.text:
                    assert question.closed
                    assert question.answer in ("Yes", "No")
                if question.closed and " or " in question.text:
                    assert question.answer in question.text
                if question.kind == Kind.FINDING:
                    assert question.answer == (finding.name if finding else "No abnormality")
                if question.kind == Kind.LESION and question.answer == "Yes":
                    assert finding is not None
                    assert finding.name in question.text
                if question.kind == Kind.MODALITY and not question.closed:
                    assert question.answer == modality
                if question.kind == Kind.REPORT:
                    assert question.answer == report(phantom, modality)
    assert {Kind.MODALITY, Kind.ORGAN, Kind.NORMAL, Kind.LESION, Kind.FINDING, Kind.REPORT} <= kinds


def test_the_files_are_ordinary_records(folder):
    kinds = {path.stem for path in (folder / Task.COMPREHENSION).glob("*.jsonl")}
    assert kinds == {*Kind, "text", "conversation"}
    drawings = {path.stem for path in (folder / Task.GENERATION).glob("*.jsonl")}
    assert drawings == {kind for kind in TaskType if kind.task is Task.GENERATION}
    ids = set()
    for path in sorted(folder.glob("*/*.jsonl")):
        for i, value in enumerate(RecordFile(path)):
            record = parse_record(value, where=f"{path}:{i}", image_folder=path.parent)
            assert str(record.task) == path.parent.name
            assert record.id not in ids
            ids.add(record.id)
            for image in (*record.images, *([record.target] if record.target else [])):
                with Image.open(image) as opened:
                    assert opened.size in ((SIDE, SIDE), (SIDE // 4, SIDE // 4))
    assert len(Mixture(folder / Task.GENERATION / "ct2mri.jsonl")) == 20


def test_several_processes_write_the_same_files(folder, tmp_path):
    code = main(["prepare", "phantoms", "--split", "test", "--seed", "3", "--count", str(COUNT), "--num_processes", "2",
                 "--output", str(tmp_path / "again")])  # fmt: skip
    assert code == 0
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_what_is_there_is_kept_and_other_phantoms_are_refused(folder, capsys):
    before = (folder / "patients.jsonl").stat().st_mtime_ns
    assert list(write_phantoms(folder, split="test", seed=3, count=COUNT)) == [COUNT]
    assert (folder / "patients.jsonl").stat().st_mtime_ns == before
    for flags, text in (
        (["--split", "test", "--seed", "4", "--count", str(COUNT)], "holds other phantoms"),
        (["--split", "tests", "--count", "7"], "split 'tests' is none of train, validation, test"),
        (["--count", "0"], "count 0 and seed 0"),
        (["--count", "7", "--num_processes", "0"], "--num_processes is 0"),
    ):
        assert main(["prepare", "phantoms", "--output", str(folder), *flags]) == 2
        assert text in capsys.readouterr().err


def test_findings_are_read_off_true_x_rays():
    for phantom in patients("test", 150, "chest"):
        finding = phantom.finding
        sides = {"both": ("left", "right")}.get(finding.side, (finding.side,)) if finding else ()
        assert read_findings(phantom.images["X-ray"]) == {(finding.name, side) for side in sides}


@pytest.mark.parametrize("subject", ["brain", "pelvis"])
def test_the_lesion_rules_tell_right_from_wrong(subject):
    step = list(SUBJECTS).index(subject)
    healthy = 0
    for number in range(step, 40 * len(SUBJECTS), len(SUBJECTS)):
        phantom, twin = (draw_patient("test", 5, number, healthy=wanted) for wanted in (False, True))
        assert twin.finding is None
        for modality, image in phantom.images.items():
            without = twin.images[modality]
            if phantom.finding:
                lesions = phantom.lesions
                assert lesions_kept(image, image, without, lesions)
                assert not lesions_kept(without, image, without, lesions)
                wrong = np.clip(2 * without.astype(int) - image, 0, 255).astype(np.uint8)  # dark for bright
                assert not lesions_kept(wrong, image, without, lesions)
                assert lesion_invented(image, without) or phantom.finding.size == "small"
                continue
            healthy += 1
            assert not lesion_invented(image, image)
            assert not lesion_invented(without, image)
            spotted = image.copy()
            spot = spotted[30:36, 40:46]
            spot[:] = 255 if spot.mean() < 128 else 0
            assert lesion_invented(spotted, image)
    assert healthy > 5


def test_truth_is_written_down(folder):
    lines = [json.loads(line) for line in (folder / "patients.jsonl").read_text().splitlines()]
    assert len(lines) == COUNT
    for patient in lines:
        assert (patient["finding"] is None) == (patient["lesions"] is None)
        if patient["lesions"]:
            assert np.asarray(Image.open(folder / patient["lesions"])).max() == patient["finding"]["count"]
