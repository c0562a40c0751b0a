"""What `healthgpt serve` bears, with the shipped model: many clients at once, what batching gains, and a crowd.

    python benchmarks/serving.py [--parts load batching crowd]

load      64 clients of 20 requests each, of both tasks, whole and streamed: every reply is held against the direct call
batching  the same with fewer requests, in turns against a server that runs one job at a time
crowd     1,000 connections at once: who is turned away, how much memory it takes, and how soon the next one is served

Clients and server share the machine's cores. It is over in two minutes; rows of parts that are left out stay.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from report import RESULTS, publish

from healthgpt import HealthGPT
from healthgpt.data.phantoms.source import draw_patient

ROOT = Path(__file__).parents[1]
PARTS = ("load", "batching", "crowd")
ASKED = (
    "What imaging modality is this?",
    "What organ is shown in this image?",
    "Is there evidence of a lesion?",
    "Is the finding on the left side, the right side or both?",
    "Describe this image.",
)
DRAWN = "Reconstruct the image."
SHARE_OF_DRAWINGS, SHARE_OF_STREAMS = 0.1, 0.25
GAIN, RECOVERY_SECONDS = 2.0, 1.0


@dataclass(frozen=True)
class Asked:
    """A request and the reply that the direct call gives."""

    draws: bool
    stream: bool
    path: str
    body: bytes
    expected: Any


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        status: 0 where the connection failed.
    """

    asked: Asked
    status: int
    right: bool
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20, help="of each client")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--max_batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) - 1), help="of the model")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)  # as the server's, since on others sums are in another order
    asked = _requests(random.Random(0))
    rows = _rows_of_others(flags.parts)
    for part in flags.parts:
        rows += [
            {"part": part, **row} for row in {"load": _load, "batching": _batching, "crowd": _crowd}[part](asked, flags)
        ]
    rows.sort(key=lambda row: PARTS.index(row["part"]))
    publish(
        "serving",
        rows,
        clients=flags.clients,
        requests=flags.requests,
        max_batch=flags.max_batch,
        threads=flags.threads,
    )


def _rows_of_others(parts: Sequence[str]) -> list[dict[str, Any]]:
    path = RESULTS / "serving.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in rows if row["part"] not in parts]


def _row(what: str, value: float, unit: str, goal: str = "") -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit, "goal": goal}


def _requests(rng: random.Random) -> list[Asked]:
    """All questions about some phantoms, and drawings of them, in no order."""
    model = HealthGPT.from_pretrained("nano", device="cpu")
    images = [image for number in range(5) for image in draw_patient("test", 9, number).images.values()][:16]
    made = []
    for image in map(Image.fromarray, images):
        file = io.BytesIO()
        image.save(file, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        for text in ASKED:
            direct = model.answer(text, image)
            for stream in (False, True):
                content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
                body = {"model": "nano", "messages": [{"role": "user", "content": content}], "stream": stream}
                made.append(Asked(False, stream, "/v1/chat/completions", json.dumps(body).encode(), direct))
        body = {"model": "nano", "prompt": DRAWN, "image": url}
        drawn = np.asarray(model.draw(DRAWN, image))
        made.append(Asked(True, False, "/v1/images/edits", json.dumps(body).encode(), drawn))
    kinds = [
        [one for one in made if one.draws],
        [one for one in made if one.stream],
        [one for one in made if not (one.draws or one.stream)],
    ]
    weights = [SHARE_OF_DRAWINGS, SHARE_OF_STREAMS, 1 - SHARE_OF_DRAWINGS - SHARE_OF_STREAMS]
    return [rng.choice(rng.choices(kinds, weights)[0]) for _ in range(5000)]


# The server and its clients


@contextlib.contextmanager
def _server(flags: argparse.Namespace, max_batch: int) -> Iterator[tuple[int, int]]:
    """Port and process id of a server."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        command = [sys.executable, "-m", "healthgpt.cli", "serve", "--device", "cpu", "--port", "0"]
        command += ["--max_batch", str(max_batch), "--threads", str(flags.threads)]
        with path.open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + 60
            while '"ready"' not in path.read_text():
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(path.read_text())
                time.sleep(0.05)
            entries = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
            port = next(int(entry["url"].rpartition(":")[2]) for entry in entries if entry["event"] == "listening")
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


async def _send(port: int, asked: Asked) -> Outcome:
    """One request on a connection of its own."""
    started = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            length = len(asked.body)
            headers = (
                "Host: localhost",
                "Connection: close",
                "Content-Type: application/json",
                f"Content-Length: {length}",
            )
            head = "\r\n".join([f"POST {asked.path} HTTP/1.1", *headers, "", ""])
            writer.write(head.encode() + asked.body)
            reply = await reader.read()
        finally:
            writer.close()
        top, _, content = reply.partition(b"\r\n\r\n")
        status = int(top.split(b" ", 2)[1])
    except (OSError, IndexError):
        return Outcome(asked, 0, False, time.perf_counter() - started)
    if b"chunked" in top.lower():
        content = b"".join(_chunks(content))
    right = status == 200 and _is_right(asked, content)
    return Outcome(asked, status, right, time.perf_counter() - started)


def _chunks(content: bytes) -> Iterator[bytes]:
    while content:
        size, _, content = content.partition(b"\r\n")
        yield content[: int(size, 16)]
        content = content[int(size, 16) + 2 :]


def _is_right(asked: Asked, content: bytes) -> bool:
    if asked.draws:
        data = base64.b64decode(json.loads(content)["data"][0]["b64_json"])
        return np.array_equal(np.asarray(Image.open(io.BytesIO(data))), asked.expected)
    if not asked.stream:
        return json.loads(content)["choices"][0]["message"]["content"] == asked.expected
    events = [line[6:] for line in content.decode().split("\n\n") if line.startswith("data: {")]
    deltas = [choice["delta"].get("content") or "" for event in events for choice in json.loads(event)["choices"]]
    return "".join(deltas) == asked.expected


async def _clients(port: int, asked: Sequence[Asked], clients: int) -> tuple[list[Outcome], float]:
    """Outcomes of requests that so many clients share, each waiting for a reply before it asks again."""
    coming = iter(asked)

    async def client() -> AsyncIterator[Outcome]:
        for one in coming:
            yield await _send(port, one)

    async def outcomes() -> list[Outcome]:
        return [outcome async for outcome in client()]

    started = time.perf_counter()
    found = await asyncio.gather(*(outcomes() for _ in range(clients)))
    return list(itertools.chain(*found)), time.perf_counter() - started


def _memory(pid: int) -> float:
    """Most MiB that a process has had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


# The parts


def _load(asked: Sequence[Asked], flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with _server(flags, flags.max_batch) as (port, pid):
        asyncio.run(_clients(port, asked[:64], flags.clients))  # warm-up
        count = flags.clients * flags.requests
        outcomes, seconds = asyncio.run(_clients(port, asked[:count], flags.clients))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            figures = page.read().decode()
        peak = _memory(pid)
    statuses = Counter(outcome.status for outcome in outcomes)
    yield _row(f"requests of {flags.clients} clients", len(outcomes), "")
    yield _row("of them answered as by the direct call", sum(outcome.right for outcome in outcomes), "", "all")
    yield _row(
        "5xx and broken connections", sum(n for status, n in statuses.items() if status >= 500 or not status), "", "0"
    )
    yield _row("429", statuses[429], "")
    yield _row("throughput", len(outcomes) / seconds, "requests/s")
    for name, draws in (("answers", False), ("drawings", True)):
        times = sorted(outcome.seconds for outcome in outcomes if outcome.asked.draws is draws)
        yield _row(f"{name}, p50", 1000 * times[len(times) // 2], "ms")
        yield _row(f"{name}, p99", 1000 * times[int(len(times) * 0.99)], "ms")
    total, batches = (_figure(figures, f"healthgpt_batch_size_{name}") for name in ("sum", "count"))
    yield _row("jobs of a batch, on average", total / batches, "")
    yield _row("peak memory of the server", peak, "MiB")


def _figure(page: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(f"{name}{{"))


def _batching(asked: Sequence[Asked], flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The best of two turns each, as whatever else the machine does only slows them."""
    count, rates = 4 * flags.clients, {1: 0.0, flags.max_batch: 0.0}
    with _server(flags, 1) as (single, _), _server(flags, flags.max_batch) as (batched, _):
        for port in (single, batched):
            asyncio.run(_clients(port, asked[:64], flags.clients))  # warm-up
        for turn in range(2):
            for most, port in ((1, single), (flags.max_batch, batched)):
                outcomes, seconds = asyncio.run(_clients(port, asked[turn * count :][:count], flags.clients))
                assert all(outcome.right for outcome in outcomes)
                rates[most] = max(rates[most], count / seconds)
    one, many = rates.values()
    yield _row("throughput, one at a time", one, "requests/s")
    yield _row(f"throughput, up to {flags.max_batch} together", many, "requests/s")
    yield _row("gain", many / one, "times", f">= {GAIN}")


def _crowd(asked: Sequence[Asked], flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    answers = [one for one in asked if not one.draws]
    with _server(flags, flags.max_batch) as (port, pid):
        asyncio.run(_clients(port, asked[:256], flags.clients))  # warm-up
        before = _memory(pid)
        outcomes, seconds = asyncio.run(_clients(port, answers[: flags.connections], flags.connections))
        started = time.perf_counter()
        after = asyncio.run(_send(port, answers[0]))
        recovery = time.perf_counter() - started
        peak = _memory(pid)
    statuses = Counter(outcome.status for outcome in outcomes)
    yield _row("connections at once", len(outcomes), "")
    yield _row("of them answered, as by the direct call", sum(outcome.right for outcome in outcomes), "")
    yield _row("of them turned away with 429", statuses[429], "")
    yield _row("of them anything else", len(outcomes) - statuses[200] - statuses[429], "", "0")
    yield _row("until all had a reply", seconds, "s")
    yield _row("until the next one had", recovery if after.right else float("inf"), "s", f"<= {RECOVERY_SECONDS}")
    yield _row("memory that they took", peak - before, "MiB")


if __name__ == "__main__":
    main()
