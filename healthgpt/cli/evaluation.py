"""`healthgpt evaluate`: a model's figures on benchmarks, and runs beside each other and beside the paper's."""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from healthgpt.cli.batching import add_running_flags, check_numbers, header_of, work_of
from healthgpt.cli.flags import add_decoding_flags, add_model_flags, load_model, model_sources
from healthgpt.cli.inference import note
from healthgpt.cli.progress import progress
from healthgpt.cli.viewing import add_look_flags
from healthgpt.files import writable_target, write_atomically

PHANTOMS = "phantoms"
_PERCENT = 100
_NOT_OF_PHANTOMS = (
    "data", "template", "max_samples", "allow_partial", "retry_failed", "ray", "num_readers", "window", "slice",
    "plane", "volume", "do_sample", "temperature", "top_p", "num_beams", "repetition_penalty", "max_new_tokens",
)  # fmt: skip
# Columns that are no shares: shown as they are.
_PLAIN = ("psnr", "mse", "mae", "mae_hu", "fid")


def add_evaluate_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", nargs="*", metavar="compare RUN ...", help="tables and figures of finished runs")
    add_model_flags(command)
    what = command.add_argument_group("benchmarks")
    what.add_argument("--benchmark", nargs="+", metavar="NAME", help="one or several; docs/evaluation.md lists them")
    what.add_argument("--data", type=Path, help="prepared records: one benchmark's folder, or a folder of such")
    what.add_argument("--output", type=Path, help="folder of the run, one below it per benchmark (phantoms: JSON file)")
    what.add_argument("--split", help="instead of the benchmark's own (phantoms: test)")
    what.add_argument("--template", help="text around each question, such as '{question} Answer with one word.'")
    what.add_argument("--max_samples", type=int, help="only so many of the first records; marks the result as partial")
    what.add_argument("--allow_partial", action="store_true", help="score data of which files are missing")
    what.add_argument("--count", type=int, default=700, help="phantoms: samples per kind of question and of drawing")
    phantoms = command.add_argument_group("phantoms")
    phantoms.add_argument("--phantoms", type=Path, help="folder to keep the phantoms in (default: a temporary one)")
    add_running_flags(command)
    add_look_flags(command)
    add_decoding_flags(command)


def run_evaluate(flags: argparse.Namespace) -> int:
    """`healthgpt evaluate`: exit 1 where a question failed, 130 when interrupted."""
    from healthgpt.evaluation.benchmarks import BENCHMARKS, select

    if flags.what:
        return _compare(flags)
    names = flags.benchmark or []
    check_numbers(flags, "count")
    if names == [PHANTOMS]:
        return _run_phantoms(flags)
    if PHANTOMS in names:
        raise ValueError(f"--benchmark {PHANTOMS} is scored alone, not beside others")
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise ValueError(f"--benchmark {unknown[0]} is none of {', '.join((*BENCHMARKS, PHANTOMS))}")
    for name in ("benchmark", "data", "output"):
        if not getattr(flags, name):
            raise ValueError(f"--{name} is missing")
    # All data is looked at before anything is asked.
    selections = {
        name: select(name, flags.data, split=flags.split, allow_partial=flags.allow_partial) for name in names
    }
    code = 0
    for name, selection in selections.items():
        code = max(code, _run_one(flags, name, selection))
        if code >= 128:
            return code
    return code


def _compare(flags: argparse.Namespace) -> int:
    """`healthgpt evaluate compare RUN ...`: tables on standard output, or as files where --output says."""
    from healthgpt.evaluation.comparison import comparison, read_finished
    from healthgpt.evaluation.tables import FORMATS, markdown

    word, *folders = flags.what
    if word != "compare" or not folders:
        raise ValueError(f"{' '.join(flags.what)!r} is no command; expected compare and folders of finished runs")
    tables = comparison([read_finished(Path(folder)) for folder in folders])
    if flags.output is None:
        print(markdown(tables))
        return 0
    flags.output.mkdir(parents=True, exist_ok=True)
    for ending, written in FORMATS.items():
        path = flags.output / f"comparison{ending}"
        write_atomically(path, functools.partial(Path.write_text, data=written(tables), encoding="utf-8"))
        print(path)
    return 0


def _run_one(flags: argparse.Namespace, name: str, selection: Any) -> int:
    from healthgpt.batch.run import Interrupt
    from healthgpt.evaluation.runs import Run

    flags.task = selection.benchmark.task
    run = Run(
        name=name,
        selection=selection,
        output=flags.output / name,
        limit=flags.max_samples,
        template=flags.template,
        look={name: getattr(flags, name) for name in ("window", "slice", "plane", "volume")},
    )
    sources = model_sources(flags)
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
    if results["failed"]:
        note(f"{name}: {results['failed']} of {results['samples']} failed; --retry_failed asks again")
    _print(name, results["figures"])
    return int(results["failed"] > 0)


def _print(name: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    for title, found in figures.items():
        if found["value"] is None:
            continue
        scale = 1 if title.rpartition("/")[2].removesuffix("_inside") in _PLAIN else _PERCENT
        sure = f"  [{scale * found['low']:.2f}, {scale * found['high']:.2f}]" if found["low"] is not None else ""
        print(f"{name + '/' + title:56s} {scale * found['value']:8.2f}  n = {found['n']}{sure}")


def _run_phantoms(flags: argparse.Namespace) -> int:
    from healthgpt import __version__
    from healthgpt.data.phantoms.source import write_phantoms
    from healthgpt.data.phantoms.subjects import SUBJECTS
    from healthgpt.evaluation.phantoms import evaluate_phantoms, patients_needed

    if ignored := [name for name in _NOT_OF_PHANTOMS if getattr(flags, name) not in (None, False)]:
        raise ValueError(f"--{ignored[0]} does nothing with phantoms, which are answered greedily in one process")
    if flags.output:
        writable_target(flags.output)
    model = load_model(flags)
    seed, split = flags.seed or 0, flags.split or "test"
    with tempfile.TemporaryDirectory(prefix="healthgpt-") as temporary:
        folder = flags.phantoms or Path(temporary)
        patients = patients_needed(flags.count, len(SUBJECTS))
        note(f"drawing {patients} phantoms of split {split}, seed {seed}")
        drawing = write_phantoms(folder, split=split, seed=seed, count=patients, num_processes=os.cpu_count() or 1)
        for _ in drawing:
            pass
        results = evaluate_phantoms(model, folder, flags.count, note)
    facts = {"model": flags.model or "nano", "version": __version__, "split": split, "seed": seed}
    if flags.output:
        text = json.dumps(facts | {"count": flags.count} | results, indent=1) + "\n"
        write_atomically(flags.output, lambda path: path.write_text(text))
    for name, value in results["comprehension"].items():
        if name != "wrong" and value["n"]:
            print(f"{name:40s} {value['value']:7.4f}  n = {value['n']}")
    for kind, figures in results["generation"].items():
        for name, value in figures.items():
            if value["n"]:
                print(f"{kind + '/' + name:40s} {value['value']:7.4f}  n = {value['n']}")
    return 0
