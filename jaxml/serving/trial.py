"""Does a bundle work in a real server? A process is started, asked, mistreated and stopped.

The server is the one of `python -m jaxml.serving serve`, on a free port. It must become ready, answer the
rows recorded in the bundle with the recorded values, answer nonsense with 4xx and go on rightly, and end
with exit code 0 on SIGTERM.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxml import text
from jaxml.serving.bundle import Bundle
from jaxml.serving.gate import Check, Verdict
from jaxml.serving.manifest import Tensor
from jaxml.serving.program import near

__all__ = ["try_out"]

_ANSWERS_WITHIN = 30.0  # seconds
_ENDS_WITHIN = 30.0
_AT_ONCE = 8
_TAIL = 2000  # characters of stderr
_ADDRESS = re.compile(r"^serving .* on http://([^:\s]+):(\d+)$", re.MULTILINE)


class _Failure(Exception):
    """A check fails; the message says why."""


def try_out(bundle: Bundle, *, ready_within: float = 120.0) -> Verdict:
    """Returns the verdict on a bundle in a server process of its own, which has ended then.

    Args:
        bundle: the candidate.
        ready_within: seconds from the start of the process.
    """
    checks: list[Check] = []
    rows, answers = bundle.examples()
    with _server(bundle.path) as server:

        def check(name: str, wanted: str, of: Callable[[], None]) -> bool:
            start, outcome, note = time.monotonic(), "passed", ""
            try:
                of()
            except Exception as error:  # A broken server may answer anything.
                reason = str(error) if isinstance(error, _Failure) else text.one_line(error)
                outcome, note = "failed", f"{reason}{server.tail()}"
            seconds = time.monotonic() - start
            checks.append(Check(name, outcome, wanted=wanted, note=note, seconds=seconds))
            return outcome == "passed"

        if check(
            "becomes ready", f"within {ready_within:g} s", lambda: server.wait_ready(ready_within)
        ):
            ask = _Client(server, bundle, rows, answers)
            check("answers row by row", "the recorded values", ask.one_by_one)
            check("answers all rows in one request", "the recorded values", ask.all_rows)
            check("answers requests at once", "the recorded values", ask.at_once)
            check("survives nonsense", "4xx with an error, then right answers", ask.nonsense)
            check("ends on SIGTERM", f"exit code 0 within {_ENDS_WITHIN:g} s", server.end)
    return Verdict(tuple(checks))


class _Server:
    """A server process; its output goes to files, so that it never waits for a reader."""

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.process, self._folder = process, folder
        self.address = ("", 0)

    def wait_ready(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not (found := _ADDRESS.search(self.written("out"))):
            if self.process.poll() is not None:
                raise _Failure(f"it ended with exit code {self.process.returncode}")
            if time.monotonic() > end:
                raise _Failure(f"it was not ready after {seconds:g} s")
            time.sleep(0.02)
        self.address = (found[1], int(found[2]))
        status, _ = self.request("GET", "/v2/health/ready")
        if status != 200:
            raise _Failure(f"it says that it is ready, and /v2/health/ready is {status}")

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Returns status and JSON of an answer."""
        connection = http.client.HTTPConnection(*self.address, timeout=_ANSWERS_WITHIN)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            raise _Failure(f"it still ran after {_ENDS_WITHIN:g} s") from None
        if code != 0:
            raise _Failure(f"it ended with exit code {code}")

    def tail(self) -> str:
        """Returns the last line that the process wrote on stderr, and more of them behind it."""
        written = self.written("err").strip()
        if not written:
            return ""
        return f"; it wrote at last: {written.splitlines()[-1]:.300}\n\n{written[-_TAIL:]}"

    def written(self, name: str) -> str:
        """Returns what the process wrote: "out" or "err"."""
        return (self._folder / name).read_text("utf-8", "replace")


def _command(path: Path) -> list[str]:
    return [sys.executable, "-m", "jaxml.serving", "serve", os.fspath(path), "--port", "0"]


@contextlib.contextmanager
def _server(path: Path) -> Iterator[_Server]:
    environment = {name: each for name, each in os.environ.items() if name != "JAXML_TOKEN"}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        out, err = (files.enter_context(open(Path(folder, name), "wb")) for name in ("out", "err"))
        process = subprocess.Popen(_command(path), stdout=out, stderr=err, env=environment)
        try:
            yield _Server(process, Path(folder))
        finally:
            process.kill()
            process.wait()


class _Client:
    """Sends the recorded rows, and compares the answers with the recorded ones."""

    def __init__(
        self,
        server: _Server,
        bundle: Bundle,
        rows: Mapping[str, Sequence[Any]],
        answers: Mapping[str, Sequence[Any]],
    ) -> None:
        self._server, self._rows, self._answers = server, rows, answers
        self._inputs = bundle.manifest.inputs
        self._path = f"/v2/models/{bundle.manifest.name}/infer"
        self._number = len(next(iter(rows.values())))

    def one_by_one(self) -> None:
        for row in range(self._number):
            self._ask(slice(row, row + 1))

    def all_rows(self) -> None:
        self._ask(slice(0, self._number))

    def at_once(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda row: self._ask(slice(row, row + 1)), range(self._number)))

    def nonsense(self) -> None:
        whole = _request(self._inputs, self._rows, slice(0, 1))
        first, *others = whole["inputs"]
        for what, path, body in (
            ("a body that is no JSON", self._path, b"{"),
            ("a body that is no object", self._path, b"[1]"),
            ("no inputs", self._path, _json({"inputs": []})),
            ("a missing input", self._path, _json({"inputs": others})),
            ("a wrong shape", self._path, _json({"inputs": [{**first, "shape": [7]}, *others]})),
            (
                "a value of no type",
                self._path,
                _json({"inputs": [{**first, "data": [{}]}, *others]}),
            ),
            ("another model", "/v2/models/no-such-model/infer", _json(whole)),
        ):
            status, content = self._server.request("POST", path, body)
            if not 400 <= status < 500 or not isinstance(content.get("error"), str):
                raise _Failure(f"{what} was answered with {status} {content!r:.200}")
        self._ask(slice(0, 1))

    def _ask(self, rows: slice) -> None:
        body = _json(_request(self._inputs, self._rows, rows))
        status, content = self._server.request("POST", self._path, body)
        if status != 200:
            raise _Failure(f"rows {_names(rows)} were answered with {status} {content!r:.300}")
        found = {each["name"]: each for each in content["outputs"]}
        for name, recorded in self._answers.items():
            if name not in found:
                raise _Failure(f"there is no output {name!r}")
            if not _equal(found[name], recorded[rows]):
                raise _Failure(
                    f"rows {_names(rows)} have another {name!r} than was recorded: "
                    f"{found[name]['data']!r:.80} in place of {recorded[rows]!r:.80}"
                )


def _request(
    inputs: Sequence[Tensor], rows: Mapping[str, Sequence[Any]], some: slice
) -> dict[str, Any]:
    """Returns the body of a request of the Open Inference Protocol v2; a missing value is null."""
    return {
        "inputs": [
            {
                "name": each.name,
                "datatype": each.datatype,
                "shape": [some.stop - some.start],
                "data": list(rows[each.name][some]),
            }
            for each in inputs
        ]
    }


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _names(rows: slice) -> str:
    return f"{rows.start} to {rows.stop - 1}"


def _equal(output: Mapping[str, Any], recorded: Sequence[Any]) -> bool:
    wanted = np.array(recorded)
    # Not as the dtype of what is wanted, which would cut texts and fractions off. null is NaN.
    kind = float if wanted.dtype.kind == "f" else object
    got = np.array(output["data"], kind).reshape(output["shape"])
    return got.shape == wanted.shape and bool(near(got, wanted.astype(kind)).all())
