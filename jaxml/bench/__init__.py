"""Timing of cases in turn, each in a process of its own."""

from jaxml.bench.cache import compilation_cache
from jaxml.bench.workers import Measurement, measure_alternately, peak_bytes

__all__ = ["Measurement", "compilation_cache", "measure_alternately", "peak_bytes"]
