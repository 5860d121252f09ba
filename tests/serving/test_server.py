"""The server, asked by plain HTTP."""

import asyncio
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from jaxml import serving
from jaxml.serving import log, server
from jaxml.serving.__main__ import main


def tensors(columns, rows):
    """Inputs of a request, as JSON."""
    kinds = {"origin": "BYTES", "distance": "INT64", "wind": "FP64", "hour": "INT64"}
    return [
        {
            "name": name,
            "shape": [len(rows)],
            "datatype": kinds[name],
            "data": [None if each != each else each for each in values[rows].tolist()],
        }
        for name, values in columns.items()
    ]


@pytest.fixture(scope="module")
def ask(url):
    with httpx.Client(base_url=url) as client:
        yield client


INFER = "/v2/models/flights/infer"


def test_health_and_metadata(ask):
    assert ask.get("/v2/health/live").json() == {"live": True}
    assert ask.get("/v2/health/ready").json() == {"ready": True}
    assert ask.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert ask.get("/v2/models/flights/versions/1/ready").json()["ready"]
    described = ask.get("/v2/models/flights").json()
    assert described["versions"] == ["1"]
    assert {"name": "hour", "datatype": "INT64", "shape": [-1]} in described["inputs"]
    assert described["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1]}]


def test_answers_are_those_of_the_bundle(ask, bundle, columns):
    rows = [3, 1, 4, 1, 5]
    answer = ask.post(INFER, json={"id": "seven", "inputs": tensors(columns, rows)}).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (
        "flights",
        "1",
        "seven",
    )
    (output,) = answer["outputs"]
    wanted = bundle.predict({name: each[rows] for name, each in columns.items()})["probability"]
    assert output["shape"] == [5]
    np.testing.assert_array_equal(np.float32(output["data"]), wanted)


def test_an_anomaly_names_kind_column_and_row(ask, columns):
    inputs = tensors(columns, [0, 1])
    inputs[0]["data"][1] = "XXX"
    answer = ask.post(INFER, json={"inputs": inputs})
    assert answer.status_code == 422
    for word in ("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "'origin'", "row 1", "'XXX'"):
        assert word in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/flights/versions/2", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", INFER, 405),
        ("POST", INFER, 400),
        ("DELETE", "/v2", 405),
        ("GET", "/v2/models/flights/versions/1/infer", 405),
        ("GET", "/v2/models/%2e%2e%2fetc/ready", 404),
    ],
)
def test_refusals(ask, method, path, status):
    answer = ask.request(method, path)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}


async def ask_all(url, bodies, clients=64):
    """Returns the answers to requests that clients send at once, each as (status, content)."""
    host, port = url.removeprefix("http://").split(":")
    answers, todo = [None] * len(bodies), iter(range(len(bodies)))

    async def client():
        reader, writer = await asyncio.open_connection(host, int(port))
        for i in todo:
            writer.write(
                f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(bodies[i])}\r\n\r\n".encode()
                + bodies[i]
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            answers[i] = int(head.split()[1]), json.loads(await reader.readexactly(length))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


def test_no_answer_is_swapped_among_many(url, bundle, columns):
    """Requests of one to three rows, good and bad, from 64 clients."""
    wanted = bundle.predict(columns)["probability"]
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 400, rng.integers(1, 4)).tolist() for _ in range(2000)]
    bodies = []
    for i, some in enumerate(rows):
        inputs = tensors(columns, some)
        if i % 50 == 0:
            inputs[0]["data"][0] = f"X{i}"
        bodies.append(json.dumps({"id": str(i), "inputs": inputs}).encode())
    answers = asyncio.run(ask_all(url, bodies))
    for i, (status, content) in enumerate(answers):
        if i % 50 == 0:
            assert status == 422 and f"'X{i}'" in content["error"]
        else:
            assert (status, content["id"]) == (200, str(i))
            np.testing.assert_allclose(
                content["outputs"][0]["data"], wanted[rows[i]], rtol=1e-6, atol=1e-6
            )


def test_body_limits(ask, columns, monkeypatch):
    body = json.dumps({"inputs": tensors(columns, [0])}).encode()
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        headers = {"Content-Encoding": encoding}
        assert ask.post(INFER, content=packed, headers=headers).status_code == 200
        assert ask.post(INFER, content=packed[:-1], headers=headers).status_code == 400
        assert ask.post(INFER, content=body, headers=headers).status_code == 400
    assert ask.post(INFER, content=body, headers={"Content-Encoding": "br"}).status_code == 415
    bomb = gzip.compress(bytes(server.MAX_BYTES + 1))
    answer = ask.post(INFER, content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413 and len(bomb) < 20_000
    monkeypatch.setattr(server, "MAX_BYTES", 1000)
    for content in (bytes(1001), iter([bytes(600), bytes(600)])):
        answer = ask.post(INFER, content=content)
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("the body may have 1000 bytes")


def test_metrics_and_access_log(bundle_path, running, columns, capsys):
    with running(bundle_path) as (url, _):
        inputs = tensors(columns, [0, 1])
        httpx.post(url + INFER, json={"inputs": inputs, "id": "seven"})
        inputs[0]["data"][0] = "XXX"
        httpx.post(url + INFER, json={"inputs": inputs})
        figures = httpx.get(url + "/metrics").text.splitlines()
        live = httpx.get(url + "/status").json()["live"]
    for line in (
        'jaxml_requests_total{code="200",endpoint="infer"} 1.0',
        'jaxml_requests_total{code="422",endpoint="infer"} 1.0',
        'jaxml_anomalies_total{kind="ENUM_TYPE_UNEXPECTED_STRING_VALUES"} 1.0',
        "jaxml_infer_seconds_count 2.0",
        "jaxml_batch_rows_sum 4.0",
        "jaxml_queue_rows 0.0",
        "jaxml_log_rows_lost 0.0",
        "jaxml_model_version 1.0",
    ):
        assert line in figures
    assert live["requests"] == 2 and live["latency_ms"]["p50"] > 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    first = lines[0]
    assert first.pop("ms") > 0 and first.pop("time").endswith("+00:00")
    assert first == {
        "method": "POST", "path": INFER, "status": 200, "rows": 2, "id": "seven", "version": 1
    }  # fmt: skip
    assert [each["status"] for each in lines] == [200, 422, 200, 200]


def test_a_token_is_asked_for(bundle_path, running, columns):
    with running(bundle_path, token="s3cret") as (url, _):
        assert httpx.get(url + "/v2/health/ready").status_code == 200
        assert httpx.get(url + "/").status_code == 200
        for wrong in ({}, {"Authorization": "Bearer other"}, {"Authorization": "s3cret"}):
            answer = httpx.get(url + "/v2/models/flights", headers=wrong)
            assert answer.status_code == 401 and "Bearer TOKEN" in answer.json()["error"]
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        right = {"Authorization": "Bearer s3cret"}
        body = {"inputs": tensors(columns, [0])}
        assert httpx.post(url + INFER, json=body, headers=right).status_code == 200
        assert httpx.post(url + INFER, json=body).status_code == 401


def test_overload(bundle_path, running, columns):
    free = threading.Event()
    one = {"inputs": tensors(columns, [0])}
    with running(bundle_path, max_queue=2, timeout=0.3) as (url, service):
        service._batcher._thread.submit(free.wait)
        with ThreadPoolExecutor(6) as clients:
            answers = list(clients.map(lambda _: httpx.post(url + INFER, json=one), range(6)))
        free.set()
        errors = sorted(each.json()["error"] for each in answers)
        assert {each.status_code for each in answers} == {503}
        assert {each.headers["Retry-After"] for each in answers} == {"1"}
        assert errors[0].startswith("2 rows are waiting") and "within 0.3 s" in errors[-1]
        large = httpx.post(url + INFER, json={"inputs": tensors(columns, [0, 1, 2])})
        assert large.status_code == 413
        assert httpx.post(url + INFER, json=one).status_code == 200


def test_a_body_that_does_not_come_is_given_up(bundle_path, running):
    with running(bundle_path, timeout=0.2) as (url, _):
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as peer:
            peer.sendall(
                f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode()
            )
            assert peer.recv(100).startswith(b"HTTP/1.1 408")


def test_a_new_version_is_put_into_use_without_a_pause(
    tmp_path, bundle_path, running, columns, make_bundle, monkeypatch, capsys
):
    monkeypatch.setattr(server, "_POLL", 0.05)
    store = serving.Store(tmp_path / "store")
    store.switch(store.add(bundle_path))
    make_bundle(tmp_path / "other", columns, seed=1)
    store.add(tmp_path / "other")
    store.add(tmp_path / "other")
    (store.bundle(3) / "parameters.safetensors").write_bytes(b"damaged")
    wanted = {str(v): serving.load(store.bundle(v)).predict(columns) for v in (1, 2)}
    bodies = [json.dumps({"inputs": tensors(columns, [i, 7])}).encode() for i in range(64)]
    used = []

    def ask_until(url, version):
        while used[-1:] != [version]:
            for i, (status, content) in enumerate(asyncio.run(ask_all(url, bodies, 8))):
                assert status == 200
                used.append(content["model_version"])
                np.testing.assert_allclose(
                    content["outputs"][0]["data"],
                    wanted[used[-1]]["probability"][[i, 7]],
                    rtol=1e-6,
                )

    with running(store.path) as (url, service):
        ask_until(url, "1")
        store.switch(2)
        ask_until(url, "2")
        assert httpx.get(url + "/v2/models/flights/versions/1").status_code == 404
        assert httpx.get(url + "/v2/models/flights/versions/2/ready").status_code == 200
        store.switch(3)
        while service._refused != 3:
            ask_until(url, "2")
            used.append("")
        store.rollback()
        store.rollback()
        ask_until(url, "1")
        assert "jaxml_refused_versions_total 1.0" in httpx.get(url + "/metrics").text
    assert sum(len(log.read(store.path / "served" / v)) for v in "12") == 2 * (
        len(used) - used.count("")
    )
    told = [json.loads(each).get("event", "") for each in capsys.readouterr().err.splitlines()]
    assert [each[:20] for each in told if each] == [
        "version 2 is in use",
        "version 3 is refused",
        "version 1 is in use",
    ]


def test_a_server_that_is_told_to_stop_answers_what_it_accepted(bundle_path, columns):
    command = [sys.executable, "-m", "jaxml.serving", "serve", str(bundle_path), "--port", "0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as ending,
    ):
        ending.callback(process.kill)  # Or the block waits for it for ever.
        line = process.stdout.readline()
        assert line.startswith("serving flights version 1 on http://127.0.0.1:")
        address = ("127.0.0.1", int(line.rsplit(":", 1)[1]))
        body = json.dumps({"inputs": tensors(columns, [0])}).encode()
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        first, peer = (
            ending.enter_context(socket.create_connection(address, timeout=30)) for _ in range(2)
        )
        peer.sendall(head + body[:10])
        first.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGTERM)
        while first.recv(1000):  # Until the server closes what is idle.
            pass
        with pytest.raises(OSError):
            socket.create_connection(address)
        peer.sendall(body[10:])
        assert peer.recv(100).startswith(b"HTTP/1.1 200")
        assert process.wait(20) == 0


def test_what_cannot_be_served_is_one_line(tmp_path, bundle_path, capsys):
    def error(*arguments):
        assert main(["serve", *map(os.fspath, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "port must be an integer" in error(bundle_path, "--port", "99999")
    assert "no such directory" in error(tmp_path / "none", "--port", "0")
    assert "no bundle has been published" in error(tmp_path, "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}: " in error(bundle_path, "--port", port)
    (tmp_path / "token").write_text("\n")
    assert "must hold a token" in error(bundle_path, "--token-file", tmp_path / "token")
