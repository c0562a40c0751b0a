"""Puts the figures of benchmarks/results into README and docs, between their marks:

    .venv/bin/python scripts/update_tables.py [--check]

    <!-- nano -->            what the miniature reaches, beside its goals
    <!-- nano-speed -->      how fast it is
    <!-- nano-ablations -->  the paper's ablations in miniature
    <!-- engine -->          how fast the engine decodes, beside the original's way
    <!-- ladder -->          what each of the engine's measures brings
    <!-- shortcuts -->       what is faster with other results
    <!-- guessing -->        what guesses save
    <!-- batch -->           what batches gain, cost and survive
    <!-- serving -->         what the server bears

With --check nothing is written, and a table that is out of date is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from healthgpt.files import read_json, write_atomically
from healthgpt.nano.ablations import ablations_table, read_records
from healthgpt.nano.goals import goals_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("nano", "ablations", "engine", "batch", "serving")),
)


def nano() -> str:
    return goals_table(read_json(RESULTS / "nano.json")["figures"])


def speed() -> str:
    rows = read_json(RESULTS / "nano_speed.json")["rows"]
    lines = ["| | goal | measured |", "|---|---|---|"]
    lines += [
        f"| {row['figure']} | ≤ {row['limit']:g} {row['unit']} | {row['value']:.2f} {row['unit']} |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def ablations() -> str:
    folder = RESULTS / "nano_ablations"
    return ablations_table(read_records(folder) if folder.is_dir() else {})


def engine() -> str:
    rows = read_json(RESULTS / "engine.json")["rows"]
    lines = ["| | way | at once | prefill | step | tokens/s | times the original's alone | share of the floor |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    lines += [
        f"| {row['task']} | {row['way']} | {row['batch']} | {row['prefill_ms']:.1f} ms | {row['step_ms']:.2f} ms "
        f"| {row['tokens_per_second']:,.0f} | {row['speed_up']:.2f} | {row['floor']:.0%} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def ladder() -> str:
    report = read_json(RESULTS / "ladder.json")
    lines = ["| | operators | predicted | measured | times the original |", "|---|---|---|---|---|"]
    for row in report["rows"]:
        operators = "" if row["operators"] is None else f"{row['operators']:.0f}"
        times = f"{row['predicted_ms']:.2f} ms | {row['measured_ms']:.2f} ms | {row['times_the_original']:.2f}"
        lines.append(f"| {row['rung']} | {operators} | {times} |")
    return "\n".join([*lines, f"| the floor | | {report['floor_ms']:.2f} ms | | |"]) + "\n"


def shortcuts() -> str:
    lines = [
        "| | an answer | a drawing | large: an answer | a drawing "
        "| questions right | CT to MRI: SSIM | lesions kept | findings drawn |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['shortcut']} | {row['answer_speed_up']:.2f} × | {row['drawing_speed_up']:.2f} × "
        f"| {row['large_answer_speed_up']:.2f} × | {row['large_drawing_speed_up']:.2f} × "
        f"| {row['questions_right']:.1%} | {row['ct2mri_ssim']:.3f} | {row['lesions_kept']:.1%} "
        f"| {row['findings_drawn']:.1%} |"
        for row in read_json(RESULTS / "shortcuts.json")["rows"]
    ]
    return "\n".join(lines) + "\n"


def guessing() -> str:
    lines = ["| | drawings | passes | guesses right | times plain drawing |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['kind']} | {row['drawings']} | {row['passes']:.1f} | {row['guesses_right']:.0%} "
        f"| {row['speed_up']:.2f} |"
        for row in read_json(RESULTS / "guessing.json")["rows"]
    ]
    return "\n".join(lines) + "\n"


def missed(value: float, goal: str) -> bool:
    """Whether a goal that is a bound is missed."""
    bound, _, number = goal.partition(" ")
    return (bound == ">=" and value < float(number)) or (bound == "<=" and value > float(number))


def plain(name: str) -> str:
    """Rows of a benchmark that have what was measured, its value and maybe a goal."""
    lines = ["| | | goal |", "|---|---|---|"]
    for row in read_json(RESULTS / f"{name}.json")["rows"]:
        value = f"{row['value']:,.0f}" if row["value"] == round(row["value"]) else f"{row['value']:.3g}"
        goal = row["goal"] + (" **missed**" if missed(row["value"], row["goal"]) else "")
        lines.append(f"| {row['what']} | {value} {row['unit']} | {goal} |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "nano": nano,
    "nano-speed": speed,
    "nano-ablations": ablations,
    "engine": engine,
    "ladder": ladder,
    "guessing": guessing,
    "shortcuts": shortcuts,
    "batch": lambda: plain("batch"),
    "serving": lambda: plain("serving"),
}


def updated(text: str) -> str:
    """A page with all its tables made anew."""
    for name, make in TABLES.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if marks.search(text):
            table = make()
            text = marks.sub(lambda found, table=table: f"{found[1]}{table}{found[2]}", text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = updated(old)
        if new != old:
            stale.append(page.relative_to(ROOT))
            if not check:
                write_atomically(page, lambda path, new=new: path.write_text(new, encoding="utf-8"))
    print(", ".join(map(str, stale)) or "nothing", "out of date" if check else "renewed")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
