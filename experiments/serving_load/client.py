"""Sends requests to a server and keeps what comes back: a process of its own, without any package.

Requests are bytes made beforehand, connections stay open, and answers are compared afterwards, by the
process that started this one: so it takes little of the cores that it shares with the server.
"""

import asyncio
import collections
import gc
import pickle
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

DIGITS = 9  # of a request's number, in its bytes
_PATIENCE = 60.0  # seconds after which a run without an end is an error


class Load(NamedTuple):
    """What is to be sent.

    Attributes:
        port: of the server on this machine.
        requests: HTTP requests, in turn; each is what stands before the number of a request, and behind.
        clients: connections.
        number: of requests.
        seconds: after which no request is sent.
        arrivals: seconds at which requests are sent, ascending. None: each connection sends the next one
            when it has its answer.
    """

    port: int
    requests: Sequence[tuple[bytes, bytes]]
    clients: int
    number: int
    seconds: float
    arrivals: Sequence[float] | None = None


class Answer(NamedTuple):
    """An answer to one request.

    Attributes:
        number: of the request.
        arrived: seconds from the start at which the request was to be sent.
        seconds: from then to the last byte of the answer.
        status: of HTTP.
        body: of HTTP.
    """

    number: int
    arrived: float
    seconds: float
    status: int
    body: bytes


def send(load: Load) -> list[Answer]:
    """Returns the answers, in the order in which they came, from a process that sends the requests.

    Raises:
        OSError: no server, or one that closes connections.
    """
    program = "from experiments.serving_load import client; client.main()"
    found = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(load), capture_output=True
    )
    if found.returncode:
        raise OSError(f"the requests failed: {found.stderr.decode().strip().splitlines()[-1]}")
    return [Answer(*each) for each in pickle.loads(found.stdout)]


def main() -> None:
    """Reads a `Load` from stdin and writes the answers to stdout."""
    load = pickle.load(sys.stdin.buffer)
    gc.disable()
    # `select` waits for microseconds, `epoll` for whole milliseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    answers = loop.run_until_complete(asyncio.wait_for(_sent(load), load.seconds + _PATIENCE))
    pickle.dump([tuple(each) for each in answers], sys.stdout.buffer)


async def _sent(load: Load) -> list[Answer]:
    loop = asyncio.get_running_loop()
    run = _Run(load)
    made = [
        await loop.create_connection(lambda: _Connection(run), "127.0.0.1", load.port)
        for _ in range(load.clients)
    ]
    run.start([connection for _, connection in made])
    await run.finished
    for transport, _ in made:
        transport.abort()
    return run.answers


class _Run:
    """The requests that were sent and are to be sent."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.answers: list[Answer] = []
        self.sent = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting: collections.deque[float] = collections.deque()  # without a connection
        self.free: list[_Connection] = []

    def start(self, connections: "Sequence[_Connection]") -> None:
        self.began = time.perf_counter()
        self.free = list(connections)
        if self.load.arrivals is None:
            for each in connections:
                self.next(each)
        else:
            self.arrivals = collections.deque(self.load.arrivals)
            self.arrive()

    def arrive(self) -> None:
        """Sends what is due, and comes back when the next one is."""
        while self.arrivals and self.arrivals[0] <= self.now():
            self.waiting.append(self.arrivals.popleft())
        while self.waiting and self.free:
            self.send(self.free.pop(), self.waiting.popleft())
        if self.arrivals:
            later = max(0.0, self.arrivals[0] - self.now())
            asyncio.get_running_loop().call_later(later, self.arrive)

    def next(self, connection: "_Connection") -> None:
        """Gives a connection something to do, if there is anything."""
        if self.load.arrivals is not None:
            self.free.append(connection)
            if self.waiting:
                self.send(self.free.pop(), self.waiting.popleft())
            over = not self.arrivals and len(self.answers) == self.sent
        else:
            over = self.sent == self.load.number or self.now() >= self.load.seconds
            if not over:
                self.send(connection, self.now())
            over = over and len(self.answers) == self.sent
        if over and not self.finished.done():
            self.finished.set_result(None)

    def send(self, connection: "_Connection", arrived: float) -> None:
        before, behind = self.load.requests[self.sent % len(self.load.requests)]
        connection.current = (self.sent, arrived)
        connection.transport.write(b"%b%0*d%b" % (before, DIGITS, self.sent, behind))
        self.sent += 1

    def now(self) -> float:
        return time.perf_counter() - self.began


class _Connection(asyncio.Protocol):
    """A connection on which one request at a time is answered."""

    transport: Any

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.received = b""
        self.current = (0, 0.0)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            return
        number, arrived = self.current
        seconds = self.run.now() - arrived
        self.run.answers.append(Answer(number, arrived, seconds, int(head[9:12]), body))
        self.received = b""
        self.run.next(self)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.run.finished.done():
            self.run.finished.set_exception(OSError("the server closed a connection"))


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
