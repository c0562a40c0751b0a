"""`healthgpt prepare`: phantoms, codes of target images, and every source of records."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from healthgpt.cli.flags import parse_bool
from healthgpt.cli.progress import progress


@dataclass(frozen=True)
class SourceCommand:
    """A source and the flags that are keywords of its function.

    Attributes:
        function: `module:function` below `healthgpt.data.sources`.
        flags: what reads each one's text; in a list, that of several words.
        help: one line.
    """

    function: str
    help: str
    flags: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        """The function, imported now."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(f"healthgpt.data.sources.{module}"), name)


_LLAVA = {"multi_image": parse_bool}
_PARTS = {"part": str, **_LLAVA}
SOURCES: Mapping[str, SourceCommand] = {
    "vqa-rad": SourceCommand("vqa_rad:vqa_rad", "VQA-RAD, original or Parquet"),
    "slake": SourceCommand("slake:slake", "SLAKE", {"language": str}),
    "pathvqa": SourceCommand("pathvqa:pathvqa", "PathVQA, original pickles or Parquet"),
    "omnimedvqa": SourceCommand("omnimedvqa:omnimedvqa", "OmniMedVQA (a benchmark)", {"access": [str]}),
    "pmc-vqa": SourceCommand("pmc_vqa:pmc_vqa", "PMC-VQA, version 1 or 2", {"version": int, "clean": parse_bool}),
    "mmmu-med": SourceCommand("mmmu_med:mmmu_med", "MMMU's five health subjects", {"subjects": [str], "answers": Path}),
    "medxpertqa-mm": SourceCommand("medxpertqa:medxpertqa", "MedXpertQA's questions with images"),
    "vqa-csv": SourceCommand("vqa_csv:vqa_csv_by_flags", "your own questions, as a table", {
        "image_column": str, "question_column": str, "answer_column": str, "split_column": str, "id_column": str,
        "subject_column": str, "option_columns": [str], "images": Path, "seed": int,
    }),
    "llava-558k": SourceCommand("llava:llava_558k", "LLaVA-558k, captions", _LLAVA),
    "llava-665k": SourceCommand("llava:llava_665k", "LLaVA-665k, instructions", _LLAVA),
    "llava-reconstruction": SourceCommand("llava:llava_reconstruction", "LLaVA-558k, images drawn from themselves"),
    "llava-med": SourceCommand("llava:llava_med", "LLaVA-Med", _PARTS),
    "pubmedvision": SourceCommand("llava:pubmedvision", "PubMedVision", _PARTS),
    "mimic-cxr-reports": SourceCommand("mimic_cxr:mimic_cxr_reports", "MIMIC-CXR, reports of X-rays"),
    "mimic-cxr-drawing": SourceCommand("mimic_cxr:mimic_cxr_drawing", "MIMIC-CXR, X-rays of reports"),
    "mimic-cxr-vqa": SourceCommand("mimic_cxr:mimic_cxr_vqa", "MIMIC-CXR-VQA"),
    "iu-xray": SourceCommand("iu_xray:iu_xray", "IU X-ray, reports", {"seed": int, **_LLAVA}),
    "synthrad2023": SourceCommand("synthrad2023:synthrad2023", "SynthRAD2023, CT and MRI in pairs", {
        "region": str, "directions": [str], "seed": int, "least_mask": float, "every": int, "ct_low": float,
        "ct_high": float, "margin": int, "keep_outside": parse_bool,
    }),
    "ixi": SourceCommand("ixi:ixi", "IXI, super-resolution", {
        "modalities": [str], "method": str, "factor": int, "seed": int, "every": int,
    }),
    "pairs": SourceCommand("pairs:pairs", "your own pairs of images", {
        "sources": str, "targets": str, "instruction": str, "kind": str, "window": str,
        "target_window": str, "seed": int,
    }),
}  # fmt: skip


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
    for name, source in SOURCES.items():
        _add_source(what.add_parser(name, help=source.help, description=source.help), source)


def _add_source(command: argparse.ArgumentParser, source: SourceCommand) -> None:
    command.add_argument("--root", type=Path, required=True, help="the source's folder (vqa-csv: the table)")
    command.add_argument("--output", type=Path, required=True, help="folder; a finished one is kept, else resumed")
    command.add_argument("--num_processes", type=int, default=_num_cores(), help="default: all cores")
    command.add_argument("--skip_missing", action="store_true", help="leave out samples whose files are missing")
    for flag, kind in source.flags.items():
        one, nargs = (kind[0], "+") if isinstance(kind, list) else (kind, None)
        command.add_argument(f"--{flag}", type=one, nargs=nargs)
    command.set_defaults(run=run_prepare_source, source=source)


def _num_cores() -> int:
    """Those that this process may use, where the system says so (containers have fewer than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_prepare_source(flags: argparse.Namespace) -> int:
    """`healthgpt prepare SOURCE`"""
    from healthgpt.data.preparation import MANIFEST_NAME, prepare
    from healthgpt.files import read_json

    if flags.num_processes < 1:
        raise ValueError(f"--num_processes is {flags.num_processes}, expected at least 1")
    if not flags.root.exists():
        raise FileNotFoundError(f"{flags.root}: no such file or folder")
    given = {name: getattr(flags, name) for name in flags.source.flags if getattr(flags, name) is not None}
    source = flags.source.load()(flags.root, **given)
    path = flags.output / MANIFEST_NAME
    finished_before = path.stat().st_mtime_ns if path.exists() else None
    try:
        for done in prepare(source, flags.output, num_processes=flags.num_processes, skip_missing=flags.skip_missing):
            progress(done, None, "records", every=1)
    finally:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # below the line of progress
    manifest = read_json(path)
    shown = [f"{count} {split}" for split, count in manifest["records"].items()]
    if manifest["missing_files"]:
        shown.append(f"without {manifest['missing_files']} missing files")
    kept = "is finished already and stays as it is: " if finished_before == path.stat().st_mtime_ns else ""
    print(f"{flags.output}: {kept}{', '.join(shown)}")
    return 0


def run_prepare_phantoms(flags: argparse.Namespace) -> int:
    """`healthgpt prepare phantoms`"""
    from healthgpt.data.phantoms.source import write_phantoms

    if flags.num_processes < 1:
        raise ValueError(f"--num_processes is {flags.num_processes}, expected at least 1")
    drawing = write_phantoms(
        flags.output, split=flags.split, seed=flags.seed, count=flags.count, num_processes=flags.num_processes
    )
    for done in drawing:
        progress(done, flags.count, "patients", every=1)
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
    for state in fill_cache(output, vqgan, batch_size=batch_size, rank=rank, num_processes=num_processes):
        failures = state.failures
        if rank == 0:
            progress(state.done, state.total, f"{len(failures)} unreadable", every=1)
    for reason in failures.values():
        print(reason, file=sys.stderr)
