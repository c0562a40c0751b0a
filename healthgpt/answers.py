"""Answers against the truth."""

from __future__ import annotations


def normalised(answer: str) -> str:
    """Without case, outer white space, a final full stop and runs of white space."""
    return " ".join(answer.casefold().split()).removesuffix(".")
