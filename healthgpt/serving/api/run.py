"""One server on one machine, which nothing else reaches unless told; models are loaded while it answers /health."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

from healthgpt.serving.api.connections import WebServer
from healthgpt.serving.api.logs import note
from healthgpt.serving.api.server import make_server
from healthgpt.serving.api.service import Service
from healthgpt.serving.api.settings import Place

_BACKLOG = 2048
_SWITCH_SECONDS = 0.001  # so that the model's thread does not keep the web server's waiting


def serve(service: Service, place: Place) -> None:
    """Serves until a signal says otherwise, and then until all requests have ended or their time is over.

    Raises:
        ValueError, OSError: a model cannot be loaded, or the place is taken.
    """
    service.residents.check()
    with _listening(place) as listening:
        _allow_connections()
        sys.setswitchinterval(_SWITCH_SECONDS)
        server = WebServer(
            make_server(service),
            header_seconds=service.limits.body_seconds,
            send_seconds=service.limits.send_seconds,
            drain_seconds=service.limits.drain_seconds,
            stop=lambda: _drain(service),
            busy=lambda: service.in_flight > 0,
            certificate=place.certificate,
            private_key=place.private_key,
        )
        scheme = "https" if place.certificate else "http"
        host, port = listening.getsockname()[:2]
        note("listening", url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        threading.Thread(target=_load, args=(service, server), name="healthgpt-load", daemon=True).start()
        try:
            server.serve_on(listening)
        finally:
            service.close()
            note("stopped")


def _load(service: Service, server: WebServer) -> None:
    try:
        service.start()
    except Exception as error:
        server.fail(error)
    else:
        note("ready", models=list(service.residents.names))


def _drain(service: Service) -> None:
    service.draining = True
    note("stopping", in_flight=service.in_flight)


def _listening(place: Place) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen at {place.host}, port {place.port}: {error.strerror or error}") from None


def _allow_connections() -> None:
    """Lets the process have as many connections as the system gives it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
