"""One run from its configuration to its final folder: `healthgpt train`."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainingArguments

from healthgpt.data.examples import ExampleMaker, Examples, collate
from healthgpt.data.mixture import Mixture
from healthgpt.data.sampler import TaskBatches
from healthgpt.data.vq_indices import VQIndices
from healthgpt.hlora import gathered
from healthgpt.loading import choose_device
from healthgpt.processor import HealthGPTProcessor
from healthgpt.training.assembly import FINAL_NAME, Assembly, assemble, written_parameters
from healthgpt.training.config import TrainConfig
from healthgpt.training.feedback import Feedback, draw_curve, final_losses, read_metrics, write_run
from healthgpt.training.publish import publish, write_final
from healthgpt.training.stages import Part
from healthgpt.training.step import StageModel
from healthgpt.training.trainer import StageTrainer, check_resumable, last_checkpoint
from taming_transformers.vqgan import CONFIG_NAME, read_vqgan_config

logger = logging.getLogger(__name__)

SKIPPED_NAME = "skipped.jsonl"


def train(config: TrainConfig) -> Path:
    """Runs a stage, resuming what was interrupted; returns its final folder.

    Raises:
        FileNotFoundError, ValueError: bad data or configuration, an earlier run that is missing, a loss that is no
            number. Nothing already trained is lost.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    accumulation = config.accumulation(world_size)
    choose_device(config.device)  # fails early where it is not there
    final = config.output_dir / FINAL_NAME
    if final.is_dir() and config.resume:
        logger.info("%s is finished already: %s (--resume false trains it again)", config.stage, final)
        return final
    mixture, held_out = Mixture(config.data), Mixture(config.eval_data) if config.eval_data else None
    assembly = assemble(config)
    facts = _facts(config, mixture, world_size)
    maker = example_maker(config, assembly.processor)
    skipped = config.output_dir / SKIPPED_NAME if config.skip_bad_records else None
    examples, eval_examples = Examples(mixture, maker, skipped), None
    order, unreadable = _order(examples, config.global_batch_size, config)
    eval_order = None
    if held_out is not None:
        eval_examples = Examples(held_out, maker, skipped)
        eval_order, _ = _order(eval_examples, config.per_device_batch_size * world_size, config)
    # Only now, with all that was given found to be good, may an older run's folder be cleared.
    checkpoint = _prepare_folder(config, facts)
    for place, reason in unreadable.items():
        examples.note_skipped(place, reason)
    steps = config.max_steps if config.max_steps > 0 else math.ceil(order.num_batches * config.num_epochs)
    model = StageModel(assembly.network)
    if config.gradient_checkpointing:
        body = assembly.network.model.language_model
        # The library is renaming this call; older versions know the second name only.
        enable = getattr(body, "activation_checkpointing_enable", None) or body.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    trainer = StageTrainer(
        model=model,
        args=_arguments(
            config, accumulation, steps, world_size, held_out is not None, assembly.network.model.vision_tower.dtype
        ),
        data_collator=collate,
        train_dataset=examples,
        eval_dataset=eval_examples,
        parts=assembly.parts,
        part_learning_rates=learning_rates(config),
        train_order=order,
        eval_order=eval_order,
        facts=facts,
        callbacks=[Feedback(config.output_dir, model, world_size)],
    )
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        with gathered(written_parameters(assembly)):
            if trainer.is_world_process_zero():
                _finish(assembly, config, mixture, facts, trainer.state.global_step)
        trainer.accelerator.wait_for_everyone()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()  # else workers abort at exit now and then
    return final


def example_maker(config: TrainConfig, processor: HealthGPTProcessor) -> ExampleMaker:
    """Encodes records as a run's configuration says."""
    codes = VQIndices(config.vq_indices) if config.vq_indices else None
    num_codes = codes.num_codes if codes else codes_per_drawing(config)
    return ExampleMaker(processor, codes, num_codes, config.max_length, config.focus_weight)


def codes_per_drawing(config: TrainConfig) -> int | None:
    """The codes of one image, by the VQGAN's `model.yaml`; None where that is not at hand."""
    folder = Path(config.vqgan) if config.vqgan else None
    return read_vqgan_config(folder).num_codes if folder and (folder / CONFIG_NAME).is_file() else None


def learning_rates(config: TrainConfig) -> Mapping[Part, float]:
    """The paper's two rates: one of projectors, one of everything else (Table 7)."""
    return {part: config.projector_learning_rate if part is Part.PROJECTOR else config.learning_rate for part in Part}


def _order(examples: Examples, global_batch: int, config: TrainConfig) -> tuple[TaskBatches, dict[int, str]]:
    """Reads every record once, for its task and length.

    Returns:
        the order, and the records that cannot even be parsed, with the reason (none unless bad ones are skipped).
    """
    rows, tasks, lengths = [], [], []
    unreadable: dict[int, str] = {}
    for i in range(len(examples)):
        try:
            record = examples.mixture.record(i)
        except ValueError as error:
            if not config.skip_bad_records:
                raise
            unreadable[i] = str(error)
            continue
        if record.task not in config.row.tasks:
            raise ValueError(
                f"{examples.mixture.where(i)} (id {record.id}): a {record.task} record, but {config.stage} trains "
                f"{' and '.join(config.row.tasks)}"
            )
        rows.append(i)
        tasks.append(record.task)
        lengths.append(examples.maker.estimated_length(record))
    if not rows:
        raise ValueError(f"{examples.mixture.path}: no record of it can be read")
    return TaskBatches(rows, tasks, lengths, global_batch, config.seed), unreadable


def _arguments(
    config: TrainConfig, accumulation: int, steps: int, world_size: int, evaluates: bool, dtype: torch.dtype
) -> TrainingArguments:
    on_cpu = choose_device(config.device).type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(config.output_dir),
        disable_tqdm=not sys.stderr.isatty(),  # in a file a progress bar is thousands of lines
        per_device_train_batch_size=config.per_device_batch_size,
        per_device_eval_batch_size=config.per_device_batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=round(config.warmup_ratio * steps),
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        bf16=dtype is torch.bfloat16,  # trained parameters are float32, the frozen ones are not
        fp16=dtype is torch.float16,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and world_size > 1 else None,
        ddp_find_unused_parameters=len(config.row.tasks) > 1 and config.row.writes_plugins,
        deepspeed=str(config.deepspeed) if config.deepspeed else None,
        dataloader_num_workers=config.num_workers,
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,
        label_names=["labels"],
        prediction_loss_only=True,
        average_tokens_across_devices=True,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        save_steps=config.save_steps,
        save_total_limit=config.save_total_limit,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=config.eval_steps if evaluates else None,
        report_to=config.report_to,
        seed=config.seed,
        data_seed=config.seed,
        accelerator_config={"dispatch_batches": False, "even_batches": False, "use_seedable_sampler": False},
    )
    if world_size == 1 and arguments.n_gpu > 1:
        logger.info("one process uses one GPU; scripts/train_all.sh and the launchers use all %d", arguments.n_gpu)
        arguments._n_gpu = 1  # else the library would spread every batch over them by itself
    return arguments


def _prepare_folder(config: TrainConfig, facts: Mapping[str, Any]) -> Path | None:
    """Makes the run's folder; returns the checkpoint to go on from, if there is one."""
    checkpoint = last_checkpoint(config.output_dir)
    if config.resume and checkpoint is not None:
        check_resumable(checkpoint, facts)
        logger.info("going on from %s", checkpoint)
        return checkpoint
    if int(os.environ.get("RANK", "0")) == 0:
        shutil.rmtree(config.output_dir, ignore_errors=True)
        config.output_dir.mkdir(parents=True)
    return None


def _facts(config: TrainConfig, mixture: Mixture, world_size: int) -> dict[str, Any]:
    """What a resumed run must share with the one that was interrupted."""
    return {**config.decides(), "world_size": world_size, "data_sha256": data_hash(mixture)}


def data_hash(mixture: Mixture) -> str:
    """A hash of a mixture's files of records."""
    digest = hashlib.sha256()
    for path in (mixture.path, *(source.path for source in mixture.sources)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _finish(assembly: Assembly, config: TrainConfig, mixture: Mixture, facts: Mapping[str, Any], steps: int) -> None:
    folder = config.output_dir
    metrics = read_metrics(folder)
    skipped = folder / SKIPPED_NAME
    lines = skipped.read_text(encoding="utf-8").splitlines() if skipped.exists() else []
    num_skipped = len({json.loads(line)["record"] for line in lines})  # each epoch and rank meets it again
    if num_skipped:
        logger.info("%d bad records were passed over: %s", num_skipped, skipped)
    draw_curve(folder, config.stage)
    parameters = {
        str(part): sum(dict(assembly.network.named_parameters())[name].numel() for name in names)
        for part, names in assembly.parts.items()
    }
    write_run(
        folder,
        config=config.to_dict(),
        facts=facts,
        samples=len(mixture),
        steps=steps,
        skipped_records=num_skipped,
        trained_parameters=parameters,
        losses=final_losses(metrics),
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    )
    write_final(assembly, config)
    if published := publish(config, assembly.backbone.template.name):
        logger.info("model folder: %s", published)
