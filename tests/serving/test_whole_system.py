"""From a raw table to answers and back, in one test: the commands that a user types, and a real client."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from jaxml import features, losses, metrics, models, reports, serving, train
from jaxml.data import flights
from jaxml.serving.__main__ import main
from jaxml.validation import writers
from jaxml.validation.schema import infer_schema, validate

NAMES = ("carrier", "origin", "distance", "hour", "dep_delay")
TRAINED, HELD_OUT = 6_000, 3_000


def raw_flights():
    """Returns rows of January to August, and of September and October, with label, day and key."""
    text = flights.read_flights(("month", "day", *NAMES, "arr_delay", "flight"))
    month = text["month"].astype(int)
    known = np.flatnonzero(text["arr_delay"] != "")
    rng = np.random.default_rng(0)
    parts = []
    for inside, number in ((month <= 8, TRAINED), ((month > 8) & (month <= 10), HELD_OUT)):
        rows = np.sort(rng.choice(known[inside[known]], number, replace=False))
        taken = {name: each[rows] for name, each in text.items()}
        parts.append(
            {
                "key": np.char.add("flight ", rows.astype(str)),
                "date": np.char.add(np.char.add(taken["month"], "-"), taken["day"]),
                "late": (taken["arr_delay"].astype(float) > 15).astype(int),
                "carrier": taken["carrier"],
                "origin": taken["origin"],
                **{name: taken[name].astype(float).astype(int) for name in NAMES[2:]},
            }
        )
    return parts


def trained_run(path, training, held_out, *, steps=300):
    """Trains under the monitor and leaves a candidate; one that is not trained is worse."""
    schema = infer_schema({name: training[name] for name in NAMES})
    # Real months go on: a longer delay is no mistake.
    schema = schema.replace("dep_delay", min_domain_mass=0.99)
    assert validate({name: training[name] for name in NAMES}, schema) == []
    chains = {"carrier": features.vocabulary(), "origin": features.vocabulary()}
    chains |= {name: features.z_score() for name in ("distance", "hour")}
    chains["dep_delay"] = [features.clipping(low=-30, high=180), features.z_score()]
    pipeline = features.FeaturePipeline(chains).fit(training)
    assert features.check(pipeline, training) == []

    def encoded(rows):
        return dict(zip(("dense", "ids"), pipeline.stack(pipeline(rows)), strict=True))

    module = models.TabularMLP(pipeline.id_sizes, 4, (16,), 1)
    with reports.rundir.running("flights-sample", {"steps": steps}, path=path) as run:
        fitted = train.fit(
            module,
            lambda outputs, y: losses.sigmoid_binary_cross_entropy(outputs[..., 0], y),
            optax.adam(1e-2),
            (encoded(training), training["late"].astype(np.float32)),
            num_steps=steps,
            batch_size=256,
            key=0,
        )
        reports.rundir.record(run, loss_curve=fitted.loss_curve, findings=fitted.findings)
        gate = serving.Gate(
            task="binary",
            label="late",
            output="probability",
            group="date",
            baseline="baseline",
            thresholds=(
                serving.Threshold("roc_auc", bound=0.8, change=0.005),
                serving.Threshold("roc_auc", bound=0.7, by="origin", values=("EWR", "JFK", "LGA")),
                serving.Threshold("calibration_error", bound=0.1),
                serving.Threshold("latency_ms", bound=500.0),
            ),
        )
        serving.leave(
            run,
            # Later in the day, later: what anybody would guess.
            held_out={**held_out, "baseline": held_out["hour"]},
            gate=gate,
            model=lambda params, x: {
                "probability": jax.nn.sigmoid(module.apply({"params": params}, x)[..., 0])
            },
            params=fitted.params,
            pipeline=pipeline,
            schema=schema,
            training=training,
            name="late",
            findings=fitted.findings,
            max_batch=64,
        )
    return run


@contextlib.contextmanager
def served(store):
    """Runs the server's command and yields its address; it must end cleanly."""
    command = [sys.executable, "-m", "jaxml.serving", "serve", str(store), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    )
    try:
        line = process.stdout.readline()
        yield re.search(r"http://(\S+)", line)[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def ask(address, rows, names):
    """Returns the probabilities that Triton's client gets, a request a row, with the version."""
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(address)
    found, versions = [], set()
    for i, name in enumerate(names):
        inputs = []
        for column in NAMES:
            value = rows[column][i : i + 1]
            text = value.dtype.kind == "U"
            tensor = http.InferInput(column, [1], "BYTES" if text else "INT64")
            tensor.set_data_from_numpy(value.astype(object) if text else value)
            inputs.append(tensor)
        answer = client.infer("late", inputs, request_id=name)
        found.append(answer.as_numpy("probability")[0])
        versions.add(answer.get_response()["model_version"])
    client.close()
    return np.array(found), versions


def wait_for(address, version):
    """Waits until the server has put a version into use."""
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(address)
    for _ in range(200):
        if client.get_model_metadata("late")["versions"] == [version]:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"version {version} is not in use")
    client.close()


@pytest.mark.slow
def test_the_whole_system(tmp_path, capsys):
    training, held_out = raw_flights()
    store = tmp_path / "store"
    first = trained_run(tmp_path / "first", training, held_out)
    assert main(["publish", str(first), str(store)]) == 0
    assert "in use: version 1" in capsys.readouterr().out

    bundle = serving.load(serving.Store(store).bundle())
    offline = bundle.predict(held_out)["probability"]
    assert metrics.roc_auc(held_out["late"], offline) > 0.8

    with served(store) as address:
        # Of the months of training, so that nothing has drifted.
        some = {name: each[::100] for name, each in training.items()}
        online, versions = ask(address, some, some["key"])
        np.testing.assert_allclose(online, bundle.predict(some)["probability"], atol=1e-6)
        assert versions == {"1"}

        worse = trained_run(tmp_path / "worse", training, held_out, steps=1)
        assert main(["publish", str(worse), str(store)]) == 1
        assert "failed" in capsys.readouterr().out
        again = trained_run(tmp_path / "again", training, held_out, steps=320)
        assert main(["publish", str(again), str(store)]) == 0
        wait_for(address, "2")
        other = serving.load(serving.Store(store).bundle()).predict(some)["probability"]
        np.testing.assert_allclose(ask(address, some, some["key"])[0], other, atol=1e-6)

        # A damaged bundle is not put into use, and the one before keeps answering.
        parameters = store / "versions" / "1" / "parameters.safetensors"
        content = parameters.read_bytes()
        parameters.write_bytes(content[:-1])
        assert main(["rollback", str(store)]) == 2
        assert ask(address, some, some["key"][:3])[1] == {"2"}
        parameters.write_bytes(content)
        assert main(["rollback", str(store)]) == 0
        wait_for(address, "1")
        np.testing.assert_array_equal(ask(address, some, some["key"])[0], online)

    table = tmp_path / "rows.parquet"
    writers.write_parquet(table, training)
    assert main(["predict", str(store), str(table), str(tmp_path / "out"), "--key", "key"]) == 0
    cached = serving.Cached(bundle, tmp_path / "out")
    found = cached.predict({"key": some["key"]}).outputs
    np.testing.assert_allclose(found["probability"], online, atol=1e-6)

    # What was served is what the training path gives for the same flights.
    assert main(["check", str(store), "--table", str(table), "--key", "key"]) == 0
    assert main(["publish", str(tmp_path / "none"), str(store)]) == 2
    verdicts = sorted((store / "verdicts").glob("*.json"))
    assert [json.loads(each.read_text())["version"] for each in verdicts] == [1, None, 2]
