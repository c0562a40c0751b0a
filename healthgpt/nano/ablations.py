"""The paper's ablations in miniature: what is compared, each run's record, and the table beside the paper's figures.

A record is what an evaluation of one run gave, with the seconds that its training steps took;
`scripts/nano/ablations.sh` leaves a file of each in a folder, NAME-SEED.json.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthgpt.files import read_json, write_atomically
from healthgpt.training.feedback import RUN_NAME, read_metrics

RESULTS_NAME = "evaluation/phantoms/results.json"  # of one run, as `healthgpt evaluate` writes it
_KEPT = ("right", "ssim", "ssim_share", "psnr", "lesions_kept", "healthy_kept", "findings")
_SCORED = {
    "ct2mri": "ssim_share",
    "mri2ct": "ssim_share",
    "reconstruction": "ssim_share",
    "super-resolution": "ssim_share",
    "report-to-cxr": "findings",
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a comparison.

    Attributes:
        name: of its runs.
        paper: the paper's means over its benchmarks of understanding and of drawing (Tables 4, 5 and 10, averaged as
            there); None where it gives a figure without numbers, or nothing.
    """

    name: str
    title: str
    paper: tuple[float, float] | None = None


_OURS = "hlora"  # the recipe that everything is compared with: H-LoRA, k = 4, split features, three stages
COMPARISONS: dict[str, tuple[Variant, ...]] = {
    "adapter": (
        Variant(name=_OURS, title="H-LoRA, k = 4", paper=(52.8, 64.71)),
        Variant(name="lora", title="LoRA", paper=(51.1, 62.85)),
        Variant(name="moelora", title="MoELoRA, k = 4", paper=(50.0, 64.33)),
    ),
    "vision features": (
        Variant(name=_OURS, title="abstract to understand, concrete to draw"),
        Variant(name="abstract", title="abstract for both"),
        Variant(name="concrete", title="concrete for both"),
    ),
    "stages": (
        Variant(name=_OURS, title="three stages", paper=(55.0, 67.61)),
        Variant(name="mixed", title="one mixed stage", paper=(39.46, 58.94)),
    ),
    "experts": (
        Variant(name="experts1", title="k = 1"),
        Variant(name="experts2", title="k = 2", paper=(51.5, 63.48)),
        Variant(name=_OURS, title="k = 4", paper=(52.8, 64.71)),
        Variant(name="experts8", title="k = 8", paper=(53.6, 64.98)),
    ),
}


def record_run(run: Path, output: Path) -> Path:
    """Writes the record of a finished run; returns its file.

    Args:
        run: its folder, NAME-SEED, with the five stages (or one) and the evaluation's results.

    Raises:
        FileNotFoundError: it has not been evaluated.
    """
    figures = read_json(run / RESULTS_NAME)["figures"]
    record = {
        "training": dict(_stages(run)),
        "figures": {
            name: {"value": round(found["value"], 4), "n": found["n"]}
            for name, found in figures.items()
            if name.rpartition("/")[2] in _KEPT
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{run.name}.json"
    write_atomically(path, lambda target: target.write_text(json.dumps(record, indent=1) + "\n"))
    return path


def _stages(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Steps, seconds a step and final loss of every stage of a run."""
    for path in sorted(run.glob(f"*/{RUN_NAME}")):
        facts = read_json(path)
        seconds = sum(line.get("train_runtime", 0.0) for line in read_metrics(path.parent))
        yield (
            path.parent.name,
            {
                "steps": facts["steps"],
                "seconds_per_step": round(seconds / facts["steps"], 4),
                "final_loss": facts["losses"].get("final_loss"),
            },
        )


def scores(record: dict[str, Any]) -> dict[str, float]:
    """Understanding: all questions; drawing: the mean over its five types (share of the ceiling's SSIM, or of X-rays
    with the report's findings); both in percent."""
    figures = record["figures"]
    drawn = [figures[f"kind={kind}/{column}"]["value"] for kind, column in _SCORED.items()]
    return {"understanding": 100 * figures["all/right"]["value"], "drawing": 100 * statistics.mean(drawn)}


def read_records(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The records of a folder by variant, seeds in their order.

    Raises:
        FileNotFoundError: there are none.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-*.json")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(read_json(path))
    if not found:
        raise FileNotFoundError(f"{folder}: no records of runs (NAME-SEED.json)")
    return found


def summary(records: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Mean and spread (half of the range over the seeds) of each score of a variant."""
    by_run = [scores(record) for record in records]
    return {name: spread([run[name] for run in by_run]) for name in by_run[0]}


def spread(values: list[float]) -> tuple[float, float]:
    """The mean of some values and half of their range."""
    return statistics.mean(values), (max(values) - min(values)) / 2


def ablations_table(records: dict[str, list[dict[str, Any]]]) -> str:
    """Every comparison as a Markdown table, the paper's figures in its last columns; what was not run says so."""
    lines = []
    for name, variants in COMPARISONS.items():
        lines += [f"| {name} | understanding | drawing | paper | paper |", "|---|---|---|---|---|"]
        for variant in variants:
            cells = ["not run", "not run"]
            if variant.name in records:
                cells = [f"{mean:.1f} ± {half:.1f}" for mean, half in summary(records[variant.name]).values()]
            paper = [f"{value:.1f}" for value in variant.paper] if variant.paper else ["", ""]
            lines.append("| " + " | ".join([variant.title, *cells, *paper]) + " |")
        lines.append("")
    return "\n".join(lines)
