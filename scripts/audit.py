"""Looks for known vulnerabilities in what is installed; where no advisories can be had, checks that pins are kept.

    python scripts/audit.py

Exits with 1 where a vulnerability is known, or where something else is installed than what is pinned.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SECONDS = 300


def main() -> int:
    pins = list(_pins())
    if _audit(["--no-deps", "--disable-pip", "-r"], pins[:1]) is None:
        print("audit: no advisories can be had here, so only the pins are checked", file=sys.stderr)
        return _check_pins(pins)
    found = _audit(["--local", "--skip-editable"]) or []
    for package in found:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "nothing yet"
            print(f"audit: {package['name']} {package['version']}: {advisory['id']}, fixed by {fixed}", file=sys.stderr)
    return int(any(package["vulns"] for package in found))


def _pins() -> Sequence[Requirement]:
    lines = (line for path in sorted(ROOT.glob("requirements*.txt")) for line in path.read_text().splitlines())
    found = [Requirement(line) for line in lines if re.match(r"[\w.-]+(\[[\w,]+\])?==", line)]
    return [pin for pin in found if pin.marker is None or pin.marker.evaluate()]


def _audit(flags: Sequence[str], pins: Sequence[Requirement] = ()) -> list[dict[str, Any]] | None:
    """What pip-audit says of packages; None where it could look at none of them."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "requirements.txt"
        names.write_text("".join(f"{pin.name}{pin.specifier}\n" for pin in pins))
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--format",
            "json",
            "--progress-spinner",
            "off",
            "--timeout",
            "10",
        ]
        words = [*command, *flags, *([str(names)] if pins else [])]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
            packages = json.loads(done.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            return None
    return [package for package in packages if "vulns" in package] or None


def _check_pins(pins: Sequence[Requirement]) -> int:
    wrong = 0
    for pin in pins:
        try:
            found = version(pin.name)
        except PackageNotFoundError:
            continue  # of a larger profile than this one
        if not pin.specifier.contains(found, prereleases=True):
            print(f"audit: {pin.name} {found} is installed, and {pin.specifier} is pinned", file=sys.stderr)
            wrong += 1
    done = subprocess.run([sys.executable, "-m", "pip", "check", "--disable-pip-version-check"], check=False)
    return int(wrong > 0 or done.returncode > 0)


if __name__ == "__main__":
    sys.exit(main())
