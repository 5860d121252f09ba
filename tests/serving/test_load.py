"""The load experiment: its generator, its comparison of answers, and the whole on a tiny model."""

import json
import socketserver
import threading

import numpy as np
import pytest

from experiments.serving_load import __main__ as serving_load
from experiments.serving_load import bench, client, report, servers, traffic
from jaxml import reports, serving


class Canned(socketserver.StreamRequestHandler):
    """Answers requests with the outputs that a list has for their numbers, in two parts."""

    def handle(self):
        while head := self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) != b"\r\n":
                if line.startswith(b"Content-Length:"):
                    length = int(line.split()[1])
            assert head.startswith(b"POST /v2/models/flights/infer ")
            content = json.loads(self.rfile.read(length))
            body = json.dumps(self.server.answer(content)).encode()
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:9]
            )
            self.wfile.flush()
            self.wfile.write(body[9:])


@pytest.fixture(scope="module")
def made(bundle):
    return traffic.make(bundle, 1e-6)


@pytest.fixture
def server():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Canned) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def answering(made, change=lambda number: number):
    """Right answers, but for those that belong to another number."""

    def answer(content):
        probabilities = made.answers["probability"]
        at = change(int(content["id"])) % len(probabilities)
        data = [float(probabilities[at])]
        return {"id": content["id"], "outputs": [{"name": "probability", "data": data}]}

    return answer


def sent(made, server, **options):
    given = {"clients": 4, "number": 50, "seconds": 20.0} | options
    requests = made.requests[traffic.BATCHED]
    return client.send(client.Load(server.server_address[1], requests, **given))


def wrong(made, answers):
    return int((traffic.differences(made, answers) > made.tolerance).sum())


def test_requests_hold_rows_with_different_answers(made, bundle):
    assert len(set(made.answers["probability"].tolist())) == len(made.answers["probability"]) > 100
    before, behind = made.requests[traffic.PLAIN][3]
    row = json.loads(before.partition(b"\r\n\r\n")[2] + b"000000003" + behind)["row"]
    alone = bundle.predict({name: [value] for name, value in row.items()})["probability"]
    np.testing.assert_allclose(alone, made.answers["probability"][3:4], rtol=1e-6)


def test_each_request_is_sent_once_and_its_answer_is_right(made, server):
    server.answer = answering(made)
    answers = sent(made, server)
    assert sorted(each.number for each in answers) == list(range(50))
    assert all(each.status == 200 and each.seconds > 0 for each in answers)
    assert wrong(made, answers) == 0


def test_a_swapped_answer_is_found(made, server):
    server.answer = answering(made, lambda number: number + (number == 7))
    assert wrong(made, sent(made, server)) == 1


def test_an_answer_to_another_request_is_found(made, server):
    right = answering(made)
    server.answer = lambda content: right({"id": f"{max(int(content['id']), 2):09d}"})
    assert wrong(made, sent(made, server)) == 2


def test_requests_come_when_they_are_due(made, server):
    server.answer = answering(made)
    moments = bench.arrivals(200.0, 0.3, seed=0)
    assert 30 < len(moments) < 100 and moments == sorted(moments) and moments[-1] < 0.3
    answers = sent(made, server, arrivals=moments)
    assert sorted(each.arrived for each in answers) == moments
    assert max(each.arrived + each.seconds for each in answers) > moments[-1]
    assert wrong(made, answers) == 0


def test_what_closes_the_connection_is_one_line(made, server):
    server.answer = lambda content: 1 / 0
    server.handle_error = lambda *_: None
    with pytest.raises(OSError, match=r"the requests failed: OSError: the server closed"):
        sent(made, server)


@pytest.mark.slow
def test_the_experiment_on_tiny_models(bundle_path, tmp_path):
    run = tmp_path / "run"
    options = ["--smoke", "--flights", bundle_path, "--geonames", bundle_path, "--run-dir", run]
    assert serving_load.main([*map(str, options)]) == 0
    record = json.loads((run / "results.json").read_text())
    assert record["summary"]["wrong answers"] == record["summary"]["requests refused"] == 0
    assert record["summary"]["long run: answers"] == 2000
    for model in ("flights", "geonames"):
        assert report.throughput(record["rows"], model, traffic.BATCHED, 64) > 0
        assert (run / f"latency-{model}.png").read_bytes()[1:4] == b"PNG"


def test_the_bundle_of_the_newest_finished_run_is_taken(bundle_path, tmp_path, monkeypatch):
    def leave(name):
        (tmp_path / name / "candidate/bundle").mkdir(parents=True)
        return tmp_path / name / "candidate/bundle"

    def found(given=None):
        return servers.bundle("flights", given, lambda path: path.mkdir(), tmp_path)

    monkeypatch.chdir(tmp_path)
    assert found() == tmp_path / "flights"  # The stand-in.
    for name in ("older", "newer", "without"):
        run = reports.rundir.create("flights", {}, path=tmp_path / "runs/flights" / name)
        reports.rundir.record(run)
    reports.rundir.create("flights", {}, path=tmp_path / "runs/flights/unfinished")
    older, newer, _ = (leave(f"runs/flights/{n}") for n in ("older", "newer", "unfinished"))
    assert found() == newer
    assert found(older.parents[1]) == older
    store = serving.Store(tmp_path / "store")
    store.switch(store.add(bundle_path))
    assert found(store.path) == store.bundle()
    assert found(bundle_path) == bundle_path


def test_what_is_no_bundle_is_one_line(tmp_path, capsys):
    assert serving_load.main(["--flights", str(tmp_path), "--run-dir", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "is no bundle" in line
