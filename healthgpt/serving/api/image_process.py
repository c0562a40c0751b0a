"""A process that reads images for the server, so that an image which is an attack can end or slow nothing but it.

    python -m healthgpt.serving.api.image_process MEMORY_MIB        (in a folder of its own)

Jobs come on standard input and pictures go to standard output, each as a line of JSON and bytes behind it; nothing that
comes from here is ever unpickled. The process ends when its input does. It imports no torch, so it starts in a moment.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from healthgpt.images import View, read_images
from healthgpt.images.limits import at_most

READY = b"ready\n"


def main() -> None:
    folder = tempfile.tempdir = os.getcwd()
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no picture
    _bound_memory(int(sys.argv[1]) * 2**20)
    target.write(READY)
    target.flush()
    while line := source.readline():
        job = json.loads(line)
        files = [source.read(length) for length in job["lengths"]]
        _send(target, *_read(files, job["views"], job["pixels"]))
        for path in Path(folder).iterdir():
            shutil.rmtree(path, ignore_errors=True)


def _bound_memory(most: int) -> None:
    """Bounds memory where the system can, and leaves no image of it behind where the process crashes."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(
    files: Sequence[bytes], views: Sequence[dict[str, Any]], pixels: int
) -> tuple[dict[str, Any], list[Image.Image]]:
    """The header of a reply, and its pictures: those of every file.

    Args:
        pixels: bound on all pictures together.
    """
    pictures: list[Image.Image] = []
    counts = []
    for i, (data, view) in enumerate(zip(files, views, strict=True), start=1):
        try:
            with at_most(pixels):
                found = read_images(data, View.of(**view))
            pixels -= sum(picture.width * picture.height for picture in found)
            if pixels < 0:
                raise ValueError("the images have more pixels than a request may have")
        except (ValueError, MemoryError, OSError) as error:
            return _failure(error, f"image {i} of {len(files)}: " if len(files) > 1 else ""), []
        pictures += found
        counts.append(len(found))
    return {"sizes": [picture.size for picture in pictures], "counts": counts}, pictures


def _failure(error: Exception, which: str) -> dict[str, Any]:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return {"full": True, "error": "the server has no space left to read this kind of file"}
    if isinstance(error, MemoryError):
        return {"error": f"{which}it takes more memory to read than an image may take"}
    text = " ".join(str(error).replace(os.getcwd(), "").split()).replace("--", "")
    return {"error": f"{which}{text.removeprefix('the image: ')}"}


def _send(target: BinaryIO, header: dict[str, Any], pictures: Sequence[Image.Image]) -> None:
    target.write(json.dumps(header).encode() + b"\n")
    for picture in pictures:
        target.write(picture.tobytes())
    target.flush()


if __name__ == "__main__":
    main()
