"""`healthgpt <verb>`: parse, call, print. Heavy imports wait until the flags are known to be good.

Answers and reports go to standard output, notes and errors to standard error. Exit codes: 0 done, 1 `doctor` found
something wrong or something of a batch failed, 2 what cannot be done, in one line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence

from healthgpt import __version__
from healthgpt.cli.app import add_app_flags, run_app
from healthgpt.cli.batching import add_batch_flags, run_batch_command
from healthgpt.cli.benching import add_bench_flags, run_bench
from healthgpt.cli.evaluation import add_evaluate_flags, run_evaluate
from healthgpt.cli.files import add_convert_flags, run_convert, run_doctor
from healthgpt.cli.flags import add_model_flags
from healthgpt.cli.inference import add_request_flags, run_answer, run_draw
from healthgpt.cli.preparing import add_prepare_flags
from healthgpt.cli.serving import add_serve_flags, run_serve
from healthgpt.cli.training import add_check_flags, add_train_flags, run_check_data, run_train
from healthgpt.cli.viewing import add_view_flags, run_view, with_values
from healthgpt.tasks import Task


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    parser = build_parser()
    words = sys.argv[1:] if arguments is None else arguments
    flags, rest = parser.parse_known_args(with_values([_underscored(word) for word in words]))
    if rest and not getattr(flags, "takes_rest", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    flags.rest = rest
    _show_notes()
    try:
        return flags.run(flags)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        return _fail(flags.verb, error)
    except RuntimeError as error:
        from healthgpt.batch.worker import out_of_memory

        if not out_of_memory(error):
            raise
        return _fail(flags.verb, error)
    except KeyboardInterrupt:
        return 130


def _fail(verb: str, error: Exception) -> int:
    said = " ".join(str(error).split()) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
    print(f"healthgpt {verb}: error: {said}", file=sys.stderr)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="healthgpt", description="Understand and draw medical images.")
    parser.add_argument("--version", action="version", version=f"healthgpt {__version__}")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher puts it before the verb
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, task, run, text in (
        ("answer", Task.COMPREHENSION, run_answer, "answer a question about an image"),
        ("draw", Task.GENERATION, run_draw, "draw an image from an image or a report"),
    ):
        command = verbs.add_parser(verb, help=text, description=text)
        command.set_defaults(run=run, task=task)
        add_model_flags(command)
        add_request_flags(command)
    for verb, add_flags, run, text, more in (
        ("batch", add_batch_flags, run_batch_command, "answer and draw all that a file or folder asks for",
         "Started again, it goes on where it was."),
        ("app", add_app_flags, run_app, "open the web app: ask and draw in the browser",
         "Only this machine reaches it, unless told."),
        ("serve", add_serve_flags, run_serve, "answer and draw for programs that speak OpenAI's API",
         "Only this machine reaches it, unless told."),
        ("view", add_view_flags, run_view, "write a slice of a medical image, in its window, as a picture", ""),
        ("convert", add_convert_flags, run_convert, "make a model folder from released files",
         "With --model FOLDER, write its weights as released .bin."),
        ("bench", add_bench_flags, run_bench, "measure how fast a model decodes, and how near to the floor",
         "Every way to decode, in turns, beside the original's."),
    ):  # fmt: skip
        command = verbs.add_parser(verb, help=text, description=f"{text[0].upper()}{text[1:]}. {more}")
        command.set_defaults(run=run)
        add_flags(command)
    doctor = verbs.add_parser("doctor", help="report versions, devices and what is wrong with a model's files")
    doctor.set_defaults(run=run_doctor, task=Task.COMPREHENSION)
    add_model_flags(doctor)
    evaluate = verbs.add_parser("evaluate", help="score a model on a benchmark")
    evaluate.set_defaults(run=run_evaluate, task=Task.COMPREHENSION)
    add_evaluate_flags(evaluate)
    for verb, add_flags, run, text in (
        ("train", add_train_flags, run_train, "run one training stage"),
        ("check-data", add_check_flags, run_check_data, "check every record before anything is trained"),
    ):
        command = verbs.add_parser(verb, help=text, description=text)
        command.set_defaults(run=run, takes_rest=True)
        add_flags(command)
    add_prepare_flags(verbs.add_parser("prepare", help="prepare data for training"))
    return parser


def _underscored(word: str) -> str:
    """A flag in our spelling: `--max-samples` is `--max_samples`."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if re.match(r"--\w", word) else word


def _show_notes() -> None:
    """The package's own notes go to standard error, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("healthgpt")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # Its 8-bit layers tell of every product that it is rounded.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
