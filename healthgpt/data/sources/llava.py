"""Conversations in LLaVA's form: LLaVA-558k and -665k, LLaVA-Med, PubMedVision; and drawings of LLaVA-558k's images.

    ROOT/blip_laion_cc_sbu_558k.json, ROOT/[images/]00453/004539375.jpg               LLaVA-558k, captions
    ROOT/llava_v1_5_mix665k.json, ROOT/{coco,gqa,ocr_vqa,textvqa,vg}/...              LLaVA-665k, some of it text alone
    ROOT/[alignment/]llava_med_alignment_500k.json, ROOT/images/23602313_F1.jpg       LLaVA-Med, captions
    ROOT/[instruct/]llava_med_instruct_60k[_inline_mention].json, ROOT/images/17506892_F1.jpg     conversations
    ROOT/PubMedVision_Alignment_VQA.json, ROOT/images/pmc_1_0.jpg                     PubMedVision, captions
    ROOT/PubMedVision_InstructionTuning_VQA.json                                      PubMedVision, conversations

    [{"id", "image": path | [paths] | absent, "conversations": [{"from": "human"|"gpt", "value"}, ...]}, ...]

None has an official split: all is `train`. `<image>` stays where a human turn has it, at its start or its end; a record
with images and without a mark gets them before its first question. What is left out is counted: records with several
images, unless they are asked for, those with an empty answer, and texts without an image that speak of `<image>`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthgpt.data.mixture import RECONSTRUCTIONS
from healthgpt.data.preparation import Sample, Source
from healthgpt.data.records import IMAGE_MARK
from healthgpt.data.sources.shared import EMPTY_ANSWER, plain, slug
from healthgpt.data.tables import rows_of
from healthgpt.files import require_file
from healthgpt.tasks import TaskType

LLAVA_558K_NAME, LLAVA_665K_NAME = "blip_laion_cc_sbu_558k.json", "llava_v1_5_mix665k.json"
# By part: its kind of record, and the names that its file goes by.
LLAVA_MED_PARTS = {
    "alignment": ("caption", ("llava_med_alignment_500k.json", "alignment/llava_med_alignment_500k.json")),
    "instruct": (
        "conversation",
        tuple(
            f"{folder}llava_med_instruct_60k{ending}.json"
            for ending in ("", "_inline_mention")
            for folder in ("", "instruct/")
        ),
    ),
}
PUBMEDVISION_PARTS = {
    "alignment": ("caption", ("PubMedVision_Alignment_VQA.json",)),
    "instruct": ("conversation", ("PubMedVision_InstructionTuning_VQA.json",)),
}
# LLaVA-Med's flags of what an image shows.
_DOMAINS = {"chest_xray": "x-ray", "ct_scan": "ct", "mri": "mri", "histology": "microscopy", "gross": "gross pathology"}
_ROLES = ("human", "gpt")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One annotation file.

    Attributes:
        name: what ids begin with.
        images: the folder below the root that images are in.
    """

    name: str
    kind: str
    path: Path
    root: Path
    images: str = "images"


def llava_558k(root: Path, *, multi_image: bool = False) -> Source:
    """Captions of web images, which the alignment stage learns from."""
    return _source("llava-558k", [_part_558k(root, "llava-558k", "caption")], multi_image, {})


def llava_665k(root: Path, *, multi_image: bool = False) -> Source:
    """General conversations."""
    path = require_file(root / LLAVA_665K_NAME)
    part = _Part(name="llava-665k", kind="conversation", path=path, root=root, images="")
    return _source("llava-665k", [part], multi_image, {})


def llava_med(root: Path, *, part: str | None = None, multi_image: bool = False) -> Source:
    """Captions and conversations of figures.

    Args:
        part: alignment or instruct; None takes those that are there.
    """
    return _in_parts("llava-med", root, LLAVA_MED_PARTS, part, multi_image)


def pubmedvision(root: Path, *, part: str | None = None, multi_image: bool = False) -> Source:
    """Captions and conversations of figures.

    Args:
        part: alignment or instruct; None takes those that are there.
    """
    return _in_parts("pubmedvision", root, PUBMEDVISION_PARTS, part, multi_image)


def llava_reconstruction(root: Path) -> Source:
    """Each image of LLaVA-558k, to be drawn from itself."""
    part = _part_558k(root, "llava-reconstruction", TaskType.RECONSTRUCTION)
    return Source(name=part.name, samples=_reconstructions(part), inputs=[part.path], options={})


def _part_558k(root: Path, name: str, kind: str) -> _Part:
    path = require_file(root / LLAVA_558K_NAME)
    images = "images" if (root / "images").is_dir() else ""  # images.zip has no folder of its own
    return _Part(name=name, kind=kind, path=path, root=root, images=images)


def _in_parts(
    name: str, root: Path, known: Mapping[str, tuple[str, Sequence[str]]], wanted: str | None, multi_image: bool
) -> Source:
    if wanted is not None and wanted not in known:
        raise ValueError(f"part is {wanted!r}, expected {' or '.join(known)}")
    parts = []
    for part, (kind, names) in known.items():
        path = next((root / file for file in names if (root / file).exists()), None)
        if path is not None and wanted in (None, part):
            parts.append(_Part(name=f"{name}-{part}", kind=kind, path=path, root=root))
    if not parts:
        expected = " or ".join(names[0] for part, (_, names) in known.items() if wanted in (None, part))
        raise FileNotFoundError(f"{root}: has no {expected}")
    return _source(name, parts, multi_image, {"part": wanted or "all"})


def _source(name: str, parts: Sequence[_Part], multi_image: bool, options: Mapping[str, Any]) -> Source:
    left_out: Counter[str] = Counter()
    return Source(
        name=name,
        samples=_conversations(parts, multi_image, left_out),
        inputs=[part.path for part in parts],
        options={"multi_image": multi_image, **options},
        left_out=left_out,
    )


def _conversations(parts: Sequence[_Part], multi_image: bool, left_out: Counter[str]) -> Iterator[Sample]:
    for part in parts:
        for number, row in enumerate(rows_of(part.path), start=1):
            where = f"{part.path}, record {number}"
            images = _images(row, part, where)
            turns = _turns(row, where)
            if len(images) > 1 and not multi_image:
                left_out["with several images (multi_image takes them)"] += 1
            elif not turns or not all(answer for _, answer in turns):
                left_out[EMPTY_ANSWER] += 1
            elif not images and any(IMAGE_MARK in question for question, _ in turns):
                left_out[f"with {IMAGE_MARK} in a text without an image"] += 1
            else:
                yield _sample(row, part, number, images, _marked(turns, len(images), where))


def _sample(
    row: Mapping[str, Any], part: _Part, number: int, images: Sequence[Path], turns: Sequence[tuple[str, str]]
) -> Sample:
    name = _name(part.name, number, row)
    return Sample(
        id=name,
        split="train",
        group=name,
        question=turns[0][0],
        answer=turns[0][1],
        turns=turns,
        images=images,
        metadata={"kind": part.kind if images else "text", "closed": False, **_subject_matter(row)},
    )


def _reconstructions(part: _Part) -> Iterator[Sample]:
    for number, row in enumerate(rows_of(part.path), start=1):
        where = f"{part.path}, record {number}"
        images = _images(row, part, where)
        if len(images) != 1:
            raise ValueError(f"{where}: has {len(images)} images, expected one")
        name = _name(part.name, number, row)
        yield Sample(
            id=name,
            split="train",
            group=name,
            question=f"{IMAGE_MARK}\n{RECONSTRUCTIONS[(number - 1) % len(RECONSTRUCTIONS)]}",
            images=images,
            target=images[0],
            metadata={"kind": part.kind, "closed": False},
        )


def _name(prefix: str, number: int, row: Mapping[str, Any]) -> str:
    """With the record's place, because ids are not unique (LLaVA-665k asks several things of one image) or missing."""
    found = plain(row.get("id"))
    return f"{prefix}-{number}-{slug(found)}" if found else f"{prefix}-{number}"


def _images(row: Mapping[str, Any], part: _Part, where: str) -> list[Path]:
    value = row.get("image")
    names = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{where}: image is {str(value)[:80]!r}, expected a path or a list of paths")
    # PubMedVision's paths begin with the folder of its images, the others' are below it.
    prefix = f"{part.images}/" if part.images else ""
    return [part.root / prefix / name.removeprefix(prefix) for name in names]


def _turns(row: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """Questions with their answers. As in LLaVA's own training, an answer to nothing does not open a conversation;
    a last question that nobody answered goes, too."""
    # LLaVA-Med's alignment file misspells the key.
    spoken = row.get("conversations", row.get("conversatons"))
    if not isinstance(spoken, list) or not spoken:
        raise ValueError(f"{where}: conversations is {str(spoken)[:80]}, expected a list of turns")
    said = [_said(turn, f"{where}, turn {number}") for number, turn in enumerate(spoken, start=1)]
    if said[0][0] == "gpt":
        said = said[1:]
    if said and said[-1][0] == "human":
        said = said[:-1]
    for number, (role, _) in enumerate(said):
        if role != _ROLES[number % 2]:
            raise ValueError(f"{where}: two turns of {role} in a row, expected human and gpt in turn")
    texts = [text for _, text in said]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _said(turn: Any, where: str) -> tuple[str, str]:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
        raise ValueError(f"{where}: expected from and value, found {str(turn)[:80]!r}")
    if turn.get("from") not in _ROLES:
        raise ValueError(f"{where}: is from {turn.get('from')!r}, expected human or gpt")
    return turn["from"], turn["value"].strip()


def _marked(turns: Sequence[tuple[str, str]], num_images: int, where: str) -> list[tuple[str, str]]:
    """The turns with one mark per image."""
    num_marks = sum(question.count(IMAGE_MARK) for question, _ in turns)
    if num_marks == 0:
        (question, answer), *others = turns
        return [(f"{IMAGE_MARK}\n" * num_images + question, answer), *others]
    if num_marks != num_images:
        raise ValueError(f"{where}: {num_marks} {IMAGE_MARK} marks for {num_images} images")
    return list(turns)


def _subject_matter(row: Mapping[str, Any]) -> dict[str, str]:
    """What is shown, where the source says it: PubMedVision by name, LLaVA-Med by flags."""
    facts = {key: plain(row[key]).lower() for key in ("modality", "body_part") if row.get(key)}
    domain = row.get("domain")
    flags = domain if isinstance(domain, dict) else {}
    if shown := [modality for flag, modality in _DOMAINS.items() if flags.get(flag)]:
        facts["modality"] = ", ".join(shown)
    return facts
