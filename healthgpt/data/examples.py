"""Records -> tensors: one example at a time, lazily, and batches of them.

Legend: B batch, L tokens, N images, S side of the ViT's input.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from healthgpt.data.mixture import Mixture
from healthgpt.data.records import Record
from healthgpt.data.vq_indices import VQIndices
from healthgpt.processor import IGNORED_LABEL, HealthGPTProcessor
from healthgpt.targets import mask_as_cells
from healthgpt.tasks import Task

logger = logging.getLogger(__name__)

_CHARACTERS_PER_TOKEN = 4  # for estimates only
_TRIES = 100  # records passed over in a row before a data set is given up


class BadRecordError(ValueError):
    """A record that cannot be trained on; the message names it and says why."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One record as the model takes it.

    Attributes:
        ids, labels: expanded (one placeholder per patch); labels are -100 outside the answers.
        weights: how much each label counts.
        pixels: (N, 3, S, S) or None.
    """

    id: str
    task: Task
    ids: list[int]
    labels: list[int]
    weights: list[float]
    pixels: Tensor | None


class ExampleMaker:
    """Encodes records: prompts as in inference, codes from the cache.

    Args:
        num_codes: how many codes a drawing has; None refuses drawings.
        focus_weight: how often a code counts whose cell the record's focus touches.
    """

    def __init__(
        self,
        processor: HealthGPTProcessor,
        codes: VQIndices | None,
        num_codes: int | None,
        max_length: int,
        focus_weight: float = 1.0,
    ):
        self.processor = processor
        self.codes = codes
        self.num_codes = num_codes
        self.max_length = max_length
        self.focus_weight = focus_weight

    def make(self, record: Record) -> Example:
        """
        Raises:
            BadRecordError: an image, its codes or its focus cannot be had, codes are out of range or too few, or it is
                too long.
        """
        try:
            codes = self._target(record)
            ids, labels = self.processor.encode_example(record.turns, codes)
            expanded = self.processor.expand(ids)
            if len(expanded) > self.max_length:
                raise ValueError(f"{len(expanded)} tokens, more than max_length {self.max_length}")
            pixels = [self.processor.pixels(image) for image in record.images]
            patches = self.processor.num_patches
            repeats = (patches if token < 0 else 1 for token in ids)
            expanded_labels = [label for label, times in zip(labels, repeats, strict=True) for _ in range(times)]
            weights = self._weights(record, expanded_labels)
        except (ValueError, FileNotFoundError) as error:
            raise BadRecordError(f"record {record.id}: {error}") from None
        return Example(
            id=record.id,
            task=record.task,
            ids=expanded,
            labels=expanded_labels,
            weights=weights,
            pixels=torch.stack(pixels) if pixels else None,
        )

    def _target(self, record: Record) -> Sequence[int] | None:
        """The codes to be drawn; None for comprehension."""
        if record.task is Task.COMPREHENSION:
            return None
        vocabulary = self.processor.image_vocabulary
        if vocabulary is None:
            raise ValueError("generation, but the vocabulary has no image tokens")
        if record.codes is not None:
            codes: Sequence[int] = record.codes
        elif self.codes is None:
            raise ValueError(f"the codes of {record.target} are needed (vq_indices names no cache)")
        else:
            codes = self.codes[record.target]  # type: ignore[index]  # a record has one or the other
        if self.num_codes is None:
            raise ValueError("how many codes a drawing has is not known (neither vq_indices nor vqgan says it)")
        if len(codes) != self.num_codes:
            raise ValueError(f"{len(codes)} codes, expected {self.num_codes}")
        if max(codes) >= vocabulary.num_codes:
            raise ValueError(f"code {max(codes)} is out of range, the vocabulary has {vocabulary.num_codes}")
        return codes

    def _weights(self, record: Record, labels: Sequence[int]) -> list[float]:
        """How much each label counts: `focus_weight` for the codes whose cells the record's focus touches, else 1."""
        vocabulary = self.processor.image_vocabulary
        if record.focus is None or self.focus_weight == 1 or vocabulary is None:
            return [1.0] * len(labels)
        codes = range(vocabulary.first_code_id, vocabulary.first_code_id + vocabulary.num_codes)
        in_focus = iter(mask_as_cells(record.focus, math.isqrt(sum(label in codes for label in labels))).flatten())
        return [self.focus_weight if label in codes and next(in_focus) else 1.0 for label in labels]

    def estimated_length(self, record: Record) -> int:
        """About how many tokens a record has, without encoding it."""
        codes = (self.num_codes or 0) if record.task is Task.GENERATION else 0
        text = record.num_characters // _CHARACTERS_PER_TOKEN
        return text + len(record.images) * self.processor.num_patches + codes


class Examples(Dataset[Example]):
    """The samples of a mixture as examples; images are decoded when a sample is asked for, in worker processes.

    Attributes:
        skipped: a file to which every record that was passed over is appended; None refuses bad records.
    """

    def __init__(self, mixture: Mixture, maker: ExampleMaker, skipped: Path | None = None):
        self.mixture = mixture
        self.maker = maker
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, i: int) -> Example:
        """
        Raises:
            BadRecordError: the record is bad and none may be skipped, or too many in a row are.
        """
        task = None
        for offset in range(_TRIES):
            place = (i + offset) % len(self)
            try:
                record = self.mixture.record(place)
                if task is not None and record.task is not task:
                    continue  # a stand-in has to be of the same task
                task = record.task
                return self.maker.make(record)
            except ValueError as error:
                if self.skipped is None:
                    raise BadRecordError(f"{self.mixture.where(place)}: {error}") from None
                self.note_skipped(place, str(error))
        raise BadRecordError(f"{self.mixture.where(i)}: {_TRIES} bad records in a row")

    def note_skipped(self, place: int, reason: str) -> None:
        """Appends a record that is passed over to the file of these."""
        line = json.dumps({"record": self.mixture.where(place), "reason": reason}) + "\n"
        handle = os.open(str(self.skipped), os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(handle, line.encode())  # one write, so that lines of several workers do not mix
        finally:
            os.close(handle)


def collate(examples: Sequence[Example]) -> Mapping[str, Any]:
    """Pads examples of one task on the right.

    Returns:
        input_ids, attention_mask, labels, label_weights (B, L); pixel_values (N, 3, S, S) or None; task; record_ids.
    """
    tasks = {example.task for example in examples}
    assert len(tasks) == 1, f"a batch of several tasks: {tasks}"
    length = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    labels = torch.full((len(examples), length), IGNORED_LABEL)
    weights = torch.ones(len(examples), length)
    mask = torch.zeros(len(examples), length, dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, : len(example.ids)] = torch.tensor(example.labels)
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
        mask[row, : len(example.ids)] = 1
    pixels = [example.pixels for example in examples if example.pixels is not None]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "label_weights": weights,
        "pixel_values": torch.cat(pixels) if pixels else None,
        "task": str(examples[0].task),
        "record_ids": [example.id for example in examples],
    }
