"""The server's log: a JSON object per line, of what was done and how long it took, never of what was said or shown."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

logger = logging.getLogger("healthgpt.serving")
_FRAMES = 6  # of a trace


@dataclass(kw_only=True)
class Trace:
    """What the log says of a request, gathered while it goes on.

    Attributes:
        started: on the monotonic clock, in seconds.
        facts: anything that tells nothing of a patient.
        at_end: what is to be done when the request is over, however it ends.
    """

    id: str
    started: float = field(default_factory=time.monotonic)
    facts: dict[str, Any] = field(default_factory=dict)
    at_end: list[Callable[[], object]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class JsonLines(logging.Formatter):
    """A record as one line of JSON. Of an error it has the kind and the places in the code, not the message.

    Messages of errors repeat what a client sent: text, names of files, headers of images.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
            entry["error"] = type(error).__name__
            entry["at"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(entry, default=str)


def note(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    """Writes an entry.

    Args:
        event: a few fixed words.
    """
    logger.log(level, event, extra={"facts": facts}, exc_info=error)


def write_logs(stream: TextIO | None = None) -> None:
    """Sends the package's log, and the web server's, to a stream (standard error) as JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("healthgpt", logging.INFO), ("uvicorn", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
