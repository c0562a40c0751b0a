"""What is installed, and what is wrong with a model's files: the checks of loading, one by one and all of them."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from healthgpt import __version__
from healthgpt.config import RELEASED, ModelSources, ReleasedFile
from healthgpt.files import require_file, wrong_kind
from healthgpt.provenance import version_of

if TYPE_CHECKING:
    from healthgpt.loading import LoadOptions

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "sentencepiece", "pillow")
EXTRAS = {"bitsandbytes": "8-bit and 4-bit loading"}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    good: bool
    text: str


def examine_machine() -> Iterator[Finding]:
    """Versions, devices and optional packages."""
    import torch

    versions = ", ".join(f"{name} {version_of(name) or 'is not installed'}" for name in PACKAGES)
    yield Finding(True, f"healthgpt {__version__} on Python {platform.python_version()}: {versions}")
    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        devices.append(f"cuda:{i} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        devices.append("mps")
    yield Finding(True, f"devices: {', '.join(devices)}")
    for name, purpose in EXTRAS.items():
        yield Finding(True, f"{name} {version_of(name) or 'is not installed'} (optional, for {purpose})")


def examine_placement(options: LoadOptions) -> Finding:
    """Whether a model could be put where it is to be.

    Raises:
        ValueError: a device that is not there, a dtype that is none, options that exclude each other.
    """
    from healthgpt.loading import check_options

    device = check_options(options)
    return Finding(True, f"placement: {device}, dtype {options.dtype}")


def examine_model(sources: ModelSources) -> Iterator[Finding]:
    """Every part of a model on its own, then whether they fit together; nothing is loaded that is not needed."""
    from healthgpt import checkpoints
    from healthgpt.checking import check_sources, resolve_folder
    from taming_transformers import load_vqgan

    parts: list[tuple[str, Path | str, Callable[[], object]]] = [
        ("base", sources.base, lambda: _examine_weights(resolve_folder(sources.base, "base model", False))),
        ("ViT", sources.vit, lambda: _examine_weights(resolve_folder(sources.vit, "ViT", False))),
    ]
    for task, plugin in sources.plugins.items():
        parts.append((f"{task} plugin", plugin.path, functools.partial(checkpoints.read_plugin, plugin)))
    if (fusion := sources.fusion) is not None:
        parts.append(("fusion weights", fusion, lambda: checkpoints.read_fusion(fusion)))
    if (vqgan := sources.vqgan) is not None:
        parts.append(("VQGAN", vqgan, lambda: load_vqgan(vqgan)))
    findings = [_examine(name, place, check) for name, place, check in parts]
    yield from findings
    if all(finding.good for finding in findings):
        yield _examine("all parts", "they fit together", lambda: check_sources(sources, with_weights=False))
    else:
        yield Finding(True, "all parts: whether they fit together is checked once each of them is right")


def _examine(name: str, place: Path | str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except (ValueError, FileNotFoundError) as error:
        return Finding(False, f"{name}: {error}{_released_size(Path(place))}")
    return Finding(True, f"{name}: {place}{_released_checksum(Path(place))}")


def _examine_weights(folder: Path) -> None:
    """Checks that configuration and weight shards of a base model or ViT are there and whole."""
    from safetensors import SafetensorError, safe_open

    from healthgpt.files import read_json

    read_json(folder / "config.json")
    if (decoding := folder / "generation_config.json").exists():
        read_json(decoding)
    index = folder / "model.safetensors.index.json"
    names = set(read_json(index)["weight_map"].values()) if index.exists() else {"model.safetensors"}
    for name in sorted(names):
        path = require_file(folder / name)
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path}: {wrong_kind(path) or f'damaged or truncated ({error})'}") from None


def _known(path: Path) -> list[ReleasedFile]:
    """The released files of this file's name whose size is known."""
    files = [file for model in RELEASED.values() for file in (*model.plugins.values(), model.fusion) if file]
    return [file for file in files if file.name == path.name and file.size]


def _released_size(path: Path) -> str:
    for file in _known(path) if path.is_file() else ():
        return f"; it has {path.stat().st_size} bytes, the released file of this name has {file.size}"
    return ""


def _released_checksum(path: Path) -> str:
    for file in _known(path) if path.is_file() else ():
        if file.sha256 and path.stat().st_size == file.size:
            with path.open("rb") as content:
                same = hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
            return " (sha256 is the released file's)" if same else " (sha256 is NOT the released file's)"
    return ""
