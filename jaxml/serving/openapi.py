"""What the server answers to, as OpenAPI 3.1, with the names of one model."""

from typing import Any

import jaxml
from jaxml.serving.manifest import Manifest, Tensor
from jaxml.serving.protocol import DATATYPES

__all__ = ["describe"]

_VALUE = {"type": ["number", "string", "boolean", "null"]}
_OBJECT = {"type": "object"}
_ID = {"type": "string", "maxLength": 256}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": -1}}
_ERRORS = {
    400: "the request breaks the protocol",
    401: "the token is missing, or another one",
    404: "there is no such path, model or version",
    405: "there is no such method here",
    408: "the body came too slowly",
    413: "the body is too large, or has too many rows",
    415: "the body is compressed in an unknown way",
    422: "a row has an anomaly by the schema",
    503: "the queue is full, the time is over, or the server starts or stops",
}


def describe(manifest: Manifest, version: int) -> dict[str, Any]:
    """Returns the description of all paths of a server.

    Args:
        manifest: of the bundle in use.
        version: its number.
    """
    model = f"/v2/models/{manifest.name}"
    paths = {
        "/": _get("The page", media="text/html"),
        "/status": _get("What the page shows"),
        "/metrics": _get("Figures for Prometheus", media="text/plain"),
        "/openapi.json": _get("This description"),
        "/v2": _get("Name, version and extensions of the server"),
        "/v2/health/live": _get("Whether the server answers"),
        "/v2/health/ready": _get("Whether the model answers", errors=(503,)),
    }
    for place in (model, f"{model}/versions/{version}"):
        paths[place] = _get("Inputs and outputs of the model")
        paths[f"{place}/ready"] = _get("Whether the model answers", errors=(503,))
        paths[f"{place}/infer"] = {"post": _infer(manifest)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"jaxml: {manifest.name}",
            "version": jaxml.__version__,
            "description": "The Open Inference Protocol v2, with the binary tensor extension.",
        },
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _get(
    summary: str, *, media: str = "application/json", errors: tuple[int, ...] = ()
) -> dict[str, Any]:
    schema = _OBJECT if media == "application/json" else {"type": "string"}
    return {
        "get": {
            "summary": summary,
            "responses": {"200": _content("An answer", schema, media), **_errors(401, *errors)},
        }
    }


def _infer(manifest: Manifest) -> dict[str, Any]:
    codes = (400, 401, 404, 408, 413, 415, 422, 503)
    return {
        "summary": "Answers of the model",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _request(manifest)}},
        },
        "responses": {
            "200": _content("An answer for each row", _response(manifest)),
            **_errors(*codes),
        },
    }


def _request(manifest: Manifest) -> dict[str, Any]:
    data = {"type": "array", "items": {"anyOf": [_VALUE, {"type": "array", "items": _VALUE}]}}
    tensor = {
        "name": {"enum": [each.name for each in manifest.inputs]},
        "shape": _SHAPE,
        "datatype": {"enum": [*DATATYPES]},
        "parameters": _OBJECT,
        "data": data,
    }
    wanted = {"name": {"enum": [each.name for each in manifest.outputs]}, "parameters": _OBJECT}
    return _structure(
        {
            "id": _ID,
            "parameters": _OBJECT,
            "inputs": {"type": "array", "items": _structure(tensor, "name", "shape", "datatype")},
            "outputs": {"type": "array", "items": _structure(wanted, "name")},
        },
        "inputs",
        example={"inputs": [_example(each) for each in manifest.inputs]},
    )


def _example(tensor: Tensor) -> dict[str, Any]:
    value = "" if tensor.datatype == "BYTES" else 0
    return {"name": tensor.name, "shape": [1], "datatype": tensor.datatype, "data": [value]}


def _response(manifest: Manifest) -> dict[str, Any]:
    tensor = {
        "name": {"enum": [each.name for each in manifest.outputs]},
        "shape": _SHAPE,
        "datatype": {"enum": [*DATATYPES]},
        "parameters": _OBJECT,
        "data": {"type": "array", "items": _VALUE},
    }
    return _structure(
        {
            "model_name": {"const": manifest.name},
            "model_version": {"type": "string"},
            "id": _ID,
            "outputs": {"type": "array", "items": _structure(tensor, "name", "shape", "datatype")},
        },
        "model_name",
        "outputs",
    )


def _structure(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def _content(description: str, schema: Any, media: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


def _errors(*codes: int) -> dict[str, Any]:
    schema = _structure({"error": {"type": "string"}}, "error")
    return {str(code): _content(_ERRORS[code], schema) for code in codes}
