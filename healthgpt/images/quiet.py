"""The libraries' own warnings and messages are not shown: they quote headers, and what matters is said by an error."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Without Python's warnings, and without the messages of a library's logger."""
    messages = logging.getLogger(logger)
    # Not by its level: a change of that makes every logger of the process look its own up again.
    before = messages.handlers, messages.propagate
    messages.handlers, messages.propagate = [logging.NullHandler()], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        messages.handlers, messages.propagate = before
