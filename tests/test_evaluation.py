"""Scores: a perfect model gets all points and no more, an ignorant one gets few, and every figure says its number."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from healthgpt import HealthGPT
from healthgpt.answers import exact_match
from healthgpt.cli import main
from healthgpt.data.phantoms.source import write_phantoms
from healthgpt.data.records import RecordFile
from healthgpt.evaluation.phantoms import evaluate_phantoms, figure
from healthgpt.evaluation.pictures import psnr, ssim
from healthgpt.tasks import Task

COUNT = 6


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    list(write_phantoms(folder, split="validation", seed=2, count=7 * COUNT))
    return folder


class Oracle:
    """Knows the truth: it looks every request up in the records."""

    def __init__(self, folder):
        self.answers, self.targets = {}, {}
        for path in folder.glob("*/*.jsonl"):
            for record in RecordFile(path):
                image = str(path.parent / record["image"]) if "image" in record else ""
                question, answer = (turn["value"] for turn in record["conversations"][:2])
                key = path.parent.name, question.removeprefix("<image>\n"), image
                self.answers[key] = answer
                self.targets[key] = path.parent / record.get("target_image", "")

    def run_batch(self, requests, **_):
        found = []
        for request in requests:
            key = str(request.task), request.question, str(request.images[0]) if request.images else ""
            if request.task is Task.COMPREHENSION:
                found.append(SimpleNamespace(text=f" {self.answers[key].upper()} "))
            else:
                found.append(SimpleNamespace(image=Image.open(self.targets[key])))
        return found

    def through_codes(self, path):
        return Image.open(path)


def test_a_perfect_model_gets_every_point(phantoms):
    results = evaluate_phantoms(Oracle(phantoms), phantoms, COUNT, report=lambda _: None)
    comprehension = results["comprehension"]
    assert comprehension.pop("wrong") == []
    assert all(score["value"] == 1 for score in comprehension.values())
    assert comprehension["kind/report"]["n"] == COUNT
    assert {"closed", "open", "modality/X-ray", "closed/side", "kind/text"} <= comprehension.keys()
    for kind, figures in results["generation"].items():
        for name, score in figures.items():
            if name.startswith(("ssim_share", "findings", "lesions_kept", "healthy_kept")):
                assert score["value"] == 1, (kind, name)
    conversion = results["generation"]["ct2mri"]
    assert conversion["lesions_kept"]["n"] + conversion["healthy_kept"]["n"] == COUNT
    assert conversion["ssim_copied"]["value"] < 0.7
    assert results["generation"]["super-resolution"]["psnr_bicubic"]["value"] < 30


def test_an_ignorant_model_gets_few(phantoms, random_folder):
    model = HealthGPT.from_pretrained(random_folder)
    results = evaluate_phantoms(model, phantoms, 3, report=lambda _: None)
    assert results["comprehension"]["open"]["value"] < 0.2
    assert len(results["comprehension"]["wrong"]) > 5
    assert results["generation"]["ct2mri"]["ssim"]["value"] < 0.6
    assert results["generation"]["report-to-cxr"]["findings"]["value"] < 0.7


def test_the_verb_writes_what_it_prints(random_folder, tmp_path, capsys):
    output = tmp_path / "results.json"
    flags = ["evaluate", "--benchmark", "phantoms", "--model", str(random_folder), "--count", "1", "--seed", "4"]
    assert main([*flags, "--output", str(output)]) == 0
    results = json.loads(output.read_text())
    assert results["split"] == "test"
    assert results["seed"] == 4
    assert results["comprehension"]["kind/modality"]["n"] == 1
    assert "ct2mri/ssim" in capsys.readouterr().out
    assert main([*flags, "--output", str(tmp_path / "no" / "such" / "results.json")]) == 2


def test_exact_match_forgives_case_space_and_the_full_stop_alone():
    assert exact_match(" Yes. ", "yes")
    assert exact_match("Axial CT  of the brain.", "axial CT of the brain")
    assert not exact_match("yes it is", "yes")
    assert not exact_match("", "no")


def test_pictures_are_compared_in_grey():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert ssim(picture, picture) == pytest.approx(1)
    assert psnr(picture, picture) == 100
    flat = np.full((64, 64), 100, np.uint8)
    assert psnr(flat + np.uint8(10), flat) == pytest.approx(20 * np.log10(255 / 10), abs=1e-6)
    assert ssim(255 - picture, picture) < 0


def test_a_figure_without_samples_is_none():
    assert figure([]) == {"value": None, "n": 0}
    assert figure([True, False]) == {"value": 0.5, "n": 2}
