"""The web app as programs meet it: gradio_client's answers equal the direct call; what it refuses; how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from app_server import app, residents  # noqa: F401 (fixtures)
from PIL import Image

from healthgpt.serving.app.examples import EXAMPLES
from healthgpt.serving.app.sessions import Turn
from healthgpt.tasks import Task

gradio_client = pytest.importorskip("gradio_client", reason="no gradio here: bash scripts/setup.sh dev")
ROOT = Path(__file__).parents[1]
CHEST, BRAIN_CT = str(EXAMPLES[0].image), str(EXAMPLES[1].image)


@pytest.fixture(scope="module")
def client(app):  # noqa: F811
    return gradio_client.Client(app.address, verbose=False, analytics_enabled=False)


@pytest.fixture(scope="module")
def nano(residents):  # noqa: F811
    return residents.get("nano")


def test_answers_and_drawings_equal_the_direct_call(client, nano, tmp_path):
    question, image = "What abnormality is seen in this image?", gradio_client.handle_file(CHEST)
    assert client.predict(question, image, api_name="/answer") == nano.answer(question, CHEST)
    assert client.predict("CT or MRI?", None, api_name="/answer") == nano.answer("CT or MRI?")
    settings = {"do_sample": True, "temperature": 1.3, "top_p": 0.9, "seed": 7, "max_new_tokens": 9}
    sampled = client.predict(question, image, **settings, api_name="/answer")
    assert sampled == nano.answer(question, CHEST, **settings)
    drawn = client.predict("Turn this CT into an MRI.", gradio_client.handle_file(BRAIN_CT), api_name="/draw")
    expected = nano.draw("Turn this CT into an MRI.", BRAIN_CT)
    assert np.array_equal(np.asarray(Image.open(drawn).convert("RGB")), np.asarray(expected))
    report = "Draw the chest X-ray of this report: The heart is enlarged."
    drawn = client.predict(report, None, api_name="/draw")
    assert np.array_equal(np.asarray(Image.open(drawn).convert("RGB")), np.asarray(nano.draw(report)))


def test_answers_stream(client, nano):
    job = client.submit("Describe this image.", gradio_client.handle_file(CHEST), api_name="/answer")
    whole = job.result(timeout=30)
    assert whole == nano.answer("Describe this image.", CHEST)
    parts = job.outputs()
    assert parts
    assert all(whole.startswith(part) for part in parts)


def test_routing_and_models_have_endpoints(client):
    assert client.predict("Turn this CT into an MRI.", api_name="/route")["task"] == "generation"
    assert client.predict("Is this a CT?", api_name="/route")["task"] == "comprehension"
    assert client.predict(api_name="/models") == ["nano"]
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/answer", "/draw", "/route", "/models"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"question": " "}, "the question is empty"),
        ({"question": "Why?", "model": "l14"}, "model 'l14' is not here; there is nano"),
        ({"question": "Why?", "do_sample": True, "temperature": -1}, "temperature is -1"),
        ({"question": "Why?", "image": "text"}, r"note\.txt: not an image of a known format"),
        ({"question": "Why?", "image": "png", "window": "lung"}, "window"),
    ],
)
def test_mistakes_are_one_line_without_paths(client, tmp_path, arguments, line):
    (tmp_path / "note.txt").write_text("hello")
    files = {"text": str(tmp_path / "note.txt"), "png": CHEST}
    image = arguments.get("image")
    asked = {"image": None, **arguments} | ({"image": gradio_client.handle_file(files[image])} if image else {})
    with pytest.raises(Exception, match=line) as caught:
        client.predict(**asked, api_name="/answer")
    assert "/tmp" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_programs_at_once_get_their_own(app, nano):  # noqa: F811
    asked = [(CHEST, "Describe this image."), (BRAIN_CT, "Describe this image.")]
    expected = [nano.answer(question, image) for image, question in asked]
    found: dict[int, list[str]] = {0: [], 1: []}

    def ask(who: int) -> None:
        mine = gradio_client.Client(app.address, verbose=False, analytics_enabled=False)
        image, question = asked[who]
        for _ in range(4):
            found[who].append(mine.predict(question, gradio_client.handle_file(image), api_name="/answer"))

    threads = [threading.Thread(target=ask, args=(who,)) for who in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [set(found[who]) for who in (0, 1)] == [{expected[0]}, {expected[1]}]
    assert expected[0] != expected[1]


# --- what it refuses


def call(app, endpoint, data):  # noqa: F811
    """What a program gets that speaks to the app by itself."""
    with httpx.Client(base_url=app.address, timeout=30) as http:
        begun = http.post(f"gradio_api/call/{endpoint}", json={"data": data})
        if begun.status_code != 200:
            return begun.text
        return http.get(f"gradio_api/call/{endpoint}/{begun.json()['event_id']}").text


def file_of(path):
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", str(ROOT / "README.md"), "/proc/self/environ"])
def test_files_of_the_server_cannot_be_named(app, path):  # noqa: F811
    said = call(app, "answer", ["What is it?", file_of(path), "", "auto", None, "", False, 1, 1, 1, 0, 9, None])
    assert "event: error" in said
    for secret in ("root:", "PATH=", "HealthGPT\n"):
        assert secret not in said
    with httpx.Client(base_url=app.address) as http:
        assert http.get(f"gradio_api/file={path}").status_code in (403, 404)


@pytest.fixture
def website():
    """A web server that counts who asks it for something."""
    asked: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.2)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            asked.append("somebody")
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/image.png", asked
    stop.set()
    thread.join()
    listening.close()


def test_addresses_are_not_fetched(app, website, monkeypatch):  # noqa: F811
    address, asked = website
    for place in (address, "http://example.com/image.png"):
        arguments = ["What is it?", file_of(place), "", "auto", None, "", False, 1, 1, 1, 0, 9, None]
        assert "event: error" in call(app, "answer", arguments)
        said = call(app, "route", [file_of(place), True])
        assert "generation" not in said
    assert not asked


def test_other_names_and_other_pages_are_kept_out(app):  # noqa: F811
    with httpx.Client(base_url=app.address) as http:
        assert http.get("/", headers={"Host": "evil.example"}).status_code == 400
        reply = http.get("/")
        assert reply.status_code == 200
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        assert reply.headers["x-frame-options"] == "DENY"
        for gone in ("/docs", "/openapi.json", "/gradio_api/runs", "/monitoring", "/monitoring/summary"):
            assert http.get(gone, follow_redirects=False).status_code in (401, 403, 404, 307), gone
        foreign = http.post("/gradio_api/call/models", json={"data": []}, headers={"Origin": "https://evil.example"})
        assert foreign.headers.get("access-control-allow-origin") != "https://evil.example"


def test_a_program_that_calls_a_pages_events_gets_nobodys_page(app):  # noqa: F811
    other = app.sessions.of("somebody else")
    other.add(Turn(instruction="What is mine?", task=Task.COMPREHENSION, reason=None, model="nano", done=True))
    for _ in range(2):
        assert "Nothing to report yet" in call(app, "report", [])
    with pytest.raises(ValueError, match="belongs to a page"):
        app.sessions.of(None)
    other.close()


def test_downloads_need_the_pages_token(app):  # noqa: F811
    with httpx.Client(base_url=app.address) as http:
        for path in ("/drawn/guess/1.png", "/drawn//1.png", "/drawn/guess/1.exe"):
            assert http.get(path).status_code == 404


def test_what_is_written_is_private(app):  # noqa: F811
    assert app.folder.stat().st_mode & 0o077 == 0
    assert Path(os.environ["GRADIO_TEMP_DIR"]).is_relative_to(app.folder)


def test_a_password_is_asked_for(residents):  # noqa: F811
    from healthgpt.serving.api.keys import Keys
    from healthgpt.serving.api.settings import Place
    from healthgpt.serving.app.server import running_app
    from healthgpt.serving.app.settings import AppSettings

    secret = "a-long-password-of-ours"
    settings = AppSettings(models=("nano",), place=Place(port=0), passwords=Keys([("ann", secret)]))
    with running_app(settings, residents) as running:
        with httpx.Client(base_url=running.address) as http:
            assert http.post("gradio_api/call/models", json={"data": []}).status_code == 401
            assert http.get("config").status_code == 401
            assert http.post("login", data={"username": "ann", "password": "wrong"}).status_code == 400
        client = gradio_client.Client(running.address, auth=("ann", secret), verbose=False, analytics_enabled=False)
        assert client.predict(api_name="/models") == ["nano"]
    assert not running.folder.exists()


# --- the command


@pytest.mark.slow
def test_the_command_serves_and_ends_in_good_order(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "demo/app.py", "--port", str(port), "--device", "cpu"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line == f"HealthGPT: http://127.0.0.1:{port}/ (Ctrl+C ends it)\n"
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
        assert any(path.name.startswith("healthgpt-app-") for path in tmp_path.iterdir())
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("healthgpt")]


def test_a_place_that_is_taken_is_one_line(capsys):
    from healthgpt.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["app", "--port", str(taken.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert "cannot listen at 127.0.0.1, port" in error
    assert error.count("\n") == 1


def test_nothing_is_left_behind(residents):  # noqa: F811
    from healthgpt.serving.api.settings import Place
    from healthgpt.serving.app.server import running_app
    from healthgpt.serving.app.settings import AppSettings

    before = set(Path(tempfile.gettempdir()).glob("healthgpt-app-*"))
    with running_app(AppSettings(models=("nano",), place=Place(port=0)), residents) as running:
        client = gradio_client.Client(running.address, verbose=False, analytics_enabled=False)
        client.predict("Turn this CT into an MRI.", gradio_client.handle_file(BRAIN_CT), api_name="/draw")
        assert any(path.is_file() for path in running.folder.rglob("*"))
    assert set(Path(tempfile.gettempdir()).glob("healthgpt-app-*")) == before
