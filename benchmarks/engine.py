"""How fast the engine decodes the shipped model, against the original's way: python benchmarks/engine.py [--rounds 7]

Two cores, float32, `healthgpt bench` of both tasks, all in one run and in turns; docs/engine.md says what is measured
and shows docs/images/engine.png, which is drawn here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from report import publish

from healthgpt.bench import chart
from healthgpt.bench.run import BenchSettings, bench
from healthgpt.bench.subject import Subject
from healthgpt.bench.ways import AHEAD, ENGINE
from healthgpt.config import NANO
from healthgpt.loading import LoadOptions
from healthgpt.sources import named_sources

CORES = 2
CHART = Path(__file__).parents[1] / "docs" / "images" / "engine.png"
# Times as fast per prompt as the original with one prompt, at the least: task, prompts at once, goal.
GOALS = (("text", 1, 3.0), ("image", 1, 3.0), ("text", 16, 8.0), ("image", 16, 8.0))
SHOWN = ("task", "way", "batch", "tokens", "prefill_ms", "step_ms", "seconds_per_image", "tokens_per_second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new_tokens", type=int, default=64)
    flags = parser.parse_args()
    torch.set_num_threads(CORES)
    subject = Subject.of_model(NANO, named_sources(NANO), LoadOptions(device="cpu", dtype="FP32"))
    settings = BenchSettings(batches=(1, 8, 16, 32), new_tokens=flags.new_tokens, rounds=flags.rounds)
    report = bench(subject, settings)
    if report["interrupted"]:
        raise SystemExit(130)
    goals = [_reached(report["rows"], *goal) for goal in GOALS]
    rows = [
        {key: row[key] for key in SHOWN}
        | {"speed_up": row["speed_up"], "operators": row["launches_per_token"], "floor": row["share_of_floor"]}
        | {"same_tokens": row["agreement"]["percent"]}
        for row in report["rows"]
    ]
    kept = {key: report[key] for key in ("subject", "ceilings", "rounds", "left_out")}
    publish("engine", rows, goals=goals, **kept)
    chart.save(report, CHART)
    for goal in goals:
        print(f"{goal['task']}, batch of {goal['batch']}: {goal['speed_up']:.2f} x, goal {goal['goal']:.0f} x")


def _reached(rows: list[dict[str, Any]], task: str, batch: int, goal: float) -> dict[str, Any]:
    """The engine's speed-up beside a goal; of a single drawing the way that `draw` takes, guessing ahead."""
    way = AHEAD if task == "image" and batch == 1 else ENGINE
    [found] = [row["speed_up"] for row in rows if (row["task"], row["batch"], row["way"]) == (task, batch, way)]
    return {"task": task, "batch": batch, "way": way, "goal": goal, "speed_up": found, "reached": found >= goal}


if __name__ == "__main__":
    main()
