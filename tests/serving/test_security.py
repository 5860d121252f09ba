"""Nothing that a client sends brings the server down, makes it hang, or learns more than it should."""

import asyncio
import collections
import gzip
import json
import random
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

import jaxml
from jaxml.serving import server
from jaxml.serving.server import Options, Service

INFER = "/v2/models/flights/infer"
KINDS = {"origin": "BYTES", "distance": "INT64", "wind": "FP64", "hour": "INT64"}
SECRETS = (Path(jaxml.__file__).parent, Path(sys.prefix), Path(sys.base_prefix) / "lib")
ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}|Traceback|File \"")


class InProcess:
    """The application in an event loop of this thread, called without a socket.

    Attributes:
        counts: answers by status.
    """

    def __init__(self, path, **options):
        self.loop = asyncio.new_event_loop()
        self.counts = collections.Counter()
        self._secrets = [str(path), *map(str, SECRETS)]
        self._ended, self._ready = asyncio.Event(), asyncio.Event()
        self.service = Service(path, Options(**options), lambda error: self._ready.set())
        self._life = self.loop.create_task(
            self.service.app({"type": "lifespan"}, self._next, _none)
        )
        self._started = False
        self.loop.run_until_complete(asyncio.wait_for(self._ready.wait(), 60))
        assert self.service.ready

    async def _next(self):
        if self._started:
            await self._ended.wait()
            return {"type": "lifespan.shutdown"}
        self._started = True
        return {"type": "lifespan.startup"}

    def close(self):
        self._ended.set()
        self.loop.run_until_complete(self._life)
        self.loop.close()

    def send(self, *requests):
        """Sends requests at once and checks all answers; returns (status, content) of each."""

        async def every():
            return await asyncio.gather(*(self._call(*each) for each in requests))

        answers = self.loop.run_until_complete(asyncio.wait_for(every(), 60))
        for request, answer in zip(requests, answers, strict=True):
            self.check(request, *answer)
        return [(status, content) for status, _, content in answers]

    async def _call(self, body=b"", headers=(), path=INFER, method="POST", query=b""):
        names = [(key.lower().encode("latin1"), value.encode("latin1")) for key, value in headers]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "replace"),
            "root_path": "",
            "query_string": query,
            "headers": [(b"host", b"127.0.0.1"), *names],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 1),
        }
        parts = collections.deque(body[i : i + 65536] for i in range(0, max(len(body), 1), 65536))
        sent = []

        async def receive():
            if not parts:
                await asyncio.sleep(3600)
            return {"type": "http.request", "body": parts.popleft(), "more_body": bool(parts)}

        async def send(message):
            sent.append(message)

        await self.service.app(scope, receive, send)
        content = b"".join(each.get("body", b"") for each in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), content

    def check(self, request, status, headers, content):
        self.counts[status] += 1
        assert 200 <= status < 300 or 400 <= status < 500 or status == 503, (request, content)
        if status == 503:
            assert int(headers[b"retry-after"]) > 0
        if status >= 400 and (len(request) < 4 or request[3] != "HEAD"):
            error = json.loads(content)
            assert error.keys() == {"error"} and isinstance(error["error"], str), content
            assert len(error["error"]) < 5000
        text = content.decode()
        assert not ADDRESS.search(text), text
        assert not [each for each in self._secrets if each in text], text


async def _none(message):
    pass


@pytest.fixture(scope="module")
def target(bundle_path):
    place = InProcess(bundle_path, max_queue=64)
    yield place
    place.close()


@pytest.fixture(scope="module")
def good(columns, bundle):
    """A right request of three rows, and its answer."""
    rows = {name: values[:3] for name, values in columns.items()}
    inputs = [
        {
            "name": name,
            "shape": [3],
            "datatype": KINDS[name],
            "data": [None if each != each else each for each in values.tolist()],
        }
        for name, values in rows.items()
    ]
    return {"id": "a", "inputs": inputs}, bundle.predict(rows)["probability"]


@pytest.fixture
def alive(target, good):
    """Checks after a test that a right request is answered rightly, in time."""
    yield
    content, wanted = good
    ((status, answer),) = target.send((json.dumps(content).encode(),))
    assert status == 200
    np.testing.assert_array_equal(np.float32(json.loads(answer)["outputs"][0]["data"]), wanted)


EVIL = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**400),
    *(0.0, -0.0, 1e308, -1e308, 5e-324, 0.5),
    *("", "a", "EWR", "INT64", "BYTES", "FP64", "\0", "\r\n", "é" * 300, "x" * 5000, "\U0001f600"),
    *("../../etc/passwd", "%2e%2e%2f", "{0.__class__}", "%s%n", "<script>", "\ud800", "origin"),
    *([], [[]], [[[]]], {}, {"a": {}}, [None], [1, "a", None], [3, 1], [1, 3], [-3], [3, 0], [0]),
    *([2**64], [10**400], ["3"], [3.0], [True], [3] * 100, {"name": "origin"}),
    *({"binary_data_size": size} for size in (0, 8, 24, -1, 2**63, 1.5, True, "8", None, [8], 1e9)),
    *({"binary_data": True}, {"binary_data": 1}, {"binary_data_output": True}),
]
WORDS = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e-999", b"9" * 4300, b"9" * 5000),
    *(b"-" + b"9" * 4300, b"0x10", b"01", b"1.", b"+1", b"'a'", b"undefined", b'"\\ud800"'),
    *(b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf", b"\0"),
    *(b"/* */", b"1e", b"[" * 100_000, b'{"a":' * 50_000, b"[" * 500 + b"]" * 500, b"", b","),
]
HEADERS = [
    *(
        ("Inference-Header-Content-Length", n)
        for n in ("0", "1", "-1", "99999999", "9" * 30, "1e3")
    ),
    *(("Inference-Header-Content-Length", n) for n in ("", " ", "0x10", "\xb2", "1,1", "a" * 9000)),
    *(("Content-Encoding", n) for n in ("gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "")),
    *(
        ("Content-Type", n)
        for n in ("text/xml", "application/json; charset=utf-16", "multipart/", "")
    ),
    *(("Content-Length", n) for n in ("-1", "0", "1", "99999999999", "9" * 5000)),
    *(
        ("Accept-Encoding", "gzip"),
        ("Expect", "100-continue"),
        ("Transfer-Encoding", "gzip, chunked"),
    ),
    *(("Host", "["), ("Host", "a b"), ("Origin", "null"), ("X-Forwarded-For", "\xff" * 50)),
    *(("Authorization", "Bearer \xff"), ("Range", "bytes=0-"), ("Cookie", "a=" + "b" * 9000)),
]
DATA, SHAPE, SIZE = (
    '{"inputs": [{"name": "hour", "datatype": "INT64", "shape": [1], "data": [%s]}]}',
    '{"inputs": [{"name": "hour", "datatype": "INT64", "shape": %s, "data": [1]}]}',
    '{"inputs": [{"name": "hour", "parameters": {"binary_data_size": %s}}]}',
)
PATHS = [
    *("/v2/models/../../etc/passwd", "/v2/models/%2e%2e/infer", "/..", "//", "/v2/", "/v2//models"),
    *("/v2/models/flights/versions/x/infer", "/v2/models/flights/versions/-1/infer", "/\0", "/\n"),
    *("/v2/models/flights/versions/" + "9" * 5000, "/v2/models/\ud800/infer", "/" + "a" * 100_000),
    *("/v2/models/flights/versions/1/", "/v2/models//infer", "/v2/models/flights/infer/", "*", ""),
    *(
        "/v2/models/flights\r\nX: y/infer",
        "/v2/models/é/infer",
        "/openapi.json/",
        "/static/x",
        "/.",
    ),
    *(
        "/v2/models/flights/versions/٣",
        "/metrics/../status",
        "/v2/health/live;a=b",
        "/" + "../" * 999,
    ),
]
KNOWN = [
    *("/", "/v2", "/v2/health/live", "/v2/health/ready", "/metrics", "/status", "/openapi.json"),
    *("/v2/models/flights", "/v2/models/flights/ready", "/v2/models/flights/versions/1"),
]
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "X" * 99,
]

anything = st.recursive(
    st.sampled_from(EVIL)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)

VALUES = {
    "BYTES": [st.text(), st.sampled_from(["EWR", "ewr", "EWR\0", ""])],
    "INT64": [st.integers(-(2**63), 2**63 - 1), st.integers(-1, 5000)],
    "FP64": [st.floats(allow_nan=False, allow_infinity=False), st.integers()],
}


def places(value, at=()):
    """The paths of all values in a JSON tree."""
    yield at
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, each in items:
        yield from places(each, (*at, key))


def changed(value, at, new):
    """A JSON tree with the value at a path replaced, or removed if `new` is `places`."""
    if not at:
        return None if new is places else new
    copied = dict(value) if isinstance(value, dict) else list(value)
    if len(at) == 1 and new is places:
        del copied[at[0]]
    else:
        copied[at[0]] = changed(value[at[0]], at[1:], new)
    return copied


@st.composite
def trees(draw, good):
    """A right request in which up to three values are replaced, removed, or joined by others."""
    content = good
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(list(places(content))))
        how = draw(st.sampled_from([0, 1, 2, 3, 4, 4, 4]))
        if how == 0:
            content = changed(content, at, places)
        elif how == 4:
            kind = draw(
                st.sampled_from([st.text(), st.integers(), st.integers(0, 30), st.floats()])
            )
            column = good["inputs"][draw(st.integers(0, 3))]
            data = draw(st.lists(st.none() | kind, min_size=3, max_size=3))
            content = {
                "inputs": [
                    each if each != column else {**each, "data": data} for each in good["inputs"]
                ]
            }
        elif how == 1 and at:
            name = draw(
                st.sampled_from(["shape", "datatype", "parameters", "data", "name", "outputs"])
            )
            owner = content
            for key in at[:-1]:
                owner = owner[key]
            more = (
                {**owner, name: draw(anything)}
                if isinstance(owner, dict)
                else [*owner, draw(anything)]
            )
            content = changed(content, at[:-1], more)
        else:
            content = changed(content, at, draw(anything))
    return content


@st.composite
def binaries(draw):
    """Inputs in binary form whose sizes, shapes, datatypes and bytes need not fit together."""
    blob, inputs = b"", []
    for name in draw(st.permutations([*KINDS])):
        rows = draw(st.sampled_from([0, 1, 2, 3, 64, 2**63, 10**4299]))
        datatype = draw(
            st.sampled_from([*KINDS.values(), "BOOL", "FP16", "UINT8", "UINT64", "FP32"])
        )
        bytes_ = draw(
            st.binary(max_size=40)
            | st.sampled_from([b"\xff\xff\xff\xff", struct.pack("<I3s", 3, b"EWR") * 3, bytes(24)])
        )
        size = draw(
            st.just(len(bytes_)) | st.sampled_from([0, 4, 24, -1, len(bytes_) + 1, 2**64, 1.0])
        )
        parameters = {"binary_data_size": size}
        inputs.append(
            {"name": name, "shape": [rows], "datatype": datatype, "parameters": parameters}
        )
        blob += bytes_
    text = json.dumps({"inputs": inputs}).encode()
    length = len(text) + draw(st.sampled_from([0, 0, 0, 0, -1, 1, len(blob), len(blob) + 1]))
    return text + blob, [("Inference-Header-Content-Length", str(length))]


def harmed(body, count, rng):
    """Copies of a body that are cut, or hold other bytes or words."""
    for _ in range(count):
        at, end = sorted(rng.randrange(len(body) + 1) for _ in range(2))
        yield rng.choice(
            [
                lambda at=at: body[:at],
                lambda at=at: body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :],
                lambda at=at: body[:at] + rng.choice(WORDS) + body[at:],
                lambda at=at: body[:at] + rng.choice(WORDS) + body[at + 1 :],
                lambda at=at, end=end: body[:at] + body[end:],
                lambda at=at, end=end: body[:end] + body[at:],
            ]
        )()


QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def attack(target, good, examples, each):
    """Sends `each` requests for each of the examples that hypothesis draws."""
    content, _ = good
    rng = random.Random(0)

    @seed(0)
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        **QUIET,
    )
    @given(trees(content), binaries(), st.sampled_from(HEADERS), st.sampled_from(HEADERS))
    def run(tree, binary, header, other):
        text = json.dumps(tree).encode("utf-8", "surrogatepass")
        requests = [(text,), binary, (text, [header, other]), (binary[0], [*binary[1], header])]
        requests += [(body,) for body in harmed(text, each // 2, rng)]
        requests += [(body, binary[1]) for body in harmed(binary[0], each // 2 - 4, rng)]
        target.send(*requests)

    run()


def test_malformed_requests_are_refused(target, good, alive):
    attack(target, good, 40, 32)


@pytest.mark.slow
def test_very_many_malformed_requests_are_refused(target, good, alive):
    attack(target, good, 700, 32)
    print(sum(target.counts.values()), dict(target.counts))


@pytest.mark.parametrize(
    "place", ["%s", '{"inputs": [{"name": %s}]}', '{"id": %s}', DATA, SHAPE, SIZE]
)
def test_nesting_of_any_depth_is_refused(target, alive, place):
    depths = [*range(1, 900, 99), *range(900, 1000, 2), 10_000, 1_000_000]
    target.send(*((place.replace("%s", "[" * n + "]" * n).encode(),) for n in depths))


def test_paths_and_methods(target, alive):
    requests = [(b"{}", [], path, method) for path in [*PATHS, *KNOWN] for method in METHODS]
    requests += [(b"", [header], path, "GET") for path in KNOWN for header in HEADERS]
    requests += [(b"", [], path, "GET", b"a=%ff&" * 9000) for path in KNOWN]
    for at in range(0, len(requests), 64):
        target.send(*requests[at : at + 64])


def test_compressed_bodies_are_never_larger_than_the_limit(target, good, alive):
    content = json.dumps(good[0]).encode()
    bomb = zlib.compressobj(1, wbits=31)
    bomb = bomb.compress(bytes(8 * server.MAX_BYTES)) + bomb.flush()
    assert len(bomb) < server.MAX_BYTES // 8
    gzipped = [("Content-Encoding", "gzip")]
    answers = target.send(
        (gzip.compress(content), gzipped),
        (bomb, gzipped),
        (gzip.compress(bomb), gzipped),
        (gzip.compress(content)[:-9], gzipped),
        (gzip.compress(content) + b"more", gzipped),
        (gzip.compress(content) * 2, gzipped),
        (content, gzipped),
        (b"", gzipped),
        (bytes(server.MAX_BYTES + 1),),
        (b" " * server.MAX_BYTES,),
    )
    assert [status for status, _ in answers] == [200, 413, 400, 400, 400, 400, 400, 400, 413, 413]


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_requests_made_from_the_description_of_the_server(url, mode):
    """Answers have the statuses, media types and structures that the description promises."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        many = operation.method == "post"
        if mode == "negative" and not many:
            continue  # Nothing can be wrong about a request without parameters.

        @seed(0)
        @settings(max_examples=10 if many else 1, phases=[Phase.generate], **QUIET)
        @given(operation.as_strategy(generation_mode=GenerationMode(mode)))
        def run(case):
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        run()


GIVEN = [
    *(
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer s3cre",
        "Bearer s3cret2",
        "bearer s3cret",
        "s3cret",
    ),
    *(
        "Bearer s3cr\xe9t",
        "Bearer " + "s3cret" * 9999,
        "Bearer s3cret\0",
        "Basic czNjcmV0",
        "Bearer  s3cret",
    ),
]


def test_without_the_token_nothing_is_told_but_health_and_the_page(bundle_path, good):
    """The page holds no figure: what it shows is asked for with the token."""
    body, right = json.dumps(good[0]).encode(), [("Authorization", "Bearer s3cret")]
    target = InProcess(bundle_path, token="s3cret")
    try:
        secrets = [b"s3cret", b"EWR", target.service.version.bundle.manifest.digest.encode()]
        for path in ["/", "/v2/health/live", "/v2/health/ready"]:
            ((status, content),) = target.send((b"", [], path, "GET"))
            assert status == 200 and not any(each in content for each in secrets)
        closed = [*PATHS, *KNOWN[1:2], *KNOWN[4:], INFER, "//", "/v2/health/live/"]
        for headers in [[], *([("Authorization", each)] for each in GIVEN)]:
            answers = target.send(*((body, headers, path, "POST") for path in closed))
            answers += target.send(*((b"", headers, path, "GET") for path in closed))
            assert {status for status, _ in answers} == {401}
            assert {content for _, content in answers} == {answers[0][1]}
        assert target.send((body, right))[0][0] == 200
        assert target.send((body, [*right, ("Authorization", "Bearer x")]))[0][0] == 401
    finally:
        target.close()


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "é", "\udcff", "\0"])
def test_a_token_that_no_header_can_hold_is_refused(token):
    with pytest.raises(ValueError, match="one word of ASCII") as caught:
        Options(token=token)
    assert not token.strip() or token not in str(caught.value)


def test_a_server_is_for_this_machine_alone_unless_told_otherwise():
    assert Options().host == "127.0.0.1"
