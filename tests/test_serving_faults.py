"""What goes wrong around a server: clients that are slow or gone, processes that die, full disks, too much at once."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from serving_server import XRAY, RunningServer, asking, data_url, one_thread, wait

from healthgpt import HealthGPT

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
QUESTION = "What abnormality is seen in this image?"


@pytest.fixture(scope="module", autouse=True)
def same_sums():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def answer():
    return HealthGPT.from_pretrained("nano", device="cpu").answer(QUESTION, XRAY)


@pytest.fixture(scope="module")
def server(random_folder):
    """A server in a hurry; its second model talks until its context is full."""
    limits = {"body_seconds": 1, "send_seconds": 1, "image_seconds": 3, "max_body_mib": 4, "max_requests": 24}
    flags = [word for name, value in limits.items() for word in (f"--{name}", value)]
    with RunningServer("--model", "nano", random_folder, *flags) as server:
        yield server


def connection(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def request(body: dict, length: int | None = None) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data) if length is None else length}\r\n\r\n"
    )
    return head.encode() + data


def ask(server, **more) -> httpx2.Response:
    return httpx2.post(f"{server.url}/v1/chat/completions", json=asking(QUESTION, XRAY, **more), timeout=60)


def long(**more) -> dict:
    return {**asking("word " * 20), "model": "model", "max_tokens": 100_000, "repetition_penalty": 1.01, **more}


def everything(link: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    data = b""
    while part := link.recv(2**16):
        data += part
    return data


# Clients


def test_a_half_sent_body_is_given_up(server, answer):
    with connection(server) as link:
        link.sendall(request({"model": "nano"}, length=1000))
        reply = everything(link)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come within 1 seconds" in reply
    with connection(server) as link:
        link.sendall(request({"model": "nano"}, length=1000))
    assert ask(server).json()["choices"][0]["message"]["content"] == answer
    wait(lambda: server.figure("healthgpt_body_bytes") == 0)
    assert server.figure("healthgpt_requests_in_flight") == 0


def test_half_sent_headers_are_given_up(server):
    with connection(server) as link, connection(server) as silent:
        link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc")
        assert everything(link) == b""
        assert everything(silent) == b""


def test_headers_without_end_are_refused(server):
    with connection(server) as link, contextlib.suppress(ConnectionResetError):  # cut off with half of it unread
        link.sendall(b"GET /health HTTP/1.1\r\n" + b"X-A: " + b"a" * 2**17)
        assert everything(link).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_is_too_large_is_not_read(server):
    with connection(server) as link:
        link.sendall(request({"model": "nano"}, length=5 * 2**20))
        reply = everything(link)
    assert reply.startswith(b"HTTP/1.1 413 ")
    with connection(server) as link:
        link.sendall(b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
        try:
            for _ in range(100):
                link.sendall(chunk)
        except OSError:
            pass
        with contextlib.suppress(ConnectionResetError):
            assert everything(link).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_reads_nothing_is_let_go(server):
    """It asks for a long page again and again, until nothing more fits between it and the server."""
    with connection(server) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.settimeout(0.5)
        page = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 8000 + b"\r\n\r\n"
        with pytest.raises(OSError, match=r"timed out|reset|Broken"):
            link.sendall(page * 10_000)
        wait(lambda: _is_reset(link), 10)
    assert ask(server).status_code == 200


def _is_reset(link: socket.socket) -> bool:
    try:
        link.send(b"GET")
    except (BrokenPipeError, ConnectionResetError):
        return True
    except TimeoutError:
        pass
    return False


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_generation(server, stream):
    with connection(server) as link:
        link.sendall(request(long(stream=stream)))
        wait(lambda: server.figure("healthgpt_jobs_running") == 1)
        if stream:
            received = b""
            while b"data: " not in received:  # headers may come by themselves
                part = link.recv(2**16)
                assert part
                received += part
        assert server.figure("healthgpt_jobs_running") == 1
    left = time.monotonic()
    wait(lambda: server.figure("healthgpt_jobs_running") == 0)
    assert time.monotonic() - left < 0.2
    assert server.figure("healthgpt_requests_in_flight") == 0
    wait(lambda: server.entries("request")[-1].get("left"))


def test_others_of_the_same_batch_go_on_when_one_leaves(server):
    body = {**asking("word " * 20), "model": "model", "max_tokens": 150}
    whole = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()["choices"]
    with connection(server) as blocker, connection(server) as leaving, ThreadPoolExecutor(1) as pool:
        blocker.sendall(request(long()))
        wait(lambda: server.figure("healthgpt_jobs_running") == 1)
        leaving.sendall(request(body))
        staying = pool.submit(httpx2.post, f"{server.url}/v1/chat/completions", json=body, timeout=60)
        wait(lambda: server.figure("healthgpt_queue_length") == 2)
        blocker.close()
        wait(lambda: server.figure("healthgpt_jobs_running") in (2, 0))
        leaving.close()
        assert staying.result().json()["choices"] == whole


# Too much at once


def test_more_requests_than_there_is_room_for_are_turned_away(server, answer):
    async def crowd() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=300)
        async with httpx2.AsyncClient(limits=limits, timeout=60) as client:
            body = asking(QUESTION, XRAY)
            url = f"{server.url}/v1/chat/completions"
            return await asyncio.gather(*(client.post(url, json=body) for _ in range(300)))

    replies = asyncio.run(crowd())
    statuses = {reply.status_code for reply in replies}
    assert statuses == {200, 429}
    for reply in replies:
        if reply.status_code == 429:
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json()["error"]["type"] == "rate_limit_error"
        else:
            assert reply.json()["choices"][0]["message"]["content"] == answer
    assert ask(server).status_code == 200
    assert server.figure("healthgpt_refusals_total") >= sum(reply.status_code == 429 for reply in replies)


# Processes and disks


def test_image_readers_that_are_killed_are_replaced(server, answer):
    stop = threading.Event()
    kills = []

    def kill() -> None:
        while not stop.wait(0.7) and len(kills) < 6:
            for pid in server.children()[-1:]:
                os.kill(pid, signal.SIGKILL)
                kills.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(lambda _: ask(server), range(60)))
    finally:
        stop.set()
        killer.join()
    assert kills
    assert {reply.status_code for reply in replies} == {200}, [
        reply.text for reply in replies if reply.status_code != 200
    ]
    assert {reply.json()["choices"][0]["message"]["content"] for reply in replies} == {answer}


def both_readers(server) -> list[int]:
    """The processes that read images, each of which has just read one."""
    for _ in range(2):  # they take turns
        assert ask(server).status_code == 200
    assert len(server.children()) == 2
    return server.children()


def test_readers_that_hang_are_ended(server, answer):
    for pid in both_readers(server):
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda _: ask(server), range(3)))
    assert sorted(reply.status_code for reply in replies) == [200, 400, 400]
    assert "more than 3 seconds" in next(reply.text for reply in replies if reply.status_code == 400)
    assert ask(server).json()["choices"][0]["message"]["content"] == answer


def test_a_full_disk_is_said_and_survived(server, answer, tmp_path):
    import SimpleITK as sitk  # noqa: N813

    volume = sitk.GetImageFromArray(np.arange(32 * 32, dtype=np.int16).reshape(1, 32, 32))
    sitk.WriteImage(volume, str(tmp_path / "volume.mha"))  # of which ITK wants a file
    for pid in both_readers(server):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))  # every write to a file fails
    url = data_url(tmp_path / "volume.mha", "application/octet-stream")
    reply = httpx2.post(f"{server.url}/v1/chat/completions", json=asking(QUESTION, url), timeout=60)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "no_space"
    assert ask(server).json()["choices"][0]["message"]["content"] == answer  # an ordinary picture needs no file


# The end


def test_it_ends_with_what_it_has_and_takes_nothing_new(random_folder, answer):
    with RunningServer("--model", "nano", random_folder) as server:
        children, folders = server.children(), [os.readlink(f"/proc/{pid}/cwd") for pid in server.children()]
        with ThreadPoolExecutor(24) as pool, connection(server) as stream:
            url, body = f"{server.url}/v1/chat/completions", long(max_tokens=1500)
            begun = [pool.submit(httpx2.post, url, json=body, timeout=60)]
            wait(lambda: server.figure("healthgpt_jobs_running") == 1)
            stream.sendall(request(long(max_tokens=5, stream=True)))
            begun += [pool.submit(ask, server) for _ in range(20)]
            wait(lambda: server.figure("healthgpt_requests_in_flight") >= 8)
            server.process.send_signal(signal.SIGTERM)
            wait(lambda: server.entries("stopping"))
            assert httpx2.get(f"{server.url}/ready").json() == {"status": "stopping"}
            assert httpx2.get(f"{server.url}/health").status_code == 200
            refused = ask(server)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert b"data: [DONE]" in everything(stream)
            replies = [one.result() for one in begun]
        assert server.process.wait(20) == 0
        good = [reply for reply in replies if reply.status_code == 200]
        assert all(reply in good or reply.status_code == 503 for reply in replies)
        ended = [entry for entry in server.entries("request") if entry["status"] == 200 and "batch" in entry]
        assert len(good) + 1 == len(ended) >= server.entries("stopping")[0]["in_flight"] >= 8
        assert {reply.json()["choices"][0]["message"]["content"] for reply in good[1:]} == {answer}
        assert server.entries("stopped")
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        assert not any(Path(folder).exists() for folder in folders)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_it_ends_in_time_and_works_without_a_log(random_folder, answer):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--model", "nano", random_folder, "--port", port, "--drain_seconds", 1]
    with RunningServer(*flags, log=Path("/dev/full"), wait=False) as server:
        server.url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return httpx2.get(f"{server.url}/ready").status_code == 200
            except httpx2.HTTPError:
                return False

        wait(ready, 120)
        assert ask(server).json()["choices"][0]["message"]["content"] == answer
        with connection(server) as link:
            link.sendall(request(long(stream=True, n=16, temperature=1.0)))
            wait(lambda: server.figure("healthgpt_jobs_running") >= 1)
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 20
