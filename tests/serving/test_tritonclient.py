"""The client of another project, unchanged: every mix of JSON and binary tensors, metadata and errors."""

import jax
import numpy as np
import pytest

from jaxml import features, serving
from jaxml.validation.schema import infer_schema

http = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException  # noqa: E402

ROWS = np.array([3, 1, 4, 1, 5])


@pytest.fixture(scope="module")
def client(url):
    with http.InferenceServerClient(url.removeprefix("http://")) as made:
        yield made


def inputs(columns, binary, rows=ROWS, **changes):
    made = []
    for i, (name, values) in enumerate((columns | changes).items()):
        array = values[rows] if name not in changes else values
        array = array.astype(object) if array.dtype.kind == "U" else array
        kind = {"O": "BYTES", "i": "INT64", "f": "FP64"}[array.dtype.kind]
        tensor = http.InferInput(name, array.shape, kind)
        # JSON has no NaN.
        in_binary = binary == "all" or (binary == "some" and i % 2 == 0)
        tensor.set_data_from_numpy(array, binary_data=in_binary)
        made.append(tensor)
    return made


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("flights") and client.is_model_ready("flights", "1")
    assert not client.is_model_ready("other") and not client.is_model_ready("flights", "2")
    assert client.get_server_metadata()["name"] == "jaxml"
    described = client.get_model_metadata("flights", "1")
    assert [each["name"] for each in described["inputs"]] == ["origin", "distance", "wind", "hour"]


@pytest.mark.parametrize("binary", ["none", "some", "all"])
@pytest.mark.parametrize("output", ["default", "json", "binary"])
def test_answers_in_all_combinations(client, bundle, columns, binary, output):
    some = {name: values[ROWS] for name, values in columns.items()}
    rows = ROWS[~np.isnan(some["wind"])]
    wanted = bundle.predict({name: each[rows] for name, each in columns.items()})["probability"]
    outputs = None
    if output != "default":
        outputs = [http.InferRequestedOutput("probability", binary_data=output == "binary")]
    answer = client.infer(
        "flights", inputs(columns, binary, rows), outputs=outputs, request_id="seven"
    )
    assert answer.get_response()["id"] == "seven"
    np.testing.assert_array_equal(answer.as_numpy("probability"), wanted)
    in_binary = "parameters" in answer.get_output("probability")
    assert in_binary == (output != "json")


def test_missing_values_in_binary_form(client, bundle, columns):
    rows = np.flatnonzero(np.isnan(columns["wind"]))[:4]
    answer = client.infer("flights", inputs(columns, "all", rows)).as_numpy("probability")
    wanted = bundle.predict({name: each[rows] for name, each in columns.items()})["probability"]
    np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_requests(client, bundle, columns, encoding):
    answer = client.infer(
        "flights",
        inputs(columns, "all"),
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )
    wanted = bundle.predict({name: each[ROWS] for name, each in columns.items()})["probability"]
    np.testing.assert_array_equal(answer.as_numpy("probability"), wanted)


@pytest.mark.parametrize("binary", ["none", "all"])
def test_errors_reach_the_client(client, columns, binary):
    rows = ROWS[~np.isnan(columns["wind"][ROWS])]
    odd = np.array(["XXX"] * len(rows), object)
    with pytest.raises(InferenceServerException, match="'XXX'") as error:
        client.infer("flights", inputs(columns, binary, rows, origin=odd))
    assert error.value.status() == "422"
    with pytest.raises(InferenceServerException, match="'hour' is missing") as error:
        client.infer("flights", inputs(columns, binary, rows)[:3])
    assert error.value.status() == "400"
    with pytest.raises(InferenceServerException, match="no such model") as error:
        client.infer("other", inputs(columns, binary, rows))
    assert error.value.status() == "404"


@pytest.fixture(scope="module")
def places(tmp_path_factory, running):
    """A model of texts to texts: for each name the two airports that it is nearest to."""
    names = {"name": np.array(["Newark", "Kennedy", "LaGuardia"] * 4, object)}
    pipeline = features.FeaturePipeline({"name": features.vocabulary()}).fit(names)
    path = tmp_path_factory.mktemp("places") / "bundle"

    def model(scores, x):
        probability, top = jax.lax.top_k(scores[x["ids"][:, 0]], 2)
        return {"probability": probability, "place": top}

    serving.save(
        path,
        model=model,
        params=np.random.default_rng(0).random((pipeline.id_sizes[0], 3)).astype(np.float32),
        pipeline=pipeline,
        schema=infer_schema(names),
        training=names,
        name="places",
        labels={"place": ["EWR", "JFK", "São Paulo"]},
        max_batch=4,
    )
    with running(path) as (url, _):
        with http.InferenceServerClient(url.removeprefix("http://")) as made:
            yield made, serving.load(path)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("output", [False, True])
def test_texts_go_in_and_come_out(places, binary, output):
    client, bundle = places
    names = np.array([["Kennedy"], ["LaGuardia"], ["Newark"]], object)
    tensor = http.InferInput("name", names.shape, "BYTES")
    tensor.set_data_from_numpy(names, binary_data=binary)
    outputs = [http.InferRequestedOutput(name, output) for name in ("place", "probability")]
    answer = client.infer("places", [tensor], outputs=outputs)
    wanted = bundle.predict({"name": names[:, 0]})
    got = answer.as_numpy("place")
    got = [[each.decode() if output else each for each in row] for row in got]
    assert got == wanted["place"].tolist() and "São Paulo" in {*got[0], *got[1], *got[2]}
    np.testing.assert_array_equal(answer.as_numpy("probability"), wanted["probability"])
