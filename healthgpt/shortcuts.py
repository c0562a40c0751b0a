"""Ways to be faster that change what is computed; none is taken unless asked for. docs/engine.md has their effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from healthgpt.decoding import Decoding


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """What may be given up for speed.

    Attributes:
        int8_weights: products of few tokens, those of steps, take the base's linear layers in 8 bits, a scale per row;
            others take the whole weights, which stay.
        fp8_cache: keys and values are kept in 8 bits (e4m3).
        row_lead: codes that a row of a drawing is ahead of the one below it, which is drawn at the same time (ZipAR,
            arXiv 2412.04062); None draws code after code. For greedy drawing without a penalty.

    Raises:
        ValueError: a lead of less than one code.
    """

    int8_weights: bool = False
    fp8_cache: bool = False
    row_lead: int | None = None

    def __post_init__(self) -> None:
        if self.row_lead is not None and self.row_lead < 1:
            raise ValueError(f"row_lead is {self.row_lead}, expected at least 1")

    def refuse(self, settings: Decoding) -> None:
        """Fails where decoding would not take them.

        Raises:
            ValueError: names both.
        """
        if self.names and settings.num_beams > 1:
            raise ValueError(f"{', '.join(self.names)}: beams take no shortcuts, num_beams is {settings.num_beams}")
        if self.row_lead and (settings.do_sample or settings.repetition_penalty not in (None, 1)):
            raise ValueError(f"row_lead {self.row_lead} draws greedily, without sampling or a repetition penalty")

    @property
    def names(self) -> list[str]:
        """Those that are taken."""
        lead = [f"row_lead {self.row_lead}"] if self.row_lead else []
        return [name for name in ("int8_weights", "fp8_cache") if getattr(self, name)] + lead
