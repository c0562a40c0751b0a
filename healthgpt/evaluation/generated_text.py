"""Texts of several words, such as reports, against the truth: ROUGE, BLEU and METEOR by their usual libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from healthgpt.evaluation.words import words_of

ROUGE = {"rouge1": "rouge1_fmeasure", "rouge2": "rouge2_fmeasure", "rougeL": "rougeL_fmeasure"}


def rouge(answer: str, truth: str) -> dict[str, float]:
    """ROUGE-1, -2 and -L (F measures) of one text, by torchmetrics' rules: lower case, letters and digits."""
    rouge_score = _text_metrics().rouge_score
    found = rouge_score([answer], [truth], rouge_keys=tuple(ROUGE))
    return {name: float(found[key]) for name, key in ROUGE.items()}


def bleu(answers: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
    """BLEU-1 to -4 of a corpus, of the words of `words.words_of`; it is no mean over texts, so it has no interval."""
    bleu_score = _text_metrics().bleu_score
    said = [" ".join(words_of(answer)) for answer in answers]
    true = [[" ".join(words_of(truth))] for truth in truths]
    return {f"bleu{n}": float(bleu_score(said, true, n_gram=n)) for n in range(1, 5)}


def _text_metrics() -> Any:
    try:
        from torchmetrics.functional import text
    except ImportError:
        raise ValueError("scores of reports need torchmetrics: pip install 'healthgpt[evaluation]'") from None
    return text


def meteor(answer: str, truth: str) -> float | None:
    """METEOR by nltk; None where nltk or its WordNet, which it does not bring along, is not installed."""
    with contextlib.suppress(ImportError, LookupError):
        from nltk.translate.meteor_score import single_meteor_score

        return float(single_meteor_score(words_of(truth), words_of(answer)))
    return None
