"""`healthgpt train`, `healthgpt check-data` and `healthgpt prepare`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from pathlib import Path

from healthgpt.files import write_atomically

_LINE = 10  # records between two updates of a progress line


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
            _progress(i, len(mixture), f"{path}: {sum(report.faults.values())} faults")
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


def add_prepare_flags(command: argparse.ArgumentParser) -> None:
    what = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    codes = what.add_parser("vq-indices", help="encode target images by the VQGAN, once, for training")
    codes.add_argument("--data", type=Path, required=True, nargs="+", help="mixtures or records files")
    codes.add_argument("--vqgan_path", type=Path, required=True, help="folder with model.yaml and last.ckpt")
    codes.add_argument("--output", type=Path, required=True, help="folder of the cache; an unfinished one is resumed")
    codes.add_argument("--batch_size", type=int, default=16)
    codes.add_argument("--device", default="auto")
    codes.add_argument("--num_processes", type=int, default=1, help="processes that share the work, on this machine")
    codes.add_argument("--rank", type=int, help="do only this one's share of --num_processes (for several machines)")
    codes.set_defaults(run=run_prepare_vq_indices)
    phantoms = what.add_parser("phantoms", help="draw synthetic patients: images, questions, drawings, and the truth")
    phantoms.add_argument("--split", default="train", help="train, validation or test; no patient is in two of them")
    phantoms.add_argument("--count", type=int, required=True, help="patients; the seven kinds of them take turns")
    phantoms.add_argument("--seed", type=int, default=0)
    phantoms.add_argument("--output", type=Path, required=True, help="folder; a finished one is kept as it is")
    phantoms.add_argument("--num_processes", type=int, default=1, help="processes that share the work")
    phantoms.set_defaults(run=run_prepare_phantoms)


def run_prepare_phantoms(flags: argparse.Namespace) -> int:
    """`healthgpt prepare phantoms`"""
    from healthgpt.data.phantoms.source import write_phantoms

    if flags.num_processes < 1:
        raise ValueError(f"--num_processes is {flags.num_processes}, expected at least 1")
    drawing = write_phantoms(
        flags.output, split=flags.split, seed=flags.seed, count=flags.count, num_processes=flags.num_processes
    )
    for done in drawing:
        _progress(done, flags.count, "patients", every=1)
    print(f"{flags.output}: {flags.count} phantoms of split {flags.split}, seed {flags.seed}")
    return 0


def run_prepare_vq_indices(flags: argparse.Namespace) -> int:
    """`healthgpt prepare vq-indices`: exit 1 when images could not be read."""
    from healthgpt.data.mixture import Mixture
    from healthgpt.data.vq_indices import missing_images, start_cache
    from taming_transformers import load_vqgan

    if flags.num_processes < 1 or not 0 <= (flags.rank or 0) < flags.num_processes:
        raise ValueError(f"--rank {flags.rank} is not below --num_processes {flags.num_processes}")
    targets = []
    for path in flags.data:
        mixture = Mixture(path)
        records = (mixture.record(i) for i in range(len(mixture)))
        targets += [record.target for record in records if record.target is not None]
    start_cache(flags.output, targets, load_vqgan(flags.vqgan_path))
    ranks = [flags.rank] if flags.rank is not None else list(range(flags.num_processes))
    shares = [(flags.output, flags.vqgan_path, flags.device, flags.batch_size, r, flags.num_processes) for r in ranks]
    if len(shares) == 1:
        _encode_share(*shares[0])
    else:
        context = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
        with context.Pool(len(shares)) as pool:
            pool.starmap(_encode_share, shares)
    missing = missing_images(flags.output) if flags.rank is None else []
    print(f"{flags.output}: codes of {len(set(targets)) - len(missing)} images, {len(missing)} missing")
    return 1 if missing else 0


def _encode_share(output: Path, vqgan_path: Path, device: str, batch_size: int, rank: int, num_processes: int) -> None:
    """One process's share of the images; reports those that cannot be read."""
    from healthgpt.data.vq_indices import fill_cache
    from healthgpt.loading import choose_device
    from taming_transformers import load_vqgan

    vqgan = load_vqgan(vqgan_path).to(choose_device(device))
    failures: dict[str, str] = {}
    for progress in fill_cache(output, vqgan, batch_size=batch_size, rank=rank, num_processes=num_processes):
        failures = progress.failures
        if rank == 0:
            _progress(progress.done, progress.total, f"{len(failures)} unreadable", every=1)
    for reason in failures.values():
        print(reason, file=sys.stderr)


def _progress(done: int, total: int, text: str, every: int = _LINE) -> None:
    """A line on a terminal that overwrites itself."""
    if sys.stderr.isatty() and (done % every == 0 or done == total):
        print(f"\r{done}/{total} {text}", end="\n" if done == total else "", file=sys.stderr, flush=True)
