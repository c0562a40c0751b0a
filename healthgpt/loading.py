"""From files to a resident model: everything is checked first, then the weights are loaded once.

The order matters. Tokenizer, template, plugins, fusion weights and VQGAN are read and checked against the base's
configuration (built on the meta device, so without memory) before the gigabytes of the base are touched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, CLIPVisionConfig, CLIPVisionModel

from healthgpt import checkpoints
from healthgpt.checkpoints import BaseShapes, Plugin
from healthgpt.config import ModelSources, is_hub_id
from healthgpt.files import require_file
from healthgpt.hlora import HLoraConfig, adapter_parameters, attach_adapter, linear_names
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import HealthGPTProcessor
from healthgpt.tasks import Task
from healthgpt.templates import choose_template
from healthgpt.tokenization import load_tokenizer
from healthgpt.vocabulary import extended_with_mean, with_rows

if TYPE_CHECKING:
    from taming_transformers import GumbelVQ

logger = logging.getLogger(__name__)

# Attention where the user names none: the original's (its Phi-3 had no other), else transformers' default.
ORIGINAL_ATTENTION = {"phi3": "eager"}
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
    """

    device: str = "auto"
    dtype: str = "auto"
    attn_implementation: str | None = None
    device_map: str | dict[str, Any] | None = None
    load_in_8bit: bool = False
    load_in_4bit: bool = False


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


@dataclass(frozen=True, kw_only=True)
class CheckedSources:
    """Sources after every check that needs no base weights."""

    base_folder: Path
    vit_folder: Path
    config: Any
    shapes: BaseShapes
    plugins: Mapping[Task, Plugin]
    fusion: Mapping[str, Tensor] | None
    processor: HealthGPTProcessor
    vqgan: GumbelVQ | None


def check_sources(sources: ModelSources, *, with_weights: bool = True) -> CheckedSources:
    """Reads everything but the base's and the ViT's weights, and checks that it fits together.

    Args:
        with_weights: of a base or ViT on the hub, fetch the weights as well.

    Raises:
        FileNotFoundError, ValueError: a part is missing, unreadable or belongs to another model; the message names it.
    """
    base_folder = resolve_folder(sources.base, "base model", with_weights)
    vit_folder = resolve_folder(sources.vit, "ViT", with_weights)
    require_file(base_folder / "config.json")
    require_file(vit_folder / "config.json")
    config = _first_line_errors(f"{base_folder / 'config.json'}", AutoConfig.from_pretrained, base_folder)
    vision = _first_line_errors(f"{vit_folder / 'config.json'}", CLIPVisionConfig.from_pretrained, vit_folder)
    if not sources.plugins:
        raise ValueError("no plugin is named; a model needs the H-LoRA weights of at least one task")

    tokenizer = load_tokenizer(base_folder)
    template = choose_template(sources.template, tokenizer)
    shapes = base_shapes(config, vision.hidden_size)
    plugins = {task: checkpoints.read_plugin(source) for task, source in sources.plugins.items()}
    for plugin in plugins.values():
        checkpoints.check_plugin(plugin, shapes)

    fusion = checkpoints.read_fusion(sources.fusion) if sources.fusion else None
    vqgan = _load_vqgan(sources.vqgan) if sources.vqgan else None
    num_image_tokens = checkpoints.infer_num_image_tokens(
        asked=sources.num_image_tokens,
        num_rows=fusion["embed_tokens.weight"].shape[0] if fusion else None,
        len_tokenizer=len(tokenizer),
        codebook=vqgan.config.n_embed if vqgan else None,
        template=template.name,
        can_draw=Task.GENERATION in plugins,
    )
    num_patches = (vision.image_size // vision.patch_size) ** 2
    processor = HealthGPTProcessor(tokenizer, template, vit_folder, num_patches, num_image_tokens)
    if sources.fusion and fusion and processor.image_vocabulary:
        checkpoints.check_fusion(sources.fusion, fusion, processor.image_vocabulary.num_rows, shapes.hidden)
    if Task.GENERATION in plugins and fusion is None:
        raise ValueError(
            "generation needs the fusion weights (--fusion_layer_path, or fusion.safetensors in a model folder): "
            "without them every image token has the same score"
        )
    if vqgan is not None and vqgan.config.n_embed != num_image_tokens and Task.GENERATION in plugins:
        raise ValueError(
            f"{sources.vqgan}: a VQGAN of {vqgan.config.n_embed} codes, but the vocabulary has {num_image_tokens}"
        )
    return CheckedSources(
        base_folder=base_folder,
        vit_folder=vit_folder,
        config=config,
        shapes=shapes,
        plugins=plugins,
        fusion=fusion,
        processor=processor,
        vqgan=vqgan,
    )


def load_model(sources: ModelSources, options: LoadOptions = LoadOptions()) -> LoadedModel:
    """Builds the resident model: base and ViT once, and each task's plugin, projector and vocabulary.

    Raises:
        FileNotFoundError, ValueError: see `check_sources`; a device that is not there; a base with missing weights.
    """
    device = choose_device(options.device)
    checked = check_sources(sources)
    attention = options.attn_implementation or ORIGINAL_ATTENTION.get(checked.config.model_type)
    dtype = choose_dtype(options.dtype, checked.config, device)
    base = _load_base(checked, options, device, dtype, attention)
    vit = _load_pretrained(CLIPVisionModel, checked.vit_folder, dtype=dtype, attn_implementation=attention)
    network = HealthGPTForConditionalGeneration.from_parts(
        base, vit, {task: sources.vision_layers[task] for task in checked.plugins}
    )
    first_device = base.get_input_embeddings().weight.device
    vit.to(first_device)
    for task, plugin in checked.plugins.items():
        _install_plugin(network, task, plugin, sources.plugins[task].dropout, dtype)
    _install_vocabularies(network, checked, sources.apply_fusion)
    network.eval().requires_grad_(False)
    network.route(network.tasks[0])
    if checked.vqgan is not None:
        checked.vqgan.to(first_device)
    return LoadedModel(network=network, processor=checked.processor, vqgan=checked.vqgan)


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

    try:
        patterns = ["*.json", "*.model", "*.txt", *(["*.safetensors"] if with_weights else [])]
        return Path(snapshot_download(reference, allow_patterns=patterns))
    except Exception as error:  # the hub's own error types, and its HTTP client's
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"{reference}: no such {what} folder, and not to be had from the hub ({reason})"
        ) from None


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


def _load_base(
    checked: CheckedSources, options: LoadOptions, device: torch.device, dtype: torch.dtype, attention: str | None
) -> Any:
    """The base LLM, its shards read straight to their device and dtype."""
    config = checked.config
    if config.model_type == "phi3" and config.sliding_window is not None:
        # The original's mask lets a token see `sliding_window` tokens besides itself, today's counts itself in.
        config.sliding_window += 1
    quantised = options.load_in_8bit or options.load_in_4bit
    return _load_pretrained(
        AutoModelForCausalLM,
        checked.base_folder,
        config=config,
        dtype=dtype,
        attn_implementation=attention,
        device_map=options.device_map or (None if device.type == "cpu" and not quantised else {"": device}),
        quantization_config=_quantisation(options, dtype) if quantised else None,
    )


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
    model, found = _first_line_errors(str(folder), kind.from_pretrained, folder, output_loading_info=True, **arguments)
    wrong = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    if wrong:
        raise ValueError(f"{folder}: {len(wrong)} weights are missing or mis-shaped, such as {wrong[0]}")
    return model


def _first_line_errors(what: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a library function whose errors run over many lines and name no file; they come out as one that does."""
    try:
        return function(*args, **kwargs)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{what}: cannot be loaded ({lines[0]})") from error


def _load_vqgan(folder: Path) -> GumbelVQ:
    from taming_transformers import load_vqgan

    return load_vqgan(folder)


def _install_plugin(
    network: HealthGPTForConditionalGeneration, task: Task, plugin: Plugin, dropout: float, dtype: torch.dtype
) -> None:
    """Puts a checked plugin on the network; each tensor goes to the device of the layer it adapts."""
    body = network.model.language_model
    settings = HLoraConfig(
        r=plugin.rank,
        lora_alpha=plugin.alpha,
        lora_dropout=dropout,
        num_experts=plugin.num_experts,
        target_modules=linear_names(body),
    )
    attach_adapter(body, task, settings, on_meta=True)
    for name in adapter_parameters(body, task):
        module_name, kind = name.removesuffix(".weight").rsplit(".", 1)
        layer = body.get_submodule(module_name)
        tensor = plugin.adapter[name].to(layer.base_layer.weight.device, dtype)
        getattr(layer, kind)[task].weight = nn.Parameter(tensor, requires_grad=False)
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
