"""`healthgpt evaluate`: a model's figures on benchmarks, and runs beside each other and beside the paper's."""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from healthgpt.cli.batching import add_running_flags, check_numbers, header_of, is_led, work_of
from healthgpt.cli.flags import add_decoding_flags, add_model_flags, model_sources
from healthgpt.cli.inference import note
from healthgpt.cli.judging import add_judge_flags, note_unjudged, refuse_judge_flags, run_judge
from healthgpt.cli.progress import progress
from healthgpt.cli.viewing import add_look_flags
from healthgpt.files import write_atomically

_PERCENT = 100
_COUNT = 700  # phantoms of each kind: more than 500 of every modality
# Columns that are no shares: shown as they are.
_PLAIN = ("psnr", "mse", "mae", "fid")


def add_evaluate_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", nargs="*", metavar="compare|judge RUN ...", help="tables or verdicts of finished runs")
    add_model_flags(command)
    what = command.add_argument_group("benchmarks")
    what.add_argument("--benchmark", nargs="+", metavar="NAME", help="one or several; docs/evaluation.md lists them")
    what.add_argument("--data", type=Path, help="prepared records: one benchmark's folder, or a folder of such")
    what.add_argument("--output", type=Path, help="folder of the run, one below it per benchmark (phantoms need none)")
    what.add_argument("--split", help="instead of the benchmark's own")
    what.add_argument("--template", help="text around each question, such as '{question} Answer with one word.'")
    what.add_argument("--max_samples", type=int, help="only so many of the first records; marks the result as partial")
    what.add_argument("--allow_partial", action="store_true", help="score data of which files are missing")
    phantoms = command.add_argument_group("phantoms", "drawn for --seed and --split (test); need no --data")
    phantoms.add_argument("--count", type=int, help=f"samples per kind of question and type of drawing ({_COUNT})")
    phantoms.add_argument("--phantoms", type=Path, help="folder of the phantoms (default: in the run's)")
    add_judge_flags(command)
    add_running_flags(command)
    add_look_flags(command)
    add_decoding_flags(command)


def run_evaluate(flags: argparse.Namespace) -> int:
    """`healthgpt evaluate`: exit 1 where a question failed, 130 when interrupted."""
    if flags.what[:1] == ["judge"]:
        return run_judge(flags, _print)
    refuse_judge_flags(flags)
    if flags.what:
        return _compare(flags)
    _check(flags)
    if is_led(flags):
        return 0
    if flags.output:
        return _run_all(flags)
    with tempfile.TemporaryDirectory(prefix="healthgpt-") as folder:
        flags.output = Path(folder)
        return _run_all(flags)


def _check(flags: argparse.Namespace) -> None:
    """Fails where flags contradict each other, or something is missing."""
    from healthgpt.evaluation.benchmarks import BENCHMARKS, PHANTOMS

    check_numbers(flags, "count")
    names = flags.benchmark or []
    if unknown := [name for name in names if name not in (*BENCHMARKS, PHANTOMS)]:
        raise ValueError(f"--benchmark {unknown[0]} is none of {', '.join((*BENCHMARKS, PHANTOMS))}")
    prepared = [name for name in names if name != PHANTOMS]
    for name in ("benchmark", "data", "output"):
        if not getattr(flags, name) and (prepared or not names):
            raise ValueError(f"--{name} is missing")
    for name in ("count", "phantoms"):
        if getattr(flags, name) is not None and PHANTOMS not in names:
            raise ValueError(f"--{name} is of --benchmark {PHANTOMS}, which is not asked for")
    for name in ("data", "max_samples", "allow_partial"):
        if getattr(flags, name) and not prepared:
            raise ValueError(f"--{name} is of prepared records; {PHANTOMS} are drawn, as many as --count says")


def _run_all(flags: argparse.Namespace) -> int:
    from healthgpt.evaluation.benchmarks import PHANTOMS, select

    # All data is looked at before anything is asked.
    selections = {
        name: _phantoms(flags)
        if name == PHANTOMS
        else select(name, flags.data, split=flags.split, allow_partial=flags.allow_partial)
        for name in flags.benchmark
    }
    code = 0
    for name, selection in selections.items():
        code = max(code, _run_one(flags, name, selection))
        if code >= 128:
            return code
    return code


def _compare(flags: argparse.Namespace) -> int:
    """`healthgpt evaluate compare RUN ...`: tables on standard output; where --output says, as files with figures."""
    from healthgpt.evaluation.comparison import comparison, read_finished
    from healthgpt.evaluation.illustrations import illustrate
    from healthgpt.evaluation.tables import FORMATS, markdown

    word, *folders = flags.what
    if word != "compare" or not folders:
        raise ValueError(f"{' '.join(flags.what)!r} is no command; expected compare and folders of finished runs")
    runs = [read_finished(Path(folder)) for folder in folders]
    tables = comparison(runs)
    if flags.output is None:
        print(markdown(tables))
        return 0
    flags.output.mkdir(parents=True, exist_ok=True)
    illustrations = illustrate(runs, flags.output, note)
    for ending, written in FORMATS.items():
        path = flags.output / f"comparison{ending}"
        write_atomically(
            path, functools.partial(Path.write_text, data=written(tables, illustrations), encoding="utf-8")
        )
        print(path)
    return 0


def _run_one(flags: argparse.Namespace, name: str, selection: Any) -> int:
    from healthgpt.batch.run import Interrupt
    from healthgpt.evaluation.runs import Run

    flags.task = selection.benchmark.task
    sources = model_sources(flags)
    run = Run(
        name=name,
        selection=selection,
        output=flags.output / name,
        limit=flags.max_samples,
        template=flags.template,
        look={name: getattr(flags, name) for name in ("window", "slice", "plane", "volume")},
        vqgan=sources.vqgan,
    )
    with Interrupt() as interrupt:
        asked = run.ask(
            work_of(flags, sources),
            header_of(flags, sources),
            batch_size=flags.batch_size,
            stop=lambda: interrupt.signal is not None,
            retry_failed=flags.retry_failed,
        )
        for state in asked:
            progress(state.done, state.total, f"answers of {name}", every=1)
    if interrupt.signal is not None:
        note(f"{run.output}: interrupted; the same command goes on")
        return 128 + interrupt.signal
    results = run.score()
    for reason in results["not_measured"]:
        note(reason)
    note_unjudged(results)
    if results["failed"]:
        note(f"{name}: {results['failed']} of {results['samples']} failed; --retry_failed asks again")
    _print(name, results["figures"])
    return int(results["failed"] > 0)


def _print(name: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    from healthgpt.evaluation.figures import is_main

    for title, found in figures.items():
        if found["value"] is None or not is_main(title):
            continue
        scale = 1 if title.rpartition("/")[2].partition("_")[0] in _PLAIN else _PERCENT
        sure = f"  [{scale * found['low']:.2f}, {scale * found['high']:.2f}]" if found["low"] is not None else ""
        print(f"{name + '/' + title:56s} {scale * found['value']:8.2f}  n = {found['n']}{sure}")


def _phantoms(flags: argparse.Namespace) -> Any:
    """The selection of phantoms, drawn where they are not yet."""
    from healthgpt.data.phantoms.source import write_phantoms
    from healthgpt.evaluation.benchmarks import PHANTOMS
    from healthgpt.evaluation.phantoms import patients_needed, select_phantoms

    folder, seed, split = flags.phantoms or flags.output / PHANTOMS / "data", flags.seed or 0, flags.split or "test"
    count = flags.count or _COUNT
    patients = patients_needed(count)
    drawing = write_phantoms(folder, split=split, seed=seed, count=patients, num_processes=os.cpu_count() or 1)
    for done in drawing:
        progress(done, patients, f"phantoms of split {split}, seed {seed}", every=1000)
    return select_phantoms(folder, count)
