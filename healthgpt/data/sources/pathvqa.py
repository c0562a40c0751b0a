"""PathVQA: 4,998 pathology images, 32,799 questions, as its authors gave it, or in Parquet.

    ROOT/[pvqa/]qas/{train,val,test}_vqa.pkl              lists of {img_id, question_id, question_type, answer_type,
                                                          sent, label: {answer: 1}}
    ROOT/[pvqa/]qas/SPLIT/SPLIT_qa.pkl                    lists of {image, question, answer}, where the first are not
    ROOT/[pvqa/]images/{train,val,test}/<img_id>.jpg
    ROOT/**/{train,validation,test}-*.parquet             flaviagiammarino/path-vqa

A pickle is a program, so that these are read by one that knows lists, dictionaries, texts and numbers and nothing else.
It cannot be read in parts: a split's questions (a few MB) are in memory at once.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from healthgpt.data.preparation import Sample, Source
from healthgpt.data.sources.questions import open_question
from healthgpt.data.sources.shared import (
    closed_by_answer,
    label_of,
    parquet_files,
    parquet_rows,
    shown,
    slug,
    text_of,
)
from healthgpt.files import require_file, wrong_kind

_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def pathvqa(root: Path) -> Source:
    """The source in a folder of either layout."""
    base = root / "pvqa" if (root / "pvqa").is_dir() else root
    if (base / "qas").is_dir():
        pickles = _pickles(base / "qas")
        samples, inputs = _original(base / "images", pickles), list(pickles.values())
    else:
        files = parquet_files(root, "qas folder or Parquet files")
        samples, inputs = _parquet(files), [path for paths in files.values() for path in paths]
    return Source(name="pathvqa", samples=samples, inputs=inputs, options={})


def _pickles(folder: Path) -> dict[str, Path]:
    """The pickle of each split, by the original's name of the split."""
    found, missing = {}, []
    for name in _SPLITS:
        # The first one knows more: the question's type and the answer's.
        paths = [path for path in (folder / f"{name}_vqa.pkl", folder / name / f"{name}_qa.pkl") if path.is_file()]
        if paths:
            found[name] = paths[0]
        else:
            missing.append(f"{name}_vqa.pkl or {name}/{name}_qa.pkl")
    if missing:
        raise FileNotFoundError(f"{folder}: has no {', no '.join(missing)}")
    return found


def _original(images: Path, pickles: Mapping[str, Path]) -> Iterator[Sample]:
    for name, path in pickles.items():
        rows = read_plain_pickle(path)
        if not isinstance(rows, list):
            raise ValueError(f"{path}: expected a list of questions, found {type(rows).__name__}")
        for number, row in enumerate(rows, start=1):
            where = f"{path}, row {number}"
            if not isinstance(row, dict):
                raise ValueError(f"{where}: expected a dictionary, found {shown(row)}")
            row = _plain(row, where)
            image = images / name / f"{text_of(row, 'image', where).removesuffix('.jpg')}.jpg"
            yield _sample(row, f"{name}-{row.get('question_id', number)}", _SPLITS[name], image, where)


def _plain(row: dict[str, Any], where: str) -> dict[str, Any]:
    """A row of `*_vqa.pkl` with the names of the other layouts; their rows stay as they are."""
    if "sent" not in row:
        return row
    label = row.get("label")
    if not isinstance(label, Mapping) or not all(isinstance(score, int | float) for score in label.values()):
        raise ValueError(f"{where}: expected an answer and its score in label, found {shown(label)}")
    answer = max(label, key=lambda key: label[key], default=None)
    return row | {"image": text_of(row, "img_id", where), "question": row["sent"], "answer": answer}


def _parquet(files: Mapping[str, list[Path]]) -> Iterator[Sample]:
    for split, number, where, row, image in parquet_rows(files):
        yield _sample(row, f"{split}-{number}", split, image, where)


def _sample(row: Mapping[str, Any], name: str, split: str, image: Any, where: str) -> Sample:
    answer, answer_type = text_of(row, "answer", where), label_of(row, "answer_type")
    facts = {
        "kind": label_of(row, "question_type"),
        "closed": answer_type == "yes/no" if answer_type else closed_by_answer(answer),
    }
    return open_question(
        f"pathvqa-{slug(name)}",
        split=split,
        question=text_of(row, "question", where),
        answer=answer,
        images=[image],
        facts=facts,
        where=where,
    )


def read_plain_pickle(path: Path) -> Any:
    """Reads a pickle of lists, dictionaries, sets, texts and numbers (numpy's too, which become Python's).

    Raises:
        FileNotFoundError, ValueError: no such file; a damaged one; one that refers to anything else, which is named.
    """
    with require_file(path).open("rb") as file:
        try:
            return _PlainUnpickler(file, encoding="utf-8").load()
        except _CodeError as error:
            raise ValueError(f"{path}: refused, its pickle refers to code: {error}") from None
        except _DAMAGED as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path}: {wrong_kind(path) or f'not readable as a pickle ({reason})'}") from None


# What the standard library's unpickler raises for bytes that are no pickle, or half of one.
_DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError,
)  # fmt: skip


class _CodeError(pickle.UnpicklingError):
    """The name of something that a pickle may not refer to."""


class _NumberType:
    """Stands in for numpy's dtype, whose own pickles can describe memory that is not there."""

    def __init__(self, code: str, *_: object):
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|U\d{1,6}", code):
            raise _CodeError(f"numpy.dtype({code!r})")
        self._code, self._order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = ">" if state[1] == ">" else "<"

    def read(self, data: bytes) -> Any:
        return np.frombuffer(data, self._order + self._code, count=1)[0].item()


def _number(kind: _NumberType, data: bytes) -> Any:
    return kind.read(data)


def _latin_bytes(text: str, encoding: str) -> bytes:
    """How old protocols write bytes; other encodings are not theirs."""
    if encoding not in ("latin1", "latin-1"):
        raise _CodeError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


_PLAIN = {
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (set, frozenset)},
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin_bytes,
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _PLAIN:
            raise _CodeError(f"{module}.{name}")
        return _PLAIN[module, name]
