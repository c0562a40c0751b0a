"""`healthgpt view`, and the flags that say how an image is to be looked at."""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from healthgpt.images import Seen, View


def add_look_flags(command: argparse.ArgumentParser) -> None:
    look = command.add_argument_group("medical images", "DICOM files and series, NIfTI, MetaImage, NRRD, archives")
    look.add_argument(
        "--window",
        help="auto, file, WIDTH/LEVEL, percentile[:LOW-HIGH], minmax, or brain, subdural, stroke, bone, lung, "
        "mediastinum, abdomen, liver, soft_tissue (default: auto)",
    )
    look.add_argument("--slice", help="index, middle, 50%%, -12.5mm, montage[:N], or several with commas")
    look.add_argument("--plane", help="axial, coronal or sagittal (default: the file's own)")
    look.add_argument("--volume", type=int, help="which volume of a file of several")


def with_values(arguments: Sequence[str]) -> list[str]:
    """The same arguments, `--slice -12.5mm` as one word: argparse takes what begins with a dash for a flag."""
    words: list[str] = []
    for argument in arguments:
        if words and words[-1] == "--slice" and re.match(r"-\.?\d", argument):
            words[-1] += f"={argument}"
        else:
            words.append(argument)
    return words


def view_of(flags: argparse.Namespace) -> View:
    """The view that the flags describe."""
    from healthgpt.images import View

    return View.of(window=flags.window, slice=flags.slice, plane=flags.plane, volume=flags.volume)


def seen_images(flags: argparse.Namespace, paths: list[str]) -> list[Seen]:
    """The pictures of all images; says what was chosen, where there was a choice."""
    from healthgpt.images import describe, see

    view = view_of(flags)
    found: list[Seen] = []
    for path in paths:
        pictures = see(path, view)
        if pictures[0].window != "as stored" or pictures[0].num_slices > 1:
            logging.getLogger("healthgpt").info("%s", describe(pictures))
        found += pictures
    return found


def add_view_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", help="image, DICOM series folder, volume, archive or archive.zip/member")
    command.add_argument("-o", "--output", type=Path, help="picture to write; several slices get their indices added")
    command.add_argument("--json", metavar="FILE", help="write what is known of it as JSON; - prints it")
    command.add_argument(
        "--as_model", action="store_true", help="write the square picture that the model (--model) gets"
    )
    command.add_argument("--model", help="model folder, hub id or name, for --as_model (default: nano)")
    add_look_flags(command)


def run_view(flags: argparse.Namespace) -> int:
    """`healthgpt view`"""
    from healthgpt.files import write_atomically
    from healthgpt.images import format_of, save_image

    if flags.output is None and flags.json is None:
        raise ValueError("give -o PICTURE, --json FILE or both")
    if flags.output:
        format_of(flags.output)
    pictures = seen_images(flags, [flags.file])
    if flags.output:
        for seen in pictures:
            image = _as_model(seen, flags.model) if flags.as_model else seen.native()
            save_image(image, _numbered(flags.output, seen) if len(pictures) > 1 else flags.output)
    facts = [seen.facts() for seen in pictures]
    text = json.dumps(facts[0] if len(facts) == 1 else facts)
    if flags.json == "-":
        print(text)
    elif flags.json:
        write_atomically(Path(flags.json), lambda path: path.write_text(text + "\n", encoding="utf-8"))
    return 0


def _numbered(path: Path, seen: Seen) -> Path:
    return path.with_name(f"{path.stem}-{seen.slices[0]}{path.suffix}")


def _as_model(seen: Seen, model: str | None) -> Image.Image:
    """What the model's ViT gets of a picture, before it is normalised."""
    from healthgpt.checking import resolve_folder
    from healthgpt.config import NANO
    from healthgpt.processor import ClipInput
    from healthgpt.sources import named_sources

    vit = resolve_folder(str(named_sources(model or NANO).vit), "ViT", with_weights=False)
    return ClipInput(vit).picture(seen.picture())
