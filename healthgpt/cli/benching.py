"""`healthgpt bench`: how fast a model decodes, in which way, and how near to the floor of its device."""

from __future__ import annotations

import argparse
from pathlib import Path

from healthgpt.cli.flags import add_bool
from healthgpt.cli.progress import progress
from healthgpt.config import NANO

_SHAPES = ("m3", "l14", "xl32", "tiny")


def add_bench_flags(command: argparse.ArgumentParser) -> None:
    what = command.add_argument_group("what is measured")
    what.add_argument("--model", help=f"model folder, hub id or name (default: {NANO})")
    what.add_argument(
        "--shape", choices=_SHAPES, help="instead, random weights of a released model's shape, or of a tiny one"
    )
    what.add_argument("--rank", type=int, help="of a shape's plugins (default: the release's)")
    what.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    what.add_argument("--dtype", default="auto", help="auto, FP32, FP16 or BF16")
    how = command.add_argument_group("how")
    how.add_argument(
        "--batch", type=int, nargs="+", default=[1, 8, 32], help="prompts at once; 1 is always measured (1 8 32)"
    )
    how.add_argument("--new_tokens", type=int, default=64, help="of a text; 0: no texts (64)")
    how.add_argument("--codes", type=int, help="of an image; 0: no images (default: all that it has)")
    how.add_argument("--rounds", type=int, default=5, help="how often everything is timed, in turns (5)")
    add_bool(how, "--compile", "transformers' compiled step, too (default: on a GPU)")
    how.add_argument("--output", type=Path, help="folder for bench.json, bench.md and bench.png")


def run_bench(flags: argparse.Namespace) -> int:
    """`healthgpt bench`: exit 130 when interrupted, with what was measured by then."""
    if flags.shape and flags.model:
        raise ValueError("--shape and --model exclude each other")
    if flags.rank is not None and not flags.shape:
        raise ValueError("--rank is of --shape; a model has its own")
    from healthgpt.bench.run import REPORTS, BenchSettings, bench, write_report
    from healthgpt.bench.subject import Subject
    from healthgpt.bench.tables import markdown
    from healthgpt.files import refuse_file_in_the_way, writable_target
    from healthgpt.loading import LoadOptions
    from healthgpt.sources import named_sources

    settings = BenchSettings(
        batches=flags.batch,
        new_tokens=flags.new_tokens,
        codes=flags.codes,
        rounds=flags.rounds,
        compiled=flags.compile,
    )
    if flags.output:
        # Before the work, not after it.
        refuse_file_in_the_way(flags.output)
        flags.output.mkdir(parents=True, exist_ok=True)
        for name in REPORTS:
            writable_target(flags.output / name)
    options = LoadOptions(device=flags.device, dtype=flags.dtype)
    if flags.shape:
        subject = Subject.of_shape(flags.shape, options, flags.rank)
    else:
        name = flags.model or NANO
        subject = Subject.of_model(name, named_sources(name), options)
    report = bench(subject, settings, lambda done, total, text: progress(done, total, text, every=1))
    print(markdown(report), end="")
    if flags.output:
        write_report(report, flags.output)
    return 130 if report["interrupted"] else 0
