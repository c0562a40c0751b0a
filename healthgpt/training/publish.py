"""What a finished run leaves: its own parts for later runs, and the model folder of the newest parts of all runs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from healthgpt import checkpoints
from healthgpt.config import CONFIG_NAME, FUSION_NAME, FolderConfig, is_hub_id
from healthgpt.tasks import Task
from healthgpt.training.assembly import FINAL_NAME, Assembly, plugin_of
from healthgpt.training.config import TrainConfig
from healthgpt.training.stages import published_from

MODEL_NAME = "model"


def write_final(assembly: Assembly, config: TrainConfig) -> Path:
    """Writes `final/` of a run: what its row says it writes."""
    network, dtype = assembly.network, assembly.network.model.vision_tower.dtype

    def fill(folder: Path) -> None:
        if config.row.writes_plugins:
            for task in config.row.tasks:
                plugin = plugin_of(network, task, config)
                for tensors in (plugin.adapter, plugin.projector):
                    tensors |= {name: tensor.to(dtype) for name, tensor in tensors.items()}
                checkpoints.write_task_folder(folder / task, plugin, assembly.backbone.shapes.linears)
        if config.row.writes_fusion:
            layers = {"embed_tokens.weight": network.get_input_embeddings(), "lm_head.weight": network.lm_head}
            fusion = {name: layer.weight.detach().cpu().to(dtype) for name, layer in layers.items()}
            checkpoints.write_fusion(folder, fusion)

    return _replace_folder(config.output_dir / FINAL_NAME, fill)


def publish(config: TrainConfig, template: str) -> Path | None:
    """Makes `output_root/model` of the newest finished parts, a folder that answers and, once it can, draws.

    Returns:
        the folder, or None while no task has both plugin and (for generation) fusion weights.
    """
    root = config.output_root
    fusion = _newest(root, published_from(config.stage, None), FUSION_NAME) if config.use_fusion else None
    plugins = {task: _newest(root, published_from(config.stage, task), task) for task in Task}
    usable = {task: path for task, path in plugins.items() if path and (task is Task.COMPREHENSION or fusion)}
    if not usable:
        return None
    settings = FolderConfig(
        template=template,
        base=_reference(config.base),
        vit=_reference(config.vit),
        vqgan=_reference(config.vqgan) if config.vqgan else None,
        num_image_tokens=config.num_image_tokens,
        apply_fusion=fusion is not None,
        vision_layers=config.vision_layers,
    )

    def fill(folder: Path) -> None:
        for task, path in usable.items():
            shutil.copytree(path, folder / task)
        if fusion is not None:
            shutil.copy(fusion, folder / FUSION_NAME)
        (folder / CONFIG_NAME).write_text(json.dumps(settings.to_dict(), indent=2) + "\n")

    with FileLock(root / f".{MODEL_NAME}.lock"):  # runs of the two tasks may end side by side
        return _replace_folder(root / MODEL_NAME, fill)


def _newest(root: Path, runs: tuple[str, ...], name: str) -> Path | None:
    found = (root / run / FINAL_NAME / name for run in runs)
    return next((path for path in found if path.exists()), None)


def _reference(part: str) -> str:
    return part if is_hub_id(part) and not Path(part).is_dir() else str(Path(part).resolve())


def _replace_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """Fills a new folder beside the target and puts it in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        fill(new)
        if target.exists():
            target.rename(old)
        new.rename(target)
    return target
