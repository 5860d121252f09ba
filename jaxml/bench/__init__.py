"""Timing of cases in turn, each in a process of its own, and files of the measurements."""

from jaxml.bench.cache import compilation_cache
from jaxml.bench.records import write_rows
from jaxml.bench.workers import Measurement, measure_alternately, peak_bytes

__all__ = ["Measurement", "compilation_cache", "measure_alternately", "peak_bytes", "write_rows"]
