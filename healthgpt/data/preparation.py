"""A source's files on disk -> records, once: streamed, in parallel, resumable, and with a manifest of what was done.

    OUTPUT/train.jsonl, validation.jsonl, test.jsonl    records, image paths relative to OUTPUT; an empty split has none
    OUTPUT/images/...                                   pictures that had to be made (slices, columns of Parquet files)
    OUTPUT/splits/SPLIT.txt                             ids of the split's subjects (or samples), one a line, sorted
    OUTPUT/manifest.json                                counts, options, versions, hashes; written last

A source is a function that yields `Sample`s. Files that are there already are referred to and never copied.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self, TextIO

from healthgpt import __version__
from healthgpt.files import read_json, write_atomically

MANIFEST_NAME, MISSING_NAME = "manifest.json", "missing.txt"
SPLITS = ("train", "validation", "test")
_AT_ONCE = 64  # samples that a process takes at a time
_SHOWN_MISSING = 5


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that has to be made.

    Attributes:
        name: its path below OUTPUT/images, unique to its content; one that is there already is kept.
        make: a function of a module (processes call it) that writes it to the path that it is given.
        arguments: what else `make` is given.
    """

    name: str
    make: Callable[..., None]
    arguments: tuple[Any, ...] = ()


Image = Path | Picture


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One record to be written.

    Attributes:
        split: train, validation or test.
        group: whom it belongs to: the subject where splits are by subject, else its own id.
        question: with `<image>` where images stand; none is added.
        answer: empty for drawings.
        target: what is to be drawn.
        focus: a mask of what must not be missed in the target.
        metadata: facts that evaluation reads (question type, options, modality, ...).
    """

    id: str
    split: str
    group: str
    question: str
    answer: str = ""
    images: Sequence[Image] = ()
    target: Image | None = None
    focus: Image | None = None
    turns: Sequence[tuple[str, str]] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What `prepare` needs to know of a source.

    Attributes:
        name: of its command.
        samples: root and options -> its samples, in an order that is always the same.
        inputs: files whose hashes the manifest remembers (annotations, not images).
        options: what samples depend on.
    """

    name: str
    samples: Iterable[Sample]
    inputs: Sequence[Path]
    options: Mapping[str, Any]


def split_of(subject: str, seed: int, parts: Mapping[str, float]) -> str:
    """The split of a subject: by a hash of seed and subject, so that it depends on nothing else.

    Args:
        parts: the share of each split; they add up to 1.
    """
    digest = hashlib.sha256(f"{seed}:{subject}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    total = 0.0
    for split, part in parts.items():
        total += part
        if place < total:
            return split
    return list(parts)[-1]


def prepare(source: Source, output: Path, *, num_processes: int = 1, skip_missing: bool = False) -> Iterator[int]:
    """Writes a source's records; yields how many samples are done.

    A finished output of the same source is kept; an unfinished one goes on with the pictures that are there.

    Args:
        skip_missing: leave out samples of missing files; the manifest counts these, `missing.txt` lists them.

    Raises:
        ValueError: OUTPUT holds something else, files are missing (all are listed), or a picture cannot be made.
    """
    facts = _facts(source)
    manifest = output / MANIFEST_NAME
    if manifest.exists():
        found = read_json(manifest)
        if any(found.get(key) != value for key, value in facts.items()):
            raise ValueError(f"{output}: holds another preparation ({_difference(found, facts)}); name another folder")
        yield sum(found["records"].values())
        return
    output.mkdir(parents=True, exist_ok=True)
    written = _Written(output)
    with ExitStack() as stack:
        stack.enter_context(written)
        shares = ((output, share) for share in batched(source.samples, _AT_ONCE))
        if num_processes > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(num_processes))
            # The pool would read all of a source ahead of its workers: only so many shares are on their way at once.
            done = _bounded(pool, shares, 4 * num_processes)
        else:
            done = map(_write_share, shares)
        for lines, missing in done:
            written.add(lines, missing)
            yield written.total
    if written.missing:
        names = sorted(set(written.missing))
        _write_lines(output / MISSING_NAME, names)
        if not skip_missing:
            shown = ", ".join(names[:_SHOWN_MISSING])
            raise ValueError(f"{len(names)} files are missing, such as {shown}; all are in {output / MISSING_NAME}")
    else:
        (output / MISSING_NAME).unlink(missing_ok=True)
    if not written.records:
        raise ValueError(f"{output}: {source.name} gave no records")
    facts |= {"healthgpt": __version__, "missing_files": len(set(written.missing)), **written.finish()}
    write_atomically(manifest, lambda path: path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8"))


class _Written:
    """The records files of a preparation while they grow, and what is counted on the way."""

    def __init__(self, output: Path):
        self._output = output
        self._files: dict[str, TextIO] = {}
        self._groups: dict[str, set[str]] = defaultdict(set)
        self._kinds: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.missing: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    @property
    def total(self) -> int:
        return self.records.total() + len(self.missing)

    def add(self, lines: Sequence[tuple[str, str, str, str]], missing: Sequence[str]) -> None:
        for split, group, kind, line in lines:
            if split not in self._files:
                self._files[split] = (self._output / f".{split}.jsonl").open("w", encoding="utf-8")
            self._files[split].write(line + "\n")
            self.records[split] += 1
            self._kinds[kind] += 1
            self._groups[split].add(group)
        self.missing += missing

    def finish(self) -> dict[str, Any]:
        """Gives the files their names, writes the lists of ids; returns the counts."""
        splits = [split for split in SPLITS if split in self.records]
        (self._output / "splits").mkdir(exist_ok=True)
        for split in splits:
            (self._output / f".{split}.jsonl").replace(self._output / f"{split}.jsonl")
            _write_lines(self._output / "splits" / f"{split}.txt", sorted(self._groups[split]))
        return {
            "records": {split: self.records[split] for split in splits},
            "groups": {split: len(self._groups[split]) for split in splits},
            "kinds": dict(sorted(self._kinds.items())),
            "output_sha256": {f"{split}.jsonl": _sha256(self._output / f"{split}.jsonl") for split in splits},
        }


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    text = "\n".join(lines) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def batched(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Lists of so many samples, the last one shorter."""
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch


def _bounded(pool: Any, shares: Iterable[Any], most: int) -> Iterator[Any]:
    """Results of `_write_share` in order, with so many shares at most handed out and not yet taken."""
    waiting: deque[Any] = deque()
    for share in shares:
        waiting.append(pool.apply_async(_write_share, (share,)))
        if len(waiting) == most:
            yield waiting.popleft().get()
    while waiting:
        yield waiting.popleft().get()


def _facts(source: Source) -> dict[str, Any]:
    return {
        "source": source.name,
        "options": dict(source.options),
        "input_sha256": {"/".join(path.parts[-2:]): _sha256(path) for path in source.inputs},
    }


def _difference(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    key = next(key for key, value in facts.items() if found.get(key) != value)
    return f"its {key} is {found.get(key)!r}, not {facts[key]!r}"[:200]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_share(share: tuple[Path, Sequence[Sample]]) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    """Makes the pictures of some samples; returns their lines (with split, group and kind) and the missing files."""
    output, samples = share
    lines, missing = [], []
    for sample in samples:
        lost = [str(image) for image in _images(sample) if isinstance(image, Path) and not image.is_file()]
        if lost:
            missing += lost
            continue
        for image in _images(sample):
            if isinstance(image, Picture):
                _make(image, output / "images" / image.name)
        line = json.dumps(_record(sample, output), ensure_ascii=False)
        lines.append((sample.split, sample.group, str(sample.metadata.get("kind", "")), line))
    return lines, missing


def _make(picture: Picture, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: picture.make(temporary, *picture.arguments))


def _images(sample: Sample) -> list[Image]:
    return [*sample.images, *(image for image in (sample.target, sample.focus) if image is not None)]


def _record(sample: Sample, output: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"id": sample.id, "task": "comprehension" if sample.target is None else "generation"}
    paths = [_path(image, output) for image in sample.images]
    if paths:
        record["image"] = paths[0] if len(paths) == 1 else paths
    turns = sample.turns or ((sample.question, sample.answer),)
    record["conversations"] = [
        {"from": role, "value": text} for turn in turns for role, text in zip(("human", "gpt"), turn, strict=True)
    ]
    if sample.target is not None:
        record["target_image"] = _path(sample.target, output)
    if sample.focus is not None:
        record["target_focus"] = _path(sample.focus, output)
    return record | {"metadata": dict(sample.metadata)}


def _path(image: Image, output: Path) -> str:
    """Relative to the records' folder."""
    if isinstance(image, Picture):
        return f"images/{image.name}"
    # Links are resolved, as `..` leads up from where a link points to.
    return os.path.relpath(os.path.realpath(image), os.path.realpath(output))
