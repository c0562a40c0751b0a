"""The flags that say which model to use and where, shared by all verbs."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthgpt.config import NANO, ModelSources, PluginSource
from healthgpt.tasks import Task

if TYPE_CHECKING:
    from healthgpt.loading import LoadOptions
    from healthgpt.pipeline import HealthGPT

# The flags that name released files; --model takes the place of all of them.
_RELEASED_FLAGS = (
    "model_name_or_path", "vit_path", "hlora_path", "fusion_layer_path", "instruct_template",
    "hlora_r", "hlora_alpha", "hlora_dropout", "hlora_nums", "vq_idx_nums",
)  # fmt: skip


def parse_bool(text: str) -> bool:
    """Reads a boolean flag: "False" is false."""
    if text.lower() in ("true", "t", "yes", "y", "1", "on"):
        return True
    if text.lower() in ("false", "f", "no", "n", "0", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def add_bool(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    group.add_argument(name, type=parse_bool, nargs="?", const=True, default=None, metavar="BOOL", help=text)


def add_model_flags(command: argparse.ArgumentParser) -> None:
    model = command.add_argument_group("model", "a model folder or name, or released files; without any, the default")
    model.add_argument("--model", help="model folder, hub id or name (nano, m3, l14, xl32)")
    model.add_argument("--model_name_or_path", help="base LLM: folder or hub id")
    model.add_argument("--vit_path", help="CLIP ViT: folder or hub id")
    model.add_argument("--hlora_path", type=Path, help="H-LoRA and projector of the task (.bin)")
    model.add_argument("--fusion_layer_path", type=Path, help="embeddings and head (.bin)")
    model.add_argument("--vqgan_path", type=Path, help="folder with model.yaml and last.ckpt")
    model.add_argument("--instruct_template", help="phi3_instruct, phi4_instruct or qwen_2 (default: by the tokenizer)")
    model.add_argument("--hlora_r", type=int, help="merged rank (default: the file's)")
    model.add_argument("--hlora_alpha", type=float, help="alpha (default: twice the rank)")
    model.add_argument("--hlora_dropout", type=float, help="dropout, which does nothing here but in training")
    model.add_argument("--hlora_nums", type=int, help="number of experts (default: the file's)")
    model.add_argument("--vq_idx_nums", type=int, help="number of image codes (default: the fusion file's)")
    add_bool(model, "--apply_fusion", "let comprehension, too, run on the fusion weights")
    add_placement_flags(command)


def add_placement_flags(command: argparse.ArgumentParser) -> None:
    place = command.add_argument_group("placement")
    place.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    place.add_argument("--dtype", default="auto", help="auto, FP32, FP16 or BF16")
    place.add_argument("--attn_implementation", help="eager, sdpa, flash_attention_2 (default: the original's)")
    place.add_argument("--device_map", help="placement over several GPUs, such as auto or balanced")
    add_bool(place, "--load_in_8bit", "quantise the base to 8 bit")
    add_bool(place, "--load_in_4bit", "quantise the base to 4 bit")
    faster = command.add_argument_group(
        "shortcuts", "faster, with other results (docs/engine.md); none unless asked for"
    )
    add_bool(faster, "--int8_weights", "read the base's linear layers in 8 bit in steps")
    add_bool(faster, "--fp8_cache", "keep keys and values in 8 bit")
    faster.add_argument("--row_lead", type=int, metavar="CODES", help="draw rows at once, each so many codes apart")


def add_decoding_flags(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    decoding = command.add_argument_group("decoding")
    add_bool(decoding, "--do_sample", "sample instead of taking the likeliest token")
    decoding.add_argument("--temperature", type=float)
    decoding.add_argument("--top_p", type=float)
    decoding.add_argument("--num_beams", type=int)
    decoding.add_argument("--repetition_penalty", type=float, help="default: the base's generation_config.json")
    decoding.add_argument("--max_new_tokens", type=int, help="most tokens of an answer (1024)")
    decoding.add_argument("--seed", type=int)
    return decoding


def decoding_of(flags: argparse.Namespace) -> dict[str, Any]:
    """The decoding settings that the user gave."""
    names = ("do_sample", "temperature", "top_p", "num_beams", "repetition_penalty", "max_new_tokens", "seed")
    return {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}


def names_model(flags: argparse.Namespace) -> bool:
    """Whether any flag says which model it is."""
    return any(getattr(flags, name) is not None for name in ("model", "vqgan_path", *_RELEASED_FLAGS))


def model_sources(flags: argparse.Namespace) -> ModelSources:
    """Where the flags say that the model is."""
    from healthgpt.sources import DEFAULT_VQGAN, named_sources

    released = [name for name in _RELEASED_FLAGS if getattr(flags, name) is not None]
    if flags.model == "":
        raise ValueError("--model is empty, expected a folder, a hub id or a name")
    if flags.model or not released:
        if released:
            raise ValueError(f"--model names a whole model and excludes --{released[0]}")
        changes: dict[str, Any] = {"vqgan": flags.vqgan_path} if flags.vqgan_path else {}
        if flags.apply_fusion is not None:
            changes["apply_fusion"] = flags.apply_fusion
        return dataclasses.replace(named_sources(flags.model or NANO), **changes)
    for name in ("model_name_or_path", "vit_path", "hlora_path"):
        if getattr(flags, name) is None:
            raise ValueError(f"--{name} is missing (by --{released[0]}, the model is read from released files)")
    plugin = PluginSource(
        path=flags.hlora_path,
        rank=flags.hlora_r,
        num_experts=flags.hlora_nums,
        alpha=flags.hlora_alpha,
        dropout=flags.hlora_dropout or 0.0,
    )
    return ModelSources(
        base=flags.model_name_or_path,
        vit=flags.vit_path,
        template=flags.instruct_template,
        plugins={flags.task: plugin},
        fusion=flags.fusion_layer_path,
        vqgan=flags.vqgan_path or (DEFAULT_VQGAN if flags.task is Task.GENERATION else None),
        num_image_tokens=flags.vq_idx_nums,
        apply_fusion=bool(flags.apply_fusion),
    )


def load_options(flags: argparse.Namespace) -> LoadOptions:
    """Where and how the flags say that the weights live."""
    from healthgpt.loading import LoadOptions
    from healthgpt.shortcuts import Shortcuts

    return LoadOptions(
        device=flags.device,
        dtype=flags.dtype,
        attn_implementation=flags.attn_implementation,
        device_map=flags.device_map,
        load_in_8bit=bool(flags.load_in_8bit),
        load_in_4bit=bool(flags.load_in_4bit),
        shortcuts=Shortcuts(
            int8_weights=bool(flags.int8_weights), fp8_cache=bool(flags.fp8_cache), row_lead=flags.row_lead
        ),
    )


def load_model(flags: argparse.Namespace) -> HealthGPT:
    from healthgpt.pipeline import HealthGPT

    return HealthGPT.from_sources(model_sources(flags), load_options(flags))
