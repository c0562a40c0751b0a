"""HF's Trainer for all stages: whole global batches of one task, part-wise learning rates, and checkpoints that are
whole or not there and hold only what the stage trains.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME

from healthgpt.data.examples import Examples
from healthgpt.data.sampler import TaskBatches
from healthgpt.hlora import gathered
from healthgpt.training.stages import Part
from healthgpt.training.step import StageModel

TRAINED_NAME = "trained.safetensors"
RUN_FACTS_NAME = "run_facts.json"
_PARTIAL = ".partial"


class NonFiniteLossError(ValueError):
    """The loss became NaN or infinite; the message says where, and what is left."""


class StageTrainer(Trainer):
    """A run's trainer.

    Args:
        parts: names of the trained parameters by part, relative to the network.
        part_learning_rates: learning rate of each part.
        orders: per data set, the sampler of its global batches.
        facts: what a checkpoint remembers of its run and a resumed run must share.
    """

    model: StageModel

    def __init__(
        self,
        *args: Any,
        parts: Mapping[Part, tuple[str, ...]],
        part_learning_rates: Mapping[Part, float],
        train_order: TaskBatches,
        eval_order: TaskBatches | None,
        facts: Mapping[str, Any],
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # the loss is divided by the tokens of the global batch
        self._parts = parts
        self._part_learning_rates = part_learning_rates
        self._orders = {id(self.train_dataset): train_order, id(self.eval_dataset): eval_order}
        self._facts = facts

    def _get_train_sampler(self, train_dataset: Examples | None = None) -> Sampler:
        return self._orders[id(train_dataset or self.train_dataset)]  # type: ignore[return-value]

    def _get_eval_sampler(self, eval_dataset: Examples) -> Sampler:
        return self._orders[id(eval_dataset)]  # type: ignore[return-value]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with one group of parameters per part."""
        if self.optimizer is None:  # type: ignore[has-type]
            named = dict(self.model.network.named_parameters())
            groups = [
                {"params": [named[name] for name in names], "lr": self._part_learning_rates[part], "part": str(part)}
                for part, names in self._parts.items()
            ]
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(groups, **{**settings, "weight_decay": self.args.weight_decay})
        return self.optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """A step that refuses to go on from a loss which is no number."""
        records = inputs.pop("record_ids")
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            kept = last_checkpoint(Path(self.args.output_dir))
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1} (records {', '.join(records[:8])}); "
                f"the last good checkpoint is {kept or 'none'}"
            )
        return loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The loss of a held-out batch."""
        inputs = self._prepare_inputs({key: value for key, value in inputs.items() if key != "record_ids"})
        with torch.no_grad(), self.compute_loss_context_manager():
            return model(**inputs)["loss"].detach(), None, None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the trained parameters, and nothing else, into a folder."""
        folder = Path(output_dir or self.args.output_dir)
        with gathered(self.trained().values()):
            if self.args.should_save:
                folder.mkdir(parents=True, exist_ok=True)
                tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in self.trained().items()}
                save_file(tensors, folder / TRAINED_NAME)
                (folder / RUN_FACTS_NAME).write_text(json.dumps(self._facts) + "\n")

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        named = dict(self.model.network.named_parameters())
        return {name: named[name] for names in self._parts.values() for name in names}

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """A checkpoint is written beside its place, synced, and renamed when it is whole."""
        root = Path(self.args.output_dir)
        partial = root / _PARTIAL
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.args.output_dir = str(partial)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir = str(root)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            _sync(partial / name)
            (partial / name).rename(root / name)
            shutil.rmtree(partial)
            _keep_newest(root, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_deepspeed_enabled:
            return  # its own engine loads the parameters with their optimizer states
        tensors = load_file(Path(resume_from_checkpoint) / TRAINED_NAME)
        trained = self.trained()
        if tensors.keys() != trained.keys():
            raise ValueError(f"{resume_from_checkpoint}: holds other parameters than this stage trains")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(tensors[name])

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if not self.is_deepspeed_enabled or resume_from_checkpoint is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        # The library would ask the engine for every parameter, frozen ones included, which are not in the checkpoint.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        found, _ = self.model_wrapped.load_checkpoint(resume_from_checkpoint, load_module_strict=False)
        if found is None:
            raise ValueError(f"{resume_from_checkpoint}: DeepSpeed finds no checkpoint in it")
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        self._load_scaler(resume_from_checkpoint)
        return prepared


def checkpoints_of(root: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    found = [path for path in root.glob("checkpoint-*") if (path / TRAINED_NAME).is_file()]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def last_checkpoint(root: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    found = checkpoints_of(root)
    return found[-1] if found else None


def check_resumable(checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """Refuses to resume what would not be the same run.

    Raises:
        ValueError: the checkpoint is of another configuration or number of processes.
    """
    found = json.loads((checkpoint / RUN_FACTS_NAME).read_text())
    for key in sorted(found.keys() | facts.keys()):
        if found.get(key) != facts.get(key):
            reason = ", as random states and sharded optimizer states belong to it" if key == "world_size" else ""
            raise ValueError(
                f"{checkpoint}: {key} was {found.get(key)!r}, now it is {facts.get(key)!r}; a resumed run must share it"
                f"{reason} (--resume false starts afresh)"
            )


def _sync(folder: Path) -> None:
    """Forces a folder's files to disk."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _keep_newest(root: Path, limit: int | None) -> None:
    for path in checkpoints_of(root)[:-limit] if limit else []:
        doomed = path.rename(root / f".old-{path.name}")  # gone at once, even if removing it is interrupted
        shutil.rmtree(doomed)
