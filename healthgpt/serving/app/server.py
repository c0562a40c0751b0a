"""Starting and stopping the web app, and what every request passes.

Nothing leaves the machine: no analytics, no shared links, no fonts or scripts from elsewhere. What users upload lies in
a folder that nobody else may read, and is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from healthgpt.serving.api.remote import RemoteImages
from healthgpt.serving.app import look
from healthgpt.serving.app.endpoints import Endpoints
from healthgpt.serving.app.guard import Guard
from healthgpt.serving.app.image_events import ImageEvents
from healthgpt.serving.app.page import lay_out
from healthgpt.serving.app.pictures import KINDS, as_file
from healthgpt.serving.app.sessions import Sessions
from healthgpt.serving.app.settings import AppSettings
from healthgpt.serving.app.talk_events import TalkEvents
from healthgpt.serving.residents import Residents

_LARGEST_UPLOAD = 512 * 2**20  # bytes of a file
_WAITING = 64  # events; more are refused
_CACHE = (60, 600)  # seconds: how often gradio's copies of files are looked through, and how old they may be


def serve_app(settings: AppSettings, ready: Callable[[str], object] = print) -> None:
    """Serves the app until it is interrupted or told to stop.

    Args:
        ready: is told of the address, once the first model is loaded and the page can be opened.

    Raises:
        ValueError, OSError: a model cannot be loaded, or the place is taken.
    """
    residents = Residents(settings.models, settings.options)
    settings.check()
    residents.get()
    stopped = threading.Event()
    with _told_to_stop(stopped), running_app(settings, residents) as app:
        ready(app.address)
        stopped.wait()


@dataclass(frozen=True, kw_only=True)
class RunningApp:
    """
    Attributes:
        folder: of everything that is written.
    """

    address: str
    sessions: Sessions
    folder: Path


@contextlib.contextmanager
def running_app(settings: AppSettings, residents: Residents) -> Iterator[RunningApp]:
    """The app while the block runs.

    Raises:
        OSError: the place is taken.
    """
    with _private_folder() as folder:
        sessions = Sessions(folder)
        blocks = build(residents, sessions, settings.remote)
        try:
            yield RunningApp(address=_launch(blocks, settings, sessions, folder), sessions=sessions, folder=folder)
        finally:
            blocks.close(verbose=False)
            sessions.close()


def build(residents: Residents, sessions: Sessions, remote: RemoteImages | None = None) -> gr.Blocks:
    """The page with its events, not served yet."""
    with gr.Blocks(title="HealthGPT", analytics_enabled=False, delete_cache=_CACHE, fill_width=True) as blocks:
        page = lay_out(residents.names, with_addresses=remote is not None)
        ImageEvents(page, residents, sessions, remote.fetch if remote else None).bind()
        TalkEvents(page, residents, sessions).bind()
        Endpoints(residents).bind()
        blocks.unload(_leaving(sessions))
    blocks.queue(max_size=_WAITING, api_open=False)
    return blocks


def _leaving(sessions: Sessions) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        sessions.leave(request.session_hash)

    return leave


def _launch(blocks: gr.Blocks, settings: AppSettings, sessions: Sessions, folder: Path) -> str:
    place, passwords = settings.place, settings.passwords
    try:
        _, address, _ = blocks.launch(
            server_name=place.host,
            server_port=place.port or None,
            auth=(lambda name, password: passwords.name_of(password) is not None) if passwords else None,
            auth_message="Any name, and the password that the owner of this server gave you.",
            share=False,
            quiet=True,
            show_error=False,
            prevent_thread_lock=True,
            ssl_certfile=str(place.certificate) if place.certificate else None,
            ssl_keyfile=str(place.private_key) if place.private_key else None,
            ssl_verify=False,  # of its own look at itself
            max_file_size=_LARGEST_UPLOAD,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=look.theme(),
            css_paths=[look.STYLE],
            head_paths=[look.HEAD],
            favicon_path=look.ICON,
            app_kwargs={
                "routes": [Route("/drawn/{token}/{name}", _downloads(sessions, folder))],
                "middleware": [Middleware(Guard, hosts=settings.hosts)],
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
        )
    except OSError as error:
        raise settings.taken(error) from None
    return str(address)


def _downloads(sessions: Sessions, folder: Path) -> Callable[[Request], Response]:
    """Drawn pictures as files, for who knows a page's token."""

    def download(request: Request) -> Response:
        session, name = sessions.with_token(request.path_params["token"]), request.path_params["name"]
        number, dot, ending = name.partition(".")
        turns = [*session.turns, *session.comparing] if session else []
        turn = next((turn for turn in turns if str(turn.number) == number and turn.picture is not None), None)
        if turn is None or turn.picture is None or dot + ending not in KINDS:
            return PlainTextResponse("this picture is not here any more", status_code=404)
        data = as_file(turn.picture, dot + ending, turn.source, folder)
        return Response(
            data,
            media_type=KINDS[dot + ending],
            headers={
                "Content-Disposition": f'attachment; filename="healthgpt-{number}{dot}{ending}"',
                "Cache-Control": "no-store",
            },
        )

    return download


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for everything that is written, gradio's files included; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="healthgpt-app-"))
    uploads = folder / "gradio"
    uploads.mkdir()
    changes = {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    before = {name: os.environ.get(name) for name in changes}
    os.environ |= changes
    fetching = processing_utils.async_ssrf_protected_download
    # A file "uploaded" by its address would be fetched from there, past the list of hosts.
    processing_utils.async_ssrf_protected_download = _refuse_address
    try:
        yield folder
    finally:
        processing_utils.async_ssrf_protected_download = fetching
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


async def _refuse_address(url: str, cache_dir: str) -> str:
    raise gr.Error("Images at addresses are not fetched; upload the image itself.")


@contextlib.contextmanager
def _told_to_stop(stopped: threading.Event) -> Iterator[None]:
    """Lets signals end the app in good order."""

    def stop(*_: Any) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
