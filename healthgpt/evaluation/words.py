"""Answers in words against the truth: each function is one definition, and none of them is more than 1.

Words are compared as in the SQuAD evaluation: lower case, no punctuation, no articles. Recall, precision and F1 are of
the words that answer and truth share, counted as often as they occur in both.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_normalised(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous white space, in this order, as SQuAD's script."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def words_of(text: str) -> list[str]:
    """The words of a text after `squad_normalised`."""
    return squad_normalised(text).split()


def same_words(answer: str, truth: str) -> bool:
    """SQuAD's exact match: the same words in the same order; texts without any words are compared as they stand."""
    left, right = squad_normalised(answer), squad_normalised(truth)
    return left == right if left or right else answer.strip().lower() == truth.strip().lower()


def contains_words(answer: str, truth: str) -> bool:
    """Whether the truth's words stand in the answer, together and in their order; a truth without words never does."""
    inside, whole = words_of(truth), words_of(answer)
    return bool(inside) and any(whole[i : i + len(inside)] == inside for i in range(len(whole) - len(inside) + 1))


def yes_or_no(answer: str) -> str | None:
    """ "yes" or "no" where the first word of an answer is one of them."""
    words = words_of(answer)
    return words[0] if words and words[0] in ("yes", "no") else None


@dataclass(frozen=True)
class Overlap:
    """Shares of words that answer and truth have in common.

    Attributes:
        precision: of the answer's words; recall: of the truth's; f1: their harmonic mean.
    """

    precision: float
    recall: float
    f1: float


def overlap(answer: str, truth: str) -> Overlap:
    """Token precision, recall and F1; two texts without words overlap wholly, one without words not at all."""
    said, true = Counter(words_of(answer)), Counter(words_of(truth))
    if not said or not true:
        value = float(said == true)
        return Overlap(value, value, value)
    common = (said & true).total()
    precision, recall = common / said.total(), common / true.total()
    return Overlap(precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0)
