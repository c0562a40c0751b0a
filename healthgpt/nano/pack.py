"""From a trained model folder to the one that is shipped: all parts in it, 16 bits a weight, a checksum per file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from healthgpt.config import CONFIG_NAME, read_folder_config
from healthgpt.shipped import write_checksums

_WEIGHTS = "model.safetensors"
# Base and ViT were frozen in bfloat16 while the plugins were trained, so it loses nothing; the VQGAN, whose codes came
# from weights rounded to float16, keeps those.
_DTYPES = {"base": torch.bfloat16, "vit": torch.bfloat16, "vqgan": torch.float16}


def pack(model: Path, output: Path) -> Path:
    """Writes the folder to ship; returns it.

    Args:
        model: a folder that training published, which refers to its base, ViT and VQGAN.

    Raises:
        FileNotFoundError, ValueError: no such folder, or the output is there already.
    """
    if output.exists():
        raise ValueError(f"{output}: is there already; remove it or name another folder")
    config = read_folder_config(model)
    shutil.copytree(model, output, ignore=shutil.ignore_patterns(*_DTYPES))
    for name, dtype in _DTYPES.items():
        source = model / str(getattr(config, name))
        shutil.copytree(source, output / name)
        weights = {key: value.to(dtype) for key, value in load_file(source / _WEIGHTS).items()}
        save_file(weights, output / name / _WEIGHTS, metadata={"format": "pt"})
    settings = config.to_dict() | {name: name for name in _DTYPES}
    (output / CONFIG_NAME).write_text(json.dumps(settings, indent=2) + "\n")
    for path in (output, *output.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors and temporary folders are private by default
    write_checksums(output)
    return output
