"""What the server counts: for Prometheus, and the latest figures for the page."""

import collections
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import prometheus_client

__all__ = ["Meters"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = tuple(float(1 << i) for i in range(11))
_LATEST = 4096  # requests
_WINDOW = 60.0  # seconds


class Meters:
    """Counts of one server, in a registry of its own.

    Attributes:
        requests: answers by endpoint and status.
        seconds: from request to answer, of `infer`.
        batch_rows: rows that were answered together.
        batch_requests: requests that were answered together.
        anomalies: those that were refused, by kind.
        queue: rows that wait.
        lost: rows that were served and could not be logged.
        version: of the model in use.
        refused_versions: published versions that could not be loaded.
    """

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "jaxml"}
        self.requests = prometheus_client.Counter(
            "requests", "Answers by endpoint and status", ["endpoint", "code"], **own
        )
        self.seconds = prometheus_client.Histogram(
            "infer_seconds", "Time from request to answer", buckets=_SECONDS, **own
        )
        self.batch_rows = prometheus_client.Histogram(
            "batch_rows", "Rows that were answered together", buckets=_SIZES, **own
        )
        self.batch_requests = prometheus_client.Histogram(
            "batch_requests", "Requests that were answered together", buckets=_SIZES, **own
        )
        self.anomalies = prometheus_client.Counter(
            "anomalies", "Anomalies that were refused", ["kind"], **own
        )
        self.queue = prometheus_client.Gauge("queue_rows", "Rows that wait", **own)
        self.lost = prometheus_client.Gauge(
            "log_rows_lost", "Rows that this version could not log", **own
        )
        self.version = prometheus_client.Gauge("model_version", "The version in use", **own)
        self.refused_versions = prometheus_client.Counter(
            "refused_versions", "Published versions that could not be loaded", **own
        )
        self._latest: collections.deque[tuple[float, float]] = collections.deque(maxlen=_LATEST)
        self._infer = 0

    def batch(self, rows: Sequence[int]) -> None:
        """Takes the rows of each request of a batch."""
        self.batch_rows.observe(sum(rows))
        self.batch_requests.observe(len(rows))

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Takes an answer."""
        self.requests.labels(endpoint, str(status)).inc()
        if endpoint == "infer":
            self.seconds.observe(seconds)
            self._latest.append((time.monotonic(), seconds))
            self._infer += 1

    def live(self, queued: int) -> dict[str, Any]:
        """Returns the figures of the last minute (at most 4096 requests), for the page.

        Args:
            queued: rows that wait.
        """
        now = time.monotonic()
        recent = [each for each in self._latest if each[0] > now - _WINDOW]
        span = now - recent[0][0] if len(recent) == _LATEST else _WINDOW
        p50, p99 = np.quantile([each[1] for each in recent], (0.5, 0.99)) if recent else (0.0, 0.0)
        return {
            "requests": self._infer,
            "requests_per_second": round(len(recent) / span, 2),
            "latency_ms": {"p50": round(1e3 * p50, 3), "p99": round(1e3 * p99, 3)},
            "queue": queued,
        }

    def text(self) -> bytes:
        """Returns all counts in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)
