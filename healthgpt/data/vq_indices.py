"""VQGAN codes of target images, made once and kept on disk: training never loads the VQGAN.

A cache is a folder: `images.txt` (one path per line, in order), `indices.npy` (images x codes, memory-mapped),
`done.npy` (one flag per image) and `vqgan.json` (which VQGAN). Making it can be interrupted and resumed, and
several processes may share the work, each with its own rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from healthgpt.files import read_json, require_file, write_atomically
from healthgpt.targets import image_as_target
from taming_transformers import GumbelVQ

IMAGES_NAME, INDICES_NAME, DONE_NAME, VQGAN_NAME = "images.txt", "indices.npy", "done.npy", "vqgan.json"


@dataclass(frozen=True)
class Progress:
    """How far a process is: images done of those that were missing when it began, and failures by path."""

    done: int
    total: int
    failures: dict[str, str]


def start_cache(folder: Path, images: Iterable[Path], vqgan: GumbelVQ) -> None:
    """Makes the files of a cache, or checks that those that are there are of the same images and VQGAN.

    Raises:
        ValueError: the folder holds a cache of other images or another VQGAN.
    """
    names = list(dict.fromkeys(str(path.resolve()) for path in images))
    if not names:
        raise ValueError("the records have no target images to encode")
    facts: dict[str, Any] = {
        "sha256": weights_hash(vqgan),
        "num_codes": vqgan.config.num_codes,
        "codebook": vqgan.config.n_embed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / VQGAN_NAME).exists():
        if read_json(folder / VQGAN_NAME) != facts:
            raise ValueError(f"{folder}: holds the codes of another VQGAN; name another folder")
        if (folder / IMAGES_NAME).read_text(encoding="utf-8").splitlines() != names:
            raise ValueError(f"{folder}: holds the codes of other images; name another folder")
        return
    kind = np.uint16 if vqgan.config.n_embed <= 2**16 else np.uint32
    write_atomically(folder / IMAGES_NAME, lambda path: path.write_text("\n".join(names) + "\n", encoding="utf-8"))
    for name, shape, dtype in (
        (INDICES_NAME, (len(names), facts["num_codes"]), kind),
        (DONE_NAME, (len(names),), bool),
    ):
        open_memmap(folder / name, mode="w+", dtype=dtype, shape=shape).flush()
    write_atomically(folder / VQGAN_NAME, lambda path: path.write_text(json.dumps(facts) + "\n"))


def fill_cache(
    folder: Path, vqgan: GumbelVQ, *, batch_size: int = 16, rank: int = 0, num_processes: int = 1
) -> Iterator[Progress]:
    """Encodes the images that are missing, every `num_processes`-th row from `rank` on; yields after each batch.

    An image that cannot be read is left out and reported; its row stays undone.
    """
    images = (folder / IMAGES_NAME).read_text(encoding="utf-8").splitlines()
    indices, done = (open_memmap(folder / name, mode="r+") for name in (INDICES_NAME, DONE_NAME))
    rows = [row for row in range(rank, len(images), num_processes) if not done[row]]
    device = next(vqgan.parameters()).device
    failures: dict[str, str] = {}
    finished = 0
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        readable, pixels = [], []
        for row in chunk:
            try:
                pixels.append(image_as_target(Path(images[row]), vqgan.config.resolution))
                readable.append(row)
            except (ValueError, FileNotFoundError) as error:
                failures[images[row]] = str(error)
        if readable:
            with torch.inference_mode():
                codes = vqgan.encode(torch.stack(pixels).to(device))
            indices[readable] = codes.flatten(1).cpu().numpy()
            indices.flush()  # a row counts as done only once its codes are on disk
            done[readable] = True
            done.flush()
        finished += len(chunk)
        yield Progress(finished, len(rows), failures)


def missing_images(folder: Path) -> list[str]:
    """The images of a cache whose codes have not been made."""
    names = (folder / IMAGES_NAME).read_text(encoding="utf-8").splitlines()
    done = np.load(folder / DONE_NAME, mmap_mode="r")
    return [name for name, is_done in zip(names, done, strict=True) if not is_done]


class VQIndices:
    """Codes by image path.

    Raises:
        FileNotFoundError, ValueError: no cache in the folder.
    """

    def __init__(self, folder: Path):
        require_file(folder / VQGAN_NAME)
        facts = read_json(folder / VQGAN_NAME)
        self.folder = folder
        self.num_codes: int = facts["num_codes"]
        self.codebook: int = facts["codebook"]
        self._indices = np.load(folder / INDICES_NAME, mmap_mode="r")
        self._done = np.load(folder / DONE_NAME, mmap_mode="r")

    @cached_property
    def _rows(self) -> dict[str, int]:
        names = (self.folder / IMAGES_NAME).read_text(encoding="utf-8").splitlines()
        return {name: row for row, name in enumerate(names)}

    def __getitem__(self, image: Path) -> Sequence[int]:
        """The codes of an image, row-major.

        Raises:
            ValueError: they have not been made.
        """
        row = self._rows.get(str(image.resolve()))
        if row is None or not self._done[row]:
            raise ValueError(f"{self.folder}: has no codes of {image}; run `healthgpt prepare vq-indices` again")
        return self._indices[row].tolist()


def weights_hash(vqgan: GumbelVQ) -> str:
    """A hash of the encoder's weights, by which a cache knows its VQGAN."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vqgan.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
