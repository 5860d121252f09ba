"""The Open Inference Protocol v2: requests become raw columns, answers become responses. No web code.

A request is JSON, or JSON with the bytes of tensors behind it (the binary tensor extension):

    {"id": "7", "inputs": [{"name": "hour", "shape": [2], "datatype": "INT64", "data": [9, null]}]}

A missing value is null, NaN in a binary float, or an empty text. A column may come in any width of
integer or float; it is read as the bundle's own type where no value changes by that, and the schema judges
the rest. JSON may have 4 MiB, and a text 4,096 characters.
"""

import itertools
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from jaxml.serving.manifest import Tensor
from jaxml.validation.columns import is_utf8

__all__ = ["ProtocolError", "Request", "decode", "encode"]

DATATYPES = {
    "BOOL": np.dtype("?"),
    **{
        f"{name}INT{8 * n}": np.dtype(f"<{kind}{n}")
        for name, kind in (("U", "u"), ("", "i"))
        for n in (1, 2, 4, 8)
    },
    **{f"FP{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
    "BYTES": np.dtype(object),
}
# What JSON may hold for each kind of dtype; null is a missing value.
_NONE = type(None)
_TYPES: dict[str, tuple[set[type], str]] = {
    "b": ({bool, _NONE}, "true and false"),
    "i": ({int, _NONE}, "integers"),
    "u": ({int, _NONE}, "integers"),
    "f": ({int, float, _NONE}, "numbers"),
    "O": ({str, _NONE}, "texts"),
}
_LONGEST_ID = 256
_MOST_JSON = 4 << 20  # Nothing else is answered while it is parsed.
_LONGEST_TEXT = 4096  # The features of a text take time and memory by its length.
_MOST_ROWS = 1 << 31  # Python refuses to print the longest numbers that it can read.


class ProtocolError(ValueError):
    """A request that cannot be understood.

    Attributes:
        status: of the HTTP answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Request(NamedTuple):
    """A request, decoded.

    Attributes:
        id: of the request, None if the client gave none.
        columns: raw columns [B] by name: bool, int64, uint64 (masked where missing), float64, or objects
            (texts and None).
        outputs: those wanted, in order, and whether in binary form.
        num_rows: B.
    """

    id: str | None
    columns: dict[str, NDArray[Any]]
    outputs: dict[str, bool]
    num_rows: int


def decode(
    body: bytes, header: str | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> Request:
    """Returns the raw columns of a request.

    Args:
        body: of the HTTP request.
        header: `Inference-Header-Content-Length`, the bytes of JSON, if there are binary tensors.
        inputs: of the bundle.
        outputs: of the bundle.

    Raises:
        ProtocolError: naming the input at fault.
    """
    text, blob = _split(body, header)
    content = _json(text)
    asked = content.get("id")
    if asked is not None and not (
        isinstance(asked, str) and len(asked) <= _LONGEST_ID and is_utf8(asked)
    ):
        _refuse(f"id must be a text of at most {_LONGEST_ID} characters")
    known = {each.name: each.datatype for each in inputs}
    tensors = _named(content.get("inputs"), "input", [*known])
    missing = [name for name in known if name not in tensors]
    if missing:
        _refuse(f"input {missing[0]!r} is missing{_more(missing)}")
    rows = _num_rows(tensors)
    columns = _columns(tensors, rows, blob)
    read = {name: _as(datatype, columns[name]) for name, datatype in known.items()}
    return Request(asked, read, _wanted(content, outputs), rows)


def encode(
    request: Request, answers: Mapping[str, NDArray[Any]], outputs: Sequence[Tensor], **about: Any
) -> tuple[bytes, int | None]:
    """Returns the body of a response, and the bytes of JSON in it if binary tensors follow.

    NaN and infinities, which JSON lacks, are null.

    Args:
        request: which outputs are wanted, and in which form.
        answers: outputs [B, …] by name.
        outputs: of the bundle.
        about: other members of the response, such as `model_name`.
    """
    datatypes = {each.name: each.datatype for each in outputs}
    tensors, blobs = [], []
    for name, binary in request.outputs.items():
        values, datatype = answers[name], datatypes[name]
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [*values.shape]}
        if binary:
            blobs.append(_to_binary(values, datatype))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = _to_json(values)
        tensors.append(tensor)
    whole = {**about, "outputs": tensors}
    text = json.dumps(whole, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None


def _refuse(message: str, status: int = 400) -> NoReturn:
    raise ProtocolError(status, message)


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _split(body: bytes, header: str | None) -> tuple[bytes, memoryview]:
    if header is None:
        return body, memoryview(b"")
    if not (header.isascii() and header.isdecimal() and len(header) < 20) or int(header) > len(
        body
    ):
        _refuse(
            f"Inference-Header-Content-Length must be a number of at most {len(body)} bytes, "
            f"got {header!r:.40}"
        )
    return body[: int(header)], memoryview(body)[int(header) :]


def _json(text: bytes) -> dict[str, Any]:
    if len(text) > _MOST_JSON:
        _refuse(f"JSON may have {_MOST_JSON} bytes; tensors in binary form may have more", 413)

    def constant(name: str) -> NoReturn:
        _refuse(f"{name} is no JSON; a missing value is null")

    try:
        content = json.loads(text.decode(), parse_constant=constant)
    except ProtocolError:
        raise
    except RecursionError:
        _refuse("the body must be JSON, got one that is nested too deeply")
    except UnicodeDecodeError as error:
        _refuse(f"the body must be JSON in UTF-8, got another byte at {error.start}")
    except ValueError as error:
        _refuse(f"the body must be JSON: {error}")
    if not isinstance(content, dict):
        _refuse("the body must be a JSON object with inputs")
    return content


def _named(tensors: Any, kind: str, known: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the tensors of a request by name."""
    if not isinstance(tensors, list) or not all(isinstance(each, dict) for each in tensors):
        _refuse(f"{kind}s must be a list of objects")
    found: dict[str, dict[str, Any]] = {}
    names = set(known)
    for tensor in tensors:
        name = tensor.get("name")
        if not isinstance(name, str) or name not in names:
            some = ", ".join(map(repr, known[:10])) + ", …" * (len(known) > 10)
            _refuse(f"{kind} {name!r:.100} is unknown; known are {some}")
        if name in found:
            _refuse(f"{kind} {name!r} is given twice")
        found[name] = tensor
    return found


def _parameters(owner: Mapping[str, Any], what: str) -> dict[str, Any]:
    given = owner.get("parameters")
    if given is not None and not isinstance(given, dict):
        _refuse(f"{what} has parameters that are no object")
    return given or {}


def _wanted(content: Mapping[str, Any], outputs: Sequence[Tensor]) -> dict[str, bool]:
    every = _flag(_parameters(content, "the request"), "binary_data_output", False)
    names = [each.name for each in outputs]
    chosen = _named(content.get("outputs") or [], "output", names)
    if not chosen:
        return dict.fromkeys(names, every)
    return {
        name: _flag(_parameters(tensor, f"output {name!r}"), "binary_data", every)
        for name, tensor in chosen.items()
    }


def _flag(parameters: Mapping[str, Any], name: str, usual: bool) -> bool:
    given = parameters.get(name, usual)
    if not isinstance(given, bool):
        _refuse(f"{name} must be true or false, got {given!r:.40}")
    return given


def _num_rows(tensors: Mapping[str, dict[str, Any]]) -> int:
    """Returns B of the shapes, each [B] or [B, 1]."""
    found: dict[int, str] = {}
    for name, tensor in tensors.items():
        shape: Any = tensor.get("shape")
        whole = isinstance(shape, list) and len(shape) in (1, 2) and type(shape[0]) is int
        if not whole or not 0 <= shape[0] < _MOST_ROWS or shape[1:] not in ([], [1]):
            _refuse(f"input {name!r} must have the shape [B] or [B, 1], got {shape!r:.60}")
        found.setdefault(shape[0], name)
    if len(found) > 1:
        (rows, name), (others, other) = list(found.items())[:2]
        _refuse(
            f"inputs must have one length, got {rows} rows of {name!r} and {others} of {other!r}"
        )
    ((rows, name),) = found.items()
    if not rows:
        _refuse(f"input {name!r} must have at least one row")
    return rows


def _columns(
    tensors: Mapping[str, dict[str, Any]], rows: int, blob: memoryview
) -> dict[str, NDArray[Any]]:
    columns, at = {}, 0
    lists: dict[str, dict[str, list[Any]]] = {}
    for name, tensor in tensors.items():  # Binary data are in this order.
        datatype: Any = tensor.get("datatype")
        if not isinstance(datatype, str) or datatype not in DATATYPES:
            _refuse(
                f"input {name!r} must have a datatype of {', '.join(DATATYPES)}, got {datatype!r:.40}"
            )
        size = _parameters(tensor, f"input {name!r}").get("binary_data_size")
        if size is None:
            lists.setdefault(datatype, {})[name] = _data(name, tensor, rows)
            continue
        if type(size) is not int or not 0 <= size <= len(blob) - at:
            left = len(blob) - at
            _refuse(f"input {name!r} has binary_data_size {size!r:.40}, but {left} bytes are left")
        if "data" in tensor:
            _refuse(f"input {name!r} has both data and binary_data_size")
        columns[name] = _from_binary(name, datatype, rows, blob[at : at + size])
        at += size
    if at < len(blob):
        _refuse(f"{len(blob) - at} bytes follow the tensors that the inputs describe")
    for datatype, some in lists.items():
        columns |= _from_json(some, datatype)
    _check_lengths(columns)
    return columns


def _check_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    for name, values in columns.items():
        if values.dtype.kind == "O":
            for row, text in enumerate(values.tolist()):
                if text is not None and len(text) > _LONGEST_TEXT:
                    _refuse(
                        f"input {name!r} may hold texts of {_LONGEST_TEXT} characters, got {len(text)} in "
                        f"row {row}",
                        413,
                    )


def _data(name: str, tensor: Mapping[str, Any], rows: int) -> list[Any]:
    data = tensor.get("data")
    if not isinstance(data, list):
        _refuse(f"input {name!r} must have data, a list, or binary_data_size")
    if len(tensor["shape"]) == 2 and data and isinstance(data[0], list):
        if not all(isinstance(each, list) and len(each) == 1 for each in data):
            _refuse(f"input {name!r} must have one value in each row of data")
        data = [each[0] for each in data]
    if len(data) != rows:
        _refuse(f"input {name!r} has the shape {tensor['shape']}, but {len(data)} values")
    return data


def _from_json(lists: Mapping[str, list[Any]], datatype: str) -> dict[str, NDArray[Any]]:
    """Returns columns of one datatype and length: hundreds are read at once."""
    flat = [*itertools.chain.from_iterable(lists.values())]
    types, words = _TYPES[DATATYPES[datatype].kind]
    found = set(map(type, flat))
    if not found <= types:
        name, row = _first(lists, lambda value: type(value) not in types)
        _refuse(
            f"input {name!r} is {datatype} and must hold {words}, got {lists[name][row]!r:.60} in row {row}"
        )
    gaps = [value is None for value in flat] if _NONE in found else None
    dtype = DATATYPES[datatype]
    if datatype == "BYTES":
        if not is_utf8("".join(filter(None, flat))):
            name, row = _first(lists, lambda value: value is not None and not is_utf8(value))
            _refuse(
                f"input {name!r} must hold texts in UTF-8, got half a surrogate pair in row {row}"
            )
        values = np.array(flat, object)
    else:
        numbers = _numbers(flat, dtype)
        if numbers is None:
            name, row = _first(lists, lambda value: _numbers([value], dtype) is None)
            _refuse(f"input {name!r} holds a number that {datatype} cannot, in row {row}")
        values = numbers
    columns = dict(zip(lists, values.reshape(len(lists), -1), strict=True))
    if gaps is not None and values.dtype.kind in "biu":
        for name, gap in zip(lists, np.reshape(gaps, (len(lists), -1)), strict=True):
            if gap.any():
                columns[name] = np.ma.masked_array(columns[name], gap)
    return columns


def _first(lists: Mapping[str, list[Any]], bad: Callable[[Any], bool]) -> tuple[str, int]:
    """Returns the column and row of the first value at fault."""
    every = ((name, row, v) for name, data in lists.items() for row, v in enumerate(data))
    return next((name, row) for name, row, value in every if bad(value))


def _numbers(values: list[Any], dtype: np.dtype) -> NDArray[Any] | None:
    """Returns numbers, NaN or 0 for None; None if there is one that the dtype cannot hold."""
    try:
        if dtype.kind != "f":
            return np.array([0 if each is None else each for each in values], dtype)
        with np.errstate(over="ignore"):
            numbers = np.array(values, np.float64).astype(dtype, copy=False)
        return None if np.isinf(numbers).any() else numbers
    except OverflowError:
        return None


def _from_binary(name: str, datatype: str, rows: int, blob: memoryview) -> NDArray[Any]:
    if datatype == "BYTES":
        return _texts(name, rows, blob)
    size = rows * DATATYPES[datatype].itemsize
    if len(blob) != size:
        _refuse(f"input {name!r} of {rows} rows must have {size} bytes, got {len(blob)}")
    if datatype == "BOOL" and (np.frombuffer(blob, np.uint8) > 1).any():
        _refuse(f"input {name!r} is BOOL and must hold bytes of 0 and 1")
    return np.frombuffer(blob, DATATYPES[datatype]).copy()  # The body is not kept.


def _texts(name: str, rows: int, blob: memoryview) -> NDArray[Any]:
    """Returns texts that each follow their length, 4 bytes, the least significant first."""
    texts: list[str] = []
    at = 0
    while at + 4 <= len(blob) and len(texts) < rows:
        (length,) = struct.unpack_from("<I", blob, at)
        at += 4 + length
        try:
            texts.append(str(blob[at - length : at], "utf-8"))
        except UnicodeDecodeError:
            _refuse(f"input {name!r} must hold texts in UTF-8, got other bytes in row {len(texts)}")
    if len(texts) != rows or at != len(blob):
        _refuse(f"input {name!r} of {rows} rows has {len(blob)} bytes that are not {rows} texts")
    return np.array(texts, object)


def _as(datatype: str, values: NDArray[Any]) -> NDArray[Any]:
    """Returns a column in the widest type of its kind, and numbers as the bundle's where none changes."""
    if values.dtype == DATATYPES[datatype]:  # Usual, and each column of hundreds comes here.
        return values
    kind = values.dtype.kind
    if kind in "Ob":
        return values
    if kind == "u" and values.max() < 2**63:
        kind = "i"
    wide = values.astype({"i": np.int64, "u": np.uint64, "f": np.float64}[kind])
    if kind == "f" and datatype == "INT64":
        return _whole(wide)
    if kind in "iu" and datatype == "FP64":
        floats = np.ma.filled(wide.astype(np.float64), math.nan)
        return floats if np.abs(np.ma.filled(wide, 0)).max() <= 2**53 else wide
    return wide


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Returns floats as integers, unless one is not whole."""
    missing = np.isnan(values)
    known = np.where(missing, 0.0, values)
    if not ((known % 1 == 0) & (np.abs(known) <= 2**53)).all():
        return values
    integers = known.astype(np.int64)
    return np.ma.masked_array(integers, missing) if missing.any() else integers


def _to_json(values: NDArray[Any]) -> list[Any]:
    flat = values.ravel()
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return [each if math.isfinite(each) else None for each in flat.tolist()]
    return flat.tolist()


def _to_binary(values: NDArray[Any], datatype: str) -> bytes:
    if datatype != "BYTES":
        return values.astype(DATATYPES[datatype]).tobytes()
    texts = [each.encode() for each in values.ravel()]
    return b"".join(part for each in texts for part in (struct.pack("<I", len(each)), each))
