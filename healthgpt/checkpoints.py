"""Weights on disk: the only file that knows key names.

Two layouts hold the same tensors:

* released: `*.bin` pickles. A plugin file has a task's H-LoRA and its projector, a fusion file embeddings and head:
  `base_model.model.model.layers.0.mlp.down_proj.lora_A.weight`, `base_model.model.model.mm_projector.0.weight`, ...
* ours, a model folder: `config.json`, per task a folder with `adapter_model.safetensors`, `adapter_config.json` and
  `projector.safetensors`, and `fusion.safetensors`. Tensors keep their dtype, so converting back gives equal bytes.

Ranks and the number of experts are read off the shapes. Every key is accounted for: a missing, unexpected or
mis-shaped one is an error that names the key, the file and both shapes.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from healthgpt.config import ALPHA_PER_RANK, FUSION_NAME, PluginSource
from healthgpt.files import load_torch_file, read_json, require_file, write_atomically, wrong_kind
from healthgpt.tasks import Task
from healthgpt.vocabulary import NUM_FRAME_TOKENS

ADAPTER_NAME = "adapter_model.safetensors"
ADAPTER_CONFIG_NAME = "adapter_config.json"
PROJECTOR_NAME = "projector.safetensors"
RELEASED_NAMES = {Task.COMPREHENSION: "com_hlora_weights.bin", Task.GENERATION: "gen_hlora_weights.bin"}
RELEASED_FUSION_NAME = "fusion_layer_weights.bin"

# peft's reader stops at a type it does not know, instead of running the plugin as an ordinary LoRA.
_PEFT_TYPE = "HLORA"

_RELEASED_BODY = "base_model.model.model."
_RELEASED_PROJECTOR = {
    f"{_RELEASED_BODY}mm_projector.{position}.{kind}": f"{name}.{kind}"
    for position, name in ((0, "linear_1"), (2, "linear_2"))
    for kind in ("weight", "bias")
}
_RELEASED_FUSION = {
    f"{_RELEASED_BODY}embed_tokens.weight": "embed_tokens.weight",
    "base_model.model.lm_head.weight": "lm_head.weight",
}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One task's H-LoRA and projector, as stored.

    Attributes:
        path: where it came from, for messages.
        adapter: `layers.0.mlp.down_proj.lora_A.weight` and so on.
        projector: `linear_1.weight`, `linear_1.bias`, `linear_2.weight`, `linear_2.bias`.
        rank, num_experts: R and E, from the shapes (E is 1 for a plain LoRA).
        kind: hlora, or one of the baselines moelora and lora.
    """

    path: Path
    adapter: dict[str, Tensor]
    projector: dict[str, Tensor]
    rank: int
    num_experts: int
    alpha: float
    kind: str = "hlora"


@dataclass(frozen=True, kw_only=True)
class BaseShapes:
    """What a plugin must fit: the base LLM's linear layers and the ViT's width.

    Attributes:
        linears: (out, in) of every linear layer of the LLM's body, by name.
        hidden: D, width of the LLM.
        vision: width of the ViT.
    """

    linears: Shapes
    hidden: int
    vision: int


def read_plugin(source: PluginSource) -> Plugin:
    """Reads a plugin from a released `.bin` or from a task folder of ours.

    Raises:
        FileNotFoundError, ValueError: a file is missing or unreadable, or is not a plugin of the rank and number of
            experts that the source says.
    """
    path = source.path
    if path.is_dir():
        adapter, projector = _read_safetensors(path / ADAPTER_NAME), _read_safetensors(path / PROJECTOR_NAME)
        path, settings = path / ADAPTER_NAME, _read_adapter_config(path / ADAPTER_CONFIG_NAME)
    else:
        tensors, settings = _read_released(path), {}
        projector = {new: tensors.pop(old) for old, new in _RELEASED_PROJECTOR.items() if old in tensors}
        if not any(".lora_" in key for key in tensors):
            raise ValueError(f"{path}: not a plugin, no H-LoRA in it; its keys begin with {_sample(tensors)}")
        adapter = {key.removeprefix(_RELEASED_BODY): tensor for key, tensor in tensors.items()}
    kind = settings.get("adapter", "hlora")
    num_experts = 1 if kind == "lora" else _common_size(path, adapter, ".lora_route.weight", "number of experts")
    if kind == "moelora":
        rank = num_experts * _common_size(path, adapter, ".lora_A.0.weight", "rank of an expert")
    else:
        rank = _common_size(path, adapter, ".lora_A.weight", "rank")
    if rank % num_experts:
        raise ValueError(f"{path}: rank {rank} is not divisible by the number of experts {num_experts}")
    for name, wanted, found in (("rank", source.rank, rank), ("number of experts", source.num_experts, num_experts)):
        if wanted is not None and wanted != found:
            raise ValueError(f"{path}: {name} {found} in the file, but {wanted} was asked for")
    for name, found in (("r", rank), ("num_experts", num_experts)):
        if settings.get(name, found) != found:
            raise ValueError(
                f"{path.parent / ADAPTER_CONFIG_NAME}: {name} {settings[name]}, but {found} in {path.name}"
            )
    alpha = settings.get("lora_alpha", ALPHA_PER_RANK * rank) if source.alpha is None else source.alpha
    if alpha <= 0:
        raise ValueError(f"{path}: alpha is {alpha}, expected more than 0")
    return Plugin(
        path=path, adapter=adapter, projector=projector, rank=rank, num_experts=num_experts, alpha=alpha, kind=kind
    )  # fmt: skip


def check_plugin(plugin: Plugin, base: BaseShapes) -> None:
    """Checks every tensor of a plugin against the base it is to run on.

    Raises:
        ValueError: a missing, unexpected or mis-shaped key.
    """
    expected: dict[str, tuple[int, ...]] = {}
    separate = [f".{i}" for i in range(plugin.num_experts)] if plugin.kind == "moelora" else [""]
    rank = plugin.rank // len(separate)
    for name, (width_out, width_in) in base.linears.items():
        if plugin.kind != "lora":
            expected[f"{name}.lora_route.weight"] = (plugin.num_experts, width_in)
        for expert in separate:
            expected[f"{name}.lora_A{expert}.weight"] = (rank, width_in)
            expected[f"{name}.lora_B{expert}.weight"] = (width_out, rank)
    _check_shapes(plugin.path, plugin.adapter, expected)
    _check_shapes(
        plugin.path,
        plugin.projector,
        {
            "linear_1.weight": (base.hidden, base.vision),
            "linear_1.bias": (base.hidden,),
            "linear_2.weight": (base.hidden, base.hidden),
            "linear_2.bias": (base.hidden,),
        },
    )


def read_fusion(path: Path) -> dict[str, Tensor]:
    """Reads fusion weights: `embed_tokens.weight` and `lm_head.weight`, both (rows, D).

    Raises:
        FileNotFoundError, ValueError: no such file, or not exactly these two matrices of one shape.
    """
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    else:
        tensors = {_RELEASED_FUSION.get(key, key): tensor for key, tensor in _read_released(path).items()}
    if tensors.keys() != set(_RELEASED_FUSION.values()):
        raise ValueError(
            f"{path}: not fusion weights; expected {' and '.join(_RELEASED_FUSION)}, found keys like {_sample(tensors)}"
        )
    embeddings, head = tensors["embed_tokens.weight"], tensors["lm_head.weight"]
    if embeddings.ndim != 2 or embeddings.shape != head.shape:
        raise ValueError(f"{path}: embeddings {tuple(embeddings.shape)} and head {tuple(head.shape)} must be alike")
    return tensors


def check_fusion(path: Path, fusion: Mapping[str, Tensor], num_rows: int, hidden: int) -> None:
    """Checks that fusion weights are of this vocabulary and width.

    Raises:
        ValueError: they are of another.
    """
    found = tuple(fusion["embed_tokens.weight"].shape)
    if found != (num_rows, hidden):
        raise ValueError(
            f"{path}: fusion weights {found} of another vocabulary or width, expected {(num_rows, hidden)}"
        )


def infer_num_image_tokens(
    *, asked: int | None, num_rows: int | None, len_tokenizer: int, codebook: int | None, template: str, can_draw: bool
) -> int:
    """How many code tokens N the vocabulary has.

    In this order: what the fusion file's rows say, what the user asked for, the VQGAN's codebook, 8,192. A
    comprehension-only `qwen_2` model has none whatever is asked, as in the original.

    Args:
        num_rows: rows of the fusion weights, if there are any.
        len_tokenizer: number of tokens before image tokens are added.
        codebook: number of codes of the VQGAN, if there is one.

    Raises:
        ValueError: these contradict each other.
    """
    if num_rows is not None:
        found = num_rows - len_tokenizer - NUM_FRAME_TOKENS
        if found < 1:
            raise ValueError(
                f"fusion weights of {num_rows} rows have no room for image tokens after the tokenizer's {len_tokenizer}"
            )
        if asked is not None and asked != found:
            raise ValueError(
                f"{asked} image tokens asked for, but the fusion weights' {num_rows} rows hold {found} "
                f"(after {len_tokenizer} tokens of the tokenizer and {NUM_FRAME_TOKENS} more)"
            )
        return found
    if template == "qwen_2" and not can_draw:
        return 0
    if asked is not None:
        return asked
    return codebook or 8192


def write_task_folder(folder: Path, plugin: Plugin, linears: Shapes) -> None:
    """Writes a plugin into a task folder of ours, tensors as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "peft_type": _PEFT_TYPE,
        "r": plugin.rank,
        "lora_alpha": plugin.alpha,
        "num_experts": plugin.num_experts,
        "adapter": plugin.kind,
        "target_modules": sorted({name.rpartition(".")[2] for name in linears}),
        "task_type": "CAUSAL_LM",
    }
    write_atomically(folder / ADAPTER_NAME, lambda path: _save(plugin.adapter, path))
    write_atomically(folder / PROJECTOR_NAME, lambda path: _save(plugin.projector, path))
    write_atomically(folder / ADAPTER_CONFIG_NAME, lambda path: path.write_text(json.dumps(settings, indent=2) + "\n"))


def write_fusion(folder: Path, fusion: Mapping[str, Tensor]) -> None:
    """Writes fusion weights into a model folder."""
    write_atomically(folder / FUSION_NAME, lambda path: _save(fusion, path))


def write_released_plugin(path: Path, plugin: Plugin) -> None:
    """Writes a plugin as a released `.bin`: the same tensors under the original's keys, in its order.

    Raises:
        ValueError: a baseline, which the released layout has no room for.
    """
    if plugin.kind != "hlora":
        raise ValueError(f"{plugin.path}: a {plugin.kind} adapter; the released layout holds H-LoRA only")
    ordered = sorted(plugin.adapter, key=_released_order)
    tensors = OrderedDict((_RELEASED_BODY + key, plugin.adapter[key].clone()) for key in ordered)
    tensors.update((old, plugin.projector[new].clone()) for old, new in _RELEASED_PROJECTOR.items())
    write_atomically(path, lambda temporary: torch.save(tensors, temporary))


def write_released_fusion(path: Path, fusion: Mapping[str, Tensor]) -> None:
    """Writes fusion weights as a released `.bin`."""
    tensors = OrderedDict((old, fusion[new].clone()) for old, new in _RELEASED_FUSION.items())
    write_atomically(path, lambda temporary: torch.save(tensors, temporary))


_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")


def _released_order(key: str) -> tuple[int, int, int]:
    """Layers by number, modules as the original registers them, then router, A, B."""
    layer, module = (int(found) for found in (re.findall(r"\d+", key)[0], _ORDER.index(key.split(".")[-3])))
    return layer, module, ("lora_route", "lora_A", "lora_B").index(key.split(".")[-2])


def _read_released(path: Path) -> dict[str, Tensor]:
    tensors = load_torch_file(path)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{path}: expected a dictionary of tensors, found {type(tensors).__name__}")
    return dict(tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
    except SafetensorError as error:
        raise ValueError(f"{path}: {wrong_kind(path) or f'damaged or not safetensors ({error})'}") from None


def _read_adapter_config(path: Path) -> dict[str, Any]:
    settings = read_json(path)
    if settings.get("peft_type") != _PEFT_TYPE:
        raise ValueError(f"{path}: peft_type is {settings.get('peft_type')!r}, expected {_PEFT_TYPE!r}")
    return settings


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata={"format": "pt"})


def _common_size(path: Path, adapter: Mapping[str, Tensor], ending: str, what: str) -> int:
    """The first axis that all tensors with this ending share."""
    sizes = {key: tensor.shape[0] for key, tensor in adapter.items() if key.endswith(ending)}
    if not sizes:
        raise ValueError(f"{path}: no key ends in {ending}, so it is not an H-LoRA")
    size = next(iter(sizes.values()))
    for key, other in sizes.items():
        if other != size:
            raise ValueError(f"{path}: {key} has {what} {other}, other layers have {size}")
    return size


def _check_shapes(path: Path, tensors: Mapping[str, Tensor], expected: Shapes) -> None:
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    wrong = [key for key in sorted(expected.keys() | found.keys()) if found.get(key) != expected.get(key)]
    if not wrong:
        return
    key = wrong[0]
    more = f" ({len(wrong) - 1} more keys do not fit)" if len(wrong) > 1 else ""
    if key not in found:
        raise ValueError(f"{path}: {key} is missing, expected shape {expected[key]}{more}")
    if key not in expected:
        raise ValueError(f"{path}: {key} of shape {found[key]} is not expected by this base model{more}")
    raise ValueError(f"{path}: {key} has shape {found[key]}, this base model expects {expected[key]}{more}")


def _sample(keys: Mapping[str, object]) -> str:
    return repr(next(iter(keys), "(none)"))
