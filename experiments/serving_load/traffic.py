"""Requests made from rows of a bundle, and the answers that they must have."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.serving_load.client import DIGITS, Answer
from jaxml import serving
from jaxml.validation.columns import plain, read_columns

BATCHED, PLAIN, BINARY = "batched", "one by one", "batched, binary"
"""Ways to answer a request: jaxml's server, the plain endpoint, and the first with binary tensors."""

_ROWS = 2_000


class Traffic(NamedTuple):
    """Requests of one model.

    Attributes:
        requests: for each way, what stands before and behind a request's number.
        answers: outputs [rows, …] by name, from `bundle.predict` on all rows at once.
        tolerance: by which a number may differ.
    """

    requests: Mapping[str, Sequence[tuple[bytes, bytes]]]
    answers: Mapping[str, NDArray[Any]]
    tolerance: float


def make(bundle: serving.Bundle, tolerance: float) -> Traffic:
    """Returns requests of one row each, with rows that have answers different from each other.

    Raises:
        ValueError: all answers are the same, so a swapped one would not show.
    """
    training = bundle.training()
    faults = [each.rows for each in bundle.check(training)]
    number = len(next(iter(training.values())))
    fine = np.setdiff1d(np.arange(number), np.concatenate([[], *faults]))
    some = np.random.default_rng(0).permutation(fine)[: 2 * _ROWS]
    answers = bundle.predict({name: each[some] for name, each in training.items()})
    # Of rows with one answer only the first.
    texts = [repr([each[i].tolist() for each in answers.values()]) for i in range(len(some))]
    kept = np.sort(np.unique(texts, return_index=True)[1])[:_ROWS]
    if len(kept) < 2:
        raise ValueError(f"{bundle.path}: rows of its training data must have different answers")
    chosen = {name: training[name][some[kept]] for name in bundle.columns}
    rows = {}
    for name, column in read_columns(chosen).items():
        pairs = zip(plain(column.values), column.missing.tolist(), strict=True)
        rows[name] = [None if missing else _json(value) for value, missing in pairs]
    each_row = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    path = f"/v2/models/{bundle.manifest.name}/infer"
    types = {each.name: each.datatype for each in bundle.manifest.inputs}
    requests = {
        BATCHED: [_request(path, {"inputs": _tensors(row, types)}) for row in each_row],
        PLAIN: [_request("/predict", {"row": row}) for row in each_row],
        BINARY: [_request(path, *_binary(row, types)) for row in each_row],
    }
    return Traffic(requests, {name: each[kept] for name, each in answers.items()}, tolerance)


def _json(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _tensors(row: Mapping[str, Any], types: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [1], "datatype": types[name], "data": [value]}
        for name, value in row.items()
    ]


def _binary(row: Mapping[str, Any], types: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
    """Returns the JSON of a request, and the bytes of its tensors."""
    tensors, blobs = [], []
    for name, value in row.items():
        datatype = types[name]
        if datatype == "BYTES":
            text = (value or "").encode()
            blobs.append(struct.pack("<I", len(text)) + text)
        elif datatype == "INT64" and value is not None:
            blobs.append(struct.pack("<q", value))
        else:
            datatype = "FP64"
            blobs.append(struct.pack("<d", math.nan if value is None else value))
        size = {"binary_data_size": len(blobs[-1])}
        tensors.append({"name": name, "shape": [1], "datatype": datatype, "parameters": size})
    return {"inputs": tensors}, b"".join(blobs)


def _request(path: str, content: Mapping[str, Any], blob: bytes = b"") -> tuple[bytes, bytes]:
    """Returns what stands before and behind the digits of a request's number, its id."""
    before, behind = b'{"id":"', b'",' + json.dumps(content, separators=(",", ":")).encode()[1:]
    length = len(before) + DIGITS + len(behind)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length + len(blob)}\r\n"
    )
    if blob:
        head += f"Inference-Header-Content-Length: {length}\r\n"
    return f"{head}\r\n".encode() + before, behind + blob


def differences(traffic: Traffic, answers: Sequence[Answer]) -> NDArray[np.float64]:
    """Returns by how much the numbers of each answer differ; ∞ for other texts, or another's id."""
    return np.array([_difference(traffic, each) for each in answers])


def _difference(traffic: Traffic, answer: Answer) -> float:
    content = json.loads(answer.body)
    if content.pop("id") != f"{answer.number:0{DIGITS}d}":
        return math.inf
    row = answer.number % len(next(iter(traffic.answers.values())))
    if "outputs" in content:
        content = {each["name"]: each["data"] for each in content["outputs"]}
    found = 0.0
    for name, values in traffic.answers.items():
        got, wanted = np.ravel(content[name]), np.ravel(values[row])
        if got.shape != wanted.shape:
            return math.inf
        if wanted.dtype.kind == "f":
            found = max(found, float(np.abs(got - wanted).max()))
        elif got.tolist() != wanted.tolist():
            return math.inf
    return found
