"""A line on a terminal that says how far something is, and overwrites itself."""

from __future__ import annotations

import sys
import time

_LINE = 10  # items between two updates


class _Clock:
    started: float | None = None


def progress(done: int, total: int | None, text: str, every: int = _LINE) -> None:
    """Shows it, with the rate; in a file it would be thousands of lines.

    Args:
        total: None where it is not known.
    """
    if not sys.stderr.isatty() or (done % every and done != total):
        return
    now = time.monotonic()
    _Clock.started = _Clock.started or now
    rate = done / max(now - _Clock.started, 1e-3)
    shown = f"{done}/{total}" if total is not None else str(done)
    print(f"\r{shown} {text} ({rate:.0f}/s)", end="\n" if done == total else "", file=sys.stderr, flush=True)
