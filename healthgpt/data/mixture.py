"""A mixture: which sources, how much of each, in which order. The same file and seed give the same samples.

    seed: 0
    sources:
      - path: slake/train.jsonl           # or a JSON list as LLaVA's
        image_folder: slake/imgs          # default: the records file's folder
        weight: 2                         # or count: 20000; default: every record once
        task: comprehension               # of records that do not say theirs
      - path: llava_558k.json
        reconstruct: true                 # each image is to be drawn from itself

Paths are relative to the mixture's file. `weight: 2` takes every record twice, `count` that many; a part of a source
is a seeded draw without replacement.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from healthgpt.data.records import Record, RecordFile, parse_record
from healthgpt.files import refuse_unknown_keys, require_file
from healthgpt.tasks import Task
from healthgpt.templates import IMAGE, Turn

# What a source with `reconstruct` asks for (README and Fig. 1 of the paper have the first).
RECONSTRUCTIONS = (
    "Reconstruct the image.",
    "Reconstruct the following image.",
    "Please reproduce this image.",
    "Draw this image again as it is.",
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One entry of a mixture."""

    path: Path
    image_folder: Path
    weight: float = 1.0
    count: int | None = None
    task: Task | None = None
    reconstruct: bool = False


class Mixture:
    """The samples of a mixture, in the file's order (shuffling is the sampler's business).

    Attributes:
        path: the mixture's file, or a records file that stands for itself.
    """

    def __init__(self, path: Path):
        self.path = require_file(path)
        self.sources, self.seed = _read(path)
        self._files = [RecordFile(source.path) for source in self.sources]
        chosen = [self._choose(i) for i in range(len(self.sources))]
        self._source = np.concatenate([np.full(len(rows), i) for i, rows in enumerate(chosen)]).astype(np.int32)
        self._row = np.concatenate(chosen).astype(np.int64)
        if not len(self):
            raise ValueError(f"{path}: the mixture takes no records")

    def __len__(self) -> int:
        return len(self._row)

    def _choose(self, i: int) -> np.ndarray:
        """Rows of the i-th source: whole copies, and a seeded draw for the rest."""
        source, size = self.sources[i], len(self._files[i])
        wanted = source.count if source.count is not None else round(source.weight * size)
        whole, rest = divmod(wanted, size)
        drawn = np.random.default_rng((self.seed, i)).permutation(size)[:rest]
        return np.concatenate([np.tile(np.arange(size), whole), np.sort(drawn)])

    def where(self, i: int) -> str:
        """File and position of the i-th sample."""
        return self._files[self._source[i]].where(int(self._row[i]))

    def record(self, i: int) -> Record:
        """The i-th sample.

        Raises:
            ValueError: the record is bad; the message names file and position.
        """
        source = self.sources[self._source[i]]
        value = self._files[self._source[i]].value(int(self._row[i]))
        if source.reconstruct:
            value = _as_reconstruction(value)
            record = parse_record(value, where=self.where(i), image_folder=source.image_folder, task=Task.GENERATION)
            instruction = RECONSTRUCTIONS[int(self._row[i]) % len(RECONSTRUCTIONS)]
            turns = (Turn("user", (IMAGE, "\n" + instruction)), Turn("assistant", ("",)))
            return Record(id=record.id, task=record.task, turns=turns, images=record.images, target=record.target)
        return parse_record(value, where=self.where(i), image_folder=source.image_folder, task=source.task)


def _as_reconstruction(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("image"), str):
        ask = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": ""}]
        return {"id": value.get("id", value["image"]), "image": value["image"], "target_image": value["image"],
                "conversations": ask}  # fmt: skip
    return value  # parse_record says what is wrong


def _read(path: Path) -> tuple[list[Source], int]:
    if path.suffix not in (".yaml", ".yml"):
        return [Source(path=path, image_folder=path.parent)], 0
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not isinstance(content.get("sources"), list) or not content["sources"]:
        raise ValueError(f"{path}: expected a mixture with a list of sources")
    refuse_unknown_keys(content, {"seed", "sources"}, path)
    return [_source(entry, path) for entry in content["sources"]], int(content.get("seed", 0))


def _source(entry: Any, path: Path) -> Source:
    if not isinstance(entry, dict) or "path" not in entry:
        raise ValueError(f"{path}: a source is {entry!r}, expected a path with options")
    refuse_unknown_keys(entry, {f.name for f in fields(Source)}, path)
    if "weight" in entry and "count" in entry:
        raise ValueError(f"{path}: {entry['path']} has both weight and count")
    for key in ("weight", "count"):
        if key in entry and (
            isinstance(entry[key], bool) or not isinstance(entry[key], int | float) or entry[key] <= 0
        ):
            raise ValueError(f"{path}: {key} of {entry['path']} is {entry[key]!r}, expected a positive number")
    if entry.get("task") not in (None, *Task):
        raise ValueError(f"{path}: task of {entry['path']} is {entry['task']!r}, expected {' or '.join(Task)}")
    records = path.parent / entry["path"]
    return Source(
        path=records,
        image_folder=path.parent / entry["image_folder"] if "image_folder" in entry else records.parent,
        weight=float(entry.get("weight", 1.0)),
        count=int(entry["count"]) if "count" in entry else None,
        task=Task(entry["task"]) if entry.get("task") else None,
        reconstruct=bool(entry.get("reconstruct", False)),
    )
