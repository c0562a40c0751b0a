"""`healthgpt train` and `healthgpt check-data`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from healthgpt.cli.progress import progress
from healthgpt.files import write_atomically


def add_train_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, required=True, help="YAML file of a run; every field is a flag as well")
    command.add_argument("--dry_run", action="store_true", help="print sizes, memory and steps; train nothing")
    command.add_argument("--mixed", action="store_true", help="the single-stage baseline: both tasks at once")


def run_train(flags: argparse.Namespace) -> int:
    """`healthgpt train`"""
    from healthgpt.training.config import parse_overrides, read_train_config

    overrides = parse_overrides(flags.rest)
    if flags.mixed:
        overrides["stage"] = "mixed"
    config = read_train_config(flags.config, overrides)
    if flags.dry_run:
        from healthgpt.training.dry_run import dry_run

        for line in dry_run(config):
            print(line)
        return 0
    from healthgpt.training.run import train

    print(train(config))
    return 0


def add_check_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, required=True, help="YAML file of a run")
    command.add_argument("--report", type=Path, help="write the counts as JSON")


def run_check_data(flags: argparse.Namespace) -> int:
    """`healthgpt check-data`: exit 1 when something is wrong."""
    from healthgpt.checking import check_backbone
    from healthgpt.data.checks import Report, check_mixture
    from healthgpt.data.mixture import Mixture
    from healthgpt.training.config import parse_overrides, read_train_config
    from healthgpt.training.run import example_maker

    config = read_train_config(flags.config, parse_overrides(flags.rest))
    backbone = check_backbone(config.base, config.vit, config.template, with_weights=False)
    maker = example_maker(config, backbone.processor(config.num_image_tokens))
    good, reports = True, {}
    for path in (config.data, config.eval_data):
        if path is None:
            continue
        mixture = Mixture(path)
        report = Report()
        for i, growing in enumerate(check_mixture(mixture, maker), start=1):
            report = growing
            progress(i, len(mixture), f"{path}: {sum(report.faults.values())} faults")
        reports[str(path)] = report.to_dict()
        good &= report.good
        print(f"{path}: {sum(report.records.values())} records ({dict(report.records)}), {report.images} images")
        for fault, count in report.faults.most_common():
            print(f"  {count} x {fault}, as {report.examples[fault][0]}")
    if flags.report:
        text = json.dumps({"good": good, "files": reports}, indent=2) + "\n"
        write_atomically(flags.report, lambda path: path.write_text(text))
    print("all records are good" if good else "some records are not good")
    return 0 if good else 1
