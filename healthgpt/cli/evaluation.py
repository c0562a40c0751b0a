"""`healthgpt evaluate`: a model's figures on a benchmark."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from healthgpt.cli.flags import add_model_flags, load_model
from healthgpt.cli.inference import note
from healthgpt.files import writable_target, write_atomically


def add_evaluate_flags(command: argparse.ArgumentParser) -> None:
    add_model_flags(command)
    command.add_argument("--benchmark", choices=("phantoms",), required=True)
    command.add_argument("--count", type=int, default=700, help="samples per kind of question and type of drawing")
    command.add_argument("--seed", type=int, default=0, help="which phantoms")
    command.add_argument("--split", default="test", help="train, validation or test")
    command.add_argument("--phantoms", type=Path, help="folder to keep the phantoms in (default: a temporary one)")
    command.add_argument("--output", type=Path, help="write the figures as JSON")


def run_evaluate(flags: argparse.Namespace) -> int:
    """`healthgpt evaluate`"""
    from healthgpt import __version__
    from healthgpt.data.phantoms.source import write_phantoms
    from healthgpt.data.phantoms.subjects import SUBJECTS
    from healthgpt.evaluation.phantoms import evaluate_phantoms, patients_needed

    if flags.output:
        writable_target(flags.output)
    model = load_model(flags)
    with tempfile.TemporaryDirectory(prefix="healthgpt-") as temporary:
        folder = flags.phantoms or Path(temporary)
        patients = patients_needed(flags.count, len(SUBJECTS))
        note(f"drawing {patients} phantoms of split {flags.split}, seed {flags.seed}")
        drawing = write_phantoms(
            folder, split=flags.split, seed=flags.seed, count=patients, num_processes=os.cpu_count() or 1
        )
        for _ in drawing:
            pass
        results = evaluate_phantoms(model, folder, flags.count, note)
    facts = {"model": flags.model or "nano", "version": __version__, "split": flags.split, "seed": flags.seed}
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
