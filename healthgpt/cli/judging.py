"""`healthgpt evaluate judge RUN ...`: a language model's verdicts on the answers of finished runs."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthgpt.cli.inference import note
from healthgpt.cli.progress import progress
from healthgpt.files import read_json, require_file, write_atomically

if TYPE_CHECKING:
    from healthgpt.evaluation.endpoint import Endpoint
    from healthgpt.evaluation.judge import Judge
    from healthgpt.evaluation.verdicts import Judgement, VerdictFile

_KEY_ENV = "OPENAI_API_KEY"
_NEEDED = ("judge_url", "judge_model")
_NOT_OF_JUDGE = (
    "benchmark", "data", "output", "split", "template", "max_samples", "count", "phantoms", "model",
    "model_name_or_path",
)  # fmt: skip

Show = Callable[[str, Mapping[str, Mapping[str, float]]], None]


def add_judge_flags(command: argparse.ArgumentParser) -> None:
    judge = command.add_argument_group("judge", "of the answers of finished runs, by any chat-completions endpoint")
    judge.add_argument("--judge_url", metavar="URL", help="base of the endpoint, such as http://localhost:8000/v1")
    judge.add_argument("--judge_model", metavar="NAME", help="model, by the endpoint's name of it")
    judge.add_argument("--judge_name", metavar="NAME", help="name of file and column (default: the model's)")
    judge.add_argument(
        "--judge_key_env", metavar="VARIABLE", help=f"environment variable that holds the key (default: {_KEY_ENV})"
    )
    judge.add_argument(
        "--judge_prompt", type=Path, metavar="FILE", help="instead of ours; has {question}, {truth} and {answer}"
    )
    judge.add_argument("--judge_concurrency", type=int, default=8, metavar="N", help="requests at once (8)")
    judge.add_argument("--judge_timeout", type=float, default=120, metavar="S", help="seconds for a reply (120)")
    judge.add_argument("--judge_retries", type=int, default=5, metavar="N", help="of a request that failed (5)")
    judge.add_argument("--judge_max_tokens", type=int, default=1024, metavar="N", help="most of a reply (1024)")


def refuse_judge_flags(flags: argparse.Namespace) -> None:
    """Raises a ValueError for a judge's flag on a command that has none."""
    for name in (*_NEEDED, "judge_name", "judge_key_env", "judge_prompt"):
        if getattr(flags, name) is not None:
            raise ValueError(f"--{name} belongs to `healthgpt evaluate judge RUN ...`, which judges finished runs")


def run_judge(flags: argparse.Namespace, show: Show) -> int:
    """`healthgpt evaluate judge RUN ...`: exit 1 where the endpoint fails, 130 when interrupted.

    Args:
        show: prints a benchmark's figures.
    """
    from healthgpt.evaluation.endpoint import EndpointError
    from healthgpt.evaluation.verdicts import VerdictFile, verdicts_path

    for name in _NEEDED:
        if not getattr(flags, name):
            raise ValueError(f"--{name} is missing")
    if ignored := [name for name in _NOT_OF_JUDGE if getattr(flags, name) is not None]:
        raise ValueError(f"--{ignored[0]} does nothing with judge, which judges the answers of finished runs")
    runs = _runs([Path(folder) for folder in flags.what[1:]])
    endpoint = _endpoint(flags)
    judge = _judge(flags, endpoint)
    known: dict[str, Judgement] = {}
    with ExitStack() as stack:
        # All files are looked at before anything is asked.
        files = [stack.enter_context(VerdictFile(verdicts_path(run, judge.name), judge.header)) for run in runs]
        for file in files:
            if file.repaired:
                note(f"{file.path}: a torn line of {file.repaired} bytes was cut off")
            if flags.retry_failed:
                file.forget_unreadable()
            known |= file.judgements
        try:
            for (run, benchmark), file in zip(runs.items(), files, strict=True):
                _judge_run(run, benchmark, file, known, judge, endpoint, show)
        except EndpointError as error:
            print(f"healthgpt {flags.verb}: error: {error}; what was judged is kept", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            note("interrupted; the same command goes on")
            return 130
    return 0


def note_unjudged(results: Mapping[str, Any]) -> None:
    """Says which judges' verdicts are no longer on a run's answers."""
    for name, found in results.get("judged", {}).items():
        if found["unjudged"]:
            note(
                f"{results['benchmark']}: {name} has not judged {found['unjudged']} of {found['samples']} answers; "
                "`healthgpt evaluate judge` does"
            )


def _runs(folders: Sequence[Path]) -> dict[Path, str]:
    """Folders of runs of questions, and their benchmarks."""
    from healthgpt.evaluation.benchmarks import BENCHMARKS, Scoring
    from healthgpt.evaluation.comparison import read_finished

    if not folders:
        raise ValueError("judge has no RUN, expected folders that `healthgpt evaluate --output` wrote")
    found = {}
    for finished in map(read_finished, folders):
        for name, folder in finished.folders.items():
            if name in BENCHMARKS and BENCHMARKS[name].scoring is Scoring.QUESTIONS:
                found[folder.resolve()] = (folder, name)
            else:
                note(f"{folder}: is not judged, as {name} is no benchmark of questions")
    if not found:
        raise ValueError(f"{folders[0]}: has no run of a benchmark of questions, and no others are judged")
    return dict(found.values())


def _endpoint(flags: argparse.Namespace) -> Endpoint:
    from healthgpt.evaluation.endpoint import Endpoint

    key = os.environ.get(flags.judge_key_env or _KEY_ENV, "").strip()
    if flags.judge_key_env and not key:
        raise ValueError(f"--judge_key_env is {flags.judge_key_env}, but there is no such environment variable")
    return Endpoint(
        url=flags.judge_url,
        model=flags.judge_model,
        key=key,
        concurrency=flags.judge_concurrency,
        timeout=flags.judge_timeout,
        retries=flags.judge_retries,
        max_tokens=flags.judge_max_tokens,
    )


def _judge(flags: argparse.Namespace, endpoint: Endpoint) -> Judge:
    from healthgpt.evaluation.endpoint import TEMPERATURE, host_of
    from healthgpt.evaluation.judge import PROMPT, Judge

    prompt, path = PROMPT, flags.judge_prompt
    if path:
        try:
            prompt = require_file(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: is no text in UTF-8") from None
    try:
        return Judge(
            name=flags.judge_name or flags.judge_model,
            model=flags.judge_model,
            host=host_of(endpoint.url),
            temperature=TEMPERATURE,
            max_tokens=endpoint.max_tokens,
            prompt=prompt,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _judge_run(
    run: Path,
    benchmark: str,
    file: VerdictFile,
    known: dict[str, Judgement],
    judge: Judge,
    endpoint: Endpoint,
    show: Show,
) -> None:
    from healthgpt.evaluation.judge import case_of
    from healthgpt.evaluation.runs import RESULTS_NAME
    from healthgpt.evaluation.verdicts import judge_cases, judged

    samples = _samples(run)
    for done, total in judge_cases([case_of(sample) for sample in samples], file, known, judge, endpoint):
        progress(done, total, f"verdicts on {benchmark}", every=1)
    found = judged(judge.header, file.judgements, samples)
    results = read_json(run / RESULTS_NAME)
    results["judged"] = {**results.get("judged", {}), judge.name: found}
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    write_atomically(run / RESULTS_NAME, functools.partial(Path.write_text, data=text, encoding="utf-8"))
    if found["unreadable"]:
        note(f"{file.path}: {found['unreadable']} of {found['samples']} verdicts are unreadable and do not count")
    show(f"{benchmark} ({judge.name})", found["figures"])


def _samples(run: Path) -> list[dict[str, Any]]:
    """The samples of a run.

    Raises:
        FileNotFoundError, ValueError: there are none, or a line is none.
    """
    from healthgpt.evaluation.runs import SAMPLES_NAME

    samples = []
    with require_file(run / SAMPLES_NAME).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                sample = json.loads(line)
                complete = {"id", "prompt", "truth", "answer"} <= sample.keys()
            except (ValueError, AttributeError):
                complete = False
            if not complete:
                raise ValueError(f"{run / SAMPLES_NAME}, line {number}: is no sample with id, prompt, truth and answer")
            samples.append(sample)
    return samples
