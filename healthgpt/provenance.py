"""Which software a result came from."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def version_of(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of this code, with "+" where files differ from it; None where it does not run from its repository."""
    try:
        # An installed copy may lie inside another repository, whose commit says nothing.
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != _ROOT:
            return None
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", _ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()
