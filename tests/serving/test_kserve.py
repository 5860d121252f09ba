"""KServe's own client, where it is installed (it brings a hundred packages, so nothing asks for it)."""

import asyncio

import numpy as np
import pytest

kserve = pytest.importorskip("kserve")


def test_its_client_works_unchanged(url, bundle, columns):
    kinds = {"origin": "BYTES", "distance": "INT64", "wind": "FP64", "hour": "INT64"}
    rows = np.flatnonzero(~np.isnan(columns["wind"]))[:5]

    async def ask():
        config = kserve.inference_client.RESTConfig(protocol="v2")
        async with kserve.InferenceRESTClient(config) as client:
            assert await client.is_server_live(url) and await client.is_server_ready(url)
            assert await client.is_model_ready(url, "flights")
            answers = []
            for binary in (False, True):
                inputs = []
                for name, kind in kinds.items():
                    array = columns[name][rows]
                    array = array.astype(object) if kind == "BYTES" else array
                    inputs.append(kserve.InferInput(name, [len(rows)], kind))
                    inputs[-1].set_data_from_numpy(array, binary_data=binary)
                request = kserve.InferRequest(
                    "flights", inputs, "seven", parameters={"binary_data_output": binary}
                )
                answers.append(await client.infer(url, request, model_name="flights"))
        return answers

    wanted = bundle.predict({name: each[rows] for name, each in columns.items()})["probability"]
    for answer in asyncio.run(ask()):
        assert answer.id == "seven"
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), wanted)
