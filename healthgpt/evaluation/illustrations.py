"""The figures of compared runs: which there are, drawn into a folder beside the tables.

Of every benchmark of questions: accuracy by modality, calibration of yes/no questions, confusion matrices, and each
run's wrong answers; of drawings: each run's worst ones. What cannot be drawn is said in one line, and tables need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthgpt.batch.run import file_name
from healthgpt.evaluation.calibration import Calibration, calibration
from healthgpt.evaluation.comparison import Finished
from healthgpt.evaluation.confusion import YES_NO, Confusion, confusions
from healthgpt.evaluation.modalities import accuracies
from healthgpt.evaluation.tables import Illustration
from healthgpt.evaluation.worst import bad_drawings, wrong_answers
from healthgpt.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from healthgpt.evaluation.charts import Label

FOLDER = "figures"
Report = Callable[[str], None]


def illustrate(runs: Sequence[Finished], folder: Path, report: Report) -> list[Illustration]:
    """Draws all figures of runs into a folder in `folder`.

    Args:
        report: is told of what is left out, a line each.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        from healthgpt.evaluation import charts
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        report("figures are left out: matplotlib is not installed (pip install 'healthgpt[evaluation]')")
        return []
    labels = [charts.Label(run.name, place) for place, run in enumerate(runs)]
    made = []
    with charts.style():
        for benchmark in dict.fromkeys(name for run in runs for name in run.results):
            have = [(label, run) for label, run in zip(labels, runs, strict=True) if benchmark in run.results]
            for name, title, caption, figure in _figures(benchmark, have, report):
                path = Path(FOLDER) / f"{file_name(f'{benchmark}-{name}')}.png"
                _save(figure, folder / path)
                made.append(Illustration(title=f"{benchmark}: {title}", path=path.as_posix(), caption=caption))
    return made


# File name, title, caption and figure.
Drawn = tuple[str, str, str, "Figure"]
Runs = Sequence[tuple["Label", Finished]]


def _figures(benchmark: str, runs: Runs, report: Report) -> Iterator[Drawn]:
    """The figures of one benchmark."""
    yield from _accuracy(benchmark, runs)
    samples = [list(run.samples(benchmark)) for _, run in runs]
    labels = [label for label, _ in runs]
    yield from _calibration(benchmark, labels, samples, report)
    yield from _confusion(labels, [confusions(_questions(found)) for found in samples])
    for label, run in runs:
        yield from _worst(benchmark, label, run, report)


def _questions(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [sample for sample in samples if "right" in sample["scores"]]


def _accuracy(benchmark: str, runs: Runs) -> Iterator[Drawn]:
    from healthgpt.evaluation.charts import accuracy_chart

    if found := accuracies([run for _, run in runs], benchmark):
        caption = "Share of right answers (`right`), with bootstrap intervals of 95 %."
        if found.paper:
            caption += " The paper's rows are for orientation: it names no rule, prompt or split."
        yield "modalities", "accuracy by modality", caption, accuracy_chart([label for label, _ in runs], found)


def _calibration(
    benchmark: str, labels: Sequence[Label], samples: Sequence[Sequence[Mapping[str, Any]]], report: Report
) -> Iterator[Drawn]:
    """Of yes/no questions; an answer is right by its first word, whose first token the probability is of."""
    from healthgpt.evaluation.charts import calibration_chart

    shown: list[tuple[Label, Calibration]] = []
    for label, found in zip(labels, samples, strict=True):
        closed = [sample for sample in found if "first_word" in sample["scores"]]
        sure = [sample for sample in closed if "confidence" in sample]
        if sure:
            hits = [sample["scores"]["first_word"] for sample in sure]
            shown.append((label, calibration([sample["confidence"] for sample in sure], hits)))
        elif closed:
            report(
                f"{benchmark}: no calibration of {label.name}, whose answers have no confidence "
                "(an older run, or one with sampling or beams)"
            )
    if shown:
        errors = "; ".join(f"{label.name} {one.error:.3f} (n = {one.n})" for label, one in shown)
        caption = (
            f"Yes/no questions. Bars and dots: share of right answers of those with about one probability; dashed: "
            f"as sure as right. Expected calibration error (ECE): {errors}."
        )
        figure = calibration_chart([label for label, _ in shown], [one for _, one in shown])
        yield "calibration", "calibration of yes/no questions", caption, figure


def _confusion(labels: Sequence[Label], found: Sequence[Mapping[str, Confusion]]) -> Iterator[Drawn]:
    from healthgpt.evaluation.charts import confusion_chart

    for name in dict.fromkeys(name for matrices in found for name in matrices):
        have = [(label, matrices[name]) for label, matrices in zip(labels, found, strict=True) if name in matrices]
        title = "yes/no questions" if name == YES_NO else f"questions of kind {name}"
        caption = "Counts, shaded by their share of the truth's samples; “other”: any answer that is no truth."
        figure = confusion_chart([label for label, _ in have], [matrix for _, matrix in have])
        yield f"confusion-{name.replace(' ', '-')}", f"truth and answer, {title}", caption, figure


def _worst(benchmark: str, label: Label, run: Finished, report: Report) -> Iterator[Drawn]:
    from healthgpt.evaluation.sheets import answers_sheet, drawings_sheet

    try:
        if wrong := wrong_answers(run, benchmark):
            order = "most confident first" if wrong[0].confidence is not None else "the first ones"
            caption = f"{len(wrong)} wrong answers, {order}."
            title = f"wrong answers of {label.name}"
            yield f"wrong-answers-{label.place + 1}", title, caption, answers_sheet(wrong)
        if bad := bad_drawings(run, benchmark):
            caption = "The drawings of the lowest SSIM; errors are absolute differences of grey values (0 to 255)."
            yield f"worst-drawings-{label.place + 1}", f"worst drawings of {label.name}", caption, drawings_sheet(bad)
    except (ValueError, OSError) as error:
        report(f"{benchmark}: no sheet of {label.name}: {error}")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: figure.savefig(temporary))
