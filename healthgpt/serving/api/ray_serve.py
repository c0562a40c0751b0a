"""The same app as a deployment of Ray Serve: replicas with models of their own, as many as requests call for.

Ray routes requests to replicas, starts others in place of those that die, and stops those that are not needed. What a
replica was doing when it died is answered with an error, after which clients ask again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp

from healthgpt.serving.api.logs import note, write_logs
from healthgpt.serving.api.server import make_server
from healthgpt.serving.api.settings import Settings

_NAME = "healthgpt"
_WORTH_ANOTHER = 0.25  # of the requests that a replica takes: with more of them at work, another one starts


class Replica:
    """One process of the deployment."""

    def __init__(self, settings: Settings):
        write_logs()
        self._service = settings.service()
        self._service.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return make_server(self._service)

    def check_health(self) -> None:
        """
        Raises:
            RuntimeError: this process has to be replaced.
        """
        if not self._service.healthy:
            raise RuntimeError("the thread of a model has ended")

    def __del__(self) -> None:
        if service := getattr(self, "_service", None):
            service.close()


def serve_on_ray(settings: Settings, address: str, least: int, most: int) -> None:
    """Serves until a signal says otherwise.

    Args:
        address: of the cluster (`host:port`, `auto`), or `local` for one on this machine.
        least, most: replicas.

    Raises:
        ValueError, OSError: Ray is not installed, numbers make no sense, a model is not there, or no replica can start.
    """
    if not 1 <= least <= most:
        raise ValueError(f"--replicas is {least} and --max_replicas {most}, expected 1 or more, and no fewer at most")
    try:
        import ray
        from ray import serve
    except ImportError:
        raise ValueError("replicas need Ray: pip install 'healthgpt[cluster,serve]'") from None
    settings.service().residents.check()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address=None if address == "local" else address,
        include_dashboard=False if address == "local" else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        on_gpu = settings.options.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1
        serve.start(http_options=_http_options(settings), proxy_location="HeadOnly")
        deployment = serve.deployment(serve.ingress()(Replica)).options(**_options(settings, least, most, on_gpu))
        try:
            serve.run(deployment.bind(settings), name=_NAME, route_prefix="/")
        except RuntimeError as error:
            raise ChildProcessError(f"no replica can start: {' '.join(str(error).split())[:500]}") from None
        write_logs()
        note("ready", url=f"http://{settings.place.host}:{settings.place.port}", replicas=least, max_replicas=most)
        stop.wait()
        note("stopping")
    finally:
        serve.shutdown()
        ray.shutdown()


def _http_options(settings: Settings) -> Mapping[str, Any]:
    place = settings.place
    return {
        "host": place.host,
        "port": place.port,
        "request_timeout_s": settings.limits.request_seconds + settings.limits.body_seconds,
        "ssl_certfile": str(place.certificate) if place.certificate else None,
        "ssl_keyfile": str(place.private_key) if place.private_key else None,
    }


def _options(settings: Settings, least: int, most: int, on_gpu: bool) -> dict[str, Any]:
    """What Ray is told of the deployment."""
    requests = settings.limits.max_requests
    scale: dict[str, Any] = {"num_replicas": least}
    if most > least:
        target = max(1.0, requests * _WORTH_ANOTHER)
        scale = {"autoscaling_config": {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": target}}
    return {
        "name": _NAME,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": int(on_gpu)},
        "max_ongoing_requests": 2 * requests,  # so that a replica itself can say that it has too many
        "max_queued_requests": requests,
        "graceful_shutdown_timeout_s": settings.limits.drain_seconds,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
        **scale,
    }
