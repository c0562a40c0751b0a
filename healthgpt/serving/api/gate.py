"""What every request passes on its way in and out: who asks, is there room, and has all of it come in time.

Plain ASGI around the app, so that nothing of a request is read before there is room for it, and so that a client that
leaves ends its request at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from healthgpt.serving.api.errors import ApiError, foreseen
from healthgpt.serving.api.exchange import ClientGoneError, Incoming, Reply
from healthgpt.serving.api.logs import Trace, note
from healthgpt.serving.api.service import Service

_OPEN = frozenset({"/health", "/ready"})  # to everyone, and while the server stops
_ALWAYS = _OPEN | {"/metrics"}
_ID = re.compile(rb"[\w.-]{1,64}")
_DRAINING = ApiError(503, "the server is stopping", code="stopping", retry_after=5)
_LOADING = ApiError(503, "the server is loading its models", code="loading", retry_after=5)


class Gate:
    """The app with everything around it.

    Args:
        routes: the addresses that figures are kept of.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Iterable[str]):
        self._app, self._service = app, service
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        asked = headers.get(b"x-request-id", b"")
        trace = Trace(id=asked.decode() if _ID.fullmatch(asked) else secrets.token_hex(8))
        scope.setdefault("state", {})["trace"] = trace
        incoming, reply = Incoming(receive), Reply(send, trace)
        try:
            try:
                await self._pass(scope, headers, incoming, reply)
            except Exception as error:
                if isinstance(error, ClientGoneError):
                    raise
                if not isinstance(error, ApiError):
                    note("a request failed", level=logging.ERROR, error=error, id=trace.id)
                await reply.error(foreseen(error), scope, incoming)
        except ClientGoneError:
            trace.facts["left"] = True
            self._service.metrics.disconnects.inc()
        finally:
            for end in trace.at_end:
                end()
            self._account(scope, trace, reply)

    async def _pass(self, scope: Scope, headers: dict[bytes, bytes], incoming: Incoming, reply: Reply) -> None:
        path = scope["path"]
        self._check_host(headers)
        if path not in _OPEN:
            self._check_key(headers, reply.trace)
        if path in _ALWAYS or not path.startswith("/v1/"):
            await self._app(scope, incoming.receive, reply.send)
            return
        if not self._service.ready:
            raise self._refusal(_DRAINING if self._service.draining else _LOADING, "not ready")
        if self._service.in_flight >= self._service.limits.max_requests:
            raise self._refusal(
                ApiError(429, "too many requests at once; try again", code="busy", retry_after=1), "busy"
            )
        self._service.in_flight += 1
        try:
            async with self._body(headers, incoming) as body:
                await self._answer(scope, body, incoming, reply)
        finally:
            self._service.in_flight -= 1

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        """Refuses calls by other names, by which a web page that somebody opens could reach a server of their own."""
        if self._service.hosts is None:
            return
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = re.sub(r":\d*$", "", host).strip("[]")
        if name not in self._service.hosts:
            raise ApiError(400, "the Host header is none that this server goes by", code="unknown_host")

    def _check_key(self, headers: dict[bytes, bytes], trace: Trace) -> None:
        keys = self._service.keys
        if not keys:
            return
        scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        name = keys.name_of(key.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            raise self._refusal(ApiError(401, "expected an API key of this server", code="invalid_api_key"), "key")
        trace.facts["key"] = name

    def _refusal(self, error: ApiError, reason: str) -> ApiError:
        self._service.metrics.refusals.labels(reason).inc()
        return error

    @contextlib.asynccontextmanager
    async def _body(self, headers: dict[bytes, bytes], incoming: Incoming) -> AsyncIterator[bytes]:
        """The whole body, counted as long as it is needed.

        Raises:
            ApiError: too long, too late, or there is no room for it beside the others. ClientGoneError.
        """
        limits = self._service.limits
        too_large = ApiError(413, f"the body has more than {limits.max_body_mib} MiB", code="body_too_large")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limits.body_bytes:
            raise self._refusal(too_large, "size")
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for part in incoming.parts():
                    body += part
                    self._service.bodies += len(part)
                    if len(body) > limits.body_bytes:
                        raise self._refusal(too_large, "size")
                    if self._service.bodies > limits.max_bodies_mib * 2**20:
                        busy = ApiError(429, "too much is sent at once; try again", code="busy", retry_after=1)
                        raise self._refusal(busy, "bodies")
        except TimeoutError:
            self._service.bodies -= len(body)
            slow = ApiError(408, f"the body did not come within {limits.body_seconds:g} seconds", code="slow")
            raise self._refusal(slow, "slow") from None
        except BaseException:
            self._service.bodies -= len(body)
            raise
        try:
            yield bytes(body)
        finally:
            self._service.bodies -= len(body)

    async def _answer(self, scope: Scope, body: bytes, incoming: Incoming, reply: Reply) -> None:
        """Runs the app until it has answered or the client has left."""
        gone = asyncio.Event()
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            if unread:
                return unread.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def leaves() -> None:
            while (await incoming.receive())["type"] != "http.disconnect":
                pass

        answering = asyncio.ensure_future(self._app(scope, replay, reply.send))
        leaving = asyncio.create_task(leaves())
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not (answering.done() or reply.ended):  # after its end, too, nothing is received any more
                gone.set()
                raise ClientGoneError
            await answering
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    def _account(self, scope: Scope, trace: Trace, reply: Reply) -> None:
        known = scope["path"] if scope["path"] in self._routes else "other"
        route = getattr(scope.get("route"), "path", known)
        self._service.metrics.requests.labels(route, str(reply.status)).inc()
        self._service.metrics.seconds.labels(route).observe(trace.seconds)
        if route not in _ALWAYS:
            facts = {"method": scope["method"], "route": route, "status": reply.status}
            note("request", id=trace.id, **facts, seconds=round(trace.seconds, 4), **trace.facts)
