"""Servers as processes, and the bundles that they answer from."""

import contextlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.serving_load.traffic import BATCHED, PLAIN
from jaxml import reports, serving

_READY = 120.0  # seconds
_EVERY = 0.02  # seconds between two readings of memory


class Server(NamedTuple):
    """A process that answers.

    Attributes:
        pid: of the process.
        port: on this machine.
    """

    pid: int
    port: int


def commands(bundle: Path) -> dict[str, list[str]]:
    """Returns the command of each endpoint."""
    return {
        BATCHED: ["jaxml.serving", "serve", str(bundle), "--port", "0"],
        PLAIN: ["experiments.serving_load.one_by_one", str(bundle)],
    }


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[Server]:
    """Yields a server that is ready; it is stopped when the block ends.

    Args:
        command: a module and its arguments.

    Raises:
        OSError: it ended, or was not ready in time.
    """
    with (
        tempfile.NamedTemporaryFile() as log
    ):  # A line for each request: not in the run's directory.
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield Server(process.pid, _port(process, Path(log.name)))
        finally:
            process.terminate()
            process.wait()


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    until = time.monotonic() + _READY
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.05)
    lines = log.read_text().strip().splitlines() or ["it printed nothing"]
    raise OSError(f"a server did not start: {lines[-1]}")


@contextlib.contextmanager
def memory(server: Server) -> Iterator[list[int]]:
    """Yields a list that has the resident bytes, fifty readings a second, when the block ends."""
    read: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY):
            status = Path(f"/proc/{server.pid}/status").read_text()
            read.append(1024 * int(status.partition("VmRSS:")[2].split()[0]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield read
    finally:
        done.set()
        thread.join()


def bundle(name: str, given: Path | None, standin: Callable[[Path], None], run_dir: Path) -> Path:
    """Returns the bundle of a model.

    Args:
        name: of the experiment that leaves it.
        given: a bundle, a store, or a run; None for the newest finished run below runs/.
        standin: writes another one, for a machine without such a run.
        run_dir: where that one is written.
    """
    if given is not None:
        return _inside(given)
    runs = reports.rundir.find(Path("runs", name)) if Path("runs", name).is_dir() else []
    for run in reversed(runs):
        if run.status == "finished" and (run.path / "candidate/bundle").is_dir():
            return run.path / "candidate/bundle"
    print(
        f"{name}: a small stand-in with random parameters; `python -m experiments.{name}` leaves the model"
    )
    standin(run_dir / name)
    return run_dir / name


def _inside(path: Path) -> Path:
    if (path / "store.json").exists():
        return serving.Store(path).bundle()
    candidate = path / "candidate/bundle"
    return candidate if candidate.is_dir() else path
