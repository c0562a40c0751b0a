"""What the trainers share: one run of HF's Trainer that can be interrupted, and a final folder, whole or not there."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler

logger = logging.getLogger(__name__)

_WEIGHTS_NAME = "model.safetensors"
_FACTS_NAME = "facts.json"
_UNSHOWN = ("epoch", "grad_norm")


@dataclass(frozen=True, kw_only=True)
class PartSettings:
    """How a part is trained.

    Attributes:
        warmup_steps: of linear warm-up, at most a tenth of all steps; a cosine to 5 % of the rate follows.
        score_every, save_every: steps between two looks at held-out data and between two checkpoints.
        compile: compile transformer blocks (torch.compile), which on a CPU needs a C++ compiler.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup_steps: int = 100
    score_every: int = 250
    save_every: int = 250
    seed: int = 0
    compile: bool = False


class Places(Dataset[int]):
    """The numbers 0...n-1: data lie in memory as tensors, and a collator takes a batch of places at once."""

    def __init__(self, length: int):
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> int:
        return i


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part on its way from data to folder.

    Attributes:
        name: of its folder under `output`.
        model: its forward takes what `collate` gives and returns a mapping with the loss.
        num_examples: of training; `collate` gets lists of their places.
        score: figures on held-out data; it finds the model in evaluation mode.
        write: writes the final folder's files.
        optimizer: where it is not AdamW.
        lengths: tokens of every example, where batches are to be of examples of about one length.
    """

    name: str
    output: Path
    data: Path
    settings: PartSettings
    model: nn.Module
    num_examples: int
    collate: Callable[[list[int]], Mapping[str, Tensor]]
    score: Callable[[], dict[str, float]]
    write: Callable[[Path], object]
    optimizer: Optimizer | None = None
    lengths: list[int] | None = None


class PartTrainer(Trainer):
    """Checkpoints plain tensors, scores with the part's own figures, and prints its progress."""

    def __init__(self, part: Part, folder: Path):
        super().__init__(
            model=part.model,
            args=_arguments(part.settings, folder),
            data_collator=part.collate,
            train_dataset=Places(part.num_examples),
            eval_dataset=Places(1),  # the library wants one; `evaluate` below does not look at it
            optimizers=(part.optimizer, None),
        )
        self.remove_callback(PrinterCallback)
        self._part = part
        self._clock, self._clock_step = time.monotonic(), 0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains; the clock starts here and not while data were read."""
        self._clock = time.monotonic()
        return super().train(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset[int] | None = None) -> Sampler[int] | None:
        lengths = self._part.lengths
        if lengths is None:
            return super()._get_train_sampler(train_dataset)
        generator = torch.Generator().manual_seed(self.args.data_seed)
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths, generator=generator)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The part's figures on its held-out data."""
        self.model.eval()
        with torch.inference_mode():
            figures = {f"eval_{name}": round(value, 5) for name, value in self._part.score().items()}
        self.model.train()
        self.log(figures)
        return figures

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Remembers the seconds since the line before, and prints one."""
        now, step = time.monotonic(), self.state.global_step
        seconds, self._clock = now - self._clock, now
        super().log({**logs, "seconds": round(seconds, 3)}, start_time)
        shown = [f"{key.removeprefix('eval_')} {value:.4g}" for key, value in logs.items() if key not in _UNSHOWN]
        if "loss" in logs and step > self._clock_step:
            shown.append(f"{seconds / (step - self._clock_step):.3f} s/step")
        if "train_runtime" not in logs:
            print(f"{self._part.name} {step}/{self.state.max_steps}: {', '.join(shown)}", flush=True)
        self._clock_step = step

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes all parameters and buffers."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in self.model.state_dict().items()}, folder / _WEIGHTS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / _WEIGHTS_NAME))
        self._clock_step = json.loads((Path(resume_from_checkpoint) / TRAINER_STATE_NAME).read_text())["global_step"]


def finished(output: Path, name: str) -> Path | None:
    """The final folder of a part, where it is there already."""
    folder = output / name
    if not folder.is_dir():
        return None
    logger.info("%s is finished already: %s", name, folder)
    return folder


def train_part(part: Part) -> Path:
    """Trains a part, going on from its last whole checkpoint, and writes its folder and its log; returns the folder.

    Raises:
        ValueError: fewer examples than a batch, or checkpoints of a run with other settings or data.
    """
    if part.num_examples < part.settings.batch_size:
        raise ValueError(f"{part.data}: {part.num_examples} examples for training, fewer than a batch")
    work = part.output / f".{part.name}-training"
    _check_same_run(part, work)
    trainer = PartTrainer(part, work)
    checkpoint = last_checkpoint(work)
    if checkpoint:
        logger.info("going on from %s", checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    partial = work / "final"
    shutil.rmtree(partial, ignore_errors=True)
    part.model.cpu().eval()
    part.write(partial)
    _write_log(part, trainer.state.log_history)
    partial.rename(part.output / part.name)
    shutil.rmtree(work)
    return part.output / part.name


def round_to_half(model: nn.Module) -> None:
    """Rounds every weight to the nearest float16 (kept as float32), so that shipping them in it changes nothing."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint: the library writes the trainer's state last, so it is there and readable."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]), reverse=True):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            continue
        return path
    return None


def _check_same_run(part: Part, work: Path) -> None:
    with part.data.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = json.loads(json.dumps({**asdict(part.settings), "data_sha256": digest}))
    path = work / _FACTS_NAME
    if path.exists():
        found = json.loads(path.read_text())
        for key in sorted(facts.keys() | found.keys()):
            if facts.get(key) != found.get(key):
                raise ValueError(
                    f"{work}: begun with {key} {found.get(key)}, not {facts.get(key)}; remove it to restart"
                )
        return
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts) + "\n")


def _write_log(part: Part, history: list[dict[str, float]]) -> None:
    scores = [line for line in history if any(key.startswith("eval_") for key in line)]
    log = {
        "settings": asdict(part.settings),
        "parameters": sum(parameter.numel() for parameter in part.model.parameters()),
        "seconds": round(sum(line.get("seconds", 0.0) for line in history), 1),
        "losses": [[line["step"], line["loss"]] for line in history if "loss" in line],
        "held_out": [{key.removeprefix("eval_"): value for key, value in line.items()} for line in scores],
    }
    (part.output / f"{part.name}_training_log.json").write_text(json.dumps(log, indent=1) + "\n")


def _arguments(settings: PartSettings, folder: Path) -> TrainingArguments:
    on_cpu = not torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=min(settings.warmup_steps, settings.steps // 10),
        weight_decay=settings.weight_decay,
        adam_beta1=0.9,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=on_cpu,
        dataloader_num_workers=0,
        dataloader_pin_memory=not on_cpu,
        dataloader_drop_last=True,
        remove_unused_columns=False,
        logging_steps=50,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=settings.save_every,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=settings.score_every,
        disable_tqdm=True,
        report_to="none",
        seed=settings.seed,
        data_seed=settings.seed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else the library would spread a batch over all GPUs by itself
    return arguments
