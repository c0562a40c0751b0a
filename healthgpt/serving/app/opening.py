"""Uploaded files as a scan, what there is to choose from in it, and what of it the model gets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from healthgpt.images import Plane, Scan, Seen, View, look, read_scan
from healthgpt.images.windows import FILE, WINDOWS

_NAMED_MODALITIES = (None, "CT")  # of scans that a window in Hounsfield units may be for
_HEADERS = (".mhd", ".nhdr", ".hdr")  # of files whose pixels lie in another one


@dataclass(frozen=True, kw_only=True)
class Looking:
    """How the open image is looked at.

    Attributes:
        window: as `View.of` takes it. slice: None for the middle. plane: None for the scan's own.
    """

    window: str = "auto"
    slice: int | None = None
    plane: str | None = None

    @classmethod
    def of(cls, window: str | None, slice: int | None, plane: str | None) -> Self:
        """What controls say: an empty one says nothing."""
        return cls(window=window or "auto", slice=slice, plane=plane.lower() if plane else None)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a user opened.

    Attributes:
        name: of the file, for the user to read.
    """

    name: str
    scan: Scan

    @property
    def windows(self) -> list[tuple[str, str]]:
        """Windows to choose from, a label and a value each; none where the values are a picture already."""
        scan = self.scan
        if scan.ready:
            return []
        found = [("Automatic", "auto")]
        if scan.own_window(0) is not None:
            found.append(("The file's own", FILE))
        if scan.modality in _NAMED_MODALITIES and scan.calibrated is not False:
            found += [
                (f"{name.capitalize()} {window.width:g}/{window.level:g}", name) for name, window in WINDOWS.items()
            ]
        return [*found, ("Percentiles 0.5–99.5", "percentile"), ("Darkest to brightest", "minmax")]

    @property
    def planes(self) -> list[str]:
        """Planes to choose from, the scan's own first; none where there is no choice."""
        own = self.scan.plane_of(None).plane or self.scan.frame_plane
        if own is None or self.scan.num_frames == 1:
            return []
        return [own, *(plane for plane in Plane if plane != own)]

    def num_slices(self, plane: str | None) -> int:
        """How many slices of a plane there are.

        Raises:
            ValueError: the plane cannot be cut.
        """
        return self.scan.plane_of(Plane(plane) if plane else None).num_slices

    def seen(self, looking: Looking) -> Seen:
        """The picture that is looked at.

        Raises:
            ValueError: the window does not fit, or there is nothing to see.
        """
        count = self.num_slices(looking.plane)
        place = count // 2 if looking.slice is None else max(0, min(looking.slice, count - 1))
        view = View.of(window=looking.window, plane=looking.plane, slice=place if count > 1 else None)
        return look(self.scan, view)[0]


def open_files(paths: Sequence[Path]) -> Opened:
    """One image, series or volume; several files are the series of the folder that they are in, or header and pixels.

    Raises:
        ValueError: they cannot be read; the message says why and names no folder.
    """
    folder = paths[0].parent
    header = next((path for path in paths if path.suffix.lower() in _HEADERS), None)
    single = paths[0] if len(paths) == 1 else header
    source, name = (single, single.name) if single else (folder, f"{len(paths)} files")
    try:
        scan = _first_volume(source)
    except (ValueError, OSError) as error:
        raise ValueError(plainly(error, folder)) from None
    return Opened(name=name, scan=dataclasses.replace(scan, name=name))


def plainly(error: Exception, folder: Path | None = None) -> str:
    """An error in one line, without a folder of the server and without flags of the command line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if folder:
        text = text.replace(f"{folder}/", "").replace(str(folder), "these files")
    return re.sub(r"--(?=\w)", "", text)


def _first_volume(source: Path) -> Scan:
    try:
        return read_scan(source)
    except ValueError:
        return read_scan(source, volume=0)  # of a file of several, the first; any other mistake is found again
