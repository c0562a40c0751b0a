"""Questions: every definition of right in a column of its own, from 0 to 1.

    exact       the truth's words and no others (`words.same_words`)
    contains    the truth's words among others, together and in order
    first_word  yes or no, by the first word (closed questions whose truth is yes or no)
    recall, precision, f1   shares of words in common (open questions)
    letter, text, choice    multiple choice: by letter, by an option's text, by letter or else by text
    right       what the paper's "close" and "all" are compared with: `choice` of multiple choice, else `exact`

The paper states no rule. Its scores of open questions of PathVQA (about 3 %) can only come from a strict one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from healthgpt.evaluation.choices import letter_named, option_chosen, option_told
from healthgpt.evaluation.words import contains_words, overlap, same_words, yes_or_no


def form_of(facts: Mapping[str, Any]) -> str:
    """What kind of answer a question wants: "choice", "closed" or "open"."""
    if facts.get("options"):
        return "choice"
    return "closed" if facts.get("closed") else "open"


def score_answer(answer: str, truth: str, facts: Mapping[str, Any]) -> dict[str, float]:
    """The columns of one answer.

    Args:
        truth: the answer; of multiple choice, its letter.
        facts: `closed`, `options` (letter -> text) and `answers` (all that are accepted), as sources prepare them.
    """
    form = form_of(facts)
    if form == "choice":
        options = facts["options"]
        return {
            "letter": float(letter_named(answer, options) == truth),
            "text": float(option_told(answer, options) == truth),
            "choice": float(option_chosen(answer, options) == truth),
            "right": float(option_chosen(answer, options) == truth),
        }
    truths: Sequence[str] = facts.get("answers") or [truth]
    columns = {
        "exact": float(any(same_words(answer, one) for one in truths)),
        "contains": float(any(contains_words(answer, one) for one in truths)),
    }
    if form == "closed" and (said := yes_or_no(truth)) is not None:
        columns["first_word"] = float(yes_or_no(answer) == said)
    if form == "open":
        best = max((overlap(answer, one) for one in truths), key=lambda found: found.f1)
        columns |= {"recall": best.recall, "precision": best.precision, "f1": best.f1}
    return columns | {"right": columns["exact"]}


def groups_of(facts: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Groups of questions: all, by form ("close" is all that is not open), by modality and by kind."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, fact in enumerate(facts):
        form = form_of(fact)
        groups["all"].append(place)
        groups["open" if form == "open" else "close"].append(place)
        for name in ("modality", "kind"):
            if fact.get(name):
                groups[f"{name}={fact[name]}"].append(place)
    order = ["all", "close", "open"]
    return {name: groups[name] for name in [*order, *sorted(groups.keys() - set(order))] if name in groups}
