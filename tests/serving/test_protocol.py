"""Requests in every form become the same columns; each fault is named."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.serving.manifest import Tensor
from jaxml.serving.protocol import ProtocolError, Request, decode, encode

INPUTS = (Tensor("text", "BYTES", (-1,)), Tensor("n", "INT64", (-1,)), Tensor("x", "FP64", (-1,)))
OUTPUTS = (Tensor("p", "FP32", (-1,)), Tensor("top", "BYTES", (-1, 2)))


def body(binary=(), outputs=None, **changes):
    """A good request of two rows with some inputs in binary form; `changes` replace parts of an input."""
    inputs = {
        "text": ("BYTES", ["é", None]),
        "n": ("INT64", [3, None]),
        "x": ("FP64", [0.5, None]),
    }
    blobs = {
        "text": b"\2\0\0\0\xc3\xa9\0\0\0\0",
        "n": struct.pack("<qq", 3, 0),
        "x": struct.pack("<dd", 0.5, np.nan),
    }
    tensors, blob = [], b""
    for name, (datatype, data) in inputs.items():
        tensor = {"name": name, "shape": [2], "datatype": datatype}
        if name in binary:
            tensor["parameters"] = {"binary_data_size": len(blobs[name])}
            blob += blobs[name]
        else:
            tensor["data"] = data
        tensors.append(tensor | changes.get(name, {}))
    content = {"inputs": tensors} | ({"outputs": outputs} if outputs else {})
    text = json.dumps(content).encode()
    return text + blob, str(len(text)) if blob else None


def columns(*args, **kwargs):
    return decode(*body(*args, **kwargs), INPUTS, OUTPUTS).columns


@pytest.mark.parametrize("binary", [(), ("x",), ("n", "x"), ("text", "n", "x")])
def test_json_and_binary_tensors_mix(binary):
    read = columns(binary)
    assert list(read) == ["text", "n", "x"]
    assert read["text"].tolist() == ["é", "" if "text" in binary else None]
    assert read["n"].tolist() == [3, 0 if "n" in binary else None]
    np.testing.assert_array_equal(read["x"], [0.5, np.nan])
    assert [each.dtype.kind for each in read.values()] == ["O", "i", "f"]


@pytest.mark.parametrize("datatype", ["INT8", "INT16", "UINT32", "UINT64", "FP16", "FP32", "FP64"])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_every_width_and_both_shapes_are_one_column(datatype, shape):
    data = [[7], [9]] if len(shape) == 2 else [7, 9]
    change = {"datatype": datatype, "shape": shape, "data": data}
    read = columns(n=change, x=change)
    assert (read["n"].dtype, read["x"].dtype) == (np.int64, np.float64)
    assert read["n"].tolist() == [7, 9] == read["x"].tolist()
    flat = change | {"data": [7, 9]}
    assert columns(n=flat)["n"].tolist() == [7, 9]


def test_what_would_change_is_left_for_the_schema_to_judge():
    assert columns(n={"datatype": "FP64", "data": [1.5, 2]})["n"].dtype == np.float64
    assert columns(n={"datatype": "FP64", "data": [2, None]})["n"].tolist() == [2, None]
    assert columns(x={"datatype": "INT64", "data": [2**53 + 1, 1]})["x"].dtype == np.int64
    assert columns(x={"datatype": "INT64", "data": [2, None]})["x"].tolist()[0] == 2.0
    assert columns(n={"datatype": "UINT64", "data": [2**63, 1]})["n"].dtype == np.uint64
    assert columns(n={"datatype": "BOOL", "data": [True, None]})["n"].tolist() == [True, None]


FAULTS = {
    "unknown": ({"name": "other"}, "'other' is unknown"),
    "twice": ({"name": "x"}, "'x' is given twice"),
    "shape": ({"shape": [3]}, "2 rows of 'text' and 3 of 'n'"),
    "values": ({"data": [1, 2, 3]}, "'n' has the shape [2], but 3 values"),
    "wide": ({"shape": [1, 2]}, "'n' must have the shape"),
    "negative": ({"shape": [-1]}, "'n' must have the shape"),
    "true": ({"shape": [True]}, "'n' must have the shape"),
    "ragged": ({"shape": [2, 1], "data": [[1], [2, 3]]}, "'n' must have one value in each row"),
    "nested": ({"data": [[1], [2]]}, "'n' is INT64 and must hold integers, got [1] in row 0"),
    "datatype": ({"datatype": "INT65"}, "'n' must have a datatype of"),
    "list": ({"datatype": ["INT64"]}, "'n' must have a datatype of"),
    "float": ({"data": [1, 2.0]}, "'n' is INT64 and must hold integers, got 2.0 in row 1"),
    "boolean": ({"data": [1, True]}, "'n' is INT64 and must hold integers, got True in row 1"),
    "text": ({"data": [1, "2"]}, "got '2' in row 1"),
    "huge": ({"data": [1, 2**63]}, "'n' holds a number that INT64 cannot, in row 1"),
    "small": (
        {"datatype": "UINT8", "data": [1, -1]},
        "'n' holds a number that UINT8 cannot, in row 1",
    ),
    "infinite": (
        {"datatype": "FP16", "data": [1, 1e6]},
        "'n' holds a number that FP16 cannot, in row 1",
    ),
    "beyond": ({"datatype": "FP64", "data": [1, 10**400]}, "'n' holds a number that FP64 cannot"),
    "surrogate": ({"datatype": "BYTES", "data": ["a", "\ud800"]}, "'n' must hold texts in UTF-8"),
    "no data": ({"data": None}, "'n' must have data"),
    "parameters": ({"parameters": 1}, "input 'n' has parameters that are no object"),
    "both": ({"parameters": {"binary_data_size": 0}}, "both data and binary_data_size"),
    "size": ({"parameters": {"binary_data_size": 99}}, "but 0 bytes are left"),
    "lengths": ({"shape": [1], "data": [1]}, "2 rows of 'text' and 1 of 'n'"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_names_the_input(change, message):
    with pytest.raises(ProtocolError) as error:
        columns(n=change)
    assert message in str(error.value) and error.value.status == 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datatype": "INT32"}, "'n' of 2 rows must have 8 bytes, got 16"),
        ({"datatype": "BOOL"}, "'n' of 2 rows must have 2 bytes, got 16"),
        ({"datatype": "BYTES"}, "'n' of 2 rows has 16 bytes that are not 2 texts"),
        ({"datatype": "INT32", "parameters": {"binary_data_size": 8}}, "8 bytes follow"),
        ({"parameters": {"binary_data_size": 17}}, "16 bytes are left"),
        ({"parameters": {"binary_data_size": -1}}, "binary_data_size -1"),
        ({"parameters": {"binary_data_size": 1.0}}, "binary_data_size 1.0"),
    ],
)
def test_a_fault_of_binary_data_names_the_input(change, message):
    with pytest.raises(ProtocolError) as error:
        columns(("n",), n=change)
    assert message in str(error.value)


def test_the_bytes_of_booleans_are_0_and_1():
    tensors = [Tensor("yes", "INT64", (-1,))]
    inputs = [
        {"name": "yes", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}
    ]
    text = json.dumps({"inputs": inputs}).encode()
    read = decode(text + b"\1\0", str(len(text)), tensors, OUTPUTS)
    assert read.columns["yes"].tolist() == [True, False]
    with pytest.raises(ProtocolError, match="'yes' is BOOL and must hold bytes of 0 and 1"):
        decode(text + b"\1\2", str(len(text)), tensors, OUTPUTS)


@pytest.mark.parametrize(
    "blob",
    [b"\1\0\0\0a", b"\1\0\0\0a\1\0\0", b"\1\0\0\0a\2\0\0\0b", b"\xff\xff\xff\xff", b"\0" * 9],
)
def test_the_bytes_of_texts_must_add_up(blob):
    parameters = {"binary_data_size": len(blob)}
    tensor = {"name": "t", "shape": [2], "datatype": "BYTES", "parameters": parameters}
    text = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(ProtocolError, match="bytes that are not 2 texts"):
        decode(text + blob, str(len(text)), [Tensor("t", "BYTES", (-1,))], OUTPUTS)


def test_texts_that_are_not_utf8_are_refused():
    text, header = body(("text",))
    with pytest.raises(
        ProtocolError, match="'text' must hold texts in UTF-8, got other bytes in row 0"
    ):
        decode(text.replace(b"\xc3\xa9", b"\xff\xff"), header, INPUTS, OUTPUTS)


def test_json_has_a_limit_that_binary_tensors_have_not():
    text, _ = body()
    most = 4 << 20
    assert decode(text.ljust(most), None, INPUTS, OUTPUTS).num_rows == 2
    with pytest.raises(ProtocolError, match="binary form may have more") as error:
        decode(text.ljust(most + 1), None, INPUTS, OUTPUTS)
    assert error.value.status == 413
    rows = most // 8 + 1
    tensor = {"name": "n", "shape": [rows], "datatype": "INT64"}
    tensor["parameters"] = {"binary_data_size": 8 * rows}
    text = json.dumps({"inputs": [tensor]}).encode()
    large = decode(text + bytes(8 * rows), str(len(text)), INPUTS[1:2], OUTPUTS)
    assert large.num_rows == rows


@pytest.mark.parametrize("binary", [(), ("text",)])
def test_a_text_that_is_very_long_is_refused(binary):
    for length, wanted in ((4096, None), (4097, 413)):
        texts = ["a", "é" * length]
        blob = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
        inputs = [
            {"name": "text", "shape": [2], "datatype": "BYTES", "data": texts},
            *({"name": n, "shape": [2], "datatype": "INT64", "data": [1, 2]} for n in "nx"),
        ]
        if binary:
            del inputs[0]["data"]
            inputs[0]["parameters"] = {"binary_data_size": len(blob)}
        text = json.dumps({"inputs": inputs}).encode()
        request = (text + blob, str(len(text))) if binary else (text, None)
        if wanted is None:
            assert decode(*request, INPUTS, OUTPUTS).columns["text"].tolist() == texts
            continue
        with pytest.raises(ProtocolError, match=r"'text' may hold texts of 4096 .* row 1") as error:
            decode(*request, INPUTS, OUTPUTS)
        assert error.value.status == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "must be JSON"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "in UTF-8"),
        (b'{"inputs": {}}', "inputs must be a list"),
        (b'{"inputs": []}', "input 'text' is missing (and 2 more)"),
        (b'{"inputs": [1]}', "inputs must be a list of objects"),
        (b'{"inputs": [{"name": ["text"]}]}', "is unknown"),
        (b'{"id": 1, "inputs": []}', "id must be a text"),
        (b'{"x": NaN}', "NaN is no JSON"),
        (b'{"x": -Infinity}', "-Infinity is no JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", "must be JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_request_is_refused(text, message):
    with pytest.raises(ProtocolError) as error:
        decode(text, None, INPUTS, OUTPUTS)
    assert message in str(error.value)


@pytest.mark.parametrize("header", ["-1", "x", "", "99999", "1e1", "٣", "9" * 30])
def test_the_length_of_json_must_be_one(header):
    with pytest.raises(ProtocolError, match="Inference-Header-Content-Length must be a number"):
        decode(body()[0], header, INPUTS, OUTPUTS)


def test_no_rows_are_refused():
    none = {"shape": [0], "data": []}
    with pytest.raises(ProtocolError, match="must have at least one row"):
        columns(text=none, n=none, x=none)


ANSWERS = {
    "p": np.array([0.1, np.nan], np.float32),
    "top": np.array([["a", "é"], ["", "b"]], object),
}


def test_outputs_are_those_asked_for_in_the_form_asked_for():
    wanted = [{"name": "top", "parameters": {"binary_data": True}}, {"name": "p"}]
    request = decode(*body(outputs=wanted), INPUTS, OUTPUTS)
    assert request.outputs == {"top": True, "p": False}
    content, length = encode(request, ANSWERS, OUTPUTS, model_name="m")
    told = json.loads(content[:length])
    assert told["model_name"] == "m"
    top, p = told["outputs"]
    blob = b"\1\0\0\0a\2\0\0\0\xc3\xa9\0\0\0\0\1\0\0\0b"
    assert (top["shape"], top["parameters"]) == ([2, 2], {"binary_data_size": len(blob)})
    assert content[length:] == blob
    assert p["data"] == [float(np.float32(0.1)), None]


def test_all_outputs_are_binary_if_the_request_says_so():
    text, _ = body()
    content = json.loads(text) | {"parameters": {"binary_data_output": True}}
    request = decode(json.dumps(content).encode(), None, INPUTS, OUTPUTS)
    assert request.outputs == {"p": True, "top": True}
    whole, length = encode(request, ANSWERS, OUTPUTS)
    np.testing.assert_array_equal(np.frombuffer(whole[length:][:8], "<f4"), ANSWERS["p"])


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([{"name": "q"}], "output 'q' is unknown"),
        ([{"name": "p"}, {"name": "p"}], "output 'p' is given twice"),
        ([{"name": "p", "parameters": {"binary_data": 1}}], "binary_data must be true or false"),
    ],
)
def test_outputs_that_cannot_be_are_refused(outputs, message):
    with pytest.raises(ProtocolError, match=message):
        decode(*body(outputs=outputs), INPUTS, OUTPUTS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "shape", "datatype", "data", "parameters", "binary_data_size"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(
    binary=st.sets(st.sampled_from(["text", "n", "x"])),
    name=st.sampled_from(["text", "n", "x"]),
    member=st.sampled_from(["name", "shape", "datatype", "data", "parameters"]),
    value=JSON | st.sampled_from(["BYTES", "FP16", "BOOL", "UINT8"]) | st.just([2, 1]),
    cut=st.integers(0, 3),
)
def test_whatever_comes_is_read_or_refused(binary, name, member, value, cut):
    text, header = body(binary, **{name: {member: value}})
    try:
        request = decode(text[: len(text) - cut], header, INPUTS, OUTPUTS)
    except ProtocolError as error:
        assert error.status == 400 and len(str(error)) < 600 and "\n" not in str(error)
    else:
        assert isinstance(request, Request)
        assert {len(each) for each in request.columns.values()} == {request.num_rows}
