"""From checked files to a resident model: base and ViT once, and each task's plugin, projector and vocabulary."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, CLIPVisionModel
from transformers import logging as transformers_logging

from healthgpt.checking import Backbone, CheckedSources, check_sources, first_line_errors
from healthgpt.checkpoints import Plugin
from healthgpt.config import ModelSources
from healthgpt.hlora import HLoraConfig, attach_adapter, linear_names, load_adapter
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import HealthGPTProcessor
from healthgpt.shortcuts import Shortcuts
from healthgpt.tasks import Task
from healthgpt.vocabulary import extended_with_mean, with_rows
from taming_transformers import GumbelVQ

logger = logging.getLogger(__name__)

# Attention where the user names none: the original's (its Phi-3 had no other), else transformers' default.
ORIGINAL_ATTENTION = {"phi3": "eager"}
_WORTH_A_PROGRESS_BAR = 2**30  # bytes
DTYPES = {"FP32": torch.float32, "FP16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Where and how the weights live.

    Attributes:
        device: auto, cpu, cuda, cuda:N or mps; auto takes the first accelerator.
        dtype: auto (the base's own), FP32, FP16 or BF16.
        attn_implementation: transformers' name of an attention kernel; None takes the original's.
        device_map: accelerate's placement over several GPUs, such as "auto" or "balanced".
        load_in_8bit, load_in_4bit: quantise the base's linear layers by bitsandbytes.
        shortcuts: what the engine may give up for speed.
    """

    device: str = "auto"
    dtype: str = "auto"
    attn_implementation: str | None = None
    device_map: str | dict[str, Any] | None = None
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    shortcuts: Shortcuts = field(default_factory=Shortcuts)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with all that is needed to use it.

    Attributes:
        network: routed to its first task, frozen, in evaluation mode.
        vqgan: None where the sources name none.
    """

    network: HealthGPTForConditionalGeneration
    processor: HealthGPTProcessor
    vqgan: GumbelVQ | None


def load_model(sources: ModelSources, options: LoadOptions = LoadOptions()) -> LoadedModel:
    """Builds the resident model: base and ViT once, and each task's plugin, projector and vocabulary.

    Raises:
        FileNotFoundError, ValueError: see `check_sources`; a device that is not there; a base with missing weights.
    """
    device = check_options(options)
    checked = check_sources(sources)
    base, vit = load_backbone(checked.backbone, options, device)
    network = HealthGPTForConditionalGeneration.from_parts(
        base, vit, {task: sources.vision_layers[task] for task in checked.plugins}
    )
    first_device, dtype = base.get_input_embeddings().weight.device, vit.dtype
    for task, plugin in checked.plugins.items():
        install_plugin(network, task, plugin, sources.plugins[task].dropout, dtype)
    _install_vocabularies(network, checked, sources.apply_fusion)
    network.eval().requires_grad_(False)
    network.route(network.tasks[0])
    if checked.vqgan is not None:
        checked.vqgan.to(first_device)
    return LoadedModel(network=network, processor=checked.processor, vqgan=checked.vqgan)


def check_options(options: LoadOptions) -> torch.device:
    """Checks what can be checked before there is a model; returns its device.

    Raises:
        ValueError: a device that is not there, a dtype that is none, options that exclude each other.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, None, device)
    if options.load_in_8bit or options.load_in_4bit:
        _quantisation(options, dtype)
        if options.shortcuts.names:
            name = f"load_in_{'8' if options.load_in_8bit else '4'}bit"
            raise ValueError(f"{name} and {', '.join(options.shortcuts.names)} exclude each other")
    return device


def choose_device(name: str) -> torch.device:
    """The device of a name, `auto` being the first accelerator, else the CPU.

    Raises:
        ValueError: not a device, or one that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is none of auto, cpu, cuda, cuda:N, mps") from None
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= present.get(device.type, 0):
        raise ValueError(f"device {name!r} is not there; this machine has {_devices(present)}")
    return device


def _devices(present: Mapping[str, int]) -> str:
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in present.items() if count)


def choose_dtype(name: str, config: Any, device: torch.device) -> torch.dtype:
    """The dtype of a name; `auto` is the base's own, or float16 where that is bfloat16 and the GPU has none."""
    if name.upper() in DTYPES:
        return DTYPES[name.upper()]
    if name != "auto":
        raise ValueError(f"dtype {name!r} is none of auto, {', '.join(DTYPES)}")
    dtype = getattr(config, "dtype", None) or torch.float32
    if dtype is torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        logger.info("this GPU has no bfloat16: float16 is used instead")
        return torch.float16
    return dtype


def load_backbone(backbone: Backbone, options: LoadOptions, device: torch.device) -> tuple[Any, CLIPVisionModel]:
    """The base LLM and the ViT, the base's shards read straight to their device and dtype.

    Raises:
        ValueError: weights are missing, damaged or mis-shaped.
    """
    config = backbone.config
    dtype = choose_dtype(options.dtype, config, device)
    attention = options.attn_implementation or ORIGINAL_ATTENTION.get(config.model_type)
    if config.model_type == "phi3" and config.sliding_window is not None:
        # The original's mask lets a token see `sliding_window` tokens besides itself, today's counts itself in.
        config.sliding_window += 1
    quantised = options.load_in_8bit or options.load_in_4bit
    base = _load_pretrained(
        AutoModelForCausalLM,
        backbone.base_folder,
        config=config,
        dtype=dtype,
        attn_implementation=attention,
        device_map=options.device_map or (None if device.type == "cpu" and not quantised else {"": device}),
        quantization_config=_quantisation(options, dtype) if quantised else None,
    )
    vit = _load_pretrained(CLIPVisionModel, backbone.vit_folder, dtype=dtype, attn_implementation=attention)
    return base, vit.to(base.get_input_embeddings().weight.device)


def _quantisation(options: LoadOptions, dtype: torch.dtype) -> BitsAndBytesConfig:
    import importlib.util

    if options.load_in_8bit and options.load_in_4bit:
        raise ValueError("--load_in_8bit and --load_in_4bit exclude each other")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("8-bit and 4-bit loading needs bitsandbytes: pip install 'healthgpt[quantization]'")
    return BitsAndBytesConfig(
        load_in_8bit=options.load_in_8bit, load_in_4bit=options.load_in_4bit, bnb_4bit_compute_dtype=dtype
    )


def _load_pretrained(kind: Any, folder: Path, **arguments: Any) -> Any:
    """transformers' `from_pretrained` that fails where weights are missing, instead of inventing them."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    with _progress_bars(size > _WORTH_A_PROGRESS_BAR):
        model, found = first_line_errors(
            str(folder), kind.from_pretrained, folder, output_loading_info=True, **arguments
        )
    wrong = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    if wrong:
        raise ValueError(f"{folder}: {len(wrong)} weights are missing or mis-shaped, such as {wrong[0]}")
    return model


@contextlib.contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """Shows or hides transformers' progress bars for a while."""
    before = transformers_logging.is_progress_bar_enabled()
    (transformers_logging.enable_progress_bar if shown and before else transformers_logging.disable_progress_bar)()
    try:
        yield
    finally:
        (transformers_logging.enable_progress_bar if before else transformers_logging.disable_progress_bar)()


def install_plugin(
    network: HealthGPTForConditionalGeneration, task: Task, plugin: Plugin, dropout: float, dtype: torch.dtype
) -> None:
    """Puts a checked plugin on the network; each tensor goes to the device of the layer it adapts."""
    body = network.model.language_model
    settings = HLoraConfig(
        r=plugin.rank,
        lora_alpha=plugin.alpha,
        lora_dropout=dropout,
        num_experts=plugin.num_experts,
        adapter=plugin.kind,
        target_modules=linear_names(body),
    )
    network.router = attach_adapter(body, task, settings, on_meta=True)
    load_adapter(body, task, plugin.adapter, dtype)
    device = network.get_input_embeddings().weight.device
    projector = network.model.multi_modal_projector[task]
    projector.load_state_dict({key: value.to(device, dtype) for key, value in plugin.projector.items()}, assign=True)


def _install_vocabularies(
    network: HealthGPTForConditionalGeneration, checked: CheckedSources, apply_fusion: bool
) -> None:
    """Gives each task its word embeddings and head.

    As released, comprehension runs on the base's, image tokens at the mean, even where there are fusion weights.
    """
    vocabulary = checked.processor.image_vocabulary
    if vocabulary is None:
        return
    layers: tuple[Any, Any] = (network.get_input_embeddings(), network.get_output_embeddings())
    if checked.fusion is not None and not apply_fusion and Task.COMPREHENSION in network.tasks:
        logger.info("comprehension uses the base's embeddings, as released (--apply_fusion: the fusion file's)")
    made: dict[bool, list[Any]] = {}
    for task in network.tasks:
        use_fusion = checked.fusion is not None and (apply_fusion or task is Task.GENERATION)
        if use_fusion not in made:
            if checked.fusion is not None and use_fusion:
                weights = [checked.fusion["embed_tokens.weight"], checked.fusion["lm_head.weight"]]
            else:
                weights = [extended_with_mean(layer.weight.data, vocabulary) for layer in layers]
            made[use_fusion] = [
                with_rows(layer, weight.to(layer.weight.device, layer.weight.dtype))
                for layer, weight in zip(layers, weights, strict=True)
            ]
        network.set_vocabulary(task, *made[use_fusion])
    network.config.text_config.vocab_size = vocabulary.num_rows
