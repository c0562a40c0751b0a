"""What a user sets about decoding, as the model takes it and in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

MOST_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Values of the controls; those that change nothing stay out of the model's keywords.

    Attributes:
        max_new_tokens: of an answer.
        repetition_penalty: 0 takes the model's own.
        seed: None draws a fresh one.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    num_beams: int = 1
    repetition_penalty: float = 0.0
    max_new_tokens: int = MOST_TOKENS
    seed: int | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """The controls' values in the order of the fields; the seed may be text.

        Raises:
            ValueError: a seed that is no number.
        """
        *others, seed = values
        text = "" if seed is None else str(seed).strip()
        if text and not text.isdecimal():
            raise ValueError(f"seed {text[:40]!r} is none; expected a whole number, or nothing")
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**dict(zip(names, (*others, int(text) if text else None), strict=True)))

    def keywords(self) -> dict[str, Any]:
        """For `HealthGPT.answer` and, without `max_new_tokens`, `draw`."""
        found: dict[str, Any] = {}
        if self.do_sample:
            found |= {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        if self.num_beams != 1:
            found["num_beams"] = int(self.num_beams)
        if self.repetition_penalty:
            found["repetition_penalty"] = self.repetition_penalty
        if self.max_new_tokens != MOST_TOKENS:
            found["max_new_tokens"] = int(self.max_new_tokens)
        return found

    def words(self) -> str:
        """What is not the default, for the user to read."""
        names = {
            "temperature": "temperature {:g}", "top_p": "top-p {:g}", "seed": "seed {}", "num_beams": "{} beams",
            "repetition_penalty": "repetition penalty {:g}", "max_new_tokens": "at most {} tokens",
        }  # fmt: skip
        return ", ".join(
            names[name].format(value) for name, value in self.keywords().items() if name in names and value is not None
        )
