"""OmniMedVQA: questions of multiple choice about the images of many data sets (88,996 about 42 open ones).

    ROOT/[OmniMedVQA/]QA_information/Open-access/<data set>.json
    ROOT/[OmniMedVQA/]QA_information/Restricted-access/<data set>.json
    ROOT/[OmniMedVQA/]Images/<data set>/...                             as `image_path` says

It is a benchmark: all of it is for testing. Images of the restricted part come from their own owners; who does not have
them takes the open part alone. An answer is given as an option's text, there are two to four options, and one question
has `modality` where all others have `modality_type`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import Sample, Source
from healthgpt.data.sources.questions import choice_question, letter_of_text, modality_name, options_of
from healthgpt.data.sources.shared import label_of, numbered_rows, plain, slug, text_of

ACCESS = ("Open-access", "Restricted-access")
_LETTERS = "ABCD"


def omnimedvqa(root: Path, *, access: Sequence[str] = ACCESS) -> Source:
    """The source in a folder.

    Args:
        access: which parts; one that is not there is left out.
    """
    for part in access:
        if part not in ACCESS:
            raise ValueError(f"access is {part!r}, expected {' or '.join(ACCESS)}")
    base = root / "OmniMedVQA" if (root / "OmniMedVQA").is_dir() else root
    found = [path for part in access for path in sorted((base / "QA_information" / part).glob("[!.]*.json"))]
    if not found:
        raise FileNotFoundError(f"{base}: has no QA_information/{' or '.join(access)} with JSON files")
    return Source(name="omnimedvqa", samples=_samples(base, found), inputs=found, options={"access": list(access)})


def _samples(base: Path, files: Sequence[Path]) -> Iterator[Sample]:
    for path in files:
        for _, where, row in numbered_rows(path):
            yield _sample(base, row, path.parent.name, where)


def _sample(base: Path, row: Mapping[str, Any], access: str, where: str) -> Sample:
    options = options_of({letter: row.get(f"option_{letter}") for letter in _LETTERS}, where)
    return choice_question(
        f"omnimedvqa-{slug(text_of(row, 'question_id', where))}",
        split="test",
        question=text_of(row, "question", where),
        options=options,
        letter=letter_of_text(text_of(row, "gt_answer", where), options, where),
        images=[base / text_of(row, "image_path", where)],
        facts={
            "kind": label_of(row, "question_type"),
            "modality": modality_name(plain(row.get("modality_type")) or plain(row.get("modality"))),
            "dataset": plain(row.get("dataset")),
            "access": access,
        },
        where=where,
    )
