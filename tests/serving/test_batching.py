"""Requests that are answered together get what each would get alone."""

import asyncio
import threading

import numpy as np
import pytest

from jaxml import serving
from jaxml.serving.batching import Batcher, Overloaded, Refused, Version

OPTIONS = {"max_batch": 8, "max_wait_ms": 5, "max_queue": 64, "timeout": 20}


def some(columns, *rows, **changes):
    """Raw columns of some rows."""
    return {
        name: np.asarray(each)[list(rows)].astype(object if each.dtype.kind == "U" else each.dtype)
        for name, each in columns.items()
    } | changes


def answers(version, requests, **options):
    """Returns the answers (or errors) of requests that come at once, and the sizes of the batches."""
    sizes = []

    async def ask():
        batcher = Batcher(**OPTIONS | options, observe=lambda rows: sizes.append(len(rows)))
        free = threading.Event()
        busy = asyncio.create_task(batcher.run(free.wait))
        asked = [
            asyncio.create_task(batcher.answer(version, each, str(i)))
            for i, each in enumerate(requests)
        ]
        await asyncio.sleep(0.01)
        free.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        await busy
        await batcher.close()
        return found

    return asyncio.run(ask()), sizes


def test_requests_of_several_sizes_are_answered_together(bundle, columns):
    rows = [[i, *range(i % 3)] for i in range(12)]
    found, sizes = answers(Version(1, bundle), [some(columns, *each) for each in rows])
    wanted = bundle.predict(columns)["probability"]
    for each, got in zip(rows, found, strict=True):
        np.testing.assert_allclose(got["probability"], wanted[each], rtol=1e-6)
    assert sum(sizes) == 12 and max(sizes) > 2


def test_a_request_at_fault_hurts_no_other(bundle, columns):
    odd = np.array(["JFK", "XXX"], object)
    requests = [some(columns, i, i + 1) for i in range(4)]
    requests[1] = some(columns, 1, 2, origin=odd)
    requests[2] = {name: each for name, each in requests[2].items() if name != "hour"}
    found, _ = answers(Version(1, bundle), requests, max_batch=64)
    wanted = bundle.predict(columns)["probability"]
    for i in (0, 3):
        np.testing.assert_allclose(found[i]["probability"], wanted[[i, i + 1]], rtol=1e-6)
    assert isinstance(found[1], Refused)
    (anomaly,) = found[1].anomalies
    assert (anomaly.column, anomaly.rows.tolist()) == ("origin", [1])
    assert [each.kind for each in found[2].anomalies] == ["SCHEMA_MISSING_COLUMN"]


def test_columns_of_other_types_are_judged_alone(bundle, columns):
    """Joined, texts would be mixed with numbers, and floats would make whole numbers floats."""
    changes = [
        {},
        {"hour": np.array(["noon"], object)},
        {"hour": np.array([9.5])},
        {"hour": np.ma.masked_array([9], [False])},
        {"wind": np.array([np.nan])},
        {"wind": np.array([None], object)},
    ]
    requests = [some(columns, 0, **change) for change in changes]
    together, _ = answers(Version(1, bundle), requests)
    for request, got in zip(requests, together, strict=True):
        (alone,), _ = answers(Version(1, bundle), [request])
        if isinstance(alone, Exception):
            assert (type(got), str(got)) == (type(alone), str(alone))
        else:
            np.testing.assert_allclose(got["probability"], alone["probability"], rtol=1e-6)
    assert [isinstance(each, Refused) for each in together] == [0, 1, 1, 0, 0, 0]


def test_a_bundle_that_fails_is_an_error_of_the_request_alone(bundle, columns):
    class Broken:
        check, encode, decode = bundle.check, bundle.encode, bundle.decode

        def program(self, features):
            raise RuntimeError("out of memory")

    async def ask():
        batcher = Batcher(**OPTIONS)
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.answer(Version(1, Broken()), some(columns, 0), "a")
        assert await batcher.answer(Version(2, bundle), some(columns, 0), "b")
        await batcher.close()

    asyncio.run(ask())


def test_what_is_too_much_or_too_late_is_refused(bundle, columns):
    async def ask():
        batcher = Batcher(**OPTIONS | {"max_queue": 3, "timeout": 0.1})
        free = threading.Event()
        busy = asyncio.create_task(batcher.run(free.wait))
        version = Version(1, bundle)
        first = asyncio.create_task(batcher.answer(version, some(columns, 0), "taken"))
        await asyncio.sleep(0.01)
        late = asyncio.create_task(batcher.answer(version, some(columns, 0, 1), "waits"))
        await asyncio.sleep(0)
        assert batcher.queued == 2
        with pytest.raises(Overloaded, match="2 rows are waiting, and at most 3 may"):
            await batcher.answer(version, some(columns, 0, 1), "too much")
        for each in (first, late):
            with pytest.raises(Overloaded, match=r"no answer within 0\.1 s"):
                await each
        free.set()
        await busy
        assert await batcher.answer(version, some(columns, 0), "again")
        await batcher.close()
        with pytest.raises(Overloaded, match="shutting down"):
            await batcher.answer(version, some(columns, 0), "closed")

    asyncio.run(ask())


def test_closing_answers_what_was_accepted(bundle, columns):
    async def ask():
        batcher = Batcher(**OPTIONS)
        requests = [batcher.answer(Version(1, bundle), some(columns, i), "x") for i in range(20)]
        tasks = [asyncio.create_task(each) for each in requests]
        await asyncio.sleep(0)
        await batcher.close()
        assert all(task.done() and task.result() for task in tasks)

    asyncio.run(ask())


class Kept:
    """A log in memory."""

    def __init__(self):
        self.keys, self.outputs = [], []

    def append(self, requests, rows, columns, features, outputs):
        assert len(columns["hour"]) == len(features["dense"]) == len(rows)
        self.keys += zip(requests, rows, strict=True)
        self.outputs += outputs["probability"].tolist()


def test_each_request_is_answered_and_logged_by_its_own_version(
    bundle, columns, make_bundle, tmp_path
):
    make_bundle(tmp_path / "other", columns, seed=1)
    other = serving.load(tmp_path / "other")
    versions = [Version(1, bundle, Kept()), Version(2, other, Kept())]

    async def ask():
        batcher = Batcher(**OPTIONS)
        found = await asyncio.gather(
            *(batcher.answer(versions[i % 2], some(columns, i, i), str(i)) for i in range(8))
        )
        await batcher.answered()
        await batcher.close()
        return found

    found = asyncio.run(ask())
    for i, got in enumerate(found):
        wanted = versions[i % 2].bundle.predict(some(columns, i, i))["probability"]
        np.testing.assert_allclose(got["probability"], wanted, rtol=1e-6)
    for start, version in enumerate(versions):
        keys = [(str(i), row) for i in range(start, 8, 2) for row in (0, 1)]
        assert version.log.keys == keys
        answered = np.concatenate([found[i]["probability"] for i in range(start, 8, 2)])
        np.testing.assert_array_equal(np.float32(version.log.outputs), answered)
