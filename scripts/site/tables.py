"""The paper's tables, with a row for what this code reaches where it has been run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean

import results

from healthgpt.evaluation import paper

Cells = Sequence[float | None]
MODELS = {"HealthGPT-M3, this code": "m3", "HealthGPT-L14, this code": "l14"}
TITLES = {
    "vqa-rad": "VQA-RAD", "slake": "SLAKE", "pathvqa": "PathVQA", "mmmu-med": "MMMU-Med", "omnimedvqa": "OmniMedVQA",
    "synthrad-ct2mri-brain": "CT → MRI, brain", "synthrad-ct2mri-pelvis": "CT → MRI, pelvis",
    "synthrad-mri2ct-brain": "MRI → CT, brain", "synthrad-mri2ct-pelvis": "MRI → CT, pelvis",
}  # fmt: skip
SIMILARITY = ("SSIM ↑", "PSNR ↑", "MSE ↓")


def comprehension() -> str:
    """Table 1."""
    heads = [f"{TITLES[name]}, {part}" for name, _, part in (column.partition("/") for column in paper.VQA_COLUMNS)]
    rows = {model: [*values, fmean(values)] for model, values in paper.VQA.items()}
    return _table("Table 1: questions, percent right", [*heads, "mean"], rows, ours=_ours_on_questions())


def by_modality() -> str:
    """Table 9."""
    rows = {model: [*values, fmean(values)] for model, values in paper.OMNIMEDVQA.items()}
    return _table("Table 9: OmniMedVQA by modality, percent right", [*paper.MODALITIES, "mean"], rows)


def conversion() -> str:
    """Table 2."""
    return _similarities("Table 2: conversion on SynthRAD2023", [TITLES[name] for name in paper.CONVERSIONS],
                         paper.CONVERSION)  # fmt: skip


def super_resolution() -> str:
    """Table 3."""
    heads = [*SIMILARITY, "LPIPS ↓"]
    return _table("Table 3: 4 × super-resolution on IXI", heads, paper.SUPER_RESOLUTION, digits=2)


def reconstruction() -> str:
    """Table 11."""
    return _similarities("Table 11: reconstruction", paper.RECONSTRUCTED, paper.RECONSTRUCTION)


def _similarities(name: str, tasks: Sequence[str], rows: Mapping[str, Sequence[Sequence[float]]]) -> str:
    heads = [f"{task}: {measure}" for task in tasks for measure in SIMILARITY]
    flat = {model: [value for task in values for value in task] for model, values in rows.items()}
    return _table(name, heads, flat, digits=2)


def _ours_on_questions() -> Mapping[str, Cells]:
    """Rows of committed evaluations of real weights."""
    rows = {}
    for title, model in MODELS.items():
        cells = [
            results.evaluated(model, name, f"{part}/right")
            for name, _, part in (column.partition("/") for column in paper.VQA_COLUMNS)
        ]
        if any(cell is not None for cell in cells):
            known = [100 * cell if cell is not None else None for cell in cells]
            rows[title] = [*known, None if None in known else fmean(cell for cell in known if cell is not None)]
    return rows


def _table(
    name: str,
    heads: Sequence[str],
    rows: Mapping[str, Cells],
    *,
    digits: int = 1,
    ours: Mapping[str, Cells] | None = None,
) -> str:
    """A table whose best numbers of the paper are bold."""
    columns = list(zip(*rows.values(), strict=True))
    best = [min(column) if head.endswith("↓") else max(column) for head, column in zip(heads, columns, strict=True)]
    lines = [_row(model, values, best, digits, "") for model, values in rows.items()]
    if ours:
        lines += [_row(model, values, [None] * len(heads), digits, "ours") for model, values in ours.items()]
    else:
        note = "this code, on the released weights and these data: not run yet"
        lines.append(f'<tr class="ours"><th scope="row">HealthGPT</th><td colspan="{len(heads)}">{note}</td></tr>')
    head = "".join(f'<th scope="col" class="number">{escape(title)}</th>' for title in heads)
    return (
        f'<table class="paper"><caption>{escape(name)}</caption>'
        f'<thead><tr><th scope="col">model</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _row(model: str, values: Cells, best: Cells, digits: int, kind: str) -> str:
    cells = []
    for value, top in zip(values, best, strict=True):
        mark = " best" if value is not None and value == top else ""
        cells.append(f'<td class="number{mark}">{"–" if value is None else f"{value:.{digits}f}"}</td>')
    name = f"<strong>{escape(model)}</strong>" if "HealthGPT" in model else escape(model)
    return f'<tr class="{kind}"><th scope="row">{name}</th>{"".join(cells)}</tr>'


def nano_conversion() -> str:
    """What the miniature draws, beside the best that its VQGAN allows and beside doing nothing."""
    lines = []
    for kind, title, nothing in (
        ("ct2mri", "CT → MRI", "ssim_copied"),
        ("mri2ct", "MRI → CT", "ssim_copied"),
        ("super-resolution", "4 × super-resolution", "ssim_bicubic"),
        ("reconstruction", "reconstruction", None),
    ):
        cells = [results.nano(f"kind={kind}/{name}") for name in ("ssim", "ssim_ceiling")]
        less = f"{100 * results.nano(f'kind={kind}/{nothing}'):.1f}" if nothing else "–"
        shown = "".join(f'<td class="number">{100 * value:.1f}</td>' for value in cells)
        psnr = f'<td class="number">{results.nano(f"kind={kind}/psnr"):.1f}</td>'
        lines.append(f'<tr><th scope="row">{title}</th>{shown}<td class="number">{less}</td>{psnr}</tr>')
    heads = ("SSIM ↑", "its ceiling", "input as it is, or bicubic", "PSNR ↑")
    head = "".join(f'<th scope="col" class="number">{title}</th>' for title in heads)
    count = results.nano_count("kind=ct2mri/ssim")
    return (
        f"<table><caption>HealthGPT-Nano on {count} phantoms of each kind; SSIM times 100</caption>"
        f'<thead><tr><th scope="col">drawing</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )
