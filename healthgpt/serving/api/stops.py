"""Text up to the first of some strings."""

from __future__ import annotations

from collections.abc import Sequence

from healthgpt.streaming import SettledText


class StoppedText:
    """A text that comes token by token and ends before the first stop string in it.

    Attributes:
        stopped: one has come.
    """

    def __init__(self, text: SettledText, stops: Sequence[str]):
        self._text, self._stops = text, stops
        self._held = ""  # may be the beginning of a stop string
        self.stopped = False

    def add(self, token: int) -> str:
        """Takes a token; returns what is certainly text by now."""
        return self._released(self._text.add(token))

    def rest(self) -> str:
        """What is left when no token comes any more."""
        released = self._released(self._text.rest())
        held, self._held = self._held, ""
        return released + held

    def _released(self, more: str) -> str:
        if self.stopped:
            return ""
        self._held += more
        text = before_stop(self._held, self._stops)
        if text is not None:
            self.stopped, self._held = True, ""
            return text
        kept = _beginning(self._held, self._stops)
        released, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return released


def before_stop(text: str, stops: Sequence[str]) -> str | None:
    """The text before the first stop string in it; None where there is none."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else None


def _beginning(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    longest = max(map(len, stops), default=1) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-count:]) for stop in stops):
            return count
    return 0
