"""Clients that are slow, endless, or lie about lengths, on raw sockets."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

INFER = b"POST /v2/models/flights/infer HTTP/1.1\r\nHost: a\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
ENDS = b"Connection: close\r\n"


class Serving:
    """A server process."""

    def __init__(self, path, errors, *arguments):
        command = [sys.executable, "-m", "jaxml.serving", "serve", str(path), "--port", "0"]
        with open(errors, "w") as file:
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=file, text=True
            )
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def connect(self, *parts):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        for part in parts:
            connection.sendall(part)
        return connection

    def ask(self, *parts):
        """Sends parts of a request; returns all that is answered until the server closes."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):  # It may be answered before all is sent.
                for part in parts:
                    connection.sendall(part)
            return everything(connection)

    def end(self, seconds):
        """Ends it; returns the exit code."""
        with self.process as process:
            process.send_signal(signal.SIGTERM)
            return process.wait(seconds)

    def memory(self):
        """Most memory that it has had, in MiB."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmHWM:\s*(\d+) kB", file.read())[1]) / 1024


def everything(connection):
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def statuses(answers):
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+)", answers)]


def refused(answer, status):
    """Whether an answer is a refusal in JSON."""
    assert statuses(answer) == [status], answer[:500]
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    return error.keys() == {"error"}


@pytest.fixture(scope="module")
def serving(bundle_path, tmp_path_factory):
    errors = tmp_path_factory.mktemp("serving") / "stderr"
    found = Serving(bundle_path, errors, "--timeout", "2")
    yield found
    assert found.end(20) == 0
    assert "Traceback" not in errors.read_text()


@pytest.fixture(autouse=True)
def alive(serving):
    yield
    started = time.perf_counter()
    assert serving.ask(LIVE.replace(b"\r\n\r\n", b"\r\n" + ENDS + b"\r\n")).endswith(
        b'{"live":true}'
    )
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "request_",
    [
        *(b"nonsense\r\n\r\n", b"\0" * 99, b"\x16\x03\x01\x02\0", b"GET /\xff HTTP/1.1\r\n\r\n"),
        *(
            b"GET / HTTP/9.9\r\n\r\n",
            b"BREW / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\na b: c\r\n\r\n",
        ),
        *(
            b"GET  HTTP/1.1\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ),
        *(b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", b"GET / HTTP/1.1\r\nX: a\r b\r\n\r\n"),
        *(INFER + b"Content-Length: " + n + b"\r\n\r\n" for n in (b"-1", b"x", b"9" * 30, b"1,2")),
        INFER + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        INFER + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        INFER + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
        INFER + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(serving, request_):
    with serving.connect(request_) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert refused(everything(connection), 400)


def test_lengths_that_lie(serving):
    short = INFER + ENDS + b"Content-Length: 1000\r\n\r\n{}"
    assert refused(serving.ask(short, b""), 408)
    with serving.connect(short) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert set(statuses(everything(connection))) <= {400, 408}
    answers = serving.ask(INFER + b"Content-Length: 1\r\n\r\n{}" + LIVE)
    assert {*statuses(answers)} == {400}  # The rest is no request.
    assert statuses(serving.ask(INFER + ENDS + b"\r\n" + LIVE)) == [400]


def test_requests_may_follow_each_other(serving):
    number = 500
    last = LIVE[:-2] + ENDS + b"\r\n"
    assert statuses(serving.ask(LIVE * number + last)) == [200] * (number + 1)
    mixed = INFER + b"Content-Length: 2\r\n\r\n{}" + LIVE + b"GET /nothing HTTP/1.1\r\n\r\n" + last
    assert statuses(serving.ask(mixed)) == [400, 200, 404, 200]


def test_a_body_without_a_length_is_cut_while_it_streams(serving):
    before = serving.memory()
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    request = INFER + ENDS + b"Transfer-Encoding: chunked\r\n\r\n"
    assert refused(serving.ask(request, *[chunk] * 200), 413)
    assert serving.memory() - before < 100


def test_a_body_that_is_too_large_is_refused_before_it_is_read(serving):
    before = serving.memory()
    size = 100 << 20
    request = INFER + ENDS + b"Content-Length: %d\r\n\r\n" % size
    assert refused(serving.ask(request), 413)
    assert refused(serving.ask(request, *[bytes(1 << 20)] * 100), 413)
    assert serving.memory() - before < 100


def test_many_large_bodies_at_once_do_not_fill_the_memory(serving):
    """Those that come first are waited for, until they are given up; the others may come again later."""
    before = serving.memory()
    part = INFER + ENDS + b"Content-Length: %d\r\n\r\n" % (16 << 20) + bytes(15 << 20)
    connections = [serving.connect() for _ in range(40)]
    for each in connections:
        with contextlib.suppress(ConnectionError):
            each.sendall(part)
    answers = [everything(each) for each in connections]
    for each in connections:
        each.close()
    found = [statuses(each)[0] for each in answers if each]  # A late one may see a reset.
    assert {503} <= {*found} <= {408, 503}
    assert all(b"retry-after: 1" in each for each in answers if statuses(each) == [503])
    assert serving.memory() - before < 450


def test_headers_have_a_limit(serving):
    before = serving.memory()
    for line in (b"X: " + b"a" * 9000 + b"\r\n", b"a" * 9000):
        answer = serving.ask(b"GET / HTTP/1.1\r\n", *[line] * 4000)
        assert answer == b"" or refused(answer, 431)
    trailers = INFER + ENDS + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    assert refused(serving.ask(trailers, *[b"X: " + b"a" * 9000 + b"\r\n"] * 4000, b"\r\n"), 400)
    assert serving.memory() - before < 50


@pytest.mark.slow
def test_slow_clients_lose_their_connection_and_hold_up_nobody(serving):
    """Headers and bodies that never end, and hundreds of connections that say nothing."""
    idle = [serving.connect() for _ in range(900)]  # 1,024 files may be open
    drips = [
        *(b"GET / HTTP/1.1\r\nX: ", b"GET /", INFER + b"Content-Length: 9000\r\n\r\n"),
        *(b"GET / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n", LIVE + b"GET"),
        b"POST /nothing HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
    slow = [serving.connect(each) for each in drips]
    open_, started = {*slow}, time.perf_counter()
    while open_ and time.perf_counter() - started < 30:
        time.sleep(0.5)
        for each in list(open_):
            try:
                each.sendall(b"1")
                each.setblocking(False)
                while each.recv(1 << 16):
                    pass
                open_.discard(each)
            except BlockingIOError:
                each.setblocking(True)
            except OSError:
                open_.discard(each)
        assert serving.ask(LIVE[:-2] + ENDS + b"\r\n").endswith(b'{"live":true}')
    assert not open_, "a slow connection stays open"
    assert all(each.recv(1) == b"" for each in idle)
    for each in [*idle, *slow]:
        each.close()


def test_a_client_that_reads_nothing_does_not_keep_the_server_from_its_end(bundle_path, tmp_path):
    serving = Serving(bundle_path, tmp_path / "stderr", "--timeout", "0.5")
    with serving.connect(b"GET / HTTP/1.1\r\n\r\n" * 2000):
        time.sleep(1)
        assert serving.end(60) == 0
