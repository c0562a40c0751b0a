"""Confusion: which truths are taken for which answers, of yes/no questions and of kinds with few distinct truths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from healthgpt.evaluation.choices import option_chosen
from healthgpt.evaluation.vqa import form_of
from healthgpt.evaluation.words import squad_normalised, yes_or_no

OTHER = "other"
YES_NO = "yes or no"
MOST_TRUTHS = 12
_FEWEST_PER_TRUTH = 2  # on average: a matrix of single samples says nothing
Pair = tuple[str, str | None]  # truth and answer; None is an answer that names nothing


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A matrix of counts.

    Attributes:
        truths: its rows, and its columns but for the last one, `OTHER`: answers that are none of the truths.
        counts: [row][column], samples of a truth with an answer.
    """

    truths: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def n(self) -> int:
        return sum(map(sum, self.counts))

    @property
    def right(self) -> int:
        """Samples on the diagonal."""
        return sum(row[place] for place, row in enumerate(self.counts))


def confusions(samples: Iterable[Mapping[str, Any]]) -> dict[str, Confusion]:
    """Matrices of a run's questions: `YES_NO`, and kind -> that of its other questions.

    A kind has one where it has from two to `MOST_TRUTHS` distinct truths that are not each asked for once only.

    Args:
        samples: lines of `samples.jsonl`.
    """
    pairs: dict[str, list[Pair]] = {}
    for sample in samples:
        facts, truth = sample["facts"], str(sample["truth"])
        if form_of(facts) == "closed" and (wanted := yes_or_no(truth)):
            pairs.setdefault(YES_NO, []).append((wanted, yes_or_no(_answer(sample))))
        elif facts.get("kind"):
            pairs.setdefault(str(facts["kind"]), []).append(_told(sample, facts, truth))
    kinds = {name: found for name, found in sorted(pairs.items()) if name != YES_NO and _is_few(found)}
    first = {YES_NO: pairs[YES_NO]} if YES_NO in pairs else {}
    return {name: confusion(found) for name, found in {**first, **kinds}.items()}


def confusion(pairs: Sequence[Pair]) -> Confusion:
    """Counts pairs; texts that differ in case, punctuation and articles alone are the same."""
    shown: dict[str, str] = {}
    for truth, _ in pairs:
        shown.setdefault(squad_normalised(truth), truth)
    keys = sorted(shown, key=lambda key: (key == "no", key))  # "yes" stands before "no"
    counts = Counter((squad_normalised(truth), said and squad_normalised(said)) for truth, said in pairs)
    rows = []
    for key in keys:
        row = [counts[key, other] for other in keys]
        total = sum(count for (truth, _), count in counts.items() if truth == key)
        rows.append((*row, total - sum(row)))
    return Confusion(truths=tuple(shown[key] for key in keys), counts=tuple(rows))


def _is_few(pairs: Sequence[Pair]) -> bool:
    truths = {squad_normalised(truth) for truth, _ in pairs}
    return 2 <= len(truths) <= MOST_TRUTHS and len(pairs) >= _FEWEST_PER_TRUTH * len(truths)


def _told(sample: Mapping[str, Any], facts: Mapping[str, Any], truth: str) -> Pair:
    """Truth and answer in words; of multiple choice, the options' texts."""
    if form_of(facts) != "choice":
        return truth, _answer(sample)
    options = facts["options"]
    chosen = option_chosen(_answer(sample), options)
    return str(options.get(truth, truth)), None if chosen is None else str(options[chosen])


def _answer(sample: Mapping[str, Any]) -> str:
    """What was answered; a question that failed has no answer."""
    return "" if "error" in sample else str(sample["answer"])
