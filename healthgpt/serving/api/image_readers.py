"""Images read by other processes, which have little memory and time, and may die without any harm."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image

import healthgpt
from healthgpt.serving.api import keys
from healthgpt.serving.api.errors import ApiError, refused
from healthgpt.serving.api.image_process import READY
from healthgpt.serving.api.limits import Limits
from healthgpt.serving.api.logs import note

_START_SECONDS = 60.0
_TRIES = 3  # of starting a process, and of reading images whose process dies, as something else may have killed it
_LONGEST_HEADER = 2**20


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """A file that a client sent.

    Attributes:
        view: keywords of `View.of`, for medical images.
    """

    data: bytes = field(repr=False)
    view: Mapping[str, Any] = field(default_factory=dict)


class ImageReaders:
    """Processes that read images. Every method may be called by several threads.

    Args:
        ended: is told of every process that ended before its time.

    Raises:
        ChildProcessError: they cannot be started.
    """

    def __init__(self, limits: Limits, ended: Callable[[], object] = lambda: None):
        self._limits, self._ended = limits, ended
        self._all = [_Reader(limits.image_memory_mib) for _ in range(limits.image_workers)]
        self._idle: queue.SimpleQueue[_Reader] = queue.SimpleQueue()
        for reader in self._all:
            self._idle.put(reader)

    def start(self) -> None:
        """Starts the processes and waits until all of them can work."""
        for reader in self._all:
            reader.begin()
        for reader in self._all:
            reader.wait_until_ready()

    def close(self) -> None:
        """Ends the processes."""
        for reader in self._all:
            reader.end()

    def read(self, files: Sequence[ImageFile]) -> list[Image.Image]:
        """The pictures that files show, in order; a job of one process.

        Raises:
            ApiError: one cannot be read, takes too much time or memory, or there are too many.
        """
        reader = self._idle.get()
        starts = deaths = 0
        try:
            while True:
                try:
                    reader.wait_until_ready()
                    return reader.read(files, self._limits)
                except _StartError as error:
                    starts += 1
                    if starts == _TRIES:
                        note("no image reader can be started", level=logging.ERROR, error=error)
                        raise _unready() from None
                except (EOFError, OSError, ValueError):  # what is left of a process that died
                    deaths += 1
                    late = reader.late
                    reader.end()
                    self._ended()
                    note("an image reader ended", late=late)
                    if late or deaths == _TRIES:
                        raise self._deadly(late) from None
        finally:
            self._idle.put(reader)

    def _deadly(self, late: bool) -> ApiError:
        how = f"take more than {self._limits.image_seconds:g} seconds to read" if late else "end what reads them"
        return refused(f"the images {how}", code="image")


def _unready() -> ApiError:
    return ApiError(503, "images cannot be read at the moment", code="image_readers", retry_after=30)


class _StartError(ChildProcessError):
    """A process that reads images did not start."""


class _Reader:
    """One process, in a folder of its own, started again where it is not alive.

    Attributes:
        late: it was ended because it took too long.
    """

    def __init__(self, memory_mib: int):
        self._memory_mib = memory_mib
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: str | None = None
        self._ready = False
        self.late = False

    def begin(self) -> None:
        """Starts the process."""
        self._folder = tempfile.mkdtemp(prefix="healthgpt-")
        self.late = self._ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "healthgpt.serving.api.image_process", str(self._memory_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            env=_environment(),
            start_new_session=True,  # an interrupt is for the server alone, which ends the process in time
        )

    def wait_until_ready(self) -> None:
        """
        Raises:
            _StartError: it cannot work.
        """
        if self.late:  # it was ended just when it had done its work
            self.end()
        if self._process is None:
            try:
                self.begin()
            except OSError as error:
                raise _StartError(f"a process that reads images cannot be started: {error}") from None
        if not self._ready:
            with self._limited(_START_SECONDS):
                line = self._pipes()[1].readline()
            if line != READY:
                self.end()
                raise _StartError("a process that reads images cannot be started; is there memory enough?")
            self._ready = True

    def end(self) -> None:
        """Ends the process, and removes what it wrote."""
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in self._pipes():
                with contextlib.suppress(OSError):  # what was not written yet cannot be any more
                    pipe.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._folder = None

    def read(self, files: Sequence[ImageFile], limits: Limits) -> list[Image.Image]:
        """As `ImageReaders.read`.

        Raises:
            EOFError, OSError, ValueError: the process ended meanwhile.
        """
        source, target = self._pipes()
        job = {
            "lengths": [len(file.data) for file in files],
            "views": [dict(file.view) for file in files],
            "pixels": limits.pixels,
        }
        with self._limited(limits.image_seconds):
            source.write(json.dumps(job).encode() + b"\n")
            for file in files:
                source.write(file.data)
            source.flush()
            header = json.loads(_whole(target.readline(_LONGEST_HEADER)))
            if header.get("full"):
                raise ApiError(503, header["error"], code="no_space", retry_after=30)
            if "error" in header:
                raise refused(header["error"], code="image")
            if len(header["sizes"]) > limits.max_images:
                raise refused(f"{len(header['sizes'])} images, expected at most {limits.max_images}", code="image")
            return [_picture(target, width, height, limits.pixels) for width, height in header["sizes"]]

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """The process's input and output."""
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        return self._process.stdin, self._process.stdout

    @contextlib.contextmanager
    def _limited(self, seconds: float) -> Iterator[None]:
        """Kills the process where the block takes too long."""

        def give_up() -> None:
            if self._process:
                self.late = True
                self._process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _picture(source: IO[bytes], width: int, height: int, most: int) -> Image.Image:
    if not 0 < width * height <= most:
        raise ValueError("no size of a picture")
    return Image.frombytes("RGB", (width, height), _whole(source.read(3 * width * height), 3 * width * height))


def _whole(data: bytes, size: int = 1) -> bytes:
    if len(data) < size:
        raise EOFError
    return data


def _environment() -> dict[str, str]:
    """This process's, without the keys, and with the package where it is."""
    kept = {name: value for name, value in os.environ.items() if name != keys.ENVIRONMENT}
    paths = [str(Path(healthgpt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
