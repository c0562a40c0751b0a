"""What the website is made of: its numbers and figures are those of benchmarks/results, its gallery is the model's."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from docs_sandbox import ROOT, grey

from healthgpt import HealthGPT
from healthgpt.data.phantoms.instructions import shrink
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.evaluation import paper

sys.path.insert(0, str(ROOT / "scripts" / "site"))
import architecture
import charts
import gallery
import gallery_page
import hlora_figure
import results
import source_code
import tables
import training_cost

GALLERY = json.loads((gallery.FOLDER / "gallery.json").read_text(encoding="utf-8"))
DRAWINGS = [(kind, entry) for kind, entries in GALLERY["drawings"].items() for entry in entries]


@pytest.fixture(scope="module")
def nano() -> HealthGPT:
    return HealthGPT.from_pretrained("nano", device="cpu")


def input_of(entry: dict[str, Any], kind: str) -> np.ndarray | None:
    """A phantom's image as the model was given it, before it became a WebP."""
    if entry["input"] is None:
        return None
    number = int(entry["id"].split("-")[2])
    images = draw_patient("test", gallery.SEED, number).images
    modality = entry["input"]["file"].removesuffix(".webp").split("-", 3)[3]
    name = {"ct": "CT", "mri": "MRI", "x-ray": "X-ray"}[modality.removesuffix("-small")]
    return shrink(images[name]) if kind == "super-resolution" else images[name]


def test_the_gallery_is_of_the_shipped_model_and_small() -> None:
    assert GALLERY["model_sha256"] == results.read("nano")["model_sha256"]
    assert {kind: len(entries) for kind, entries in GALLERY["drawings"].items()} == dict.fromkeys(
        gallery.DRAWN, gallery.EXAMPLES
    )
    assert sum(path.stat().st_size for path in gallery.FOLDER.iterdir()) < 300_000


@pytest.mark.parametrize(("kind", "entry"), DRAWINGS, ids=[entry["id"] for _, entry in DRAWINGS])
def test_the_model_draws_what_the_gallery_shows(nano: HealthGPT, kind: str, entry: dict[str, Any]) -> None:
    drawn = np.asarray(nano.draw(entry["question"], input_of(entry, kind)).convert("L"), np.float32)
    shown = grey(gallery.FOLDER / entry["drawn"]["file"]).astype(np.float32)
    assert np.abs(drawn - shown).mean() < 3  # of 255: what WebP takes


def test_the_model_answers_what_the_gallery_shows(nano: HealthGPT) -> None:
    for entry in GALLERY["answers"]:
        number = int(entry["image"]["file"].split("-")[2])
        image = draw_patient("test", gallery.SEED, number).images[entry["modality"]]
        for turn in entry["turns"]:
            assert nano.answer(turn["question"], image) == turn["answer"]


class Cells(HTMLParser):
    """The rows of a table, as words."""

    def __init__(self, html: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_the_papers_table_has_the_papers_numbers() -> None:
    rows = {row[0]: row[1:] for row in Cells(tables.comprehension()).rows}
    assert [float(cell) for cell in rows[paper.L14][:-1]] == list(paper.VQA[paper.L14])
    assert rows[paper.L14][-1] == "66.4"
    assert "not run yet" in rows["HealthGPT"][0]


def test_a_committed_evaluation_stands_beside_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "m3" / "slake"
    folder.mkdir(parents=True)
    figures = {"close/right": {"value": 0.7, "n": 10}, "all/right": {"value": 0.5, "n": 20}}
    (folder / "results.json").write_text(json.dumps({"figures": figures}))
    monkeypatch.setattr(results, "EVALUATIONS", tmp_path)
    rows = {row[0]: row[1:] for row in Cells(tables.comprehension()).rows}
    assert rows["HealthGPT-M3, this code"] == ["–", "–", "70.0", "50.0", "–", "–", "–", "–", "–"]


def test_bars_are_as_long_as_their_numbers() -> None:
    html = charts.cost_chart()
    said = [float(number) for number in re.findall(r'said">([\d.]+) ×', html)]
    long = [float(number) for number in re.findall(r'class="fill \w+" style="width:([\d.]+)%', html)]
    assert len(said) == 8
    assert np.allclose(np.array(long) / long[0], np.array(said) / said[0], rtol=0.02)


def engine_row(way: str, step: float, speed_up: float) -> dict[str, Any]:
    return {"task": "image", "way": way, "batch": 1, "step_ms": step, "speed_up": speed_up, "floor": 0.5 / step}


def test_the_speed_chart_has_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "found", lambda name: None)
    assert "benchmarks/engine.py" in charts.speed_chart()
    rows = [engine_row("original", 4.0, 1.0), engine_row("engine", 1.0, 4.0), engine_row("generate", 3.0, 1.3)]
    rows.append({**engine_row("static cache, compiled", 1.0, 1.0), "step_ms": None, "floor": None})
    monkeypatch.setattr(results, "found", lambda name: {"rows": rows})
    html = charts.speed_chart()
    assert "0.5 ms" in html
    assert "compiled" not in html
    widths = [float(width) for width in re.findall(r'fill \w+" style="width:([\d.]+)%', html)]
    [floor] = set(re.findall(r'mark floor" style="left:([\d.]+)%', html))
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.01)
    assert float(floor) / widths[1] == pytest.approx(0.5, rel=0.01)


def test_a_measured_speed_can_be_drawn() -> None:
    """What benchmarks/engine.py wrote, once it has."""
    report = results.found("engine")
    if report is None:
        pytest.skip("benchmarks/results/engine.json is not there yet")
    assert charts.speed_chart().count("<table") >= 2


def test_ablations_show_every_run() -> None:
    html = charts.ablation_charts()
    runs = {path.stem for path in charts.ABLATIONS.glob("*.json")}
    assert len(runs) >= 2
    assert html.count("<table") >= 3


@pytest.mark.parametrize("figure", [architecture.architecture("x"), hlora_figure.hlora()])
def test_figures_are_svg_and_say_what_they_show(figure: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", figure, re.DOTALL):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        named = {node.get("id") for node in root.iter()}
        assert set(str(root.get("aria-labelledby")).split()) <= named
        assert all(mark in named for mark in re.findall(r"url\(#([\w-]+)\)", svg))


def test_alternatives_name_the_finding() -> None:
    html = gallery_page.drawings("x")
    assert 'alt="drawn: brain, hemorrhage"' in html
    assert html.count("lesion lost") == sum(entry["missed"] for _, entry in DRAWINGS)


def test_code_is_read_out_of_the_package() -> None:
    shown = source_code.code("healthgpt/hlora.py", "HLoraLinear.delta")
    assert shown.startswith('```python title="healthgpt/hlora.py"\ndef delta(')
    with pytest.raises(LookupError, match=r"has no HLoraLinear\.nothing"):
        source_code.code("healthgpt/hlora.py", "HLoraLinear.nothing")


def test_training_takes_what_the_dry_run_says() -> None:
    rows = {(row["model"], row["stage"]): row for row in results.read("training_cost")["rows"]}
    row = rows["m3", "stage3_comprehension"]
    assert f"{row['trained'] / 1e6:.1f}" == "115.5"  # docs/training.md
    assert f"{row['memory_bytes']['1']['0'] / 2**30:.1f}" == "9.5"
    assert "115.5&nbsp;M" in training_cost.table("m3")
