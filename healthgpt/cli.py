"""`healthgpt <verb>`: parse, call, print. Heavy imports wait until the flags are known to be good.

Answers and reports go to standard output, notes and errors to standard error. Exit codes: 0 done, 1 `doctor` found
something wrong, 2 the user's mistake in one line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthgpt import __version__
from healthgpt.config import NANO, ModelSources, PluginSource
from healthgpt.tasks import Task

if TYPE_CHECKING:
    from healthgpt.pipeline import HealthGPT

EXAMPLES = Path(__file__).parent / "examples"
EXAMPLE_QUESTION = {
    Task.COMPREHENSION: "What modality is used to take this image?",
    Task.GENERATION: "Reconstruct the image.",
}
# The flags that name released files; --model takes the place of all of them.
_RELEASED_FLAGS = (
    "model_name_or_path", "vit_path", "hlora_path", "fusion_layer_path", "instruct_template",
    "hlora_r", "hlora_alpha", "hlora_dropout", "hlora_nums", "vq_idx_nums",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    parser = build_parser()
    flags = parser.parse_args(arguments)
    _show_notes()
    try:
        return flags.run(flags)
    except (ValueError, FileNotFoundError, PermissionError) as error:
        print(f"healthgpt {flags.verb}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="healthgpt", description="Understand and draw medical images.")
    parser.add_argument("--version", action="version", version=f"healthgpt {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, task, run, text in (
        ("answer", Task.COMPREHENSION, run_answer, "answer a question about an image"),
        ("draw", Task.GENERATION, run_draw, "draw an image from an image or a report"),
    ):
        command = verbs.add_parser(verb, help=text, description=text)
        command.set_defaults(run=run, task=task)
        _add_model_flags(command)
        _add_request_flags(command)
    convert = verbs.add_parser(
        "convert",
        help="make a model folder from released files, or released files from a model folder",
        description="Make a model folder from released files; with --model FOLDER, write its weights as released .bin.",
    )
    convert.set_defaults(run=run_convert)
    _add_convert_flags(convert)
    doctor = verbs.add_parser("doctor", help="report versions, devices and what is wrong with a model's files")
    doctor.set_defaults(run=run_doctor, task=Task.COMPREHENSION)
    _add_model_flags(doctor)
    return parser


def run_answer(flags: argparse.Namespace) -> int:
    """`healthgpt answer`"""
    _check_targets(flags)
    question, images = _request(flags)
    model = _load(flags)
    start = time.perf_counter()
    if flags.stream:
        for piece in model.stream(question, images, **_decoding(flags)):
            print(piece, end="", flush=True)
        print()
        return 0
    answer = model.answer(question, images, return_details=True, **_decoding(flags))
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
    from healthgpt.images import save_image

    flags.save_path = flags.save_path or Path("output.png")
    _check_targets(flags, image=True)
    question, images = _request(flags)
    model = _load(flags)
    decoding = _decoding(flags)
    asked = decoding.pop("max_new_tokens", None)
    start = time.perf_counter()
    drawing = model.draw(question, images, return_details=True, **decoding)
    seconds = time.perf_counter() - start
    if asked is not None and asked < len(drawing.token_ids):
        _note(f"--max_new_tokens {asked} is ignored: a drawing always has {len(drawing.token_ids)} tokens")
    save_image(drawing.image, flags.save_path)
    print(f"drawn {drawing.image.width}x{drawing.image.height}: {flags.save_path}")
    result = {"indices": drawing.indices, "save_path": str(flags.save_path), "prompt_ids": drawing.prompt_ids}
    _report(flags, question, result, seconds)
    return 0


def run_convert(flags: argparse.Namespace) -> int:
    """`healthgpt convert`"""
    from healthgpt.conversion import convert_released, export_released, released_plugins

    if flags.model:
        for path in export_released(flags.model, flags.output):
            print(path)
        return 0
    for name in ("model_name_or_path", "vit_path"):
        if getattr(flags, name) is None:
            raise ValueError(f"--{name} is missing")
    plugins = released_plugins(
        flags.com_hlora_path, flags.gen_hlora_path, flags.com_hlora_alpha, flags.gen_hlora_alpha
    )  # fmt: skip
    if not plugins:
        raise ValueError("neither --com_hlora_path nor --gen_hlora_path is given")
    sources = ModelSources(
        base=flags.model_name_or_path,
        vit=flags.vit_path,
        template=flags.instruct_template,
        plugins=plugins,
        fusion=flags.fusion_layer_path,
        vqgan=flags.vqgan_path,
        num_image_tokens=flags.vq_idx_nums,
        apply_fusion=bool(flags.apply_fusion),
    )
    print(convert_released(sources, flags.output, copy=flags.copy))
    return 0


def run_doctor(flags: argparse.Namespace) -> int:
    """`healthgpt doctor`"""
    from healthgpt.doctor import examine_machine, examine_model

    findings = list(examine_machine())
    if flags.model or flags.model_name_or_path:
        with _sources(flags) as sources:
            findings += examine_model(sources)
    for finding in findings:
        print(f"{'ok   ' if finding.good else 'WRONG'} {finding.text}")
    return 0 if all(finding.good for finding in findings) else 1


def parse_bool(text: str) -> bool:
    """Reads a boolean flag: "False" is false."""
    if text.lower() in ("true", "t", "yes", "y", "1", "on"):
        return True
    if text.lower() in ("false", "f", "no", "n", "0", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _add_bool(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    group.add_argument(name, type=parse_bool, nargs="?", const=True, default=None, metavar="BOOL", help=text)


def _add_model_flags(command: argparse.ArgumentParser) -> None:
    model = command.add_argument_group("model", "a model folder or name, or released files; without any, the default")
    model.add_argument("--model", help="model folder, hub id or name (nano, m3, l14, xl32)")
    model.add_argument("--model_name_or_path", help="base LLM: folder or hub id")
    model.add_argument("--vit_path", help="CLIP ViT: folder or hub id")
    model.add_argument("--hlora_path", type=Path, help="H-LoRA and projector of the task (.bin)")
    model.add_argument("--fusion_layer_path", type=Path, help="embeddings and head (.bin)")
    model.add_argument("--vqgan_path", type=Path, help="folder with model.yaml and last.ckpt")
    model.add_argument("--instruct_template", help="phi3_instruct, phi4_instruct or qwen_2 (default: by the tokenizer)")
    model.add_argument("--hlora_r", type=int, help="merged rank (default: the file's)")
    model.add_argument("--hlora_alpha", type=float, help="alpha (default: twice the rank)")
    model.add_argument("--hlora_dropout", type=float, help="dropout, which does nothing here but in training")
    model.add_argument("--hlora_nums", type=int, help="number of experts (default: the file's)")
    model.add_argument("--vq_idx_nums", type=int, help="number of image codes (default: the fusion file's)")
    _add_bool(model, "--apply_fusion", "let comprehension, too, run on the fusion weights")
    place = command.add_argument_group("placement")
    place.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    place.add_argument("--dtype", default="auto", help="auto, FP32, FP16 or BF16")
    place.add_argument("--attn_implementation", help="eager, sdpa, flash_attention_2 (default: the original's)")
    place.add_argument("--device_map", help="placement over several GPUs, such as auto or balanced")
    _add_bool(place, "--load_in_8bit", "quantise the base to 8 bit")
    _add_bool(place, "--load_in_4bit", "quantise the base to 4 bit")


def _add_request_flags(command: argparse.ArgumentParser) -> None:
    request = command.add_argument_group("request")
    request.add_argument("--question", help="question or instruction (default: an example with its image)")
    request.add_argument("--img_path", nargs="+", metavar="FILE", help="one image or several")
    request.add_argument("--save_path", type=Path, help="write the answer or picture here (pictures: output.png)")
    request.add_argument("--json", metavar="FILE", help="write the result as a JSON object; - is the last line printed")
    decoding = command.add_argument_group("decoding")
    _add_bool(decoding, "--do_sample", "sample instead of taking the likeliest token")
    decoding.add_argument("--temperature", type=float)
    decoding.add_argument("--top_p", type=float)
    decoding.add_argument("--num_beams", type=int)
    decoding.add_argument("--repetition_penalty", type=float, help="default: the base's generation_config.json")
    decoding.add_argument("--max_new_tokens", type=int, help="most tokens of an answer (1024)")
    decoding.add_argument("--seed", type=int)
    _add_bool(decoding, "--stream", "print an answer while it is generated")


def _add_convert_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=Path, required=True, help="folder to make")
    command.add_argument("--model", type=Path, help="model folder to write as released files")
    command.add_argument("--model_name_or_path", help="base LLM: folder or hub id")
    command.add_argument("--vit_path", help="CLIP ViT: folder or hub id")
    command.add_argument("--instruct_template", help="default: by the tokenizer")
    command.add_argument("--com_hlora_path", type=Path)
    command.add_argument("--gen_hlora_path", type=Path)
    command.add_argument("--com_hlora_alpha", type=float, help="default: twice the rank")
    command.add_argument("--gen_hlora_alpha", type=float, help="default: twice the rank")
    command.add_argument("--fusion_layer_path", type=Path)
    command.add_argument("--vqgan_path", type=Path)
    command.add_argument("--vq_idx_nums", type=int, help="default: from the fusion file, else the VQGAN")
    command.add_argument("--apply_fusion", type=parse_bool, nargs="?", const=True, metavar="BOOL")
    command.add_argument("--copy", action="store_true", help="copy base, ViT and VQGAN into the folder")


@contextlib.contextmanager
def _sources(flags: argparse.Namespace) -> Iterator[ModelSources]:
    """Where the flags say that the model is."""
    from healthgpt.sources import DEFAULT_VQGAN, named_sources

    released = [name for name in _RELEASED_FLAGS if getattr(flags, name) is not None]
    if flags.model or not released:
        if released:
            raise ValueError(f"--model names a whole model and excludes --{released[0]}")
        with named_sources(flags.model or NANO) as sources:
            changes: dict[str, Any] = {"vqgan": flags.vqgan_path} if flags.vqgan_path else {}
            if flags.apply_fusion is not None:
                changes["apply_fusion"] = flags.apply_fusion
            yield dataclasses.replace(sources, **changes)
        return
    for name in ("model_name_or_path", "vit_path", "hlora_path"):
        if getattr(flags, name) is None:
            raise ValueError(f"--{name} is missing (by --{released[0]}, the model is read from released files)")
    plugin = PluginSource(
        path=flags.hlora_path,
        rank=flags.hlora_r,
        num_experts=flags.hlora_nums,
        alpha=flags.hlora_alpha,
        dropout=flags.hlora_dropout or 0.0,
    )
    yield ModelSources(
        base=flags.model_name_or_path,
        vit=flags.vit_path,
        template=flags.instruct_template,
        plugins={flags.task: plugin},
        fusion=flags.fusion_layer_path,
        vqgan=flags.vqgan_path or (DEFAULT_VQGAN if flags.task is Task.GENERATION else None),
        num_image_tokens=flags.vq_idx_nums,
        apply_fusion=bool(flags.apply_fusion),
    )


def _load(flags: argparse.Namespace) -> HealthGPT:
    from healthgpt.loading import LoadOptions
    from healthgpt.pipeline import HealthGPT

    options = LoadOptions(
        device=flags.device,
        dtype=flags.dtype,
        attn_implementation=flags.attn_implementation,
        device_map=flags.device_map,
        load_in_8bit=bool(flags.load_in_8bit),
        load_in_4bit=bool(flags.load_in_4bit),
    )
    with _sources(flags) as sources:
        return HealthGPT.from_sources(sources, options)


def _request(flags: argparse.Namespace) -> tuple[str, list[str]]:
    """The question and its images (read once now, to fail before loading); without a question, an example."""
    from healthgpt.images import read_image

    images = flags.img_path or []
    if flags.question is None:
        images = images or [str(EXAMPLES / "shepp_logan.png")]
        flags.img_path = images
    for image in images:
        read_image(image)
    return flags.question if flags.question is not None else EXAMPLE_QUESTION[flags.task], images


def _decoding(flags: argparse.Namespace) -> dict[str, Any]:
    """The decoding settings that the user gave."""
    names = ("do_sample", "temperature", "top_p", "num_beams", "repetition_penalty", "max_new_tokens", "seed")
    return {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}


def _check_targets(flags: argparse.Namespace, image: bool = False) -> None:
    """Fails before any work where the results could not be written, or the decoding flags make no sense."""
    from healthgpt.decoding import Decoding
    from healthgpt.files import writable_target
    from healthgpt.images import format_of

    Decoding(**_decoding(flags))
    if flags.save_path:
        writable_target(flags.save_path)
        if image:
            format_of(flags.save_path)
    if flags.json and flags.json != "-":
        writable_target(Path(flags.json))
    if flags.stream and (flags.json or flags.save_path):
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


def _show_notes() -> None:
    """The package's own notes go to standard error, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("healthgpt")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _note(text: str) -> None:
    logging.getLogger("healthgpt").info(text)


if __name__ == "__main__":
    sys.exit(main())
