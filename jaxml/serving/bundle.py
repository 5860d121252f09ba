"""One directory that can answer: schema, fitted features, parameters and program, each with its hash.

    manifest.json           names, dtypes and shapes; versions; metrics and findings; SHA-256 of every file
    schema.toml             what the raw columns must hold
    features.json           the fitted `FeaturePipeline`, vocabularies included
    parameters.safetensors  the arrays of the model
    program.stablehlo       the program, for CPU, CUDA and TPU, for any number of rows
    training.parquet        raw rows of the training data, to compare with what is served
    examples.json           raw rows, and the answers that the model itself gave when the bundle was written
    labels.json             texts of the outputs that are ids

A bundle holds no pickle and no code, and reading it needs neither Flax nor Optax. Its hashes protect from
damage. Who can write a whole bundle is trusted all the same: a program that is made up can end the process
that compiles it, as XLA does not check everything.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from jaxml import checks, files, reports
from jaxml.features import FeaturePipeline
from jaxml.serving import manifest
from jaxml.serving.manifest import BundleError, Manifest, Tensor
from jaxml.serving.program import Features, Program, exported, named_leaves, near
from jaxml.serving.rows import row_schema, validate_rows, with_times
from jaxml.types import PyTree
from jaxml.validation import readers, streams, writers
from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import Table, num_rows, plain, read_columns, table_columns
from jaxml.validation.schema import Schema

__all__ = ["Bundle", "BundleError", "load", "save"]

SCHEMA = "schema.toml"
FEATURES = "features.json"
PARAMETERS = "parameters.safetensors"
PROGRAM = "program.stablehlo"
TRAINING = "training.parquet"
EXAMPLES = "examples.json"
LABELS = "labels.json"

_FILES = (SCHEMA, FEATURES, PARAMETERS, PROGRAM, TRAINING, EXAMPLES, LABELS)
_KEPT = 10_000  # training rows in a bundle
_EXAMPLES = 16
_DATATYPES = {"INT": "INT64", "FLOAT": "FP64"}  # Texts and times are BYTES.


def save(
    path: str | os.PathLike[str],
    *,
    model: Callable[[PyTree, Any], Mapping[str, Any]],
    params: PyTree,
    pipeline: FeaturePipeline,
    schema: Schema,
    training: Table,
    name: str = "model",
    labels: Mapping[str, Sequence[str]] | None = None,
    metrics: Mapping[str, float] | None = None,
    findings: Sequence[Any] = (),
    max_batch: int = 256,
) -> None:
    """Writes a bundle, whole or not at all.

    Args:
        path: a directory that does not exist, or is empty.
        model: `model(params, {"dense": float32 [B, D], "ids": int32 [B, K]}) -> {name: [B, …]}`, pure and
            for any B; the features are those of `pipeline.stack`.
        params: the model's parameters, a pytree of arrays.
        pipeline: fitted; the columns that it reads are the inputs.
        schema: of the raw columns.
        training: raw columns of the training data; up to 10,000 rows are kept.
        name: of the model, in its URL.
        labels: for an output of ids, the text of each id.
        metrics: figures of the training.
        findings: of the monitor.
        max_batch: the largest number of rows that the program is given at once, a power of two.

    Raises:
        ValueError: parts that do not fit together, or a model whose exported program answers otherwise.
    """
    target = Path(path)
    max_batch = manifest.checked_batch(max_batch)
    rows, inputs = _training_rows(training, schema, pipeline)
    features = _stacked(pipeline, _take(rows, slice(0, _EXAMPLES)))
    blob = exported(model, params, features)
    leaves = named_leaves(params)
    run = Program(blob, [*leaves.values()], max_batch)
    answers = {key: np.asarray(each) for key, each in jax.jit(model)(params, features).items()}
    _check_answers(answers, run(features))
    texts = {key: list(each) for key, each in (labels or {}).items()}
    _check_labels(texts, run.outputs)
    with files.new_directory(target) as beside:
        schema.save(beside / SCHEMA)
        pipeline.save(beside / FEATURES)
        # `save_file` makes a file that nobody else can read.
        (beside / PARAMETERS).write_bytes(safetensors.save(leaves))
        (beside / PROGRAM).write_bytes(blob)
        writers.write_parquet(beside / TRAINING, rows)
        files.write_json(beside / EXAMPLES, _examples(rows, _decoded(answers, texts)))
        files.write_json(beside / LABELS, texts)
        manifest.write(
            beside,
            Manifest(
                name=manifest.checked_name(name),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                inputs=inputs,
                outputs=_outputs(run.outputs, texts),
                parameters=tuple(leaves),
                max_batch=max_batch,
                metrics={key: float(each) for key, each in (metrics or {}).items()},
                findings=tuple(map(str, findings)),
                environment=reports.environment(),
                files=manifest.hashed(beside, _FILES),
            ),
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bundle:
    """A bundle on this machine's device; `load` returns it.

    Attributes:
        path: its directory.
        manifest: what it holds.
        schema: of the raw columns of whole tables.
        pipeline: the fitted features.
        program: the compiled model.
        labels: for an output of ids, the text of each id.
    """

    path: Path
    manifest: Manifest
    schema: Schema
    pipeline: FeaturePipeline
    program: Program
    labels: Mapping[str, NDArray[Any]]
    _row_schema: Schema

    def __repr__(self) -> str:
        columns = ", ".join(self.columns)
        outputs = ", ".join(each.name for each in self.manifest.outputs)
        return (
            f"<Bundle {self.manifest.name!r} of {self.manifest.created}: {columns:.60} → {outputs}>"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that it answers from."""
        return tuple(each.name for each in self.manifest.inputs)

    def check(self, columns: Table) -> list[Anomaly]:
        """Returns the anomalies of a request by the schema; `rows` are those at fault."""
        return validate_rows(with_times(columns, self._row_schema), self._row_schema)

    def encode(self, columns: Table) -> Features:
        """Returns the features that the model is given: `dense` float32 [B, D] and `ids` int32 [B, K].

        Raises:
            ValueError: a column is missing, of another length, or of another type than in training.
        """
        return _stacked(self.pipeline, with_times(columns, self._row_schema))

    def predict(self, columns: Table) -> dict[str, NDArray[Any]]:
        """Returns the outputs [B, …] by name; outputs of ids that have labels are texts.

        Raises:
            ValueError: as `encode` and `decode`.
        """
        return self.decode(self.program(self.encode(columns)))

    def decode(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Returns outputs of the program with texts in place of ids.

        Raises:
            ValueError: an id without a label.
        """
        return _decoded(outputs, self.labels)

    def warm(self) -> None:
        """Compiles the program for every bucket."""
        rows, _ = self.examples()
        self.program.warm(self.encode(rows))

    def examples(self) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Returns raw rows, and the answers that were recorded when the bundle was written."""
        content = json.loads((self.path / EXAMPLES).read_text("utf-8"))
        return content["columns"], content["answers"]

    def training(self) -> dict[str, NDArray[Any]]:
        """Returns raw rows of the training data, up to 10,000."""
        place = self.path / TRAINING
        if (rows := streams.shape(place).num_rows) > _KEPT:
            raise BundleError(f"{place}: may have {_KEPT} rows, has {rows}")
        return readers.read_parquet(place)


def load(path: str | os.PathLike[str]) -> Bundle:
    """Returns a bundle, all of whose files have the hashes of its manifest.

    Raises:
        BundleError: a ValueError: no bundle, a damaged one, or one that a newer version wrote.
    """
    place = Path(path)
    described = manifest.read(place)
    for name in _FILES:
        if name not in described.files:
            raise BundleError(f"{place}: has no hash of {name}")
    try:
        schema = Schema.load(place / SCHEMA)
        pipeline = FeaturePipeline.load(place / FEATURES)
        arrays = safetensors.load_file(place / PARAMETERS)
        run = Program(
            (place / PROGRAM).read_bytes(),
            [arrays[each] for each in described.parameters],
            described.max_batch,
        )
        texts = json.loads((place / LABELS).read_text("utf-8"))
        _check_labels(texts, run.outputs)
        if _inputs(schema, pipeline) != described.inputs:
            raise ValueError("the features have other inputs than the manifest")
        if _outputs(run.outputs, texts) != described.outputs:
            raise ValueError("the program has other outputs than the manifest")
    except Exception as error:  # What was made up can raise anything.
        raise BundleError(f"{place}: cannot be read: {error!r:.300}") from error
    columns = tuple(each.name for each in described.inputs)
    return Bundle(
        path=place,
        manifest=described,
        schema=schema,
        pipeline=pipeline,
        program=run,
        labels={name: np.array(each, object) for name, each in texts.items()},
        _row_schema=row_schema(schema, columns),
    )


def _training_rows(
    training: Table, schema: Schema, pipeline: FeaturePipeline
) -> tuple[dict[str, NDArray[Any]], tuple[Tensor, ...]]:
    """Returns raw rows spread over the training data, and the inputs."""
    given = table_columns(training, "training")
    for name in pipeline.columns:
        if name not in given:
            raise ValueError(f"training must hold the column {name!r}, got {list(given)}")
        if name not in schema.features:
            raise ValueError(f"schema must hold the column {name!r}, got {list(schema.features)}")
    read = read_columns({name: given[name] for name in pipeline.columns}, "training")
    number = num_rows(read)
    if not number:
        raise ValueError("training must hold at least one row, got none")
    some = np.linspace(0, number - 1, min(number, _KEPT)).astype(np.int64)
    rows = {name: np.asarray(given[name])[some] for name in read}
    found = validate_rows(_take(rows, slice(0, _EXAMPLES)), row_schema(schema, pipeline.columns))
    if found:
        raise ValueError(f"training must fit the schema, got {found[0]}")
    return rows, _inputs(schema, pipeline)


def _inputs(schema: Schema, pipeline: FeaturePipeline) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, _DATATYPES.get(schema[name].type or "", "BYTES"), (-1,))
        for name in pipeline.columns
    )


def _take(columns: Mapping[str, NDArray[Any]], rows: Any) -> dict[str, NDArray[Any]]:
    return {name: each[rows] for name, each in columns.items()}


def _stacked(pipeline: FeaturePipeline, columns: Mapping[str, Any]) -> Features:
    dense, ids = pipeline.stack(pipeline.encode(columns))
    if ids.ndim != 2:  # The pipeline takes one row as scalars; the program would answer no row.
        raise ValueError(f"columns must be one-dimensional, [B], got shape {ids.shape[:-1]}")
    return {"dense": dense, "ids": ids}


def _check_answers(wanted: Mapping[str, NDArray], got: Mapping[str, NDArray]) -> None:
    for name, values in wanted.items():
        if not near(got[name], values).all():
            difference = np.max(np.abs(values.astype(float) - got[name].astype(float)))
            raise ValueError(
                f"model must answer as its exported program does, got {name!r} that differs by "
                f"{difference:.2g}"
            )


def _check_labels(texts: Mapping[str, Sequence[str]], outputs: Mapping[str, Any]) -> None:
    for name, each in texts.items():
        checks.choice("labels", name, outputs)
        if not isinstance(each, list) or not all(isinstance(text, str) for text in each):
            raise ValueError(f"labels[{name!r}] must be texts")
        if not np.issubdtype(outputs[name][0], np.integer):
            raise ValueError(f"output {name!r} has labels and must be ids, got {outputs[name][0]}")


def _decoded(outputs: Mapping[str, NDArray], labels: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    decoded = dict(outputs)
    for name, texts in labels.items():
        ids, number = outputs[name], len(texts)
        outside = (ids < 0) | (ids >= number)  # NumPy would take −1 as the last label.
        if outside.any():
            raise ValueError(f"output {name!r} has {number} labels, got id {ids[outside][0]}")
        decoded[name] = np.asarray(texts, object)[ids]
    return decoded


def _outputs(found: Mapping[str, Any], texts: Mapping[str, Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, "BYTES" if name in texts else _datatype(dtype), (-1, *shape))
        for name, (dtype, shape) in found.items()
    )


def _datatype(dtype: np.dtype) -> str:
    """Returns the protocol's name of a dtype.

    >>> _datatype(np.dtype("float32")), _datatype(np.dtype("int32")), _datatype(np.dtype("bool"))
    ('FP32', 'INT32', 'BOOL')
    """
    if dtype == np.bool_:
        return "BOOL"
    kinds = {"f": "FP", "i": "INT", "u": "UINT"}
    if dtype.kind not in kinds:
        raise ValueError(f"outputs must be numbers or booleans, got {dtype}")
    return f"{kinds[dtype.kind]}{8 * dtype.itemsize}"


def _examples(
    rows: Mapping[str, NDArray[Any]], answers: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Returns the first rows and their answers as JSON can hold them; missing values are null."""
    columns = {}
    for name, column in read_columns(_take(rows, slice(0, _EXAMPLES))).items():
        values = [
            value.isoformat() if hasattr(value, "isoformat") else value
            for value in plain(column.values)
        ]
        pairs = zip(values, column.missing.tolist(), strict=True)
        columns[name] = [None if missing else value for value, missing in pairs]
    return {"columns": columns, "answers": {name: a.tolist() for name, a in answers.items()}}
