"""What every stage takes, as a table."""

from __future__ import annotations

import results

RATE = 400e12  # FLOPs per second that one GPU is taken to reach
GPUS = 8
TITLES = {
    "stage1_comprehension": "1, comprehension",
    "stage1_generation": "1, generation",
    "stage2_fusion": "2, fusion",
    "stage3_comprehension": "3, comprehension",
    "stage3_generation": "3, generation",
}
ZERO = {"m3": 2, "l14": 3}  # as configs/train has it


def table(model: str) -> str:
    """A model's stages with their memory and time, and their sum."""
    rows = [row for row in results.read("training_cost")["rows"] if row["model"] == model]
    lines = [
        "| stage | trained | samples | tokens | memory, 1 GPU "
        f"| memory, each of {GPUS} (ZeRO-{ZERO[model]}) | one GPU | {GPUS} GPUs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        one = row["memory_bytes"]["1"]["0"]
        each = row["memory_bytes"][str(GPUS)][str(ZERO[model])]
        hours = row["flops"] / RATE / 3600
        lines.append(
            f"| {TITLES[row['stage']]} | {row['trained'] / 1e6:,.1f}&nbsp;M | {row['samples'] / 1e3:,.0f}&nbsp;k "
            f"| {row['tokens'] / 1e9:.2f}&nbsp;G | {one / 2**30:.1f}&nbsp;GiB | {each / 2**30:.1f}&nbsp;GiB "
            f"| {_time(hours)} | {_time(hours / GPUS)} |"
        )
    total = sum(row["flops"] for row in rows) / RATE / 3600
    tokens = sum(row["tokens"] for row in rows) / 1e9
    lines.append(f"| **all** | | | {tokens:.2f}&nbsp;G | | | **{_time(total)}** | **{_time(total / GPUS)}** |")
    return "\n".join(lines)


def _time(hours: float) -> str:
    return f"{hours / 24:.1f}&nbsp;days" if hours >= 48 else f"{hours:.1f}&nbsp;h"
