"""`healthgpt serve --ray`: two replicas on this machine, one of which is killed while both are at work."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
from serving_server import ROOT, XRAY, asking, one_thread, wait

from healthgpt import HealthGPT

pytest.importorskip("ray.serve")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc"),
]
QUESTION = "What abnormality is seen in this image?"


def replicas(folder: Path) -> list[int]:
    """Processes of this test's cluster that run the model."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                named = b"ServeReplica:healthgpt" in (entry / "cmdline").read_bytes()
                ours = str(folder).encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
            if named and ours:
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="module", autouse=True)
def same_sums():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["serve", "--device", "cpu", "--port", port, "--ray", "local", "--replicas", 2, "--drain_seconds", 5]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "healthgpt.cli", *map(str, words)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HEALTHGPT_TEST": str(folder)},
            start_new_session=True,
        )
    try:
        wait(lambda: b'"ready"' in (folder / "log").read_bytes() or process.poll() is not None, 300)
        assert process.poll() is None, (folder / "log").read_text()
        yield process, folder, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_a_replica_that_is_killed_under_load_is_replaced(server):
    _, folder, url = server
    answer = HealthGPT.from_pretrained("nano", device="cpu").answer(QUESTION, XRAY)
    wait(lambda: len(replicas(folder)) == 2, 60)
    first = set(replicas(folder))

    def ask(i: int) -> str:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=8, timeout=60) as client:
            messages = asking(QUESTION, XRAY)["messages"]
            reply = client.chat.completions.create(model="nano", messages=messages, stream=False)
            return reply.choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, i) for i in range(120)]
        wait(lambda: sum(one.done() for one in asked) > 20, 120)
        os.kill(first.copy().pop(), signal.SIGKILL)
        assert {one.result() for one in asked} == {answer}
    wait(lambda: len(set(replicas(folder)) - first) == 1 and len(replicas(folder)) == 2, 120)
    wait(lambda: httpx2.get(f"{url}/ready").status_code == 200, 60)
    assert ask(0) == answer


def test_streams_and_errors_pass_through(server):
    _, _, url = server
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(model="nano", messages=asking(QUESTION, XRAY)["messages"], stream=True)
        )
        assert len(chunks) > 3
        with pytest.raises(openai.NotFoundError, match="is not here; there is nano"):
            client.chat.completions.create(model="gpt-4o", messages=asking(QUESTION)["messages"])
    reply = httpx2.get(f"{url}/v1/models")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert [model["id"] for model in reply.json()["data"]] == ["nano"]


def test_it_ends_when_told(server):
    process, folder, _ = server
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 0
    deadline = time.monotonic() + 30
    while replicas(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not replicas(folder)
