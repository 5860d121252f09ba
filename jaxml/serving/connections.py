"""Connections of the server that may not be slow, nor their headers long."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]

_MAX_HEADERS = 64 << 10
_PATIENCE = 10.0  # seconds for headers, or for the rest of a body that is not wanted


class Connection(HttpToolsProtocol):
    """A connection that may not be slow: headers and the rest of an answered body have a deadline.

    What is no HTTP is answered in JSON, too.
    """

    _deadline: asyncio.TimerHandle | None = None
    _in_headers = False
    _read = 0  # bytes of headers that have not ended

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._met()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._in_headers
        super().data_received(data)
        self._read = self._read + len(data) if before and self._in_headers else 0
        if self._read > _MAX_HEADERS:
            self._refuse(431, f"headers may have {_MAX_HEADERS} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._expect()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # None that follow a body.
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._met()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._met()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._expect()  # Read to its end, so that the client can read the answer.

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no HTTP request")

    def _expect(self) -> None:
        self._met()
        self._deadline = self.loop.call_later(_PATIENCE, self.timeout_keep_alive_handler)

    def _met(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, code: int, message: str) -> None:
        if not self.transport.is_closing():
            content = json.dumps({"error": message}).encode()
            head = (
                f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + content)
            self.transport.close()
