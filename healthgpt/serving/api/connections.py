"""The web server, with bounds on clients that are slow to ask or slow to take their replies.

The only file that knows `uvicorn`. Of its parsers it takes h11, which bounds the length of headers.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEADER_BYTES = 2**15
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 1  # until what goes on at the end is cancelled


class WebServer(uvicorn.Server):
    """Serves an app on a socket until it is told to stop and has finished what it has.

    Args:
        header_seconds: that a request's headers may take to arrive. send_seconds: that a client may take to accept a
            part of its reply.
        drain_seconds: that requests have to end in.
        stop: is called when it is told to stop. busy: says whether there is anything left to do.

    Attributes:
        failure: what it was stopped for.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        header_seconds: float,
        send_seconds: float,
        drain_seconds: float,
        stop: Callable[[], object],
        busy: Callable[[], bool],
        certificate: Path | None = None,
        private_key: Path | None = None,
    ):
        config = uvicorn.Config(
            app,
            http=_bounded(header_seconds, send_seconds),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            ssl_certfile=certificate,
            ssl_keyfile=private_key,
        )
        super().__init__(config)
        self._drain_seconds, self._stop, self._busy = drain_seconds, stop, busy
        self._end: float | None = None
        self._told = False
        self.failure: Exception | None = None

    def serve_on(self, listening: socket.socket) -> None:
        """Serves until it has stopped.

        Raises:
            Exception: what `fail` was told.
        """
        self.run(sockets=[listening])
        if self.failure:
            raise self.failure

    def fail(self, error: Exception) -> None:
        """Stops at once, from any thread."""
        self.failure, self.should_exit = error, True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets requests end, the second does not."""
        if self._end is not None:
            self.should_exit = True
            return
        self._end = time.monotonic() + self._drain_seconds  # `on_tick` does the rest, as this interrupts anything

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; whether to stop now."""
        if self._end is not None:
            if not self._told:
                self._told = True
                self._stop()
            self.should_exit = self.should_exit or not self._busy() or time.monotonic() > self._end
        return await super().on_tick(counter)


def _bounded(header_seconds: float, send_seconds: float) -> type[H11Protocol]:
    """A connection that ends where a request's headers do not come, or where a reply is not taken."""

    class Bounded(H11Protocol):
        def __init__(self, *args: Any, **keywords: Any):
            super().__init__(*args, **keywords)
            self._asking: asyncio.TimerHandle | None = None
            self._taking: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._asking, self._taking):
                if timer:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_headers()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._taking = self.loop.call_later(send_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._taking:
                self._taking.cancel()
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            # Closing waits until the client has taken everything, which it may never do.
            self._taking = self.loop.call_later(send_seconds, self.transport.abort)

        def _watch_headers(self) -> None:
            """Lets a timer run while a request's headers are not whole."""
            waits = self.cycle is None or self.cycle.response_complete
            if waits and self._asking is None:
                self._asking = self.loop.call_later(header_seconds, self.transport.abort)
            elif not waits and self._asking is not None:
                self._asking.cancel()
                self._asking = None

    return Bounded
