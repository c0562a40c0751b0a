"""`python -m healthgpt.nano STEP ...`: the steps of scripts/nano/build.sh that are not `healthgpt` verbs.

gather --data PHANTOMS --output DIR          what the parts learn from
vqgan | vit | base --data FILE --output DIR  trains one frozen part
pack --data MODEL --output DIR               the model folder to ship
card --data BUILD --output SHIPPED           its card, from the logs and results of the build
record --data RUN --output DIR               what an ablation's run gave (scripts/nano/ablations.sh)
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from healthgpt.files import require_file

_OVERRIDES = ("steps", "seed", "batch_size", "save_every", "compile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one step; returns the exit code: 0 done, 2 the user's mistake in one line, 130 interrupted."""
    flags = _parser().parse_args(arguments)
    logging.basicConfig(format="note: %(message)s", stream=sys.stderr)
    logging.getLogger("healthgpt").setLevel(logging.INFO)
    try:
        print(_run(flags))
    except (ValueError, OSError) as error:
        print(f"healthgpt.nano {flags.step}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="healthgpt.nano", description="Steps of building the nano model.")
    parser.add_argument("step", choices=("gather", "vqgan", "vit", "base", "pack", "card", "record"))
    parser.add_argument(
        "--data", type=Path, required=True, help="what the step reads: a folder, pictures (.npz) or chats (.jsonl)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder, where a part's own folder is put")
    parser.add_argument("--steps", type=_positive)
    parser.add_argument("--batch-size", type=_positive)
    parser.add_argument("--save-every", type=_positive, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--compile", action="store_true", default=None, help="transformer blocks; needs a C++ compiler")
    parser.add_argument("--threads", type=_positive, help="CPU threads (1 each where two parts train side by side)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, found {number}")
    return number


def _run(flags: argparse.Namespace) -> Path:
    if flags.step == "gather":
        from healthgpt.nano.gather import gather

        return gather(flags.data, flags.output)
    if flags.step == "pack":
        from healthgpt.nano.pack import pack

        return pack(flags.data, flags.output)
    if flags.step == "record":
        from healthgpt.nano.ablations import record_run

        return record_run(flags.data, flags.output)
    if flags.step == "card":
        from healthgpt.nano.card import write_card

        return write_card(flags.output, flags.data, flags.data / "evaluation/phantoms/results.json")
    require_file(flags.data)
    flags.output.mkdir(parents=True, exist_ok=True)
    return _train(flags)


def _train(flags: argparse.Namespace) -> Path:
    import torch

    if flags.threads is not None:
        torch.set_num_threads(flags.threads)
    overrides = {name: getattr(flags, name) for name in _OVERRIDES if getattr(flags, name) is not None}
    if flags.step == "vqgan":
        from healthgpt.nano.vqgan import VQGANSettings, train_vqgan

        return train_vqgan(flags.data, flags.output, VQGANSettings(**overrides))
    if flags.step == "vit":
        from healthgpt.nano.vit import ViTSettings, train_vit

        return train_vit(flags.data, flags.output, ViTSettings(**overrides))
    from healthgpt.nano.language import BaseSettings, train_base

    return train_base(flags.data, flags.output, BaseSettings(**overrides))


if __name__ == "__main__":
    sys.exit(main())
