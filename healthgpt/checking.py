"""Do a model's parts fit together? Every check that needs no base weights, before gigabytes are touched.

Tokenizer, template, plugins, fusion weights and VQGAN are read and held against the configurations of the base (built
on the meta device, so without memory) and the ViT. Loading, conversion and `doctor` all begin here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig

from healthgpt import checkpoints
from healthgpt.checkpoints import BaseShapes, Plugin
from healthgpt.config import ModelSources, is_hub_id
from healthgpt.files import read_json, require_file
from healthgpt.processor import HealthGPTProcessor
from healthgpt.tasks import Task
from healthgpt.templates import ChatTemplate, choose_template
from healthgpt.tokenization import SlowTokenizer, load_tokenizer
from taming_transformers import GumbelVQ, load_vqgan

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The frozen parts: a base LLM with its tokenizer, and a ViT.

    Attributes:
        config: the base's transformers configuration.
        num_patches: features per image.
    """

    base_folder: Path
    vit_folder: Path
    config: Any
    shapes: BaseShapes
    tokenizer: SlowTokenizer
    template: ChatTemplate
    num_patches: int

    def processor(self, num_image_tokens: int) -> HealthGPTProcessor:
        """The processor; it extends the tokenizer by the image tokens, so there can be one only."""
        return HealthGPTProcessor(self.tokenizer, self.template, self.vit_folder, self.num_patches, num_image_tokens)


@dataclass(frozen=True, kw_only=True)
class CheckedSources:
    """Sources after every check that needs no base weights."""

    backbone: Backbone
    plugins: Mapping[Task, Plugin]
    fusion: Mapping[str, Tensor] | None
    processor: HealthGPTProcessor
    vqgan: GumbelVQ | None


def check_backbone(base: str, vit: str, template: str | None, *, with_weights: bool = True) -> Backbone:
    """Reads the configurations of base and ViT, the tokenizer and the template.

    Args:
        with_weights: of a base or ViT on the hub, fetch the weights as well.

    Raises:
        FileNotFoundError, ValueError: a part is missing or unreadable, or the template does not fit the tokenizer.
    """
    base_folder = resolve_folder(base, "base model", with_weights)
    vit_folder = resolve_folder(vit, "ViT", with_weights)
    require_file(base_folder / "config.json")
    require_file(vit_folder / "config.json")
    if (decoding := base_folder / "generation_config.json").exists():  # transformers passes over a damaged one
        read_json(decoding)
    else:
        logger.warning("%s: no such file, so answers end at what config.json names alone, maybe too late", decoding)
    config = first_line_errors(f"{base_folder / 'config.json'}", AutoConfig.from_pretrained, base_folder)
    vision = first_line_errors(f"{vit_folder / 'config.json'}", CLIPVisionConfig.from_pretrained, vit_folder)
    tokenizer = load_tokenizer(base_folder)
    return Backbone(
        base_folder=base_folder,
        vit_folder=vit_folder,
        config=config,
        shapes=base_shapes(config, vision.hidden_size),
        tokenizer=tokenizer,
        template=choose_template(template, tokenizer),
        num_patches=(vision.image_size // vision.patch_size) ** 2,
    )


def check_sources(sources: ModelSources, *, with_weights: bool = True) -> CheckedSources:
    """Reads everything but the base's and the ViT's weights, and checks that it fits together.

    Args:
        with_weights: of a base or ViT on the hub, fetch the weights as well.

    Raises:
        FileNotFoundError, ValueError: a part is missing, unreadable or belongs to another model; the message names it.
    """
    if not sources.plugins:
        raise ValueError("no plugin is named; a model needs the H-LoRA weights of at least one task")
    backbone = check_backbone(sources.base, sources.vit, sources.template, with_weights=with_weights)
    plugins = {task: checkpoints.read_plugin(source) for task, source in sources.plugins.items()}
    for plugin in plugins.values():
        checkpoints.check_plugin(plugin, backbone.shapes)

    if sources.num_image_tokens is not None and sources.num_image_tokens < 0:
        raise ValueError(f"the number of image tokens is {sources.num_image_tokens}, expected 0 or more")
    fusion = checkpoints.read_fusion(sources.fusion) if sources.fusion else None
    vqgan = load_vqgan(sources.vqgan) if sources.vqgan else None
    num_image_tokens = checkpoints.infer_num_image_tokens(
        asked=sources.num_image_tokens,
        num_rows=fusion["embed_tokens.weight"].shape[0] if fusion else None,
        len_tokenizer=len(backbone.tokenizer),
        codebook=vqgan.config.n_embed if vqgan else None,
        template=backbone.template.name,
        can_draw=Task.GENERATION in plugins,
    )
    processor = backbone.processor(num_image_tokens)
    if sources.fusion and fusion and processor.image_vocabulary:
        num_rows = processor.image_vocabulary.num_rows
        checkpoints.check_fusion(sources.fusion, fusion, num_rows, backbone.shapes.hidden)
    if Task.GENERATION in plugins and fusion is None:
        raise ValueError(
            "generation needs the fusion weights (--fusion_layer_path, or fusion.safetensors in a model folder): "
            "without them every image token has the same score"
        )
    if vqgan is not None and vqgan.config.n_embed != num_image_tokens and Task.GENERATION in plugins:
        raise ValueError(
            f"{sources.vqgan}: a VQGAN of {vqgan.config.n_embed} codes, but the vocabulary has {num_image_tokens}"
        )
    return CheckedSources(backbone=backbone, plugins=plugins, fusion=fusion, processor=processor, vqgan=vqgan)


def resolve_folder(reference: str, what: str, with_weights: bool = True) -> Path:
    """The local folder of a path or hub id (downloaded into the hub's cache where it is not there yet).

    Raises:
        FileNotFoundError: neither a folder nor a repository that can be had.
    """
    folder = Path(reference)
    if folder.is_dir():
        return folder
    reference = reference.rstrip("/")
    if folder.exists() or not is_hub_id(reference):
        raise FileNotFoundError(f"{reference}: no such {what} folder")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.model", "*.txt", *(["*.safetensors"] if with_weights else [])]
    missing = f"{reference}: no such {what} folder, and"
    return from_hub(missing, snapshot_download, reference, allow_patterns=patterns)


def from_hub(missing: str, download: Any, *args: Any, **kwargs: Any) -> Path:
    """Downloads into the hub's cache, or takes what is there.

    Args:
        missing: how the message begins if it cannot be had.

    Raises:
        FileNotFoundError: the hub does not have it or cannot be reached.
    """
    try:
        return Path(download(*args, **kwargs))
    except Exception as error:  # the hub's own error types, and its HTTP client's
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"{missing} not to be had from the hub ({reason})") from None


def base_shapes(config: Any, vision_width: int) -> BaseShapes:
    """The shapes of a base model, from its configuration alone."""
    with torch.device("meta"):
        body = AutoModelForCausalLM.from_config(config).model
    linears = {
        name: (layer.out_features, layer.in_features)
        for name, layer in body.named_modules()
        if isinstance(layer, nn.Linear)
    }
    return BaseShapes(linears=linears, hidden=config.hidden_size, vision=vision_width)


def first_line_errors(what: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a library function whose errors run over many lines and name no file; they come out as one that does."""
    try:
        return function(*args, **kwargs)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{what}: cannot be loaded ({lines[0]})") from error
