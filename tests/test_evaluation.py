"""Phantoms as a benchmark: a perfect model gets all points, an ignorant one few, and every figure says its number."""

import json

import numpy as np
import pytest
from PIL import Image

from healthgpt.cli import main
from healthgpt.data.phantoms.source import write_phantoms
from healthgpt.data.records import IMAGE_MARK, RecordFile
from healthgpt.evaluation.phantoms import select_phantoms
from healthgpt.evaluation.pictures import psnr, ssim
from healthgpt.evaluation.runs import Run
from healthgpt.exchange import Answer, Drawing
from healthgpt.sources import named_sources
from healthgpt.tasks import Task

COUNT = 6


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    list(write_phantoms(folder, split="validation", seed=2, count=7 * COUNT))
    return folder


class Oracle:
    """Knows the truth: it looks every question up in the records."""

    def __init__(self, folder):
        self.truths = {}
        for path in folder.glob("*/*.jsonl"):
            for record in RecordFile(path):
                self.truths[record["id"]] = path.parent, record

    def __call__(self, batches):
        for batch in batches:
            yield batch, [self.result(question) for question in batch.questions]

    def result(self, question):
        folder, record = self.truths[question.id]
        asked, answer = (turn["value"] for turn in record["conversations"])
        assert question.text == asked.removeprefix(IMAGE_MARK).strip()
        if question.task is Task.COMPREHENSION:
            return Answer(text=f" {answer.upper()} ", token_ids=[1], prompt_ids=[1])
        return Drawing(image=Image.open(folder / record["target_image"]), indices=[], token_ids=[], prompt_ids=[])


HEADER = {"model_id": "oracle", "model": "0"}


def test_a_perfect_model_gets_every_point(phantoms, tmp_path):
    run = Run(
        name="phantoms", selection=select_phantoms(phantoms, COUNT), output=tmp_path, vqgan=named_sources("nano").vqgan
    )
    for _ in run.ask(Oracle(phantoms), HEADER, batch_size=4, stop=lambda: False, retry_failed=False):
        pass
    results = run.score()
    figures = results["figures"]
    assert results["samples"] == 16 * COUNT
    assert results["split"] == "validation, seed 2"
    assert results["not_measured"] == []
    assert figures["kind=report/right"] == {"value": 1, "n": COUNT, "low": 1, "high": 1}
    assert {"close/right", "open/right", "modality=X-ray/right", "kind=text/right"} <= figures.keys()
    perfect = ("right", "ssim", "findings", "findings_truth", "lesions_kept", "healthy_kept")
    for name, found in figures.items():
        if name.rpartition("/")[2] in perfect:
            assert found["value"] == pytest.approx(1), name
    # Questions without an image stand apart, and drawings are no questions.
    assert figures["all/right"]["n"] == 10 * COUNT
    assert figures["kind=ct2mri/lesions_kept"]["n"] + figures["kind=ct2mri/healthy_kept"]["n"] == COUNT
    assert 0.8 < figures["kind=ct2mri/ssim_ceiling"]["value"] < 1 < figures["kind=ct2mri/ssim_share"]["value"]
    assert figures["kind=ct2mri/ssim_copied"]["value"] < 0.7
    assert figures["kind=super-resolution/psnr_bicubic"]["value"] < 30 < figures["kind=super-resolution/psnr"]["value"]


def test_an_ignorant_model_gets_few_and_what_it_printed_is_in_the_file(random_folder, tmp_path, capsys):
    flags = ["evaluate", "--benchmark", "phantoms", "--model", str(random_folder), "--count", "3", "--seed", "4"]
    flags += ["--device", "cpu", "--num_readers", "0", "--max_new_tokens", "8"]
    assert main([*flags, "--output", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "run/phantoms/results.json").read_text())
    assert results["split"] == "test, seed 4"
    figures = results["figures"]
    assert figures["kind=modality/right"]["n"] == 3
    assert figures["open/right"]["value"] < 0.2
    assert figures["kind=ct2mri/ssim"]["value"] < 0.6
    assert figures["kind=report-to-cxr/findings"]["value"] < 0.7
    assert f"{figures['kind=ct2mri/psnr']['value']:.2f}  n = 3" in printed


def test_flags_that_phantoms_ignore_are_refused(tmp_path, capsys):
    for words, said in (
        (["phantoms", "--data", "x"], "--data is of prepared records"),
        (["phantoms", "--max_samples", "3"], "as many as --count says"),
        (["slake", "--data", "x", "--output", "y", "--count", "3"], "--count is of --benchmark phantoms"),
        (["slake", "--data", "x"], "--output is missing"),
        (["phantoms", "--count", "0"], "--count is 0, expected at least 1"),
    ):
        assert main(["evaluate", "--benchmark", *words]) == 2
        assert said in capsys.readouterr().err


def test_pictures_are_compared_in_grey():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert ssim(picture, picture) == pytest.approx(1)
    assert psnr(picture, picture) == 100
    flat = np.full((64, 64), 100, np.uint8)
    assert psnr(flat + np.uint8(10), flat) == pytest.approx(20 * np.log10(255 / 10), abs=1e-6)
    assert ssim(255 - picture, picture) < 0
