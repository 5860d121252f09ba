"""The page at `/` and the figures that it shows."""

import base64
import functools
import hashlib
import math
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml.serving import skew
from jaxml.serving.bundle import Bundle

__all__ = ["Page", "Recent", "describe", "page"]

_ROWS = 2000  # of the rows answered last
_FEWEST = 50
_EVERY = 20.0  # seconds


class Page(NamedTuple):
    """A page of HTML.

    Attributes:
        content: UTF-8.
        policy: its Content-Security-Policy: nothing runs but the page's own script, and nothing is loaded
            from elsewhere.
    """

    content: bytes
    policy: str


@functools.cache
def page() -> Page:
    """Returns the page, which asks `/status` for what it shows."""
    content = resources.files("jaxml.serving").joinpath("page.html").read_bytes()
    script, style = (_hash(content, tag) for tag in (b"script", b"style"))
    return Page(
        content,
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    )


class Recent:
    """The raw rows answered last, and how far they are from the training data.

    Args:
        bundle: the one that answered them.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._parts: deque[Mapping[str, NDArray[Any]]] = deque()
        self._rows = 0
        self._drift: list[dict[str, Any]] = []
        self._next = -math.inf
        self._adding, self._measuring = threading.Lock(), threading.Lock()

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Keeps the raw columns [B] of a request; the last 2,000 rows are kept."""
        with self._adding:
            self._parts.append(columns)
            self._rows += _length(columns)
            while self._rows - _length(self._parts[0]) >= _ROWS:
                self._rows -= _length(self._parts.popleft())

    def drift(self) -> list[dict[str, Any]]:
        """Returns column, distance, threshold, rows, and whether it differs by more than chance.

        It is measured at most every 20 seconds, and empty for fewer than 50 rows.
        """
        with self._measuring:
            if self._rows >= _FEWEST and time.monotonic() >= self._next:
                self._drift = self._measured()
                self._next = time.monotonic() + _EVERY
            return self._drift

    def _measured(self) -> list[dict[str, Any]]:
        with self._adding:
            parts = list(self._parts)
        served = {
            name: np.ma.concatenate([part[name] for part in parts]) for name in self._bundle.columns
        }
        found = skew.compare_columns(served, self._bundle.training(), self._bundle.schema)
        return [
            {
                "column": each.column,
                "distance": each.distance,
                "threshold": each.threshold,
                "rows": each.rows,
                "differs": bool(each.differs),
            }
            for each in found
        ]


def _length(columns: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(columns.values())))


def describe(
    bundle: Bundle, version: int, *, live: Mapping[str, Any], served: Recent | None = None
) -> dict[str, Any]:
    """Returns what the page shows, as JSON can hold it.

    Args:
        bundle: the one in use.
        version: its number.
        live: figures of the server: `requests`, `requests_per_second`, `latency_ms` with `p50` and `p99`,
            `queue`.
        served: what was answered lately, for the drift. Measuring it may take a second: call this in a
            thread.
    """
    described = bundle.manifest
    return {
        "model": described.name,
        "version": version,
        "digest": described.digest,
        "created": described.created,
        "metrics": dict(described.metrics),
        "findings": list(described.findings),
        "inputs": _inputs(bundle),
        "outputs": [{**each._asdict(), "shape": list(each.shape)} for each in described.outputs],
        "live": dict(live),
        "drift": served.drift() if served else [],
    }


def _inputs(bundle: Bundle) -> list[dict[str, Any]]:
    """Returns name, datatype, usual values and an example of each input."""
    rows, _ = bundle.examples()
    found = []
    for name, datatype, _ in bundle.manifest.inputs:
        feature = bundle.schema[name]
        limits = (0, 1) if feature.is_bool else (feature.min, feature.max)
        low, high = (each if each is None or math.isfinite(each) else None for each in limits)
        found.append(
            {
                "name": name,
                "datatype": datatype,
                "domain": list(feature.domain) if feature.domain else None,
                "min": low,
                "max": high,
                "example": rows[name][0],
            }
        )
    return found


def _hash(content: bytes, tag: bytes) -> str:
    """Returns the hash of the text inside of a tag, as a policy names it."""
    (inside,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), content, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside).digest()).decode()}'"
