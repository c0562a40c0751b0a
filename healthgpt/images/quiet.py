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
    level = messages.level
    messages.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        messages.setLevel(level)
