"""Requests that wait are answered together: features and program cost little more for 64 rows than for one.

One thread does all of the model's work. A request that comes while nothing waits is answered at once; those
that come meanwhile are the next batch. Each request is answered by the bundle that it was read for.
"""

import asyncio
import collections
import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml.serving.bundle import Bundle
from jaxml.serving.log import Log
from jaxml.serving.program import Features
from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import read_columns

__all__ = ["Batcher", "Overloaded", "Refused", "Version"]

_TOLD = 5  # anomalies in a message
_LONGEST = 2000  # characters of a message


class Version(NamedTuple):
    """A bundle that answers.

    Attributes:
        number: of the version.
        bundle: the model.
        log: takes what was served, if that is to be kept.
    """

    number: int
    bundle: Bundle
    log: Log | None = None


class Overloaded(Exception):
    """A request is not accepted, or not answered in time; it may be sent again later."""


class Refused(ValueError):
    """A request's rows may not be answered.

    Attributes:
        anomalies: what the schema says of them.
    """

    def __init__(self, message: str, anomalies: Sequence[Anomaly] = ()) -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…")
        self.anomalies = tuple(anomalies)


class _Waiting(NamedTuple):
    """A request in the queue."""

    version: Version
    columns: Mapping[str, NDArray[Any]]
    id: str
    num_rows: int
    answer: asyncio.Future[dict[str, NDArray[Any]]]

    @property
    def kinds(self) -> tuple[Any, ...]:
        """Requests of the same kinds can be joined without a change of type."""
        return (self.version.number, *(each.dtype for each in self.columns.values()))


class _Done(NamedTuple):
    """Requests that were answered together."""

    requests: Sequence[_Waiting]
    columns: Mapping[str, NDArray[Any]]
    features: Features
    outputs: Mapping[str, NDArray[Any]]


class Batcher:
    """Answers requests, together where several wait.

    Made in a running event loop. `queued` is the number of rows that wait.

    Args:
        max_batch: most rows that are joined.
        max_wait_ms: longest time for which a batch waits to be as large as the one before.
        max_queue: most rows that wait.
        timeout: seconds after which a request is given up.
        observe: is told the rows of each request of a batch.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_wait_ms: float,
        max_queue: int,
        timeout: float,
        observe: Callable[[Sequence[int]], None] = lambda rows: None,
    ) -> None:
        self.max_queue = max_queue
        self.queued = 0  # rows
        self._max_batch, self._max_wait, self._timeout = max_batch, max_wait_ms / 1e3, timeout
        self._observe = observe
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._pending: set[asyncio.Future[Any]] = set()
        self._thread = ThreadPoolExecutor(1, "model")
        self._enough = asyncio.Event()  # requests for a batch
        self._wanted = 1
        self._closing = False
        self._task = asyncio.create_task(self._run())

    async def answer(
        self, version: Version, columns: Mapping[str, NDArray[Any]], request_id: str
    ) -> dict[str, NDArray[Any]]:
        """Returns the outputs [B, …] by name.

        Args:
            version: the bundle that answers.
            columns: raw columns [B] by name, as arrays.
            request_id: for the log.

        Raises:
            Overloaded: the queue is full, the time is over, or the server is shutting down.
            Refused: an anomaly in the rows.
        """
        rows = len(next(iter(columns.values())))
        if self._closing:
            raise Overloaded("the server is shutting down")
        if self.queued + rows > self.max_queue:
            raise Overloaded(f"{self.queued} rows are waiting, and at most {self.max_queue} may")
        future = asyncio.get_running_loop().create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        self._queue.append(_Waiting(version, columns, request_id, rows, future))
        self.queued += rows
        if len(self._queue) >= self._wanted or self.queued >= self._max_batch:
            self._enough.set()
        try:
            async with asyncio.timeout(self._timeout):
                return await future
        except TimeoutError:
            raise Overloaded(f"there was no answer within {self._timeout:g} s") from None

    async def answered(self) -> None:
        """Waits until all that was accepted so far is answered, and logged."""
        if self._pending:
            await asyncio.wait(self._pending)
        await self.run(lambda: None)

    async def run(self, work: Callable[[], Any]) -> Any:
        """Returns the result of other work in the model's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Accepts no more requests, and answers those that it accepted."""
        self._closing = True
        await self.answered()
        self._task.cancel()
        self._thread.shutdown()

    async def _run(self) -> None:
        size = 1  # requests of the batch before
        while True:
            await self._gather(size)
            batch = self._take()
            size = len(batch)
            if not batch:
                continue
            self._observe([each.num_rows for each in batch])
            try:
                results = await self.run(functools.partial(self._results, batch))
            except Exception as error:  # A fault here must not end the task.
                results = [(waiting, error) for waiting in batch]
            for waiting, result in results:
                if waiting.answer.done():
                    continue
                if isinstance(result, Exception):
                    waiting.answer.set_exception(result)
                else:
                    waiting.answer.set_result(result)

    async def _gather(self, size: int) -> None:
        """Waits for a request; if others came with the one before, a little for as many again."""
        await self._until(1)
        if size > 1:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._max_wait):
                    await self._until(size)

    async def _until(self, size: int) -> None:
        self._wanted = size
        while len(self._queue) < size and self.queued < self._max_batch:
            self._enough.clear()
            await self._enough.wait()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._queue and (not batch or rows + self._queue[0].num_rows <= self._max_batch):
            waiting = self._queue.popleft()
            self.queued -= waiting.num_rows
            if not waiting.answer.done():  # Given up.
                batch.append(waiting)
                rows += waiting.num_rows
        return batch

    def _results(self, batch: Sequence[_Waiting]) -> list[tuple[_Waiting, Any]]:
        groups: dict[tuple[Any, ...], list[_Waiting]] = {}
        for waiting in batch:
            groups.setdefault(waiting.kinds, []).append(waiting)
        results: list[tuple[_Waiting, Any]] = []
        for group in groups.values():
            for part in _answers(group):
                if isinstance(part, _Done):
                    results += _parts(part)
                    if part.requests[0].version.log is not None:
                        self._thread.submit(_write, part)  # After the answers.
                else:
                    results.append(part)
        return results


def _write(done: _Done) -> None:
    """Gives a batch to the log: for each row the id of its request, and its number there."""
    ids = [each.id for each in done.requests for _ in range(each.num_rows)]
    rows = [row for each in done.requests for row in range(each.num_rows)]
    log = done.requests[0].version.log
    assert log is not None
    log.append(ids, rows, done.columns, done.features, done.outputs)


def _answers(group: Sequence[_Waiting]) -> list[_Done | tuple[_Waiting, Exception]]:
    """Answers requests of the same version and kinds together, and those at fault alone."""
    bundle, joined = group[0].version.bundle, _joined(group)
    try:
        read = read_columns(joined)
        found = [each for each in bundle.check(read) if each.severity == "error"]
        if not found:
            features = bundle.encode(read)
            outputs = bundle.decode(bundle.program(features))
            return [_Done(group, joined, features, outputs)]
    except Exception as error:
        if len(group) == 1:
            return [(group[0], Refused(str(error)) if isinstance(error, ValueError) else error)]
        return [part for each in group for part in _answers([each])]
    if len(group) == 1:
        told = "; ".join(each.finding for each in found[:_TOLD])
        return [(group[0], Refused(told, found))]
    fault = _at_fault(group, found)
    good = [each for each, bad in zip(group, fault, strict=True) if not bad]
    alone = [[each] for each, bad in zip(group, fault, strict=True) if bad]
    return [part for some in ([good] if good else []) + alone for part in _answers(some)]


def _at_fault(group: Sequence[_Waiting], found: Sequence[Anomaly]) -> list[bool]:
    """Returns which requests have rows that an anomaly names; all, if one names none."""
    if any(not len(each.rows) for each in found):
        return [True] * len(group)
    owner = np.repeat(np.arange(len(group)), [each.num_rows for each in group])
    fault = np.zeros(len(group), bool)
    for each in found:
        fault[owner[each.rows]] = True
    return fault.tolist()


def _joined(group: Sequence[_Waiting]) -> dict[str, NDArray[Any]]:
    columns = {}
    for name in group[0].columns:
        parts = [each.columns[name] for each in group]
        masked = any(isinstance(each, np.ma.MaskedArray) for each in parts)
        columns[name] = (np.ma.concatenate if masked else np.concatenate)(parts)
    return columns


def _parts(done: _Done) -> list[tuple[_Waiting, dict[str, NDArray[Any]]]]:
    """Returns each request's rows of the outputs."""
    parts, at = [], 0
    for each in done.requests:
        some = slice(at, at + each.num_rows)
        parts.append((each, {name: values[some] for name, values in done.outputs.items()}))
        at += each.num_rows
    return parts
