"""The network of a run: the frozen backbone, what earlier runs wrote, and what begins afresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.integrations.liger import apply_liger_kernel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.utils import is_liger_kernel_available

from healthgpt import checkpoints
from healthgpt.checking import Backbone, check_backbone
from healthgpt.config import FUSION_NAME, PluginSource
from healthgpt.hlora import HLoraConfig, adapter_parameters, attach_adapter, linear_names
from healthgpt.loading import LoadOptions, choose_device, choose_dtype, install_plugin, load_backbone
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import HealthGPTProcessor
from healthgpt.tasks import Task
from healthgpt.training.config import TrainConfig
from healthgpt.training.stages import Part, Stage
from healthgpt.training.vocabulary_rows import NewRowsEmbedding, NewRowsHead
from healthgpt.vocabulary import ImageVocabulary, extended_with_mean, with_rows

FINAL_NAME = "final"  # what a finished run leaves for later ones


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A run's network and what goes with it.

    Attributes:
        network: everything frozen but what the stage trains, which is float32.
        parts: names of the trained parameters, by part.
    """

    network: HealthGPTForConditionalGeneration
    processor: HealthGPTProcessor
    backbone: Backbone
    parts: Mapping[Part, tuple[str, ...]]


def assemble(config: TrainConfig) -> Assembly:
    """Builds the network of a run on the CPU (the trainer moves it).

    Raises:
        FileNotFoundError: an earlier run that this one needs has not been finished.
        ValueError: what it wrote does not fit this configuration.
    """
    stage = config.row
    earlier = earlier_runs(config)
    backbone = check_backbone(config.base, config.vit, config.template)
    processor = backbone.processor(config.num_image_tokens)
    options = LoadOptions(device="cpu", dtype=config.dtype, attn_implementation=config.attn_implementation)
    torch.manual_seed(config.seed)
    base, vit = load_backbone(backbone, options, torch.device("cpu"))
    dtype = choose_dtype(config.dtype, backbone.config, torch.device("cpu"))
    if config.liger and choose_device(config.device).type == "cuda" and is_liger_kernel_available():
        # Norms, rotary embedding and SwiGLU; the loss is this project's own.
        apply_liger_kernel(base, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    layers = {task: config.vision_layers[task] for task in stage.tasks}
    network = HealthGPTForConditionalGeneration.from_parts(base, vit, layers)
    for task in stage.tasks:
        _install_plugin(network, config, backbone, task, earlier.get(stage.plugins_from.get(task, "")), dtype)
    fusion = earlier.get(stage.fusion_from or "")
    if processor.image_vocabulary is not None:
        install_vocabulary(network, processor.image_vocabulary, stage, fusion / FUSION_NAME if fusion else None)
    network.route(stage.tasks[0])
    parts = trained_parameters(network, stage)
    network.requires_grad_(False)
    trained = {name for names in parts.values() for name in names}
    for name, parameter in network.named_parameters():
        if name in trained:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    if config.compile:
        for block in network.model.language_model.layers:
            block.compile(dynamic=True)
    return Assembly(network=network, processor=processor, backbone=backbone, parts=parts)


def earlier_runs(config: TrainConfig) -> dict[str, Path]:
    """The final folders of the runs that this one builds on.

    Raises:
        FileNotFoundError: one of them has not been finished.
    """
    needed = {*config.row.plugins_from.values(), *([config.row.fusion_from] if config.row.fusion_from else [])}
    folders = {name: config.output_root / name / FINAL_NAME for name in sorted(needed)}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"{config.stage} builds on {name}, which has not been finished: no folder {folder}")
    return folders


def trained_parameters(network: nn.Module, stage: Stage) -> dict[Part, tuple[str, ...]]:
    """The names of the parameters that a stage trains, by part."""

    def belongs(name: str, part: Part) -> bool:
        in_task = any(f".{task}." in name for task in stage.tasks)
        if part is Part.PROJECTOR:
            return "multi_modal_projector" in name and in_task
        if part is Part.ADAPTER:
            return ".lora_" in name and in_task
        is_vocabulary = "embed_tokens" in name or name.startswith("lm_head")
        return is_vocabulary and (part is Part.VOCABULARY or name.endswith(".new"))

    # A module that two names share (tasks share their vocabulary) is listed once.
    names = [name for name, _ in network.named_parameters()]
    return {part: tuple(name for name in names if belongs(name, part)) for part in sorted(stage.trains)}


def written_parameters(assembly: Assembly) -> list[nn.Parameter]:
    """What a finished run may write: plugins, projectors, embeddings and head; not the backbone."""
    marks = (".lora_", "multi_modal_projector", "embed_tokens", "lm_head")
    return [p for name, p in assembly.network.named_parameters() if any(mark in name for mark in marks)]


def plugin_of(network: HealthGPTForConditionalGeneration, task: Task, config: TrainConfig) -> checkpoints.Plugin:
    """One task's plugin as it stands in the network (under ZeRO-3 the parameters must be gathered)."""
    projector: nn.Module = network.model.multi_modal_projector[task]
    adapter = adapter_parameters(network.model.language_model, task)
    return checkpoints.Plugin(
        path=config.output_dir,
        adapter={name: parameter.detach().cpu() for name, parameter in adapter.items()},
        projector={name: parameter.detach().cpu() for name, parameter in projector.named_parameters()},
        rank=config.rank(task),
        num_experts=config.num_experts if config.adapter != "lora" else 1,
        alpha=config.alpha_per_rank * config.rank(task),
        kind=config.adapter,
    )


def _install_plugin(
    network: HealthGPTForConditionalGeneration,
    config: TrainConfig,
    backbone: Backbone,
    task: Task,
    earlier: Path | None,
    dtype: torch.dtype,
) -> None:
    """The plugin of an earlier run, or a fresh one (which changes nothing until it is trained)."""
    rank = config.rank(task)
    if earlier is not None:
        plugin = checkpoints.read_plugin(PluginSource(path=earlier / task, rank=rank))
        if plugin.kind != config.adapter:
            raise ValueError(f"{earlier / task}: a {plugin.kind} adapter, but adapter {config.adapter} was asked for")
        checkpoints.check_plugin(plugin, backbone.shapes)
        install_plugin(network, task, plugin, config.dropout, dtype)
        return
    body = network.model.language_model
    settings = HLoraConfig(
        r=rank,
        lora_alpha=config.alpha_per_rank * rank,
        lora_dropout=config.dropout,
        num_experts=config.num_experts if config.adapter != "lora" else 1,
        adapter=config.adapter,
        target_modules=linear_names(body),
    )
    network.router = attach_adapter(body, task, settings)
    for parameter in adapter_parameters(body, task).values():
        parameter.data = parameter.data.to(dtype)
    network.model.multi_modal_projector[task] = LlavaMultiModalProjector(network.config).to(dtype)


def install_vocabulary(
    network: HealthGPTForConditionalGeneration, vocabulary: ImageVocabulary, stage: Stage, fusion: Path | None
) -> None:
    """One pair of embeddings and head for all tasks of the run, new rows apart where only they are trained.

    Args:
        fusion: the weights of an earlier run; None takes the base's, with the image tokens at the mean.
    """
    embed_tokens, lm_head = network.get_input_embeddings(), network.get_output_embeddings()
    if fusion is None:
        weights = [extended_with_mean(layer.weight.data, vocabulary) for layer in (embed_tokens, lm_head)]
    else:
        tensors: dict[str, Tensor] = checkpoints.read_fusion(fusion)
        checkpoints.check_fusion(fusion, tensors, vocabulary.num_rows, embed_tokens.weight.shape[1])
        weights = [tensors[name].to(embed_tokens.weight.dtype) for name in ("embed_tokens.weight", "lm_head.weight")]
    pair: tuple[nn.Module, nn.Module]
    if Part.NEW_ROWS in stage.trains:
        pair = NewRowsEmbedding(weights[0], vocabulary.start_id), NewRowsHead(weights[1], vocabulary.start_id)
    else:
        pair = with_rows(embed_tokens, weights[0]), with_rows(lm_head, weights[1])
    for task in stage.tasks:
        network.set_vocabulary(task, *pair)
    network.config.text_config.vocab_size = vocabulary.num_rows
