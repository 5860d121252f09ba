"""Answers over HTTP: the Open Inference Protocol v2, a page at `/`, figures for Prometheus.

The web framework is known to this file alone, and the web server to `connections.py`, too. Every answer
that is no success is `{"error": …}`:

| status | because |
|---|---|
| 400 | the request breaks the protocol |
| 401 | the token is missing, or another one |
| 404, 405 | no such path, model or version; no such method there |
| 408, 413, 415 | the body comes too slowly, is too large, or is compressed in an unknown way |
| 422 | a row has an anomaly by the schema |
| 503 | the queue is full, the time is over, or the server starts or stops: `Retry-After` says when |
"""

import asyncio
import contextlib
import dataclasses
import gc
import hmac
import itertools
import json
import logging
import math
import os
import re
import signal
import socket
import sys
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import jaxml
from jaxml import checks
from jaxml.serving import bundle as bundles
from jaxml.serving import openapi, protocol, status
from jaxml.serving.batching import Batcher, Overloaded, Refused, Version
from jaxml.serving.bundle import Bundle
from jaxml.serving.connections import Connection
from jaxml.serving.log import Log
from jaxml.serving.meters import Meters
from jaxml.serving.protocol import ProtocolError
from jaxml.serving.store import Store, bundle_of

__all__ = ["Options", "Service", "serve"]

MAX_BYTES = 16 << 20
_MAX_ARRIVING = 16 * MAX_BYTES
_POLL = 1.0  # seconds between looks at the store
_OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # without a token
_TOKEN = re.compile(r"[!-~]+")
_HEADER = "Inference-Header-Content-Length"


@dataclasses.dataclass(frozen=True)
class Options:
    """How a model is served.

    Attributes:
        host: address to listen on.
        port: 0 for any that is free.
        max_wait_ms: longest time for which a batch waits to be as large as the one before.
        max_queue: most rows that wait; also the most rows of a request.
        timeout: seconds after which a request is given up.
        token: what a client must show, None for nothing.
        log_sample: share of the requests that are logged for `check`, in [0, 1].
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_wait_ms: float = 5.0
    max_queue: int = 1024
    timeout: float = 10.0
    token: str | None = None
    log_sample: float = 1.0

    def __post_init__(self) -> None:
        checks.integer("port", self.port, 0, 65535)
        checks.number("max_wait_ms", self.max_wait_ms, 0)
        checks.integer("max_queue", self.max_queue, 1)
        checks.number("timeout", self.timeout, above=0)
        checks.number("log_sample", self.log_sample, 0, 1)
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ValueError("token must be one word of ASCII, as a header can hold it")


class Service:
    """A model and the web application that answers for it; `service.app` is an ASGI application.

    Args:
        path: a store, or the directory of a bundle.
        options: how it is served.
        announce: is called with None when a version is in use, with the error if the first cannot be run.

    Raises:
        ValueError: no store and no bundle, an empty store, or a damaged bundle.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: Options,
        announce: Callable[[Exception | None], None],
    ) -> None:
        self.options, self.meters = options, Meters()
        self._announce = announce
        place, number = bundle_of(path)
        self._store = None if place == Path(path) else Store(path)
        bundle = bundles.load(place)
        self.version, self.recent = self._new(number, bundle), status.Recent(bundle)
        self.ready = False
        self._refused: int | None = None  # version
        self._told = ""
        # No system call for each id: it would give the turn to the other thread.
        self._own, self._ids = uuid.uuid4().hex[:12], itertools.count()
        self._arriving = 0  # bytes of bodies that have not ended
        self._batcher: Batcher
        self.app = _Front(self, self._application())

    def _application(self) -> Starlette:
        model = "/v2/models/{model}"
        routes = [
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._server_ready),
            Route("/v2", self._server),
            Route("/metrics", self._metrics),
            Route("/status", self._status),
            Route("/openapi.json", self._openapi),
            Route("/", self._page),
        ]
        for place in (model, f"{model}/versions/{{version}}"):
            routes += [
                Route(place, self._model),
                Route(f"{place}/ready", self._model_ready),
                Route(f"{place}/infer", self._infer, methods=["POST"]),
            ]
        errors: dict[Any, Any] = dict.fromkeys(
            (HTTPException, ProtocolError, Refused, Overloaded, ClientDisconnect, Exception), _error
        )
        app = Starlette(routes=routes, exception_handlers=errors, lifespan=self._life)
        app.router.redirect_slashes = False  # To where the client's own Host header says.
        return app

    def _new(self, number: int, bundle: Bundle) -> Version:
        if self._store is None or not self.options.log_sample:
            return Version(number, bundle)
        place = self._store.path / "served" / str(number)
        return Version(number, bundle, Log(place, bundle.pipeline, sample=self.options.log_sample))

    @contextlib.asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        self._batcher = Batcher(
            max_batch=self.version.bundle.manifest.max_batch,
            max_wait_ms=self.options.max_wait_ms,
            max_queue=self.options.max_queue,
            timeout=self.options.timeout,
            observe=self.meters.batch,
        )
        task = asyncio.create_task(self._follow())
        yield
        self.ready = False
        task.cancel()
        await self._batcher.close()
        if self.version.log is not None:
            await asyncio.to_thread(self.version.log.close)

    async def _follow(self) -> None:
        """Warms the bundle, then follows the store: a version that is published is put into use."""
        try:
            await asyncio.to_thread(self.version.bundle.warm)
        except Exception as error:
            self._announce(error)
            return
        self.meters.version.set(self.version.number)
        self.ready = True
        self._announce(None)
        while self._store is not None:
            await asyncio.sleep(_POLL)
            try:
                number = self._store.current()
                if number == self.version.number:
                    self._refused = None
                elif number not in (None, self._refused):
                    await self._switch(self._store, number)
            except (OSError, ValueError) as error:
                self._tell(str(error))

    async def _switch(self, store: Store, number: int) -> None:
        try:
            bundle = await asyncio.to_thread(_warm, store.bundle(number))
        except Exception as error:
            self._refused = number
            self.meters.refused_versions.inc()
            self._tell(f"version {number} is refused, {self.version.number} stays in use: {error}")
            return
        before = self.version
        # Those that wait are answered by the bundle that they were read for.
        self.version, self.recent = self._new(number, bundle), status.Recent(bundle)
        self.meters.version.set(number)
        self._tell(f"version {number} is in use")
        await self._batcher.answered()
        if before.log is not None:
            await asyncio.to_thread(before.log.close)
        del before
        self._announce(None)

    def _tell(self, message: str) -> None:
        """Writes a line on stderr, once for the same message."""
        if message != self._told:
            self._told = message
            _write({"event": message})

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _server_ready(self, request: Request) -> Response:
        self._check_ready()
        return JSONResponse({"ready": True})

    def _check_ready(self) -> None:
        if not self.ready:
            raise Overloaded("the model is not ready")

    async def _server(self, request: Request) -> Response:
        return JSONResponse(
            {
                "name": "jaxml",
                "version": jaxml.__version__,
                "extensions": ["binary_tensor_data"],
            }
        )

    def _named(self, request: Request) -> Version:
        """Returns the version that a URL names."""
        used = self.version
        name, number = used.bundle.manifest.name, str(used.number)
        if request.path_params["model"] != name:
            raise ProtocolError(404, f"there is no such model; {name!r} is served")
        if request.path_params.get("version", number) != number:
            raise ProtocolError(404, f"this version is not in use; {number} is")
        return used

    async def _model(self, request: Request) -> Response:
        used = self._named(request)
        described = used.bundle.manifest
        return JSONResponse(
            {
                "name": described.name,
                "versions": [str(used.number)],
                "platform": "stablehlo",
                "inputs": [each._asdict() for each in described.inputs],
                "outputs": [each._asdict() for each in described.outputs],
            }
        )

    async def _model_ready(self, request: Request) -> Response:
        used = self._named(request)
        self._check_ready()
        return JSONResponse({"name": used.bundle.manifest.name, "ready": True})

    async def _infer(self, request: Request) -> Response:
        self._named(request)
        body = await self._body(request)
        self._check_ready()
        used = self._named(request)  # Another may have been published meanwhile.
        described = used.bundle.manifest
        asked = protocol.decode(
            body, request.headers.get(_HEADER), described.inputs, described.outputs
        )
        if asked.num_rows > self.options.max_queue:
            message = f"a request may have {self.options.max_queue} rows, got {asked.num_rows}"
            raise ProtocolError(413, message)
        name = asked.id or f"{self._own}-{next(self._ids)}"
        request.state.facts.update(rows=asked.num_rows, id=name, version=used.number)
        answers = await self._batcher.answer(used, asked.columns, name)
        if used is self.version:
            self.recent.add(asked.columns)
        content, length = protocol.encode(
            asked,
            answers,
            described.outputs,
            model_name=described.name,
            model_version=str(used.number),
            id=name,
        )
        if length is None:
            return Response(content, media_type="application/json")
        return Response(
            content, media_type="application/octet-stream", headers={_HEADER: str(length)}
        )

    async def _body(self, request: Request) -> bytes:
        """Returns the body of a request, which is never kept beyond the limit."""
        declared = request.headers.get("Content-Length", "0")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > MAX_BYTES):
            raise ProtocolError(413, f"the body may have {MAX_BYTES} bytes, got {declared:.18}")
        parts, size, timeout = [], 0, self.options.timeout
        try:
            async with asyncio.timeout(timeout):
                async for part in request.stream():
                    size += len(part)
                    self._arriving += len(part)
                    if size > MAX_BYTES:
                        raise ProtocolError(413, f"the body may have {MAX_BYTES} bytes")
                    if self._arriving > _MAX_ARRIVING:
                        raise Overloaded("too many bodies arrive at once")
                    parts.append(part)
        except TimeoutError:
            raise ProtocolError(408, f"the body did not come within {timeout:g} s") from None
        finally:
            self._arriving -= size
        return _inflated(b"".join(parts), request.headers.get("Content-Encoding", "identity"))

    async def _metrics(self, request: Request) -> Response:
        self.meters.queue.set(self._batcher.queued)
        log = self.version.log
        self.meters.lost.set(log.lost if log else 0)
        return Response(self.meters.text(), media_type="text/plain; version=0.0.4")

    async def _status(self, request: Request) -> Response:
        used, live = self.version, self.meters.live(self._batcher.queued)
        return JSONResponse(
            await asyncio.to_thread(
                status.describe, used.bundle, used.number, live=live, served=self.recent
            )
        )

    async def _openapi(self, request: Request) -> Response:
        used = self.version
        return JSONResponse(openapi.describe(used.bundle.manifest, used.number))

    async def _page(self, request: Request) -> Response:
        page = status.page()
        headers = {"Content-Security-Policy": page.policy, "X-Content-Type-Options": "nosniff"}
        return Response(page.content, media_type="text/html", headers=headers)


class _Front:
    """Stands before the application: looks at the token, counts, and writes the access log."""

    def __init__(self, service: Service, app: Starlette) -> None:
        self._service, self._app = service, app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        code = 500
        facts: dict[str, Any] = {}
        scope.setdefault("state", {})["facts"] = facts

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            app = self._app if self._admits(scope) else _unauthorized
            await app(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - started
            endpoint = getattr(scope.get("endpoint"), "__name__", "none").strip("_")
            self._service.meters.answered(endpoint, code, seconds)
            for kind in facts.pop("anomalies", ()):
                self._service.meters.anomalies.labels(kind).inc()
            line = {"method": scope["method"], "path": scope["path"], "status": code}
            _write({**line, "ms": round(1e3 * seconds, 3), **facts})

    def _admits(self, scope: MutableMapping[str, Any]) -> bool:
        token = self._service.options.token
        if token is None or scope["path"] in _OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, b"Bearer " + token.encode())


async def _unauthorized(scope: Any, receive: Any, send: Any) -> None:
    answer = JSONResponse(
        {"error": "a token is wanted: Authorization: Bearer TOKEN"},
        401,
        {"WWW-Authenticate": "Bearer"},
    )
    await answer(scope, receive, send)


def _error(request: Request, error: Exception) -> Response:
    code, message, headers = 500, "internal error", {}
    if isinstance(error, ProtocolError):
        code, message = error.status, str(error)
    elif isinstance(error, Refused):
        code, message = 422, str(error)
        request.state.facts["anomalies"] = [each.kind for each in error.anomalies]
    elif isinstance(error, Overloaded):
        code, message, headers = 503, str(error), {"Retry-After": "1"}
    elif isinstance(error, HTTPException):
        code, message = error.status_code, error.detail
        headers = dict(error.headers or {})
    elif isinstance(error, ClientDisconnect):
        code, message = 400, "the client left"
    return JSONResponse({"error": message}, code, headers)


def _inflated(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise ProtocolError(415, "Content-Encoding must be gzip, deflate or identity")
    inflate = zlib.decompressobj(wbits=47)  # Both.
    try:
        whole = inflate.decompress(body, MAX_BYTES + 1)
    except zlib.error:
        raise ProtocolError(400, f"the body is no {encoding}") from None
    if len(whole) > MAX_BYTES:
        raise ProtocolError(413, f"the body may have {MAX_BYTES} bytes")
    if not inflate.eof or inflate.unused_data:
        raise ProtocolError(400, f"the body is no whole {encoding}")
    return whole


def _warm(path: Path) -> Bundle:
    bundle = bundles.load(path)
    bundle.warm()
    return bundle


def _write(line: dict[str, Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stderr.write(json.dumps({"time": now, **line}, ensure_ascii=True) + "\n")


def configured(service: Service) -> uvicorn.Config:
    """Returns how the web server runs a service."""
    return uvicorn.Config(
        service.app,
        http=Connection,
        ws="none",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(2 * service.options.timeout) + 1,  # To read, to answer.
        lifespan="on",
    )


def serve(path: str | os.PathLike[str], options: Options) -> int:
    """Serves a store or a bundle until SIGTERM or SIGINT; returns the exit code.

    Prints a line when a version is in use: `serving NAME version V on http://127.0.0.1:8000`.

    Raises:
        ValueError: as `Service`.
        OSError: the address is taken, or none of this machine.
    """
    faults: list[Exception] = []

    def announce(error: Exception | None) -> None:
        if error is not None:
            faults.append(error)
            server.should_exit = True
            return
        # A full collection would stop all answers for 0.1 s, again and again.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        used, (host, port) = service.version, listening.getsockname()[:2]
        place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"serving {used.bundle.manifest.name} version {used.number} on {place}", flush=True)

    service = Service(path, options, announce)
    listening = _listen(options.host, options.port)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    # The thread that reads requests must not wait 5 ms for the one that computes at each of its steps.
    sys.setswitchinterval(5e-4)
    # uvicorn raises the signal again once all is answered, which would not be the exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = uvicorn.Server(configured(service))
    with listening:
        server.run(sockets=[listening])
    if faults:
        raise ValueError(f"{os.fspath(path)}: the program cannot be run: {faults[0]!r:.300}")
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise OSError(f"cannot listen on {host}:{port}: {reason}") from error
