"""What a run tells: a progress line, `metrics.jsonl`, a loss curve and `run.json`."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from healthgpt import __version__
from healthgpt.files import write_atomically
from healthgpt.provenance import commit, version_of
from healthgpt.training.step import StageModel

METRICS_NAME = "metrics.jsonl"
CURVE_NAME = "loss.png"
RUN_NAME = "run.json"


class Feedback(TrainerCallback):
    """Adds tokens per second, peak memory and the time left to what the trainer logs, and keeps every line.

    Args:
        folder: where `metrics.jsonl` grows.
        world_size: processes, by which this one's tokens are multiplied.
    """

    def __init__(self, folder: Path, model: StageModel, world_size: int):
        self._path = folder / METRICS_NAME
        self._model = model
        self._world_size = world_size
        self._tokens, self._time = 0, time.perf_counter()
        self._start: tuple[int, float] | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._start is None:
            self._start = state.global_step, time.perf_counter()
            self._tokens, self._time = int(self._model.tokens_seen), time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or not state.is_world_process_zero:
            return
        if "loss" in logs:
            logs |= self._rates(state)
        line = {"step": state.global_step, **{key: value for key, value in logs.items() if key != "total_flos"}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _rates(self, state: Any) -> dict[str, float]:
        now, tokens = time.perf_counter(), int(self._model.tokens_seen)
        per_second = (tokens - self._tokens) * self._world_size / max(now - self._time, 1e-9)
        self._tokens, self._time = tokens, now
        first_step, started = self._start or (state.global_step, now)
        done = max(state.global_step - first_step, 1)
        left = (now - started) / done * (state.max_steps - state.global_step)
        return {
            "tokens_per_second": round(per_second, 1),
            "peak_memory_gib": round(peak_memory() / 2**30, 3),
            "seconds_left": round(left, 1),
        }


def peak_memory() -> int:
    """Peak bytes of the accelerator, or of this process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; of a step that was logged again after a resume, the last one counts."""
    path = folder / METRICS_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    by_step: dict[tuple[int, str], dict[str, Any]] = {}
    for line in lines:
        try:
            metrics = json.loads(line)
        except ValueError:  # a line torn by a kill; its step is logged again
            continue
        kind = next((key for key in ("loss", "eval_loss") if key in metrics), "summary")
        by_step[metrics["step"], kind] = metrics
    return [by_step[key] for key in sorted(by_step)]


def draw_curve(folder: Path, title: str) -> None:
    """Draws the loss over the steps into `loss.png`."""
    from matplotlib.figure import Figure

    metrics = read_metrics(folder)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "held out", "o-")):
        points = [(line["step"], line[key]) for line in metrics if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set(xlabel="step", ylabel="cross-entropy per token", title=title)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    write_atomically(folder / CURVE_NAME, lambda path: figure.savefig(path, dpi=120))


def write_run(folder: Path, **facts: Any) -> None:
    """Writes `run.json`: what ran, on what, with which data and outcome."""
    packages = ("torch", "transformers", "peft", "accelerate", "deepspeed")
    versions = {name: version_of(name) for name in packages}
    content = {
        "healthgpt": __version__,
        "python": platform.python_version(),
        "versions": {name: version for name, version in versions.items() if version},
        "git_commit": commit(),
        **facts,
    }
    write_atomically(folder / RUN_NAME, lambda path: path.write_text(json.dumps(content, indent=2) + "\n"))


def final_losses(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """First and last logged losses."""
    found: dict[str, float] = {}
    for key in ("loss", "eval_loss"):
        values = [line[key] for line in metrics if key in line]
        if values:
            found |= {f"first_{key}": values[0], f"final_{key}": values[-1]}
    return found
