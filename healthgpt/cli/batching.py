"""`healthgpt batch`: the questions of a file or folder, answered into a file that a kill cannot harm."""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthgpt.cli.flags import add_decoding_flags, add_model_flags, decoding_of, load_options, model_sources
from healthgpt.cli.inference import note
from healthgpt.cli.progress import progress
from healthgpt.cli.viewing import add_look_flags
from healthgpt.tasks import Task

if TYPE_CHECKING:
    from healthgpt.batch.answer_file import AnswerFile
    from healthgpt.batch.questions import Questions
    from healthgpt.batch.run import Work


def add_batch_flags(command: argparse.ArgumentParser) -> None:
    add_model_flags(command)
    files = command.add_argument_group("files")
    files.add_argument(
        "--input",
        "--question_file",
        type=Path,
        required=True,
        metavar="PATH",
        help=".jsonl, .json, .csv, .tsv or .parquet of questions, or a folder of images",
    )
    files.add_argument(
        "--output",
        "--answers_file",
        type=Path,
        required=True,
        metavar="FILE",
        help="answers, as JSON Lines; what is there already is kept and not asked again",
    )
    files.add_argument("--image_folder", type=Path, help="folder of the images (default: the input's)")
    files.add_argument("--drawings", type=Path, help="folder of drawn images (default: OUTPUT_drawings)")
    rows = command.add_argument_group("rows", "columns are found by their usual names unless they are named here")
    rows.add_argument("--id_column", help="default: question_id, id or qid; else rows are numbered")
    rows.add_argument("--question_column", help="default: text, question, prompt or instruction")
    rows.add_argument("--image_column", help="default: image, images, img_path or image_path")
    rows.add_argument("--task_column", help="comprehension or generation (default: task)")
    rows.add_argument("--question", help="the question of rows without one")
    rows.add_argument(
        "--template",
        help="text around each question, such as '{question} Answer with one word.'; {COLUMN} is the row's cell",
    )
    rows.add_argument(
        "--task", type=Task, choices=list(Task), default=Task.COMPREHENSION, help="of rows without one (comprehension)"
    )
    rows.add_argument("--max_samples", type=int, help="only so many of the first questions")
    rows.add_argument("--num_chunks", type=int, default=1, help="parts of the input, for several machines ...")
    rows.add_argument("--chunk_idx", type=int, default=0, help="... of which this run does one, from 0")
    running = add_running_flags(command)
    running.add_argument("--allow_mixed", action="store_true", help="go on with a file of another model's answers")
    add_look_flags(command)
    add_decoding_flags(command)  # fmt: skip


def add_running_flags(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How the work is done, which answers do not depend on."""
    running = command.add_argument_group("running")
    running.add_argument("--batch_size", type=int, default=8, help="questions at once; fewer where memory runs out")
    running.add_argument("--num_processes", type=int, default=1, help="processes with a model each, one per GPU")
    running.add_argument(
        "--ray", metavar="ADDRESS", help="a Ray cluster to work on: address, auto, or local for a new one"
    )
    running.add_argument("--num_readers", type=int, help="processes that read images ahead (default: by the cores)")
    running.add_argument("--retry_failed", action="store_true", help="ask again what failed")
    return running


def is_led(flags: argparse.Namespace) -> bool:
    """Whether another process does the work: `accelerate launch` and `torchrun` start one per GPU.

    The first of them works as with `--num_processes`, which loses nothing when a process dies; the others end.

    Raises:
        ValueError: the launcher's processes are on several machines, or are not as many as `--num_processes`.
    """
    ranks, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if ranks == 1:
        return False
    if here != ranks:
        raise ValueError(f"the launcher started {ranks} processes, {here} of them here; for several machines use --ray")
    if flags.num_processes not in (1, ranks):
        raise ValueError(f"--num_processes is {flags.num_processes}, but the launcher started {ranks} processes")
    flags.num_processes = ranks
    return os.environ.get("RANK", "0") != "0"


def run_batch_command(flags: argparse.Namespace) -> int:
    """`healthgpt batch`: exit 1 when anything failed, 130 when interrupted."""
    from healthgpt.batch.answer_file import AnswerFile, QuestionIndex
    from healthgpt.batch.run import Interrupt, run_batch, to_do

    if is_led(flags):
        return 0
    _check(flags)
    questions = _questions(flags)
    index = QuestionIndex(questions)
    sources = model_sources(flags)
    with AnswerFile(flags.output, header_of(flags, sources), index, allow_mixed=flags.allow_mixed) as answers:
        if answers.repaired:
            note(f"{flags.output}: a torn line of {answers.repaired} bytes was cut off")
        todo = to_do(answers, retry_failed=flags.retry_failed, chunk=_chunk(flags, len(index)))
        if kept := int(answers.done.sum()):
            note(f"{flags.output}: {kept} answers are there already")
        with Interrupt() as interrupt:
            run = run_batch(
                questions,
                answers,
                work_of(flags, sources),
                todo=todo,
                batch_size=flags.batch_size,
                drawings=_drawings(flags),
                stop=lambda: interrupt.signal is not None,
            )
            for state in run:
                failed = f", {state.failed} failed" if state.failed else ""
                progress(state.done, state.total, f"answers{failed}", every=1)
        if interrupt.signal is not None:
            note(f"{flags.output}: interrupted with {int(answers.done.sum())} answers; the same command goes on")
            return 128 + interrupt.signal
        answers.put_in_order()
    return _summary(flags, answers)


def _summary(flags: argparse.Namespace, answers: AnswerFile) -> int:
    mine = _chunk(flags, len(answers.failed))
    failed = int(answers.failed[mine].sum())
    print(f"{flags.output}: {int(answers.done[mine].sum())} answers, {failed} of them failures")
    if failed:
        note(f'{failed} failed, which their records\' "error" explains; --retry_failed asks again')
    return int(failed > 0)


def _check(flags: argparse.Namespace) -> None:
    """Fails before any work where a number makes no sense or nothing could be written."""
    from healthgpt.files import refuse_file_in_the_way, writable_target

    check_numbers(flags, "num_chunks")
    if not 0 <= flags.chunk_idx < flags.num_chunks:
        raise ValueError(f"--chunk_idx is {flags.chunk_idx}, expected 0 ... {flags.num_chunks - 1}")
    writable_target(flags.output)
    if flags.input.exists() and flags.output.exists() and flags.input.samefile(flags.output):
        raise ValueError(f"{flags.output}: is the input; answers need a file of their own")
    refuse_file_in_the_way(_drawings(flags))
    if flags.input.is_dir():
        for path in (flags.output, _drawings(flags)):
            if path.resolve().is_relative_to(flags.input.resolve()):
                raise ValueError(f"{path}: is inside of the input {flags.input}, and would be a question itself")


def check_numbers(flags: argparse.Namespace, *more: str) -> None:
    """Raises a ValueError for a number that makes no sense."""
    from healthgpt.decoding import Decoding

    load_options(flags).shortcuts.refuse(Decoding(**decoding_of(flags)))
    for name in ("batch_size", "num_processes", "max_samples", "num_readers", *more):
        value, least = getattr(flags, name), int(name != "num_readers")
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}, expected at least {least}")


def _questions(flags: argparse.Namespace) -> Questions:
    from healthgpt.batch.questions import Columns, Questions

    return Questions(
        source=flags.input,
        columns=Columns(
            id=flags.id_column, question=flags.question_column, image=flags.image_column, task=flags.task_column
        ),
        text=flags.question,
        template=flags.template,
        image_folder=flags.image_folder,
        task=flags.task,
        look={name: getattr(flags, name) for name in ("window", "slice", "plane", "volume")},
    )


def header_of(flags: argparse.Namespace, sources: Any) -> dict[str, Any]:
    """What the answers depend on, beside the questions themselves."""
    from healthgpt import __version__
    from healthgpt.config import NANO
    from healthgpt.fingerprint import fingerprint

    name = flags.model or flags.model_name_or_path or NANO
    quantised = "8bit" if flags.load_in_8bit else "4bit" if flags.load_in_4bit else None
    taken = load_options(flags).shortcuts.names
    return {
        "model_id": Path(name).name if Path(name).is_dir() else name,
        "model": fingerprint(sources),
        "dtype": flags.dtype,
        "attn_implementation": flags.attn_implementation,
        "quantised": quantised,
        **({"shortcuts": taken} if taken else {}),
        "decoding": decoding_of(flags),
        "template": flags.template,
        "task": flags.task,
        "look": {name: getattr(flags, name) for name in ("window", "slice", "plane", "volume")},
        "noted": {"healthgpt": __version__},
    }


def work_of(flags: argparse.Namespace, sources: Any) -> Work:
    """Who does the work."""
    from healthgpt.batch.local import work_here

    if flags.ray:
        return _work_on_ray(flags, sources)
    makers = _makers(flags, sources)
    return functools.partial(work_here, makers=makers, num_readers=_num_readers(flags))


def _work_on_ray(flags: argparse.Namespace, sources: Any) -> Work:
    from healthgpt.batch.ray_cluster import work_on_ray
    from healthgpt.batch.worker import worker_of

    return functools.partial(
        work_on_ray,
        address=flags.ray,
        make=functools.partial(worker_of, sources, load_options(flags), decoding_of(flags)),
        num_workers=flags.num_processes,
        on_gpu=flags.device != "cpu",
    )


def _makers(flags: argparse.Namespace, sources: Any) -> list[Any]:
    """One maker of a worker per process: a GPU each, or a share of the CPU's cores."""
    from healthgpt.batch.worker import worker_of
    from healthgpt.loading import choose_device

    options, decoding, count = load_options(flags), decoding_of(flags), flags.num_processes
    if count == 1:
        return [functools.partial(worker_of, sources, options, decoding)]
    import dataclasses

    import torch

    device = choose_device(flags.device)
    if device.type == "cuda":
        if count > torch.cuda.device_count():
            raise ValueError(f"--num_processes is {count}, this machine has {torch.cuda.device_count()} GPUs")
        placed = [dataclasses.replace(options, device=f"cuda:{i}") for i in range(count)]
        return [functools.partial(worker_of, sources, place, decoding) for place in placed]
    threads = max((os.cpu_count() or 1) // count, 1)
    return [functools.partial(worker_of, sources, options, decoding, threads) for _ in range(count)]


def _drawings(flags: argparse.Namespace) -> Path:
    return flags.drawings or flags.output.with_name(f"{flags.output.stem}_drawings")


def _chunk(flags: argparse.Namespace, total: int) -> slice:
    """The part of the questions that is this run's: LLaVA's chunks, of equal size but for the last."""
    total = min(total, flags.max_samples or total)
    size = -(-total // flags.num_chunks)
    return slice(min(flags.chunk_idx * size, total), min((flags.chunk_idx + 1) * size, total))


def _num_readers(flags: argparse.Namespace) -> int:
    if flags.num_readers is not None:
        return flags.num_readers
    return min(4, max((os.cpu_count() or 1) // 2, 1))
