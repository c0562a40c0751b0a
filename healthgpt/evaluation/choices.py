"""Which option an answer to a question of multiple choice names: by its letter, or by its text. Nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from healthgpt.evaluation.words import contains_words, same_words

_ALONE = re.compile(r"[\s(\[*]*([A-Za-z])[\s)\].:,*]*")
_OPENS = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Z])[.):])\s")
_NAMED = re.compile(
    r"\b(?i:answer|option|choice)(?:\s+is)?\s*:?\s*(?i:(?:the\s+)?(?:option|choice)\s+)?"
    r"[(\[*]*([B-HJ-Zb-hj-z]\b|[AI]\b(?!\s+[a-z]))"
)


def letter_named(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of an answer that is one ("b", "(B)"), begins with one ("B. Spleen") or names one ("the answer is B").

    An "A" or "I" that begins a sentence is a word, not a letter.
    """
    found: set[str] = set()
    if match := _ALONE.fullmatch(answer) or _OPENS.match(f"{answer} "):
        found = {next(group for group in match.groups() if group).upper()}
    else:
        found = {match[1].upper() for match in _NAMED.finditer(answer)}
    return found.pop() if len(found) == 1 and found <= options.keys() else None


def option_told(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option whose text an answer says, alone or among other words.

    Of options that contain one another ("spleen", "left spleen") the longest that is said counts.
    """
    same = [letter for letter, text in options.items() if same_words(answer, text)]
    if same:
        return same[0] if len(same) == 1 else None
    said = [letter for letter, text in options.items() if contains_words(answer, text)]
    longest = [
        letter
        for letter in said
        if not any(other != letter and contains_words(options[other], options[letter]) for other in said)
    ]
    return longest[0] if len(longest) == 1 else None


def option_chosen(answer: str, options: Mapping[str, str]) -> str | None:
    """The option that an answer names by its letter or, without one, by its text."""
    return letter_named(answer, options) or option_told(answer, options)
