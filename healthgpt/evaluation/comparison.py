"""Finished runs beside each other and beside the paper's rows, with what differs more than by chance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from healthgpt.evaluation import paper
from healthgpt.evaluation.benchmarks import PHANTOMS
from healthgpt.evaluation.figures import is_main
from healthgpt.evaluation.runs import RESULTS_NAME, SAMPLES_NAME
from healthgpt.evaluation.statistics import mcnemar, paired_difference, permutation_test
from healthgpt.evaluation.tables import Table
from healthgpt.files import read_json

_NONE = "–"
_ALPHA = 0.05
_SIMILARITY = ("ssim", "psnr", "mse")
_SCALES = {"ssim": 100.0, "lpips": 100.0}  # the paper's units


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The results of a folder of benchmarks.

    Attributes:
        results: benchmark -> its `results.json`; folders: benchmark -> its folder.
    """

    name: str
    results: Mapping[str, Mapping[str, Any]]
    folders: Mapping[str, Path]

    def value(self, benchmark: str, column: str) -> float | None:
        """A figure, or None."""
        found = self.results.get(benchmark, {}).get("figures", {}).get(column)
        return None if found is None else found["value"]

    def samples(self, benchmark: str) -> Iterator[dict[str, Any]]:
        """The lines of `samples.jsonl`."""
        with (self.folders[benchmark] / SAMPLES_NAME).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def scores(self, benchmark: str, column: str) -> dict[str, float]:
        """A column of the samples, by their ids."""
        return {str(s["id"]): s["scores"][column] for s in self.samples(benchmark) if column in s["scores"]}


def read_finished(folder: Path) -> Finished:
    """The results in a folder, and in folders in it.

    Raises:
        FileNotFoundError: there are none.
    """
    places = (
        [folder] if (folder / RESULTS_NAME).is_file() else sorted(p.parent for p in folder.glob(f"*/{RESULTS_NAME}"))
    )
    if not places:
        raise FileNotFoundError(f"{folder}: has no {RESULTS_NAME}, neither itself nor in a folder in it")
    results = {}
    for place in places:
        found = read_json(place / RESULTS_NAME)
        if "benchmark" not in found or "figures" not in found:
            raise ValueError(f"{place / RESULTS_NAME}: is not what `healthgpt evaluate --output FOLDER` writes")
        results[str(found["benchmark"])] = found
    folders = dict(zip(results, places, strict=True))
    model = next(iter(results.values()))["model_id"]
    return Finished(name=f"{model} ({folder.name})", results=results, folders=folders)


def comparison(runs: Sequence[Finished]) -> list[Table]:
    """All tables for which some run has figures."""
    made = [_questions(runs), _modalities(runs), _conversions(runs), _super_resolution(runs), _reconstruction(runs)]
    return [table for table in [*made, *_others(runs), *_differences(runs)] if table.rows]


def _questions(runs: Sequence[Finished]) -> Table:
    """The paper's Table 1."""
    names = {column.partition("/")[0] for column in paper.VQA_COLUMNS}
    ours = []
    for run in runs:
        if names & run.results.keys():
            columns = [column.split("/") for column in paper.VQA_COLUMNS]
            values = [run.value(benchmark, f"{group}/right") for benchmark, group in columns]
            ours.append((run.name, [None if v is None else 100 * v for v in values]))
    return _beside(
        "Questions: accuracy in percent",
        [
            column.removesuffix("/all") if column.startswith(("mmmu", "omni")) else column
            for column in paper.VQA_COLUMNS
        ],
        {name: list(values) for name, values in paper.VQA.items()},
        ours,
        notes=[
            "close: all that is not open; all: every question. Ours: exact match of the words, multiple choice by "
            "letter or else by text. The paper names no rule, prompt or split."
        ],
    )


def _modalities(runs: Sequence[Finished]) -> Table:
    """The paper's Table 9."""
    ours = []
    for run in runs:
        if "omnimedvqa" in run.results:
            values = [run.value("omnimedvqa", f"modality={name}/right") for name in paper.MODALITIES]
            ours.append((run.name, [None if v is None else 100 * v for v in values]))
    rows = {name: list(values) for name, values in paper.OMNIMEDVQA.items()}
    return _beside("OmniMedVQA by modality: accuracy in percent", paper.MODALITIES, rows, ours)


def _conversions(runs: Sequence[Finished]) -> Table:
    """The paper's Table 2."""
    header = [f"{name.removeprefix('synthrad-')} {measure}" for name in paper.CONVERSIONS for measure in _SIMILARITY]
    ours = []
    for run in runs:
        if run.results.keys() & set(paper.CONVERSIONS):
            ours.append(
                (run.name, [_similarity(run, name, "all", m) for name in paper.CONVERSIONS for m in _SIMILARITY])
            )
    rows = {name: [value for three in values for value in three] for name, values in paper.CONVERSION.items()}
    return _beside("Conversions: SSIM (x 100), PSNR (dB), MSE", header, rows, ours, mean=False)


def _super_resolution(runs: Sequence[Finished]) -> Table:
    """The paper's Table 3."""
    measures = (*_SIMILARITY, "lpips")
    ours = [
        (run.name, [_similarity(run, "ixi-sr", "all", m) for m in measures]) for run in runs if "ixi-sr" in run.results
    ]
    rows = {name: list(values) for name, values in paper.SUPER_RESOLUTION.items()}
    title = "4 x super-resolution, IXI: SSIM (x 100), PSNR (dB), MSE, LPIPS (x 100)"
    return _beside(title, measures, rows, ours, mean=False)


def _reconstruction(runs: Sequence[Finished]) -> Table:
    """The paper's Table 11."""
    header = [f"{kind} {measure}" for kind in paper.RECONSTRUCTED for measure in _SIMILARITY]
    ours = []
    for run in runs:
        groups = [f"kind={kind}" for kind in paper.RECONSTRUCTED]
        values = [_similarity(run, "reconstruction", group, m) for group in groups for m in _SIMILARITY]
        if any(value is not None for value in values):
            ours.append((run.name, values))
    rows = {name: [value for three in values for value in three] for name, values in paper.RECONSTRUCTION.items()}
    return _beside("Reconstruction: SSIM (x 100), PSNR (dB), MSE", header, rows, ours, mean=False)


def _similarity(run: Finished, benchmark: str, group: str, measure: str) -> float | None:
    value = run.value(benchmark, f"{group}/{measure}")
    return None if value is None else value * _SCALES.get(measure, 1.0)


def _beside(
    title: str,
    columns: Sequence[str],
    theirs: Mapping[str, Sequence[float]],
    ours: Sequence[tuple[str, Sequence[float | None]]],
    *,
    mean: bool = True,
    notes: Sequence[str] = (),
) -> Table:
    """The paper's rows and ours; no rows where we have none."""
    rows = [*theirs.items(), *ours] if ours else []
    return Table(
        title=title,
        header=("", *columns, *(["mean"] if mean else [])),
        rows=[(name, *map(_shown, values), *([_mean(values)] if mean else [])) for name, values in rows],
        notes=notes,
    )


def _shown(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _mean(values: Sequence[float | None]) -> str:
    """The mean of a row in which nothing is missing."""
    known = [value for value in values if value is not None]
    return _shown(fmean(known)) if len(known) == len(values) else _NONE


def _others(runs: Sequence[Finished]) -> Iterator[Table]:
    """Every column of every benchmark over all of its samples, phantoms' also by kind, with how sure it is."""
    for benchmark in dict.fromkeys(name for run in runs for name in run.results):
        have = [run for run in runs if benchmark in run.results]
        figures = [_main_figures(benchmark, run.results[benchmark]) for run in have]
        columns = dict.fromkeys(name for found in figures for name in found)
        rows = [(column, *(_sure(found.get(column)) for found in figures)) for column in columns]
        partial = [f"{run.name}: a part of the benchmark" for run in have if run.results[benchmark]["partial"]]
        notes = [*partial, *_unlike_judges([run.results[benchmark] for run in have])]
        yield Table(title=benchmark, header=("", *(run.name for run in have)), rows=rows, notes=notes)


def _main_figures(benchmark: str, result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A benchmark's figures that its table shows; those of its judges are under their names."""
    judges = {f" ({name})": judge["figures"] for name, judge in result.get("judged", {}).items()}
    return {
        f"{name}{judge}": found
        for judge, figures in {"": result["figures"], **judges}.items()
        for name, found in figures.items()
        if is_main(name) and (benchmark == PHANTOMS or "=" not in name)
    }


def _unlike_judges(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is to be known about judges whose figures stand side by side."""
    for name in dict.fromkeys(name for result in results for name in result.get("judged", {})):
        found = [result["judged"][name] for result in results if name in result.get("judged", {})]
        if len({judge["hash"] for judge in found}) > 1:
            yield f"{name}: is not one judge in these runs; model, endpoint, prompt or tokens differ"


def _sure(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return _NONE
    around = "" if found["low"] is None else f" [{found['low']:.4f}, {found['high']:.4f}]"
    return f"{found['value']:.4f}{around}, n = {found['n']}"


def _differences(runs: Sequence[Finished]) -> Iterator[Table]:
    """Each run against the first one, over the samples that both have."""
    rows = [
        row
        for run in runs[1:]
        for benchmark in runs[0].results.keys() & run.results.keys()
        for column in ("right", "ssim")
        if (row := _difference(runs[0], run, benchmark, column))
    ]
    yield Table(
        title=f"Differences from {runs[0].name}",
        header=("", "difference [95 %]", "p", f"p < {_ALPHA}", "samples of both"),
        rows=sorted(rows),
        notes=["right: exact McNemar test; ssim: paired permutation test; intervals: paired bootstrap."],
    )


def _difference(first: Finished, run: Finished, benchmark: str, column: str) -> tuple[str, ...] | None:
    """A row; None where the two have no samples with such a column in common."""
    one, other = first.scores(benchmark, column), run.scores(benchmark, column)
    both = sorted(one.keys() & other.keys())
    if not both:
        return None
    left, right = [one[i] for i in both], [other[i] for i in both]
    difference, low, high = paired_difference(left, right)
    if column == "right":
        chance = mcnemar([value == 1 for value in left], [value == 1 for value in right])
    else:
        chance = permutation_test(left, right)
    mark = "yes" if chance < _ALPHA else "no"
    shown = f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"{benchmark}/{column}: {run.name}", shown, f"{chance:.4f}", mark, str(len(both))
