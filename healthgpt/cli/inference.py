"""`healthgpt answer` and `healthgpt draw`."""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthgpt.cli.flags import add_bool, add_decoding_flags, decoding_of, load_model, load_options
from healthgpt.cli.viewing import add_look_flags, seen_images
from healthgpt.tasks import Task

if TYPE_CHECKING:
    from healthgpt.images import Seen

_EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Example:
    """What is done where the user asks nothing.

    Attributes:
        truth: what a right result is, to compare with.
    """

    question: str
    image: Path
    truth: str


EXAMPLES = {
    Task.COMPREHENSION: Example(
        "What abnormality is seen in this image?",
        _EXAMPLES / "chest_xray.png",
        "a large pleural effusion on the left side (the patient's left is on the viewer's right)",
    ),
    Task.GENERATION: Example(
        "Turn this CT into an MRI.", _EXAMPLES / "brain_ct.png", f"the patient's MRI is {_EXAMPLES / 'brain_mri.png'}"
    ),
}


def add_request_flags(command: argparse.ArgumentParser) -> None:
    request = command.add_argument_group("request")
    request.add_argument("--question", help="question or instruction (default: an example with its image)")
    request.add_argument("--img_path", nargs="+", metavar="FILE", help="one image or several")
    request.add_argument("--save_path", type=Path, help="write the answer or picture here (pictures: output.png)")
    if command.get_default("task") is Task.GENERATION:
        add_bool(request, "--keep_patient", "copy patient and study into a picture that is saved as .dcm")
        add_bool(request, "--deidentify", "leave references to the source, too, out of it (PS3.15's basic profile)")
    request.add_argument("--json", metavar="FILE", help="write the result as a JSON object; - is the last line printed")
    add_look_flags(command)
    decoding = add_decoding_flags(command)
    if command.get_default("task") is Task.COMPREHENSION:
        add_bool(decoding, "--stream", "print the answer while it is generated")


def run_answer(flags: argparse.Namespace) -> int:
    """`healthgpt answer`"""
    _check_targets(flags)
    question, seen = _request(flags)
    _refuse_to_overwrite(flags)
    images = [picture.picture() for picture in seen]
    model = load_model(flags)
    start = time.perf_counter()
    if flags.stream:
        for piece in model.stream(question, images, **decoding_of(flags)):
            print(piece, end="", flush=True)
        print()
        return 0
    answer = model.answer(question, images, return_details=True, **decoding_of(flags))
    seconds = time.perf_counter() - start
    print(answer.text)
    if flags.save_path:
        from healthgpt.files import write_atomically

        write_atomically(flags.save_path, lambda path: path.write_text(answer.text + "\n", encoding="utf-8"))
    result = {"answer": answer.text, "token_ids": answer.token_ids, "prompt_ids": answer.prompt_ids}
    _report(flags, question, result, seconds)
    return 0


def run_draw(flags: argparse.Namespace) -> int:
    """`healthgpt draw`"""
    from healthgpt.images.export import check_export, export_image

    flags.save_path = flags.save_path or Path("output.png")
    _check_targets(flags, image=True)
    question, seen = _request(flags)
    _refuse_to_overwrite(flags)
    source = seen[0] if len(seen) == 1 else None
    keep_patient, deidentify = bool(flags.keep_patient), bool(flags.deidentify)
    check_export(flags.save_path, source, keep_patient, deidentify)
    images = [picture.picture() for picture in seen]
    model = load_model(flags)
    decoding = decoding_of(flags)
    asked = decoding.pop("max_new_tokens", None)
    start = time.perf_counter()
    drawing = model.draw(question, images, return_details=True, **decoding)
    seconds = time.perf_counter() - start
    if asked is not None and asked < len(drawing.token_ids):
        note(f"--max_new_tokens {asked} is ignored: a drawing always has {len(drawing.token_ids)} tokens")
    export_image(drawing.image, flags.save_path, source, keep_patient=keep_patient, deidentify=deidentify)
    print(f"drawn {drawing.image.width}x{drawing.image.height}: {flags.save_path}")
    result = {"indices": drawing.indices, "save_path": str(flags.save_path), "prompt_ids": drawing.prompt_ids}
    _report(flags, question, result, seconds)
    return 0


def _request(flags: argparse.Namespace) -> tuple[str, list[Seen]]:
    """The question and its images, read before the model is loaded; without a question, an example."""
    images, example = flags.img_path or [], EXAMPLES[flags.task]
    if flags.question is None and not images:
        images = flags.img_path = [str(example.image)]
        note(f"example: {example.image}, {example.question!r}; truth: {example.truth}")
    elif flags.question is None:
        note(f"no --question is given, so it is {example.question!r}")
    return flags.question if flags.question is not None else example.question, seen_images(flags, images)


def _refuse_to_overwrite(flags: argparse.Namespace) -> None:
    """Fails where a result would take the place of an image that was given, or of another result."""
    json_path = Path(flags.json) if flags.json and flags.json != "-" else None
    if flags.save_path and json_path and flags.save_path.resolve() == json_path.resolve():
        raise ValueError(f"{json_path}: --json and --save_path need a file of their own each")
    for target in filter(None, (flags.save_path, json_path)):
        for image in map(Path, flags.img_path or []):
            if target.resolve().is_relative_to(image.resolve()):
                where = "is in a folder of images" if image.is_dir() else "is an image"
                raise ValueError(f"{target}: {where} that the model is to see; results need a file of their own")


def _check_targets(flags: argparse.Namespace, image: bool = False) -> None:
    """Fails before any work where the results could not be written, or the decoding flags make no sense."""
    from healthgpt.decoding import Decoding
    from healthgpt.files import writable_target
    from healthgpt.images.export import kind_of

    settings = Decoding(**decoding_of(flags))
    load_options(flags).shortcuts.refuse(settings)
    if not settings.do_sample and (settings.temperature or settings.top_p not in (None, 1)):
        note("--temperature and --top_p do nothing without --do_sample")
    if flags.save_path:
        writable_target(flags.save_path)
        if image:
            kind_of(flags.save_path)
    if flags.json and flags.json != "-":
        writable_target(Path(flags.json))
    if getattr(flags, "stream", None) and (flags.json or flags.save_path):
        raise ValueError("--stream prints the answer as it comes and excludes --json and --save_path")


def _report(flags: argparse.Namespace, question: str, result: dict[str, Any], seconds: float) -> None:
    """Writes the JSON object where --json says."""
    if not flags.json:
        return
    images = flags.img_path or []
    shown = images[0] if len(images) == 1 else images or None
    line = json.dumps(
        {"task": flags.task, "question": question, "image": shown, **result, "seconds": round(seconds, 3)}
    )
    if flags.json == "-":
        print(line)
        return
    from healthgpt.files import write_atomically

    write_atomically(Path(flags.json), lambda path: path.write_text(line + "\n", encoding="utf-8"))


def note(text: str) -> None:
    logging.getLogger("healthgpt").info(text)
