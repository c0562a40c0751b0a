"""A request on its way in and its reply on its way out, as messages of ASGI."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.types import Message, Receive, Scope, Send

from healthgpt.serving.api.errors import ApiError
from healthgpt.serving.api.logs import Trace

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)
_CLOSE = (b"connection", b"close")
_DISCARD_BYTES, _DISCARD_SECONDS = 2**23, 2.0


class ClientGoneError(Exception):
    """There is nobody to reply to."""


class Incoming:
    """What comes from a client."""

    def __init__(self, receive: Receive):
        self.receive = receive
        self._whole = False

    async def parts(self) -> AsyncIterator[bytes]:
        """The body's parts.

        Raises:
            ClientGoneError: before all of it.
        """
        while not self._whole:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._whole = not message.get("more_body", False)
            yield message.get("body", b"")

    async def discard(self) -> bool:
        """Takes what is still to come, if that is not much: a client that is cut off while it sends reads no reply."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                async for part in self.parts():
                    size += len(part)
                    if size > _DISCARD_BYTES:
                        break
        return self._whole


class Reply:
    """What is sent to a client, with the headers of every reply.

    Attributes:
        status: 499, as elsewhere, where the client left before there was any.
        ended: all of it was sent.
    """

    def __init__(self, send: Send, trace: Trace):
        self._send, self.trace = send, trace
        self.status = 499
        self._begun = self.ended = False

    async def send(self, message: Message) -> None:
        """Sends a part."""
        if message["type"] == "http.response.start":
            self._begun, self.status = True, message["status"]
            own = {name for name, _ in message.get("headers", ())}
            extra = [pair for pair in _HEADERS if pair[0] not in own]
            message["headers"] = [*message.get("headers", ()), *extra, (b"x-request-id", self.trace.id.encode())]
        elif not message.get("more_body", False):
            self.ended = True
        await self._send(message)

    async def error(self, error: ApiError, scope: Scope, incoming: Incoming) -> None:
        """Replies with an error, if there is no reply yet."""
        if self._begun:
            return
        response = error.response()
        if error.status == 408 or not await incoming.discard():
            response.raw_headers.append(_CLOSE)
        await response(scope, _nothing, self.send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
