"""What Prometheus reads at /metrics. The only file that knows `prometheus_client`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one server, in a registry of their own.

    Args:
        now: figures to be read when they are asked for, by their names.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, now: Mapping[str, tuple[str, Callable[[], float]]]):
        self._registry = CollectorRegistry()
        self._registry.register(_Now(now))
        self.requests = self._counter("requests", "Requests that were answered.", "route", "status")
        self.seconds = self._histogram("request_seconds", "From a request's first byte to its reply's last.", "route")
        self.refusals = self._counter("refusals", "Requests that were not begun.", "reason")
        self.waited = self._histogram("queue_seconds", "That a job waited for its model.", "model", "task")
        self.ran = self._histogram("run_seconds", "That a batch ran.", "model", "task")
        self.batches = self._histogram("batch_size", "Jobs that ran together.", "model", "task", buckets=_SIZES)
        self.tokens = self._counter("tokens", "Tokens read (prompt) and chosen (completion).", "model", "task", "kind")
        self.disconnects = self._counter("disconnects", "Clients that left before their reply was whole.")
        self.images = self._counter("images", "Images that were read, or not.", "outcome")
        self.image_workers_ended = self._counter("image_worker_ends", "Processes that reading an image ended.")

    def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="healthgpt", registry=self._registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, text, labels, namespace="healthgpt", registry=self._registry, buckets=buckets)


class _Now(Collector):
    """Gauges that are read when they are asked for."""

    def __init__(self, values: Mapping[str, tuple[str, Callable[[], float]]]):
        self._values = values

    def collect(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(f"healthgpt_{name}", text, value=read()) for name, (text, read) in self._values.items()
        ]
