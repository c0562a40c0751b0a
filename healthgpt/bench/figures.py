"""What is said of a measured row: times, rates, and how near to the floor."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from healthgpt.bench.floor import Ceilings
from healthgpt.bench.measuring import Row
from healthgpt.bench.subject import Subject
from healthgpt.tasks import Task

KINDS = {Task.COMPREHENSION: "text", Task.GENERATION: "image"}


def figures(row: Row, base: Row | None, subject: Subject, ceilings: Ceilings) -> dict[str, Any]:
    """The figures of a row; None stands for what was not measured.

    Args:
        base: of the original with a single prompt, which speed-ups are over.

    Returns:
        of every row the same keys; times are medians over the rounds, ratios those of the rounds' own ratios.
    """
    known: dict[str, Any] = {
        "task": KINDS[row.task],
        "way": row.way.name,
        "batch": row.batch,
        "tokens": row.tokens,
        "failure": row.failure,
        "rounds": len(row.whole),
        "first_time_seconds": row.start,
        "prefill_ms": None,
        "step_ms": None,
        "seconds_per_image": None,
        "tokens_per_second": None,
        "speed_up": None,
        "peak_bytes": row.peak_bytes,
        "launches_per_token": row.launches,
        "agreement": asdict(row.agreement) if row.agreement else None,
        **_floor(row, subject, ceilings),
        "share_of_floor": None,
    }
    if not row.whole or row.failure:
        if row.failure is None:
            known["failure"] = "interrupted"
        return known
    whole = statistics.median(row.whole)
    step = statistics.median(b - a for a, b in zip(row.first, row.whole, strict=True)) / (row.tokens - 1)
    known["prefill_ms"] = 1000 * statistics.median(row.first)
    known["tokens_per_second"] = row.batch * row.tokens / whole
    if step > 0:  # with few tokens on a busy machine it may not be
        known["step_ms"] = 1000 * step
        known["share_of_floor"] = known["floor_step_ms"] / known["step_ms"]
        if row.task is Task.GENERATION:
            rest = subject.codes_per_image - row.tokens  # 0 unless fewer codes were asked for
            known["seconds_per_image"] = (whole + rest * step) / row.batch
    if base is not None and base.whole:
        known["speed_up"] = statistics.median(
            row.batch * b / own for b, own in zip(base.whole, row.whole, strict=False)
        )
    return known


def _floor(row: Row, subject: Subject, ceilings: Ceilings) -> dict[str, float]:
    """What plain decoding has to move and compute, whatever the way: see `floor`."""
    sizes, rank, rows = subject.sizes(row.task), subject.rank(row.task), subject.rows(row.task)
    step = sizes.step(rank=rank, batch=row.batch, context=row.context + row.tokens / 2, rows=rows)
    prompts = sizes.prompts(rank=rank, batch=row.batch, tokens=row.context, rows=rows)
    return {
        "step_bytes": step.bytes,
        "floor_step_ms": 1000 * step.seconds(ceilings),
        "floor_prefill_ms": 1000 * prompts.seconds(ceilings),
    }
