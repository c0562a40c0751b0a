"""The model that comes with the package, HealthGPT-Nano, and the checksums by which a damaged file is found."""

from __future__ import annotations

import hashlib
from pathlib import Path

from healthgpt.files import require_file, write_atomically

SHIPPED = Path(__file__).parent / "models" / "nano"
CHECKSUMS_NAME = "SHA256SUMS"
CARD_NAME = "README.md"  # may be reworded without a model becoming another


def write_checksums(folder: Path) -> None:
    """Writes the SHA-256 of every file of a folder but the card, as `sha256sum` does."""
    names = sorted(str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file())
    lines = [f"{_digest(folder / name)}  {name}\n" for name in names if name not in (CHECKSUMS_NAME, CARD_NAME)]
    write_atomically(folder / CHECKSUMS_NAME, lambda path: path.write_text("".join(lines)))


def check_files(folder: Path) -> None:
    """
    Raises:
        FileNotFoundError, ValueError: a file is missing or is not the one that was shipped.
    """
    for line in require_file(folder / CHECKSUMS_NAME).read_text().splitlines():
        expected, _, name = line.partition("  ")
        found = _digest(require_file(folder / name))
        if found != expected:
            difference = f"its SHA-256 is {found[:12]}..., {CHECKSUMS_NAME} says {expected[:12]}..."
            raise ValueError(f"{folder / name}: is damaged ({difference}); install HealthGPT again")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
