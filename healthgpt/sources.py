"""From the name of a model to its parts: a folder, one of the named models, or a model folder on the hub."""

from __future__ import annotations

from pathlib import Path

from healthgpt.checking import from_hub, resolve_folder
from healthgpt.config import NANO, RELEASED, ModelSources, PluginSource, folder_sources, is_hub_id
from healthgpt.shipped import SHIPPED, check_files
from healthgpt.tasks import Task

# Where upstream, too, expects the VQGAN's model.yaml and last.ckpt.
DEFAULT_VQGAN = Path("taming_transformers/ckpt")


def named_sources(name: str) -> ModelSources:
    """The sources of a model.

    Raises:
        FileNotFoundError: no such folder, name or repository.
        ValueError: a file of the shipped model is damaged.
    """
    if Path(name).is_dir():
        return folder_sources(Path(name))
    if name == NANO:
        check_files(SHIPPED)
        return folder_sources(SHIPPED)
    if name in RELEASED:
        return released_sources(name)
    if is_hub_id(name):
        return folder_sources(resolve_folder(name, "model"))
    names = ", ".join((NANO, *RELEASED))
    raise FileNotFoundError(f"{name}: neither a model folder nor one of the models {names} nor a hub id")


def released_sources(name: str) -> ModelSources:
    """The sources of a released model, its plugins fetched from the hub into its cache.

    The VQGAN is not on the hub: the model draws where `DEFAULT_VQGAN` holds its checkpoint, and only answers elsewhere.

    Args:
        name: a key of `config.RELEASED`.

    Raises:
        FileNotFoundError: the hub cannot be reached and the files are not in its cache.
    """
    released = RELEASED[name]
    draws = released.fusion is not None and (DEFAULT_VQGAN / "last.ckpt").exists()
    tasks = [task for task in released.plugins if draws or task is Task.COMPREHENSION]
    return ModelSources(
        base=released.base,
        vit=released.vit,
        template=released.template,
        plugins={
            task: PluginSource(path=_released_file(released.repository, released.plugins[task].name)) for task in tasks
        },
        fusion=_released_file(released.repository, released.fusion.name) if draws and released.fusion else None,
        vqgan=DEFAULT_VQGAN if draws else None,
        num_image_tokens=released.num_image_tokens,
    )


def _released_file(repository: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    return from_hub(f"{repository}/{name}:", hf_hub_download, repository, name)
