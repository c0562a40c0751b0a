"""Released files -> a model folder of ours, and back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from healthgpt import checkpoints
from healthgpt.checking import check_sources
from healthgpt.config import CONFIG_NAME, FolderConfig, ModelSources, PluginSource, folder_sources, is_hub_id
from healthgpt.files import writable_target
from healthgpt.tasks import Task


def convert_released(sources: ModelSources, output: Path, *, copy: bool = False) -> Path:
    """Makes a model folder from released files, whole or not at all.

    Args:
        output: a folder that does not exist yet, or is empty.
        copy: copy base, ViT and VQGAN into the folder instead of referring to them.

    Raises:
        FileNotFoundError, ValueError: the files do not make a model; the output is in the way.
    """
    _free_output(output)
    checked = check_sources(sources, with_weights=copy)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        for task, plugin in checked.plugins.items():
            checkpoints.write_task_folder(folder / task, plugin, checked.backbone.shapes.linears)
        if checked.fusion is not None:
            checkpoints.write_fusion(folder, checked.fusion)
        vocabulary = checked.processor.image_vocabulary
        parts = {"base": checked.backbone.base_folder, "vit": checked.backbone.vit_folder, "vqgan": sources.vqgan}
        for name, part in parts.items():
            if copy and part is not None:
                shutil.copytree(part, folder / name)
        config = FolderConfig(
            template=checked.processor.template.name,
            num_image_tokens=vocabulary.num_codes if vocabulary else 0,
            apply_fusion=sources.apply_fusion,
            vision_layers={str(task): layer for task, layer in sources.vision_layers.items()},
            base="base" if copy else _reference(sources.base),
            vit="vit" if copy else _reference(sources.vit),
            vqgan=None if sources.vqgan is None else "vqgan" if copy else _reference(str(sources.vqgan)),
        )
        (folder / CONFIG_NAME).write_text(json.dumps(config.to_dict(), indent=2) + "\n")
        if output.is_dir():
            output.rmdir()
        os.rename(folder, output)
    return output


def export_released(folder: Path, output: Path) -> list[Path]:
    """Writes a model folder's plugins and fusion weights as released `.bin` files; returns their paths.

    Raises:
        FileNotFoundError, ValueError: not a model folder; the output is in the way.
    """
    sources = folder_sources(folder)
    plugins = {task: checkpoints.read_plugin(source) for task, source in sources.plugins.items()}
    fusion = checkpoints.read_fusion(sources.fusion) if sources.fusion else None
    _free_output(output)
    output.mkdir(exist_ok=True)
    written = []
    for task, plugin in plugins.items():
        written.append(output / checkpoints.RELEASED_NAMES[task])
        checkpoints.write_released_plugin(written[-1], plugin)
    if fusion is not None:
        written.append(output / checkpoints.RELEASED_FUSION_NAME)
        checkpoints.write_released_fusion(written[-1], fusion)
    return written


def released_plugins(
    com_path: Path | None, gen_path: Path | None, com_alpha: float | None, gen_alpha: float | None
) -> dict[Task, PluginSource]:
    """The plugins of the files that are given."""
    given = {Task.COMPREHENSION: (com_path, com_alpha), Task.GENERATION: (gen_path, gen_alpha)}
    return {task: PluginSource(path=path, alpha=alpha) for task, (path, alpha) in given.items() if path is not None}


def _reference(part: str) -> str:
    """How a model folder names a part outside it: a hub id as it is, a folder by its absolute path."""
    return part if is_hub_id(part) and not Path(part).is_dir() else str(Path(part).resolve())


def _free_output(output: Path) -> None:
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists():
        raise ValueError(f"{output}: is there already; name a folder that does not exist yet")
    writable_target(output)
