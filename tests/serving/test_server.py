"""The server, asked by plain HTTP."""

import httpx
import numpy as np
import pytest


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
    ],
)
def test_refusals(ask, method, path, status):
    answer = ask.request(method, path)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
