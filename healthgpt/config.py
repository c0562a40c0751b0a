"""What a model is made of, as data: the `config.json` of a model folder, and the models that can be named.

A model is a base LLM, a CLIP ViT, one plugin (H-LoRA + projector) per task, optionally fusion weights (word embeddings
+ output head) and a VQGAN. `ModelSources` says where these are; a model folder, a set of released files and a name all
come down to it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from healthgpt.files import read_json, refuse_unknown_keys
from healthgpt.tasks import Task

CONFIG_NAME = "config.json"
FUSION_NAME = "fusion.safetensors"
FORMAT = 1

# Depth of the vision features (index into CLIP's hidden_states): abstract for understanding, concrete for drawing.
VISION_LAYERS: Mapping[Task, int] = {Task.COMPREHENSION: -2, Task.GENERATION: 1}
# alpha / R of every released plugin.
ALPHA_PER_RANK = 2


@dataclass(frozen=True, kw_only=True)
class PluginSource:
    """Where one task's plugin is, and what the user says of it (None: whatever the file says).

    Attributes:
        path: a released `.bin` file or a task folder of ours.
        rank, num_experts: checked against the file's shapes.
        alpha: 2 · rank where neither the user nor the folder says another.
    """

    path: Path
    rank: int | None = None
    num_experts: int | None = None
    alpha: float | None = None
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ModelSources:
    """Everything needed to build a model. `base` and `vit` are folders or hub ids; other places are local paths.

    Attributes:
        template: name of the chat template; None infers it from the tokenizer.
        num_image_tokens: N codes in the vocabulary; None infers it (see `checkpoints.infer_num_image_tokens`).
        apply_fusion: comprehension, too, runs on the fusion weights (the release's does not).
    """

    base: str
    vit: str
    plugins: Mapping[Task, PluginSource] = field(default_factory=dict)
    template: str | None = None
    fusion: Path | None = None
    vqgan: Path | None = None
    num_image_tokens: int | None = None
    apply_fusion: bool = False
    vision_layers: Mapping[Task, int] = field(default_factory=lambda: dict(VISION_LAYERS))


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """The `config.json` of a model folder.

    Attributes:
        base, vit, vqgan: a folder inside the model folder, an absolute path, or (base, vit) a hub id.
    """

    template: str
    base: str
    vit: str
    num_image_tokens: int
    vqgan: str | None = None
    apply_fusion: bool = False
    vision_layers: Mapping[str, int] = field(default_factory=lambda: {str(k): v for k, v in VISION_LAYERS.items()})
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        return {"model_type": "healthgpt", **dataclasses.asdict(self)}


def read_folder_config(folder: Path) -> FolderConfig:
    """Reads a model folder's `config.json`, strictly.

    Raises:
        FileNotFoundError, ValueError: no such file; a key is unknown, missing or of the wrong type; a newer format.
    """
    path = folder / CONFIG_NAME
    values = read_json(path)
    if values.pop("model_type", None) != "healthgpt":
        raise ValueError(f'{path}: not the config of a HealthGPT model folder (no "model_type": "healthgpt")')
    fields = {f.name: f for f in dataclasses.fields(FolderConfig)}
    refuse_unknown_keys(values, fields, path)
    for key in ("template", "base", "vit", "num_image_tokens"):
        if key not in values:
            raise ValueError(f"{path}: key {key!r} is missing")
    for key, kind in _TYPES.items():
        # bool is an int in Python, and must not pass for a number here
        if key in values and (not isinstance(values[key], kind) or (kind is int and isinstance(values[key], bool))):
            raise ValueError(f"{path}: {key} is {values[key]!r}, expected {_TYPE_NAMES[key]}")
    if values.get("format", FORMAT) > FORMAT:
        raise ValueError(f"{path}: format {values['format']} is newer than this version reads ({FORMAT})")
    layers = values.get("vision_layers", {})
    if unknown := layers.keys() - set(Task):
        raise ValueError(f"{path}: vision_layers names {sorted(unknown)}; tasks are {', '.join(Task)}")
    return FolderConfig(**values)


_TYPES: dict[str, Any] = {
    "template": str,
    "base": str,
    "vit": str,
    "vqgan": str | None,
    "num_image_tokens": int,
    "apply_fusion": bool,
    "vision_layers": dict,
    "format": int,
}
_TYPE_NAMES = {key: "text or null" if key == "vqgan" else kind.__name__ for key, kind in _TYPES.items()}


def folder_sources(folder: Path) -> ModelSources:
    """Where the parts of a model folder are."""
    config = read_folder_config(folder)
    plugins = {task: PluginSource(path=folder / task) for task in Task if (folder / task).is_dir()}
    if not plugins:
        raise FileNotFoundError(f"{folder}: has no plugin; expected a folder {' or '.join(Task)} in it")
    return ModelSources(
        base=_inside(folder, config.base),
        vit=_inside(folder, config.vit),
        plugins=plugins,
        template=config.template,
        fusion=folder / FUSION_NAME if (folder / FUSION_NAME).exists() else None,
        vqgan=Path(_inside(folder, config.vqgan)) if config.vqgan else None,
        num_image_tokens=config.num_image_tokens,
        apply_fusion=config.apply_fusion,
        vision_layers={Task(name): layer for name, layer in config.vision_layers.items()},
    )


def _inside(folder: Path, reference: str) -> str:
    return str(folder / reference) if (folder / reference).is_dir() else reference


def is_hub_id(reference: str) -> bool:
    """Whether a reference that is no local folder can be a repository on the hub (`owner/name`)."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", reference) is not None and not reference.startswith(".")


@dataclass(frozen=True, kw_only=True)
class ReleasedFile:
    """One released weight file; size and sha256 where they are known."""

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """A model of the paper as it was released.

    Attributes:
        architecture: what of the base's `config.json` decides its shapes.
        len_tokenizer: tokens of the base's tokenizer, before image tokens are added.
    """

    base: str
    repository: str
    template: str
    plugins: Mapping[Task, ReleasedFile]
    fusion: ReleasedFile | None = None
    architecture: Mapping[str, Any]
    len_tokenizer: int
    num_image_tokens: int = 8192
    vit: str = "openai/clip-vit-large-patch14-336"


# The model that comes with the package: the default of all commands.
NANO = "nano"

RELEASED: Mapping[str, ReleasedModel] = {
    "m3": ReleasedModel(
        base="microsoft/Phi-3-mini-4k-instruct",
        repository="lintw/HealthGPT-M3",
        template="phi3_instruct",
        architecture={
            "model_type": "phi3",
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
        },
        len_tokenizer=32011,
        plugins={
            Task.COMPREHENSION: ReleasedFile(
                name="com_hlora_weights.bin",
                size=231_096_349,
                sha256="060b86347bc8594c3b13248a4d34076f7f20fcd5c3c0d2e907f71b3498ff109e",
            ),
            Task.GENERATION: ReleasedFile(name="gen_hlora_weights.bin"),
        },
        fusion=ReleasedFile(
            name="fusion_layer_weights.bin",
            size=494_052_503,
            sha256="86bf9702240bf07bec13055942afa113f0f9656ba0121d4b4e6c14f9c7266384",
        ),
    ),
    "l14": ReleasedModel(
        base="microsoft/phi-4",
        repository="lintw/HealthGPT-L14",
        template="phi4_instruct",
        architecture={
            "model_type": "phi3",
            "hidden_size": 5120,
            "intermediate_size": 17920,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 10,
            "vocab_size": 100352,
            "pad_token_id": 100349,
        },
        len_tokenizer=100352,
        plugins={Task.COMPREHENSION: ReleasedFile(name="com_hlora_weights_phi4.bin")},
    ),
    "xl32": ReleasedModel(
        base="Qwen/Qwen2.5-32B-Instruct",
        repository="lintw/HealthGPT-XL32",
        template="qwen_2",
        architecture={
            "model_type": "qwen2",
            "hidden_size": 5120,
            "intermediate_size": 27648,
            "num_hidden_layers": 64,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "vocab_size": 152064,
        },
        len_tokenizer=151665,
        plugins={Task.COMPREHENSION: ReleasedFile(name="com_hlora_weights_QWEN_32B.bin")},
        num_image_tokens=0,
    ),
}
