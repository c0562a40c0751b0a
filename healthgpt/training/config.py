"""A run's configuration: one flat YAML file, any field of which the command line may override.

Unknown fields are refused with the nearest name. Numbers in `configs/train/` carry their source in a comment.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from healthgpt.config import VISION_LAYERS
from healthgpt.files import refuse_unknown_keys, require_file
from healthgpt.hlora import ADAPTERS
from healthgpt.tasks import Task
from healthgpt.training.stages import STAGES, Stage


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run's result, and how it is watched and saved.

    Attributes:
        stage: a row of `stages.STAGES`.
        output_root: folder of all runs of a model; this one writes `output_root/STAGE`, and reads earlier ones there.
        model: a name of `config.RELEASED` whose architecture a dry run takes where the base is not at hand.
        base, vit: folder or hub id; template: by the tokenizer where it is not given.
        data: a mixture (YAML) or a records file; eval_data: the same, held out.
        vq_indices: cache of the target images' codes (`healthgpt prepare vq-indices`).
        vqgan: folder that the finished model refers to for drawing.
        num_image_tokens: N; 0 trains no generation.
        adapter: hlora, or a baseline: lora, moelora.
        comprehension_rank, generation_rank: merged ranks; alpha_per_rank: alpha / rank.
        use_fusion: false for a model that never had fusion weights (comprehension alone).
        learning_rate: of H-LoRA, embeddings and head; projector_learning_rate: of the projector.
        global_batch_size: samples per optimizer step, over all processes.
        max_steps: instead of num_epochs.
        max_length: tokens per sample, placeholders included.
        focus_weight: how much a code counts, in the loss, that the record's `target_focus` touches; any other counts 1.
        skip_bad_records: pass over them and count them, instead of stopping.
        liger: Liger's kernels for norms, rotary embedding and SwiGLU, where CUDA and the package are there.
        compile: compile the LLM's blocks (torch.compile), which fuses what H-LoRA and norms do element by element; on a
            CPU it needs a C++ compiler, and it takes about a minute.
        deepspeed: JSON file of DeepSpeed.
    """

    stage: str
    output_root: Path
    base: str
    vit: str
    data: Path
    model: str | None = None
    template: str | None = None
    eval_data: Path | None = None
    vq_indices: Path | None = None
    vqgan: str | None = None
    num_image_tokens: int = 8192
    adapter: str = "hlora"
    comprehension_rank: int = 64
    generation_rank: int = 256
    num_experts: int = 4
    alpha_per_rank: float = 2.0
    dropout: float = 0.0
    use_fusion: bool = True
    vision_layers: Mapping[str, int] = field(default_factory=lambda: {str(k): v for k, v in VISION_LAYERS.items()})
    learning_rate: float = 2e-4
    projector_learning_rate: float = 2e-5
    global_batch_size: int = 128
    per_device_batch_size: int = 8
    num_epochs: float = 1.0
    max_steps: int = -1
    lr_scheduler: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    max_length: int = 2048
    focus_weight: float = 1.0
    dtype: str = "auto"
    device: str = "auto"
    attn_implementation: str | None = None
    gradient_checkpointing: bool = False
    liger: bool = True
    compile: bool = False
    deepspeed: Path | None = None
    seed: int = 42
    num_workers: int = 4
    skip_bad_records: bool = False
    save_steps: int = 500
    save_total_limit: int = 2
    eval_steps: int = 500
    logging_steps: int = 10
    report_to: str = "tensorboard"
    resume: bool = True

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage {self.stage!r} is none of {', '.join(STAGES)}")
        if self.adapter not in ADAPTERS:
            raise ValueError(f"adapter {self.adapter!r} is none of {', '.join(ADAPTERS)}")
        for name in ("global_batch_size", "per_device_batch_size", "max_length", "num_experts", "logging_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.focus_weight <= 0:
            raise ValueError(f"focus_weight is {self.focus_weight}, expected more than 0")
        if self.device not in ("auto", "cpu", "cuda", "mps"):
            raise ValueError(
                f"device is {self.device!r}, expected auto, cpu, cuda or mps (CUDA_VISIBLE_DEVICES chooses among GPUs)"
            )
        if set(self.vision_layers) != set(Task):
            raise ValueError(f"vision_layers names {sorted(self.vision_layers)}, expected {' and '.join(Task)}")
        if Task.GENERATION in self.row.tasks and self.num_image_tokens < 1:
            raise ValueError(f"{self.stage} draws, num_image_tokens is {self.num_image_tokens}")

    @property
    def row(self) -> Stage:
        """The stage's row; without fusion weights it runs on the base's embeddings."""
        row = STAGES[self.stage]
        return row if self.use_fusion else dataclasses.replace(row, fusion_from=None)

    @property
    def output_dir(self) -> Path:
        return self.output_root / self.stage

    def rank(self, task: Task) -> int:
        """Merged rank of a task's plugin."""
        return self.comprehension_rank if task is Task.COMPREHENSION else self.generation_rank

    def accumulation(self, world_size: int) -> int:
        """Micro-batches per step and process.

        Raises:
            ValueError: the global batch is no multiple of what all processes take at once.
        """
        at_once = self.per_device_batch_size * world_size
        if self.global_batch_size % at_once:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not divisible by per_device_batch_size "
                f"{self.per_device_batch_size} x {world_size} processes = {at_once}"
            )
        return self.global_batch_size // at_once

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}

    def decides(self) -> dict[str, Any]:
        """The fields that decide the result, which a resumed run must share."""
        watching = {"save_steps", "save_total_limit", "eval_steps", "logging_steps", "report_to", "resume"}
        placing = {"num_workers", "device", "output_root", "gradient_checkpointing", "model"}
        return {key: value for key, value in self.to_dict().items() if key not in watching | placing}


def read_train_config(path: Path, overrides: Mapping[str, str]) -> TrainConfig:
    """Reads a run's YAML file and applies overrides given as text.

    Raises:
        FileNotFoundError, ValueError: no such file; an unknown or missing field; a value of the wrong type.
    """
    require_file(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected fields of a training run")
    known = {f.name: f for f in dataclasses.fields(TrainConfig)}
    refuse_unknown_keys(values, known, path)
    refuse_unknown_keys(overrides, known, "command line")
    values |= {key: yaml.safe_load(value) for key, value in overrides.items()}
    for name, entry in known.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ValueError(f"{path}: field {name!r} is missing")
    kinds = typing.get_type_hints(TrainConfig)
    return TrainConfig(**{key: _typed(value, kinds[key], f"{path}: {key}") for key, value in values.items()})


def _typed(value: Any, kind: Any, where: str) -> Any:
    """A YAML value as its field's type; 2e-5, which YAML takes for text, is a number."""
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(option for option in kind.__args__ if option is not type(None))
    origin = typing.get_origin(kind) or kind
    try:
        if origin is bool and isinstance(value, bool):
            return value
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if origin is float and not isinstance(value, bool):
            return float(value)
        if origin is str and isinstance(value, str):
            return value
        if origin is Path and isinstance(value, str):
            return Path(value)
        if origin is Mapping and isinstance(value, dict):
            return {str(key): int(entry) for key, entry in value.items()}
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{where} is {value!r}, expected {getattr(origin, '__name__', origin).lower()}")


def parse_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """`--field value` and `--field=value` (and `--flag` alone for true) -> {field: value}.

    Raises:
        ValueError: something that is no flag.
    """
    overrides: dict[str, str] = {}
    waiting: str | None = None
    for argument in arguments:
        if argument.startswith("--"):
            if waiting:
                overrides[waiting] = "true"
            name, equals, value = argument[2:].partition("=")
            waiting = None if equals else name.replace("-", "_")
            if equals:
                overrides[name.replace("-", "_")] = value
        elif waiting:
            overrides[waiting], waiting = argument, None
        else:
            raise ValueError(f"{argument!r} is no flag; give --field value")
    if waiting:
        overrides[waiting] = "true"
    return overrides
