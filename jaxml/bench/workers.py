"""Cases measured in turn, each in a process of its own.

The speed of a machine drifts, so that two cases timed a minute apart cannot be compared. Here every case is
set up first, in its own process, and then they take turns, one sample each a round; only one computes at a
time. Its own process also gives each case its own peak memory, and lets one that runs out fail alone.
"""

import multiprocessing
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from jaxml import text

# A case: a function at the top of a module, and its arguments. The worker calls it to set the case up; it
# returns `sample() -> seconds`.
Case = tuple[Callable[..., Callable[[], float]], Mapping[str, Any]]


@dataclass
class Measurement:
    """The samples of a case.

    Attributes:
        samples: seconds, one a round, in the order taken.
        peak_bytes: the most memory that its process held, set-up included.
        error: one line if the case failed, else None.
    """

    samples: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    error: str | None = None


def peak_bytes() -> int:
    """Returns the most memory that this process has held resident.

    >>> peak_bytes() > 2**20
    True
    """
    # `getrusage` would count what the parent held when it started this process.
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measure_alternately(
    cases: Mapping[str, Case],
    *,
    rounds: int,
) -> dict[str, Measurement]:
    """Returns a `Measurement` for each case, after setting all up and taking one sample of each a round.

    A case that fails, or whose process dies, has an error, keeps its samples, and does not stop the others.

    Args:
        cases: by name; `(make, arguments)` with a module-level `make(**arguments) -> sample` and
            `sample() -> seconds`. `make` warms up: what it compiles is not timed.
        rounds: samples of each case.
    """
    context = multiprocessing.get_context("spawn")
    results = {name: Measurement() for name in cases}
    workers: dict[str, tuple[Any, Connection]] = {}
    try:
        for name, (make, arguments) in cases.items():
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, make, dict(arguments)), daemon=True
            )
            process.start()
            theirs.close()
            workers[name] = (process, ours)
            # One after the other: two that are set up at once would share cores and peak memory.
            _receive(results[name], process, ours)
        for _ in range(rounds):
            for name, (process, ours) in workers.items():
                if results[name].error is None:
                    ours.send("sample")
                    seconds = _receive(results[name], process, ours)
                    if seconds is not None:
                        results[name].samples.append(seconds)
        return results
    finally:
        for process, ours in workers.values():
            ours.close()
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()


def _receive(result: Measurement, process: Any, ours: Connection) -> float | None:
    """The next answer of a worker, its peak memory noted; None and an error noted if there is none."""
    try:
        seconds, result.peak_bytes, result.error = ours.recv()
        return seconds
    except EOFError:
        process.join(timeout=10)
        code = process.exitcode
        killed = " (killed: out of memory?)" if code == -9 else ""
        result.error = f"its process ended with code {code}{killed}"
        return None


def _work(
    theirs: Connection, make: Callable[..., Callable[[], float]], arguments: dict[str, Any]
) -> None:
    try:
        sample = make(**arguments)
        theirs.send((None, peak_bytes(), None))
        while True:
            try:
                theirs.recv()
            except EOFError:
                return
            theirs.send((sample(), peak_bytes(), None))
    except Exception as error:
        theirs.send((None, peak_bytes(), text.one_line(error)))
