"""Is the data good? Every record of a mixture, before any accelerator is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from healthgpt.data.examples import ExampleMaker
from healthgpt.data.mixture import Mixture

# The words of a message that say which kind of fault it is; the first that occurs counts.
_FAULTS = (
    ("no such image", "missing image"),
    ("placeholders for", "placeholders and images differ"),
    ("is from", "roles do not alternate"),
    ("last turn", "roles do not alternate"),
    ("conversations", "no conversation"),
    ("without target", "no target"),
    ("a generation record without", "no target"),
    ("has no codes", "codes not prepared"),
    ("out of range", "codes out of range"),
    ("codes, expected", "wrong number of codes"),
    ("max_length", "too long"),
    ("JSON", "not JSON"),
    ("image", "unreadable image"),
)
_EXAMPLES_PER_FAULT = 5


@dataclass
class Report:
    """What was found: records per task, faults by kind, and a few examples of each."""

    records: Counter[str] = field(default_factory=Counter)
    images: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.faults

    def note(self, message: str) -> None:
        """Counts a fault."""
        fault = next((kind for words, kind in _FAULTS if words in message), "other")
        self.faults[fault] += 1
        examples = self.examples.setdefault(fault, [])
        if len(examples) < _EXAMPLES_PER_FAULT:
            examples.append(message)

    def to_dict(self) -> dict[str, object]:
        return {
            "good": self.good,
            "records": dict(self.records),
            "images": self.images,
            "faults": dict(self.faults),
            "examples": self.examples,
        }


def check_mixture(mixture: Mixture, maker: ExampleMaker) -> Iterator[Report]:
    """Makes every example once, just as training would; yields the growing report after each record."""
    report = Report()
    for i in range(len(mixture)):
        try:
            record = mixture.record(i)
            report.records[record.task] += 1
            report.images += len(record.images)
            maker.make(record)
        except ValueError as error:
            report.note(f"{mixture.where(i)}: {error}")
        yield report
