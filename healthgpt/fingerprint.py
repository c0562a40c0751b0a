"""Which weights exactly: a hash that is the same wherever a model lies, and takes a moment even for a large one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from healthgpt.checking import resolve_folder
from healthgpt.config import ModelSources

_WHOLE = 2**24  # bytes of a file that is hashed as a whole
_PIECES = 16  # of 1 MiB, evenly spaced, that stand for a larger file
_PIECE = 2**20
# Files of a base or ViT that what it computes depends on.
_KINDS = (".json", ".safetensors", ".bin", ".model", ".txt", ".yaml", ".ckpt")


def fingerprint(sources: ModelSources) -> str:
    """A hash of all files of a model and of how they are put together; of large files, of 16 MiB and the size.

    Raises:
        FileNotFoundError: a part that is not there.
    """
    parts = {"base": resolve_folder(sources.base, "base"), "vit": resolve_folder(sources.vit, "ViT")}
    parts |= {str(task): plugin.path for task, plugin in sources.plugins.items()}
    parts |= {name: path for name in ("fusion", "vqgan") if (path := getattr(sources, name)) is not None}
    settings = {
        "template": sources.template,
        "num_image_tokens": sources.num_image_tokens,
        "apply_fusion": sources.apply_fusion,
        "vision_layers": {str(task): layer for task, layer in sources.vision_layers.items()},
        "plugins": {
            str(task): [plugin.rank, plugin.num_experts, plugin.alpha] for task, plugin in sources.plugins.items()
        },
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, part in sorted(parts.items()):
        for path in _files(part):
            where = path.relative_to(part) if part.is_dir() else ""
            digest.update(f"{name}/{where}:{path.stat().st_size}:".encode())
            digest.update(_content(path))
    return digest.hexdigest()


def _files(part: Path) -> Iterator[Path]:
    if part.is_file():
        yield part
        return
    yield from sorted(path for path in part.iterdir() if path.is_file() and path.suffix in _KINDS)


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for i in range(_PIECES):
                file.seek(i * (size - _PIECE) // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.digest()
