"""Charts as tables whose cells hold bars and dots: a screen reader reads the numbers, and a phone stacks the cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import results

from healthgpt.nano.ablations import COMPARISONS, Variant, read_records, scores

ABLATIONS = results.RESULTS / "nano_ablations"
SHOWN_SIZE = "width 1024"  # of the layers in benchmarks/training.py
# The paper's Table 10: training time over LoRA's, by number of experts.
PAPER_COST = {"hlora": {2: 0.99, 4: 1.00, 8: 0.99, 32: 1.01}, "moelora": {2: 1.22, 4: 1.49, 8: 2.09, 32: 5.81}}
ADAPTERS = {"hlora": ("H-LoRA", "read"), "moelora": ("MoELoRA", "still")}


def bar(share: float, kind: str, said: str, *, mark: float | None = None, mark_kind: str = "") -> str:
    """A bar of a share of the width, the number after it, and maybe a line across at another share."""
    line = "" if mark is None else f'<i class="mark {mark_kind}" style="left:{100 * mark:.2f}%"></i>'
    inside = f'<i class="fill {kind}" style="width:{100 * share:.2f}%"></i>{line}'
    return f'<span class="track">{inside}</span><span class="said">{said}</span>'


def table(name: str, heads: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "") -> str:
    """A chart; the first cell of each row is its name."""
    head = "".join(f'<th scope="col" role="columnheader">{title}</th>' for title in heads)
    lines = []
    for first, *cells in rows:
        named = zip(heads[1:], cells, strict=True)
        shown = "".join(f'<td role="cell" data-label="{escape(title)}">{cell}</td>' for title, cell in named)
        lines.append(f'<tr role="row"><th scope="row" role="rowheader">{first}</th>{shown}</tr>')
    return (
        f'<table class="chart {classes}" role="table"><caption>{name}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(lines)}</tbody></table>'
    )


def cost_chart() -> str:
    """What a training step costs over a LoRA of the same rank, by number of experts."""
    top = 1.08 * max(max(costs.values()) for costs in PAPER_COST.values())
    rows = []
    for experts in PAPER_COST["hlora"]:
        for adapter, (title, kind) in ADAPTERS.items():
            ours = results.row("training", size=SHOWN_SIZE, adapter=adapter, k=experts)["× LoRA"]
            paper = PAPER_COST[adapter][experts]
            said = f"{ours:.2f} × <small>paper {paper:.2f} ×</small>"
            cell = bar(ours / top, kind, said, mark=paper / top, mark_kind="paper")
            rows.append((f"{title} <small>k = {experts}</small>", cell))
    caption = (
        "Time of a training step over LoRA's of the same rank: here on two CPU cores (bars), in the paper (ticks)."
    )
    return table(caption, ("adapter", "time"), rows, "cost")


def ablation_charts() -> str:
    """Every comparison that was run: a dot per seed, a bar at their mean, beside the paper's means."""
    records = read_records(ABLATIONS)
    charts = []
    for name, variants in COMPARISONS.items():
        shown = [variant for variant in variants if variant.name in records]
        if len(shown) > 1:
            charts.append(_ablation(name, shown, {v.name: list(map(scores, records[v.name])) for v in shown}))
    return f'<div class="charts">{"".join(charts)}</div>'


def _ablation(name: str, variants: Sequence[Variant], runs: dict[str, list[dict[str, float]]]) -> str:
    tasks = (("understanding", "read"), ("drawing", "draw"))
    ranges = {task: _range([run[task] for found in runs.values() for run in found]) for task, _ in tasks}
    known = [variant.paper for variant in variants if variant.paper]
    papers = [_range([pair[i] for pair in known]) if known else None for i in range(2)]
    heads = [name]
    for task, _ in tasks:
        heads += [f"{task}, here"] + ([f"{task}, paper"] if known else [])
    rows = []
    for variant in variants:
        cells = [escape(variant.title)]
        for i, (task, kind) in enumerate(tasks):
            cells.append(_dots([run[task] for run in runs[variant.name]], ranges[task], kind))
            if papers[i]:
                cells.append(_dots([variant.paper[i]] if variant.paper else [], papers[i], f"{kind} paper"))
        rows.append(cells)
    return table(f"By {name}, in percent", heads, rows, "dots")


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A stretch that holds values with some room, never so short that a tenth of a point looks like much."""
    low, high = min(values), max(values)
    room = max(0.15 * (high - low), (4 - (high - low)) / 2, 0.5)
    return low - room, high + room


def _dots(values: Sequence[float], stretch: tuple[float, float], kind: str) -> str:
    """Values on a line, their mean as a number beside it."""
    if not values:
        return '<span class="said">not given</span>'
    low, high = stretch
    dots = "".join(f'<i class="dot {kind}" style="left:{100 * (v - low) / (high - low):.2f}%"></i>' for v in values)
    return f'<span class="track">{dots}</span><span class="said">{sum(values) / len(values):.1f}</span>'


def speed_chart(*batches: int) -> str:
    """How fast the engine decodes the shipped model, with the floor drawn in; a note where it is not measured yet.

    Args:
        batches: which numbers of prompts are shown; without any, all.
    """
    report = results.found("engine")
    if report is None:
        return (
            '<p class="aside">Not measured yet: <code>python benchmarks/engine.py</code> writes '
            "<code>benchmarks/results/engine.json</code>, from which this chart is drawn.</p>"
        )
    charts = []
    for batch in sorted({row["batch"] for row in report["rows"]}):
        for task in dict.fromkeys(row["task"] for row in report["rows"]):
            rows = [row for row in report["rows"] if (row["task"], row["batch"]) == (task, batch) and row["step_ms"]]
            if rows and (batch in batches or not batches):
                charts.append(_speed(task, batch, rows))
    return f'<div class="charts speed">{"".join(charts)}</div>'


def ladder_chart() -> str:
    """What each measure of the engine brings to a single drawing: measured bars, ticks where each was predicted."""
    report = results.found("ladder")
    if report is None:
        return ""
    top = 1.08 * max(max(row["measured_ms"], row["predicted_ms"]) for row in report["rows"])
    rows = []
    for row in report["rows"]:
        said = f"{row['measured_ms']:.2f} ms <small>of {row['predicted_ms']:.2f}</small>"
        mark = {"mark": row["predicted_ms"] / top, "mark_kind": "paper"}
        kind = "still" if row["rung"] == "original" else "draw"
        rows.append((escape(row["rung"]), bar(row["measured_ms"] / top, kind, said, **mark)))
    caption = (
        "A code of a single drawing, each line with all measures above it: measured (bars, first number) and predicted "
        f"(ticks). The floor is {report['floor_ms']:.2f} ms."
    )
    return table(caption, ("measure", "time of a code"), rows, "speed")


def speed_goals() -> str:
    """Which of the engine's goals were reached, in a sentence each."""
    report = results.found("engine")
    said = []
    for goal in (report or {}).get("goals", []):
        prompts = "one prompt" if goal["batch"] == 1 else f"a batch of {goal['batch']}"
        reached = "" if goal["reached"] else " (missed)"
        said.append(f"{goal['task']}, {prompts}: {goal['speed_up']:.1f} × of {goal['goal']:.0f} ×{reached}")
    return f"Goals: {'; '.join(said)}." if said else ""


def _speed(task: str, batch: int, rows: Sequence[dict[str, Any]]) -> str:
    """The time of a step, one way below the other; the floor is what a step has to move and compute."""
    floor = max(row["floor"] * row["step_ms"] for row in rows if row["floor"])
    top = 1.05 * max([floor, *(row["step_ms"] for row in rows)])
    kinds = {"original": "still", "generate": "still", "static cache, compiled": "still"}
    shown = []
    for row in rows:
        said = f"{row['step_ms']:.3g} ms"
        if row["speed_up"]:
            said += f" <small>{row['speed_up']:.1f} × as fast</small>"
        kind = kinds.get(row["way"], "read" if task == "text" else "draw")
        shown.append((escape(row["way"]), bar(row["step_ms"] / top, kind, said, mark=floor / top, mark_kind="floor")))
    what = f"{task.capitalize()}, {'one prompt' if batch == 1 else f'a batch of {batch}'}"
    caption = f"{what}: time of a step. The line is the floor, {floor:.3g} ms."
    return table(caption, ("way", "time of a step"), shown, "speed")


def modality_chart() -> str:
    """Right answers by modality: the paper's on OmniMedVQA, and the miniature's on phantoms."""
    from healthgpt.evaluation.paper import L14, M3, MODALITIES, OMNIMEDVQA

    rows = []
    for i, modality in enumerate(MODALITIES):
        ours = 100 * results.nano(f"modality={modality}/right")
        cells = [bar(OMNIMEDVQA[model][i] / 100, "still", f"{OMNIMEDVQA[model][i]:.1f}") for model in (M3, L14)]
        rows.append((modality, *cells, bar(ours / 100, "read", f"{ours:.1f}")))
    heads = ("modality", "M3, paper, OmniMedVQA", "L14, paper, OmniMedVQA", "Nano, phantoms")
    return table(
        "Right answers in percent. The last column is of another test, so only the others compare.", heads, rows
    )


def questions_chart() -> str:
    """What the miniature answers, by kind of question."""
    kinds = ("modality", "organ", "plane", "normal", "lesion", "finding", "side", "size", "count", "report")
    groups = {"all closed questions": "close", "all open questions": "open"} | {kind: f"kind={kind}" for kind in kinds}
    rows = []
    for title, group in groups.items():
        right, asked = results.nano(f"{group}/right"), results.nano_count(f"{group}/right")
        rows.append((title, bar(right, "read", f"{100 * right:.1f} <small>of {asked:,}</small>")))
    return table("HealthGPT-Nano on phantoms: right answers in percent", ("questions", "right"), rows, "cost")
