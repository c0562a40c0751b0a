"""A source's files on disk -> records, once: streamed, in parallel, resumable, and with a manifest of what was done.

    OUTPUT/train.jsonl, validation.jsonl, test.jsonl    records, image paths relative to OUTPUT; an empty split has none
    OUTPUT/images/...                                   pictures that had to be made (slices, columns of Parquet files)
    OUTPUT/splits/SPLIT.txt                             ids of the split's subjects (or samples), one a line, sorted
    OUTPUT/manifest.json                                counts, options, versions, hashes; written last

A source is a function that yields `Sample`s. Files that are there already are referred to and never copied. Memory does
not grow with the number of samples: what has to be sorted or counted as a whole is put aside on disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from healthgpt import __version__
from healthgpt.data.processes import results_in_order
from healthgpt.data.written import MISSING_NAME as MISSING_NAME  # part of what is written, as the manifest is
from healthgpt.data.written import SPLITS, Line, Written, file_sha256, tidy
from healthgpt.files import read_json, write_atomically

MANIFEST_NAME = "manifest.json"
_LIBRARIES = ("numpy", "pillow", "nibabel", "pydicom", "SimpleITK", "pyarrow")  # what is written is theirs
# What a process takes at a time: so many samples, and more where they are of one group, whose volumes are read once.
_AT_ONCE, _AT_MOST = 64, 1024
_BYTES_AT_ONCE = 2**22  # of pictures at hand; a share that has them takes no more

logger = logging.getLogger(__name__)


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
        left_out: what `samples` passes over: how many records, by the reason; counted while it yields.
    """

    name: str
    samples: Iterable[Sample]
    inputs: Sequence[Path]
    options: Mapping[str, Any]
    left_out: Counter[str] = field(default_factory=Counter)


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

    A finished output of the same source is kept; an unfinished one goes on with the pictures that are there. One that
    was finished without missing files is unfinished when these are not to be skipped any more.

    Args:
        skip_missing: leave out samples of missing files; the manifest counts these, `missing.txt` lists them.

    Raises:
        ValueError: OUTPUT holds something else, files are missing (all are listed), an id is there twice, a picture
            cannot be made, or a process died.
    """
    facts = _facts(source)
    manifest = output / MANIFEST_NAME
    if manifest.exists():
        found = read_json(manifest)
        if any(found.get(key) != value for key, value in facts.items()):
            raise ValueError(f"{output}: holds another preparation ({_difference(found, facts)}); name another folder")
        whole = all((output / f"{split}.jsonl").is_file() for split in found["records"])
        if whole and (skip_missing or not found["missing_files"]):
            yield sum(found["records"].values())
            return
    if own := {path.resolve() for path in source.inputs} & {(output / f"{split}.jsonl").resolve() for split in SPLITS}:
        raise ValueError(f"{output}: its {min(own).name} is a file of the source; name another folder")
    output.mkdir(parents=True, exist_ok=True)
    tidy(output)
    with Written(output) as written:
        done = results_in_order(partial(_write_share, output), _shares(source.samples), num_processes)
        with closing(done):
            for lines, missing in done:
                written.add(lines, missing)
                yield written.total
        num_missing = written.list_missing()
        if num_missing and not skip_missing:
            raise ValueError(written.missing_message(num_missing))
        if not written.records:
            raise ValueError(f"{output}: {source.name} gave no records")
        left_out = source.left_out + Counter({"with missing files": written.num_without_files})
        for reason, count in left_out.items():
            logger.warning("%s: %d records %s are left out", source.name, count, reason)
        written.check_names(source.name)
        manifest.unlink(missing_ok=True)  # until here an earlier one and its records go together
        counts = {"left_out": dict(sorted(left_out.items())), "missing_files": num_missing}
        facts |= {"versions": _versions(), **counts, **written.finish()}
    write_atomically(manifest, lambda path: path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8"))


def _shares(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Samples in lists, each of them one process's work."""
    share: list[Sample] = []
    num_bytes = 0
    for sample in samples:
        enough = len(share) >= _AT_ONCE and share[-1].group != sample.group
        if enough or len(share) == _AT_MOST or num_bytes >= _BYTES_AT_ONCE:
            yield share
            share, num_bytes = [], 0
        share.append(sample)
        pictures = [image for image in _images(sample) if isinstance(image, Picture)]
        num_bytes += sum(len(value) for image in pictures for value in image.arguments if isinstance(value, bytes))
    if share:
        yield share


def _facts(source: Source) -> dict[str, Any]:
    facts = {
        "source": source.name,
        "options": dict(source.options),
        "input_sha256": {"/".join(path.parts[-2:]): file_sha256(path) for path in source.inputs},
    }
    return json.loads(json.dumps(facts))  # as they are read back: lists, where options have tuples


def _versions() -> dict[str, str]:
    installed = {name: version for name in _LIBRARIES if (version := _version(name))}
    return {"healthgpt": __version__, "python": platform.python_version(), **installed}


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _difference(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    key = next(key for key, value in facts.items() if found.get(key) != value)
    return f"its {key} is {found.get(key)!r}, not {facts[key]!r}"[:200]


def _write_share(output: Path, samples: Sequence[Sample]) -> tuple[list[Line], list[list[str]]]:
    """Makes the pictures of some samples; returns their lines, and the missing files of those that lack some."""
    lines, missing = [], []
    for sample in samples:
        lost = [str(image) for image in _images(sample) if isinstance(image, Path) and not image.is_file()]
        if lost:
            missing.append(lost)
            continue
        for image in _images(sample):
            if isinstance(image, Picture):
                _make(image, output / "images" / image.name)
        text = json.dumps(_record(sample, output), ensure_ascii=False)
        kind = str(sample.metadata.get("kind", ""))
        lines.append(Line(split=sample.split, group=sample.group, kind=kind, name=sample.id, text=text))
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
    # Folders that are links are resolved, as `..` leads up from where they point to. A file that is one keeps its name:
    # where it points to may have none that says what it is (the cache of the hub, git-annex).
    return os.path.relpath(os.path.join(_real_folder(str(image.parent)), image.name), _real_folder(str(output)))


@lru_cache(maxsize=256)  # images of a folder come together
def _real_folder(path: str) -> str:
    return os.path.realpath(path)
