"""A line on a terminal that says how far something is, and overwrites itself."""

from __future__ import annotations

import datetime
import sys
import time

_LINE = 10  # items between two updates


class _Clock:
    """When the first items were done, and how many they were."""

    started: tuple[float, int] | None = None


def progress(done: int, total: int | None, text: str, every: int = _LINE) -> None:
    """Shows it, with the rate and, where the total is known, the time left; in a file it would be thousands of lines.

    Args:
        total: None where it is not known.
    """
    if not sys.stderr.isatty() or (done % every and done != total):
        return
    now = time.monotonic()
    _Clock.started = _Clock.started or (now, done)
    seconds, before = now - _Clock.started[0], _Clock.started[1]
    rate = (done - before) / seconds if seconds else 0.0
    facts = [f"{rate:.3g}/s"]
    if total is not None and rate:
        facts.append(f"{datetime.timedelta(seconds=round((total - done) / rate))} left")
    shown = f"{done}/{total}" if total is not None else str(done)
    line = f"\r\x1b[K{shown} {text} ({', '.join(facts)})"
    if done == total:
        _Clock.started = None  # what comes next has a pace of its own
    print(line, end="\n" if done == total else "", file=sys.stderr, flush=True)
