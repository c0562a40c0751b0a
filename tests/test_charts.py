"""Figures of compared runs: the numbers that go into them, and the files that come out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from healthgpt.cli import main
from healthgpt.evaluation.calibration import calibration
from healthgpt.evaluation.charts import COLOURS, DPI, Label, accuracy_chart, calibration_chart, confusion_chart, style
from healthgpt.evaluation.comparison import read_finished
from healthgpt.evaluation.confusion import YES_NO, confusion, confusions
from healthgpt.evaluation.figures import figures_of
from healthgpt.evaluation.modalities import accuracies
from healthgpt.evaluation.sheets import error_map
from healthgpt.evaluation.vqa import groups_of, score_answer
from healthgpt.evaluation.worst import bad_drawings, wrong_answers

ROOT = Path(__file__).parents[1]
QUESTIONS = [
    # id, question, truth, answer, confidence, facts
    ("a", "Is it a CT?", "Yes", "Yes", 0.95, {"closed": True, "kind": "modality", "modality": "CT"}),
    ("b", "Is it a CT?", "No", "Yes", 0.85, {"closed": True, "kind": "modality", "modality": "MRI"}),
    ("c", "Is it an MRI?", "Yes", "yes, it is", 0.65, {"closed": True, "kind": "modality", "modality": "MRI"}),
    ("d", "Is it an MRI?", "No", "Hard to say", 0.35, {"closed": True, "kind": "modality", "modality": "CT"}),
    ("e", "Which modality?", "CT", "the CT.", 0.9, {"kind": "modality", "modality": "CT"}),
    ("f", "Which modality?", "CT", "MRI", 0.5, {"kind": "modality", "modality": "CT"}),
    ("g", "Which modality?", "MRI", "X-ray", 0.99, {"kind": "modality", "modality": "MRI"}),
    ("h", "Costs $5 or $6?", "B", "B", 0.4, {"kind": "price", "modality": "MRI", "options": {"A": "$5", "B": "$6"}}),
    ("i", "Costs $5 or $6?", "A", "$6", 0.7, {"kind": "price", "modality": "MRI", "options": {"A": "$5", "B": "$6"}}),
]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_results(folder, benchmark, samples, groups):
    figures = figures_of([sample["scores"] for sample in samples], groups)
    results = {"benchmark": benchmark, "model_id": "nano", "partial": False, "run": {"look": {}}}
    results |= {"figures": {name: found.to_dict() for name, found in figures.items()}}
    (folder / "results.json").write_text(json.dumps(results))
    write_lines(folder / "samples.jsonl", samples)


def write_questions_run(folder, benchmark="vqa-csv", *, confident=True, changed=()):
    """A run of `QUESTIONS`; of the ids in `changed` the answer is a failure."""
    folder.mkdir(parents=True)
    rows, samples = [], []
    for number, (name, question, truth, answer, confidence, facts) in enumerate(QUESTIONS):
        Image.new("RGB", (32, 24), (20 * number, 90, 160)).save(folder / f"{name}.png")
        said = "" if name in changed else answer
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": truth}]
        rows.append({"id": name, "image": f"{name}.png", "conversations": turns, "metadata": facts})
        sample = {"id": name, "prompt": question, "truth": truth, "answer": said, "facts": facts}
        sample |= {"error": "too long"} if name in changed else {"confidence": confidence} if confident else {}
        samples.append(sample | {"scores": score_answer(said, truth, facts)})
    write_lines(folder / "questions.jsonl", rows)
    write_results(folder, benchmark, samples, groups_of([sample["facts"] for sample in samples]))
    return folder


def write_drawings_run(folder):
    """Three drawings of grey 100, 120 and 60 of a truth of 100; the last has no image to draw from."""
    folder.mkdir(parents=True)
    Image.new("L", (64, 64), 100).save(folder / "truth.png")
    rows, samples = [], []
    for name, grey, score in (("same", 100, 1.0), ("light", 120, 0.8), ("dark", 60, 0.6)):
        Image.new("L", (32, 32), grey).save(folder / f"{name}.png")
        turns = [{"from": "human", "value": "Draw it."}, {"from": "gpt", "value": ""}]
        given = {} if name == "dark" else {"image": "truth.png"}
        rows.append({"id": name, "conversations": turns, "target_image": "truth.png", **given})
        samples.append({"id": name, "prompt": "Draw it.", "truth": "truth.png", "answer": f"{name}.png", "facts": {}})
        samples[-1] |= {"scores": {"ssim": score}}
    write_lines(folder / "questions.jsonl", rows)
    write_results(folder, "pairs", samples, {"all": range(3)})
    return folder


def compare(*words):
    return main(["evaluate", "compare", *map(str, words)])


# Numbers


def test_expected_calibration_error_of_a_worked_example():
    # Bin 0.6 ... 0.7: 2 answers, mean confidence 0.65, 1 right: gap 0.15. Bin 0.9 ... 1: 3 answers, mean 0.95, 2 right:
    # gap 0.95 - 2/3. Together (2 * 0.15 + 3 * 0.28333) / 5 = 0.23.
    found = calibration([0.6, 0.7 - 1e-9, 0.9, 0.95, 1.0], [1, 0, 1, 1, 0])
    assert found.error == pytest.approx((2 * 0.15 + 3 * (0.95 - 2 / 3)) / 5)
    assert [one.n for one in found.bins] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 3]
    assert (found.bins[9].confidence, found.bins[9].accuracy) == (pytest.approx(0.95), pytest.approx(2 / 3))
    assert (found.bins[0].confidence, found.n, found.bins[3].low, found.bins[3].high) == (None, 5, 0.3, 0.4)


def test_who_is_always_sure_and_always_right_has_no_error():
    assert calibration([1.0] * 4, [1] * 4).error == 0
    assert calibration([1.0] * 4, [0] * 4).error == 1
    assert calibration([0.0], [0]).bins[0].n == 1
    assert calibration([i / 10 for i in range(10)], [0] * 10).bins[7].n == 1  # edges belong to the bin above


@pytest.mark.parametrize(
    ("confidences", "right", "message"),
    [([], [], "0 confidences of 0 answers"), ([0.5], [1, 0], "1 confidences of 2"), ([1.2], [1], "from 1.2 to 1.2")],
)
def test_confidences_that_are_none_are_refused(confidences, right, message):
    with pytest.raises(ValueError, match=message):
        calibration(confidences, right)


def test_confusion_counts_truths_against_answers(tmp_path):
    run = read_finished(write_questions_run(tmp_path / "run", changed=("a",)))
    found = confusions(run.samples("vqa-csv"))
    # Failed "a" is no yes; "d" says neither.
    assert found[YES_NO].truths == ("yes", "no")
    assert found[YES_NO].counts == ((1, 0, 1), (1, 0, 1))
    # Yes/no questions of a kind are not among its truths. Each price is asked for once only.
    assert set(found) == {YES_NO}
    more = [*run.samples("vqa-csv")] * 2
    kinds = confusions(more)
    assert kinds["modality"].truths == ("CT", "MRI")
    assert kinds["modality"].counts == ((2, 2, 0), (0, 0, 2))
    assert kinds["price"].truths == ("$5", "$6")
    assert kinds["price"].counts == ((0, 2, 0), (0, 2, 0))
    assert (kinds["modality"].right, kinds["modality"].n) == (2, 6)


def test_a_truth_that_is_called_other_is_not_what_names_nothing():
    found = confusion([("other", "other"), ("other", None), ("CT", "ct."), ("CT", "an ultrasound")])
    assert dict(zip(found.truths, found.counts, strict=True)) == {"CT": (1, 0, 1), "other": (0, 1, 1)}


def test_kinds_of_many_truths_have_no_matrix():
    facts = {"kind": "finding"}
    for count, there in ((12, True), (13, False)):
        samples = [{"truth": f"number {i}", "answer": "x", "facts": facts} for i in range(count)] * 2
        assert ("finding" in confusions(samples)) == there


def test_bars_are_the_shares_of_right_answers_and_the_papers_stand_beside(tmp_path):
    run = read_finished(write_questions_run(tmp_path / "run", "omnimedvqa"))
    found = accuracies([run], "omnimedvqa")
    assert found.groups[:4] == ("all", "CT", "X-ray", "fundus photography")
    assert found.paper["HealthGPT-L14 (paper)"][:3] == (74.4, 39.0, 86.6)
    # Of CT, "a" and "e" of a, d, e, f are right; of MRI, "h" of b, c, g, h, i: "yes, it is" is no exact match.
    by_group = dict(zip(found.groups, found.runs[0], strict=True))
    assert (by_group["all"]["value"], by_group["CT"]["value"], by_group["MRI"]["value"]) == (0.333333, 0.5, 0.2)
    assert (by_group["CT"]["n"], by_group["X-ray"]) == (4, None)
    with style():
        (axes,) = accuracy_chart([Label("nano", 0)], found).axes
    assert [round(bar.get_width(), 2) for bar in axes.patches] == [33.33, 50, 20]
    assert {bar.get_facecolor()[:3] for bar in axes.patches} == {
        tuple(int(COLOURS[0][i : i + 2], 16) / 255 for i in (1, 3, 5))
    }
    intervals = [tuple(line.get_xdata()) for line in axes.lines]
    assert (100 * by_group["CT"]["low"], 100 * by_group["CT"]["high"]) in intervals
    assert (74.4, 74.4) in intervals


def test_benchmarks_without_modalities_have_no_bars(tmp_path):
    run = read_finished(write_drawings_run(tmp_path / "run"))
    assert accuracies([run], "pairs") is None


def test_runs_have_different_looks():
    assert len({(label.colour, label.hatch) for label in (Label("x", i) for i in range(18))}) == 18


def test_diagrams_draw_what_was_counted():
    found = calibration([0.95, 0.85], [1, 0])
    with style():
        upper, lower = calibration_chart([Label("x", 1)], [found]).subfigs[0].axes
        matrix = confusion_chart([Label("x", 0)], [confusion([("yes", "no"), ("no", "no"), ("no", None)])]).axes[0]
    assert sorted(round(bar.get_height(), 3) for bar in upper.patches) == [0, 1]
    assert sum(bar.get_height() for bar in lower.patches) == 2
    assert "ECE 0.450" in upper.texts[0].get_text()
    assert [text.get_text() for text in matrix.texts] == ["1", "1", "1"]
    assert [tick.get_text() for tick in matrix.get_xticklabels()] == ["yes", "no", "other"]


def test_wrong_answers_come_most_confident_first(tmp_path):
    run = read_finished(write_questions_run(tmp_path / "run", changed=("b",)))
    cases = wrong_answers(run, "vqa-csv")
    assert [case.id for case in cases] == ["g", "i", "c", "f", "d"]  # "b" failed
    assert (cases[1].truth, cases[1].answer, cases[1].question) == ("A. $5", "$6", "Costs $5 or $6?")
    assert cases[0].given.image.getpixel((0, 0)) == (120, 90, 160)
    assert len(wrong_answers(run, "vqa-csv", most=2)) == 2
    (tmp_path / "run/g.png").unlink()
    given = wrong_answers(run, "vqa-csv")[0].given
    assert given.image is None
    assert "g.png: no such image" in given.missing


def test_the_worst_drawings_come_first_with_their_errors(tmp_path):
    run = read_finished(write_drawings_run(tmp_path / "run"))
    cases = bad_drawings(run, "pairs")
    assert [(case.id, case.ssim) for case in cases] == [("dark", 0.6), ("light", 0.8), ("same", 1.0)]
    assert [case.given.image is None for case in cases] == [True, False, False]
    assert cases[0].truth.shape == cases[0].drawn.shape == (32, 32, 3)
    for case, error in zip(cases, (40, 20, 0), strict=True):
        assert np.allclose(error_map(case.drawn, case.truth), error)
    with pytest.raises(ValueError, match=r"pictures of \(2, 2\) and \(3, 3\) pixels"):
        error_map(np.zeros((2, 2), np.uint8), np.zeros((3, 3), np.uint8))


# Files


def check_picture(path, inches_wide):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == pytest.approx(inches_wide * DPI, abs=2)
        pixels = np.asarray(image.convert("L"))
    assert pixels[-1, -1] > 240  # light background
    assert 0.005 < np.mean(pixels < 200) < 0.9


@pytest.mark.parametrize("count", [1, 2])
def test_pages_show_the_figures_that_are_there(tmp_path, capsys, count):
    runs = []
    for number in range(count):
        runs.append(tmp_path / f"run{number}")
        write_questions_run(runs[-1] / "vqa-csv", changed=("a",) * number)
        write_drawings_run(runs[-1] / "pairs")
    output = tmp_path / "out"
    assert compare(*runs, "--output", output) == 0
    assert "no sheet" not in capsys.readouterr().err
    names = {path.name for path in (output / "figures").iterdir()}
    sheets = {
        f"{sheet}-{n + 1}.png" for sheet in ("pairs-worst-drawings", "vqa-csv-wrong-answers") for n in range(count)
    }
    assert names == {"vqa-csv-modalities.png", "vqa-csv-calibration.png", "vqa-csv-confusion-yes-or-no.png", *sheets}
    check_picture(output / "figures/vqa-csv-modalities.png", 8.6)
    check_picture(output / "figures/vqa-csv-calibration.png", 3.1 * count + 0.2)
    check_picture(output / "figures/vqa-csv-wrong-answers-1.png", 4 * 2.35)
    check_picture(output / "figures/pairs-worst-drawings-1.png", 9.2)
    page, text = (output / "comparison.html").read_text(), (output / "comparison.md").read_text()
    for name in names:
        assert f'src="figures/{name}"' in page
        assert f"(<figures/{name}>)" in text
        assert f"{{figures/{name}}}" in (output / "comparison.tex").read_text()
    # Of a, b, c, d the first words of a and c are right, their confidences 0.95, 0.85, 0.65, 0.35.
    assert f"nano (run0) {(0.05 + 0.85 + 0.35 + 0.35) / 4:.3f} (n = 4)" in page


def test_runs_without_confidence_have_no_calibration(tmp_path, capsys):
    old, new = write_questions_run(tmp_path / "old", confident=False), write_questions_run(tmp_path / "new")
    assert compare(old, "--output", tmp_path / "out") == 0
    line = "vqa-csv: no calibration of nano (old), whose answers have no confidence"
    assert capsys.readouterr().err.count(line) == 1
    names = {path.name for path in (tmp_path / "out/figures").iterdir()}
    assert "vqa-csv-calibration.png" not in names
    assert "vqa-csv-wrong-answers-1.png" in names
    assert compare(old, new, "--output", tmp_path / "both") == 0
    assert line in capsys.readouterr().err
    check_picture(tmp_path / "both/figures/vqa-csv-calibration.png", 3.1 + 0.2)


def test_sheets_whose_files_are_gone_are_said(tmp_path, capsys):
    run = write_drawings_run(tmp_path / "run")
    (run / "dark.png").unlink()
    assert compare(run, "--output", tmp_path / "out") == 0
    assert "pairs: no sheet of nano (run): " in capsys.readouterr().err
    assert not (tmp_path / "out/figures").exists()
    assert (tmp_path / "out/comparison.html").exists()


def test_tables_need_no_matplotlib(tmp_path):
    run = write_drawings_run(tmp_path / "run")
    code = "import sys; sys.modules['matplotlib'] = None; from healthgpt.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "evaluate", "compare", str(run), "--output", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0
    assert done.stderr.count("figures are left out: matplotlib is not installed") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"comparison.{end}" for end in ("md", "csv", "tex", "html")
    }
