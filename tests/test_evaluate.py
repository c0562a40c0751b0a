"""`healthgpt evaluate` on prepared records: answers, samples, results, and runs beside each other."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from healthgpt import HealthGPT
from healthgpt.cli import main
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.evaluation.benchmarks import BENCHMARKS
from healthgpt.evaluation.pictures import ssim

COUNT = 7


def prepare(*words: object) -> None:
    assert main(["prepare", *map(str, words), "--num_processes", "1"]) == 0


def evaluate(*words: object) -> int:
    return main(["evaluate", *map(str, words), "--device", "cpu", "--num_readers", "0"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Prepared questions of three forms, pairs of CT and MRI, reconstructions and reports, of phantoms."""
    root = tmp_path_factory.mktemp("data")
    raw = root / "raw"
    for folder in ("images", "pairs/ct", "pairs/mr"):
        (raw / folder).mkdir(parents=True)
    rows = [("image", "question", "answer", "split", "a", "b")]
    for number in range(COUNT):
        phantom = draw_patient("test", 9, number)
        for modality, image in phantom.images.items():
            name = f"images/{number}-{modality}.png"
            Image.fromarray(image).save(raw / name)
            rows.append((name, "What imaging modality is this?", modality, "test", "", ""))
            rows.append((name, "Is this image taken by OCT?", "Yes" if modality == "OCT" else "No", "test", "", ""))
            rows.append((name, "What organ is shown in this image?", "A", "test", phantom.organ, "Heart"))
        if {"CT", "MRI"} <= phantom.images.keys():
            Image.fromarray(phantom.images["CT"]).save(raw / f"pairs/ct/{number}.png")
            Image.fromarray(phantom.images["MRI"]).save(raw / f"pairs/mr/{number}.png")
    (raw / "table.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    flags = ["--split_column", "split", "--option_columns", "a", "b"]
    prepare("vqa-csv", "--root", raw / "table.csv", "--output", root / "vqa-csv", *flags)
    lines = ["source,target,instruction,split"]
    lines += [f"ct/{p.name},mr/{p.name},Turn this CT into an MRI.,test" for p in sorted((raw / "pairs/ct").iterdir())]
    (raw / "pairs/pairs.csv").write_text("\n".join(lines) + "\n")
    prepare("pairs", "--root", raw / "pairs/pairs.csv", "--output", root / "pairs")
    return root


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    assert evaluate("--benchmark", "vqa-csv", "pairs", "--data", data, "--output", output) == 0
    return output


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def samples_of(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_results_say_everything_that_they_depend_on(finished):
    results, samples = results_of(finished / "vqa-csv"), samples_of(finished / "vqa-csv")
    assert results["samples"] == len(samples) == results["figures"]["all/right"]["n"]
    assert (results["failed"], results["partial"], results["split"], results["source"]) == (0, False, "test", "vqa-csv")
    for key in ("split_sha256", "model_sha256", "template", "run", "versions", "git_commit", "model_id"):
        assert key in results
    assert {"decoding", "model", "hash"} <= results["run"].keys()
    right = np.mean([sample["scores"]["right"] for sample in samples])
    assert results["figures"]["all/right"]["value"] == pytest.approx(right, abs=1e-6)
    assert all(0 <= found["value"] <= 1 for found in results["figures"].values())
    assert all(0 < sample["confidence"] <= 1 for sample in samples)
    modality = [s["scores"]["right"] for s in samples if s["prompt"] == "What imaging modality is this?"]
    assert len(modality) > COUNT
    assert set(modality) == {1}  # nano knows these


def test_drawings_are_scored_against_their_truths(finished, data):
    samples = samples_of(finished / "pairs")
    assert samples
    model = HealthGPT.from_pretrained("nano", device="cpu")
    for sample in samples:
        truth = np.asarray(Image.open(finished / "pairs" / sample["truth"]))
        drawn = np.asarray(Image.open(finished / "pairs" / sample["answer"]))
        assert sample["scores"]["ssim"] == pytest.approx(ssim(drawn, truth), abs=1e-6)
        name = sample["truth"].rpartition("/")[2]
        alone = model.draw("Turn this CT into an MRI.", data / "raw/pairs/ct" / name)
        assert np.array_equal(np.asarray(alone), drawn)
    results = results_of(finished / "pairs")
    assert results["figures"]["all/ssim"]["value"] > 0.8
    assert any(reason.startswith("LPIPS is not measured") for reason in results["not_measured"])


def test_a_run_again_asks_nothing_and_an_interrupted_one_goes_on(finished, data, tmp_path, capsys):
    answers = finished / "vqa-csv" / "answers.jsonl"
    before = answers.read_bytes()
    assert evaluate("--benchmark", "vqa-csv", "--data", data / "vqa-csv", "--output", finished) == 0
    assert answers.read_bytes() == before
    shutil.copytree(finished / "vqa-csv", tmp_path / "vqa-csv")
    torn = tmp_path / "vqa-csv" / "answers.jsonl"
    torn.write_bytes(before[: len(before) // 2])
    # Questions name images from where they lie, so the copy's are written anew.
    (tmp_path / "vqa-csv" / "questions.jsonl").unlink()
    assert evaluate("--benchmark", "vqa-csv", "--data", data, "--output", tmp_path) == 0
    assert torn.read_bytes() == before
    again, first = results_of(tmp_path / "vqa-csv"), results_of(finished / "vqa-csv")
    assert again["figures"] == first["figures"]


def test_a_part_is_marked(data, tmp_path):
    assert evaluate("--benchmark", "vqa-csv", "--data", data, "--output", tmp_path, "--max-samples", 3) == 0
    results = results_of(tmp_path / "vqa-csv")
    assert (results["samples"], results["partial"]) == (3, True)


def test_runs_beside_each_other_and_beside_the_papers(finished, data, tmp_path, capsys):
    other = tmp_path / "other"
    template = "{question} Answer with one word."
    assert evaluate("--benchmark", "vqa-csv", "--data", data, "--output", other, "--template", template) == 0
    # What the tables of the paper's benchmarks look like, of results under their names.
    for run in (finished, other):
        renamed = json.loads((run / "vqa-csv/results.json").read_text()) | {"benchmark": "vqa-rad"}
        (run / "vqa-rad").mkdir()
        (run / "vqa-rad/results.json").write_text(json.dumps(renamed))
        shutil.copy(run / "vqa-csv/samples.jsonl", run / "vqa-rad/samples.jsonl")
    capsys.readouterr()
    assert main(["evaluate", "compare", str(finished), str(other)]) == 0
    shown = capsys.readouterr().out
    assert "HealthGPT-L14 (paper) | 77.70 | 58.30 |" in shown
    assert f"nano ({finished.name})" in shown
    assert f"Differences from nano ({finished.name})" in shown
    assert main(["evaluate", "compare", str(finished), str(other), "--output", str(tmp_path / "tables")]) == 0
    written = {path.name for path in (tmp_path / "tables").iterdir()}
    assert written == {"comparison.md", "comparison.csv", "comparison.tex", "comparison.html", "figures"}
    figures = {path.name for path in (tmp_path / "tables/figures").iterdir()}
    assert {"vqa-csv-calibration.png", "vqa-csv-confusion-yes-or-no.png", "pairs-worst-drawings-1.png"} <= figures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmark", "slak"], "--benchmark slak is none of vqa-rad"),
        (["--benchmark", "slake"], "has no records of slake, which `healthgpt prepare slake` makes"),
        (["--benchmark", "vqa-csv", "--split", "train"], "has no split train, only test"),
        ([], "--benchmark is missing"),
        (["--benchmark", "vqa-csv", "--batch_size", "0"], "--batch_size is 0, expected at least 1"),
        (["--benchmark", "phantoms"], "--data is of prepared records; phantoms are drawn"),
        (["compare"], "'compare' is no command"),
        (["compare", "nowhere"], "nowhere: has no results.json"),
    ],
)
def test_mistakes_are_one_line(words, message, data, tmp_path, capsys):
    assert evaluate(*words, "--data", data, "--output", tmp_path / "out") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in line
    assert not (tmp_path / "out").exists()


def test_data_of_which_files_are_missing_are_refused_unless_allowed(data, tmp_path, capsys):
    partial = tmp_path / "vqa-csv"
    shutil.copytree(data / "vqa-csv", partial)
    manifest = json.loads((partial / "manifest.json").read_text())
    (partial / "manifest.json").write_text(json.dumps(manifest | {"missing_files": 2}))
    flags = ["--benchmark", "vqa-csv", "--data", partial, "--output", tmp_path / "out", "--max_samples", 2]
    assert evaluate(*flags) == 2
    assert "was prepared without 2 missing files" in capsys.readouterr().err


def test_every_benchmark_names_a_source_that_is_prepared():
    from healthgpt.cli.preparing import SOURCES

    assert {source for benchmark in BENCHMARKS.values() for source in benchmark.sources} <= SOURCES.keys()
