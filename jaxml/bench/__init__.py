"""Instruments: cases timed in turn, each in a process of its own, and records that say where."""

from jaxml.bench.cache import compilation_cache
from jaxml.bench.records import environment, write_rows
from jaxml.bench.workers import Measurement, measure_alternately, peak_bytes

__all__ = [
    "Measurement",
    "compilation_cache",
    "environment",
    "measure_alternately",
    "peak_bytes",
    "write_rows",
]
