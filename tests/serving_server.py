"""`healthgpt serve` as a process on a free port of this machine, and what its tests send to it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "healthgpt" / "examples"
XRAY, CT = EXAMPLES / "chest_xray.png", EXAMPLES / "brain_ct.png"


class RunningServer:
    """The command in a process of its own, its log in a file."""

    def __init__(self, *flags: object, log: Path | None = None, wait: bool = True):
        self._folder = tempfile.TemporaryDirectory(prefix="test-serving-")
        self._log = log or Path(self._folder.name) / "log.jsonl"
        command = [sys.executable, "-m", "healthgpt.cli", "serve", "--device", "cpu", "--threads", "1", "--port", "0"]
        command += map(str, flags)
        with self._log.open("wb") as written:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stderr=written,
                env=os.environ,
                start_new_session=True,
            )
        self.url = ""
        if wait:
            self.wait_until_ready()

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    def wait_until_ready(self) -> None:
        wait(lambda: self.entries("ready") or self.process.poll() is not None, 120)
        assert self.process.poll() is None, self.log
        self.url = self.entries("listening")[0]["url"]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def entries(self, event: str) -> list[dict[str, Any]]:
        """The log's entries of an event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def figure(self, name: str) -> float:
        """A figure of /metrics, over all labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def children(self) -> list[int]:
        """The processes that read images."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        listed = [pid for thread in threads for pid in thread.read_text().split()]
        return [int(pid) for pid in listed if b"image_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def memory(self) -> int:
        """Bytes that it has in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def stop(self, seconds: float = 30) -> int:
        """Asks it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return self.process.returncode


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Direct calls compute on as many cores as the servers here: on others, sums are in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wait(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def data_url(image: Path | bytes, kind: str = "image/png") -> str:
    data = image if isinstance(image, bytes) else image.read_bytes()
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def picture(text: str) -> Image.Image:
    """The picture of base64."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def asking(text: str, *images: Path | bytes | str, **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    urls = [image if isinstance(image, str) else data_url(image) for image in images]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {
        "model": "nano",
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
        **more,
    }
