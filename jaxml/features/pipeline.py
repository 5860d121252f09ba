"""Named features of a table: fitted in one pass over the training data, then a pure function of rows."""

import copy
import graphlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import files
from jaxml.features.counts import Counts
from jaxml.features.transform import Output, State, Transform, handed_over
from jaxml.validation.columns import Column, is_table, read_column, table_columns

__all__ = ["FeaturePipeline", "Gathered", "Spec", "Step"]

Spec: TypeAlias = Transform | Sequence[Transform] | tuple[str, Transform | Sequence[Transform]]
"""A chain of transforms of the column with the feature's own name, or (column, chain)."""

_FORMAT = 2
_LAST = ("vector", "ids")  # outputs with one more axis, which no transform takes
_SHOWN = 20  # features of a pipeline in its repr
_MOST_IDS = 1 << 20  # an id that did not occur is counted as possible below this


class Gathered(NamedTuple):
    """The result of a pass over data: enough to fit every feature.

    Attributes:
        counts: `Counts` of each column.
        num_rows: number of rows.
    """

    counts: Mapping[str, Counts]
    num_rows: int


class Step(NamedTuple):
    """One transform of a feature, applied to a table.

    Attributes:
        feature: name of the feature.
        transform: the transform.
        before: its input, a `Column`, or a tuple of them for a cross.
        after: its output.
    """

    feature: str
    transform: Transform
    before: Any
    after: NDArray


class _Chain(NamedTuple):
    """A feature: its column and its transforms."""

    column: str
    transforms: tuple[Transform, ...]

    @property
    def sources(self) -> Sequence[str]:
        """The columns that a cross reads."""
        return self.transforms[0].sources if self.transforms else ()

    @property
    def reads(self) -> bool:
        """Whether fitting needs the counts of the column."""
        return not self.sources and any(each.reads for each in self.transforms)

    @property
    def gives(self) -> str:
        """ "number", "id", "vector" or "ids"."""
        given = (each.gives for each in reversed(self.transforms) if each.gives != "same")
        return next(given, "number")

    @property
    def is_id(self) -> bool:
        """Whether the output is int32."""
        return self.gives in ("id", "ids")


class FeaturePipeline:
    """Named features, each a chain of transforms of a column.

        pipeline = FeaturePipeline({
            "distance": [log_scaling(), z_score()],             # float32 [B]
            "delay": [clipping(quantiles=(0.01, 0.99)), imputation("median"), z_score()],
            "delay is missing": ("delay", missing_indicator()),
            "carrier": [vocabulary(32), one_hot()],             # float32 [B, V + 2]
            "dest": vocabulary(),                               # int32 [B], for an embedding
            "hour": bucketize([6, 12, 18]),                     # int32 [B]
            "name": character_ngrams(2**18, 48),                # int32 [B, 48]
            "carrier × hour": cross(["carrier", "hour"], 1000), # of the hour's buckets
        })
        fitted = pipeline.fit(train)                            # or of an iterable of chunks
        features = fitted(rows)                                 # dict of NumPy arrays
        dense, ids = fitted.stack(features)                     # float32 [B, D], int32 [B, K]

    Fitting in chunks (`empty`, `update`, `merge`, `finish`) gives the bits of fitting at once, in any order
    of the chunks. Later transforms of a chain are fitted on the output of the earlier ones.

    Args:
        features: for each feature a transform, a chain of them, or (column, chain) if the column has
            another name; an empty chain passes a number. A `cross` is the first in its chain, `one_hot` and
            `characters` and `character_ngrams` the last.

    Raises:
        ValueError: no feature, something that is no transform, or a chain that does not fit together.

    Example:
        >>> from jaxml.features import linear_scaling, one_hot, vocabulary
        >>> table = {"distance": [200, 1200, 4200], "carrier": ["UA", "B6", "UA"]}
        >>> chains = {"distance": linear_scaling(), "carrier": [vocabulary(), one_hot()]}
        >>> fitted = FeaturePipeline(chains).fit(table)
        >>> fitted({"distance": [1200], "carrier": ["DL"]})
        {'distance': array([0.25], dtype=float32), 'carrier': array([[0., 0., 1., 0.]], dtype=float32)}
    """

    def __init__(self, features: Mapping[str, Spec]) -> None:
        if not isinstance(features, Mapping):
            raise ValueError(f"features must be a mapping of names to transforms, got {features!r}")
        if not features:
            raise ValueError("features must hold at least one feature, got none")
        self._chains = {name: _chain(name, spec) for name, spec in features.items()}
        self._state: dict[str, tuple[State, ...]] | None = None
        # A cross takes the ids of a feature where there are some, otherwise a column.
        with_ids = {
            n for n, c in self._chains.items() if any(t.gives == "id" for t in c.transforms)
        }
        self._parts = {
            name: [part for part in chain.sources if part in with_ids and part != name]
            for name, chain in self._chains.items()
        }
        try:
            self._order = [*graphlib.TopologicalSorter(self._parts).static_order()]
        except graphlib.CycleError as error:
            raise ValueError(
                f"features must not be crosses of each other, got the circle {error.args[1]}"
            ) from error
        self._columns = dict.fromkeys(
            column
            for name, chain in self._chains.items()
            for column in chain.sources or [chain.column]
            if column not in self._parts[name]
        )

    def __repr__(self) -> str:
        shown = list(self._chains.items())[:_SHOWN]
        lines = [f"{name} ← {chain.column}: {[*chain.transforms]}" for name, chain in shown]
        if len(self._chains) > _SHOWN:
            lines.append(f"… and {len(self._chains) - _SHOWN} more")
        fitted = "" if self._state is None else ", fitted"
        return "\n  ".join([f"FeaturePipeline of {len(self._chains)} features{fitted}", *lines])

    # Fitting.

    def fit(self, data: Any) -> "FeaturePipeline":
        """Returns a fitted pipeline; this one stays as it is.

        Args:
            data: columns by name (a mapping, a data frame, an Arrow table), or an iterable of such tables,
                which is read once.

        Raises:
            ValueError: a column is missing, empty, of another length or the wrong type, or a transform
                cannot be fitted on it; the message names the feature and the column.
        """
        gathered = self.empty()
        chunks = isinstance(data, Iterable) and not is_table(data)
        for columns in data if chunks else [data]:
            gathered = self.update(gathered, columns)
        return self.finish(gathered)

    def empty(self) -> Gathered:
        """Returns counts of no rows."""
        read = {chain.column: Counts() for chain in self._chains.values() if chain.reads}
        return Gathered(read, 0)

    def update(self, gathered: Gathered, columns: Mapping[str, ArrayLike]) -> Gathered:
        """Returns the counts with those of another table."""
        table = self._read(columns)
        counts = {
            name: each.update(table[name], name=f"column {name!r}")
            for name, each in gathered.counts.items()
        }
        return Gathered(counts, gathered.num_rows + next(iter(table.values())).values.size)

    def merge(self, first: Gathered, second: Gathered) -> Gathered:
        """Returns the counts of two parts of the data; commutative and associative to the bit."""
        counts = {
            name: each.merge(second.counts[name], f"column {name!r}")
            for name, each in first.counts.items()
        }
        return Gathered(counts, first.num_rows + second.num_rows)

    def finish(self, gathered: Gathered) -> "FeaturePipeline":
        """Returns the pipeline fitted on the counts."""
        if not gathered.num_rows:
            raise ValueError("columns must hold at least one row, got none")
        fitted = copy.copy(self)
        fitted._state = {}
        for name, chain in self._chains.items():
            rows = Counts(missing=gathered.num_rows)
            counts = gathered.counts[chain.column] if chain.reads else rows
            states: list[State] = []
            try:
                for place, transform in enumerate(chain.transforms):
                    states.append(transform.finish(counts))
                    if any(each.reads for each in chain.transforms[place + 1 :]):
                        counts = _image(transform, states[-1], counts)
            except ValueError as error:
                raise _located(name, chain, error) from error
            fitted._state[name] = tuple(states)
        return fitted

    @property
    def state(self) -> dict[str, tuple[State, ...]]:
        """The fitted state of each feature's transforms."""
        if self._state is None:
            raise ValueError("the pipeline must be fitted first: `fitted = pipeline.fit(columns)`")
        return dict(self._state)

    # Use.

    def encode(self, columns: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
        """Returns the features of some rows; a row has the same bits alone and in a batch.

        Args:
            columns: by name, [B] each, or a scalar each for a single row; further columns are ignored.

        Returns:
            For each feature int32 [B] ids, or several a row, int32 [B, length]; float32 [B] numbers, or
            vectors, float32 [B, depth].

        Raises:
            ValueError: a column is missing, of another length, or of another type than in fitting.
        """
        table = self._read(columns)
        made = {step.feature: step.after for step in self.steps(table)}
        features: dict[str, NDArray] = {}
        with np.errstate(over="ignore"):
            for name, chain in self._chains.items():
                try:
                    values = made[name] if name in made else table[chain.column].numbers()
                except ValueError as error:
                    raise _located(name, chain, error) from error
                features[name] = handed_over(values)
        return features

    def __call__(self, columns: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
        """Returns `encode(columns)`."""
        return self.encode(columns)

    def steps(self, columns: Mapping[str, Any]) -> Iterator[Step]:
        """Yields every transform of every feature with its input and output for some rows."""
        table, state = self._read(columns), self.state
        ids: dict[str, Column] = {}
        for name in self._order:
            chain, parts = self._chains[name], self._parts[name]
            values: Any = table.get(chain.column)
            if chain.sources:
                values = tuple((ids if each in parts else table)[each] for each in chain.sources)
            for place, transform in enumerate(chain.transforms):
                if place:
                    values = read_column("values", values)
                try:
                    made = transform.run(state[name][place], values)
                except ValueError as error:
                    raise _located(name, chain, error) from error
                yield Step(name, transform, values, made)
                values = made
                if transform.gives == "id":
                    values = ids[name] = read_column("values", made)

    def stack(self, features: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Returns the features as a model takes them: one matrix, and ids for embeddings.

        Args:
            features: from `encode`.

        Returns:
            dense: float32 [*B, D], numbers and vectors side by side, named by `dense_names`.
            ids: int32 [*B, K], named by `id_names`; column k is below `id_sizes[k]`.
        """
        dense: list[NDArray] = []
        ids: list[NDArray] = []
        for name, chain in self._chains.items():
            values = np.asarray(features[name])
            columns = values if chain.gives in _LAST else values[..., None]
            (ids if chain.is_id else dense).append(columns)
        shape = (ids or dense)[0].shape[:-1]
        return (
            np.concatenate([np.zeros((*shape, 0), np.float32), *dense], axis=-1),
            np.concatenate([np.zeros((*shape, 0), np.int32), *ids], axis=-1),
        )

    # Description.

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(self._columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(self._chains)

    @property
    def id_names(self) -> tuple[str, ...]:
        """A name for each column of ids: the feature's, with a number if it has several."""
        names: list[str] = []
        for name, chain in self._chains.items():
            if chain.gives == "ids":
                names.extend(f"{name}[{i}]" for i in range(self.output(name).length))
            elif chain.is_id:
                names.append(name)
        return tuple(names)

    @property
    def id_sizes(self) -> tuple[int, ...]:
        """The number of ids of each of `id_names`: the rows of its embedding table."""
        found = (self.output(name) for name, chain in self._chains.items() if chain.is_id)
        return tuple(size for each in found for size in [each.width] * each.length)

    @property
    def dense_names(self) -> tuple[str, ...]:
        """A name for each column of the dense matrix."""
        names: list[str] = []
        for name, chain in self._chains.items():
            if chain.gives == "vector":
                # The last transform that gives ids names the entries.
                width, labels = self.output(name).width, []
                for transform, own in zip(chain.transforms, self.state[name], strict=True):
                    if transform.gives == "id":
                        labels = transform.labels(own, width)
                labels += [str(i) for i in range(len(labels), width)]
                names.extend(f"{name}={label}" for label in labels)
            elif not chain.is_id:
                names.append(name)
        return tuple(names)

    def output(self, name: str) -> Output:
        """Returns width, range and out-of-vocabulary ids of a fitted feature."""
        known = Output()
        for transform, own in zip(self._chains[name].transforms, self.state[name], strict=True):
            made = transform.output(own)
            if transform.gives == "same":
                low, high = max(known.low, made.low), min(known.high, made.high)
                known = known._replace(low=low, high=high)
            elif transform.gives == "vector":
                known = made._replace(out_of_vocabulary=known.out_of_vocabulary)
            else:
                known = made
        return known

    # To a file and back.

    def to_dict(self) -> dict[str, Any]:
        """Returns the fitted pipeline as JSON can hold it; `from_dict` restores it to the bit."""
        state = self.state
        features = [
            {
                "name": name,
                "column": chain.column,
                "transforms": [
                    transform.to_json(own)
                    for transform, own in zip(chain.transforms, state[name], strict=True)
                ],
            }
            for name, chain in self._chains.items()
        ]
        return {"format": _FORMAT, "features": features}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "FeaturePipeline":
        """Returns the pipeline that `to_dict` wrote.

        Raises:
            ValueError: another format, or an unknown transform.
        """
        if written.get("format") != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, got {written.get('format')!r}")
        features: dict[str, Spec] = {}
        state = {}
        for feature in written["features"]:
            both = [Transform.from_json(each) for each in feature["transforms"]]
            features[feature["name"]] = (feature["column"], [transform for transform, _ in both])
            state[feature["name"]] = tuple(own for _, own in both)
        pipeline = cls(features)
        pipeline._state = state
        return pipeline

    def save(self, path: str | os.PathLike) -> None:
        """Writes the fitted pipeline as JSON, replacing the file as a whole."""
        files.write_text(path, json.dumps(self.to_dict(), allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FeaturePipeline":
        """Returns the pipeline that `save` wrote."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text("utf-8")))
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError included.
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def _read(self, columns: Mapping[str, Any]) -> dict[str, Column]:
        """Returns the columns that are needed."""
        present = table_columns(columns)
        for name in self._columns:
            if name not in present:
                raise ValueError(f"columns must hold {name!r}, got {list(present)}")
        table = {name: read_column(name, present[name]) for name in self._columns}
        shapes = {name: column.values.shape for name, column in table.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"columns must have one length, got shapes {shapes}")
        return table


def _located(name: str, chain: _Chain, error: ValueError) -> ValueError:
    return ValueError(f"feature {name!r} of column {chain.column!r}: {error}")


def _chain(name: str, spec: Any) -> _Chain:
    """Returns a feature's chain, checked."""
    column = name
    if isinstance(spec, tuple) and spec and isinstance(spec[0], str):
        if len(spec) != 2:
            raise ValueError(f"feature {name!r} must be (column, transforms), got {spec!r}")
        column, spec = spec
    several = isinstance(spec, Sequence) and not isinstance(spec, str)
    transforms: tuple[Any, ...] = tuple(spec) if several else (spec,)
    gives = "raw"
    for place, transform in enumerate(transforms):
        if not isinstance(transform, Transform):
            raise ValueError(
                f"feature {name!r} must be transforms such as z_score(), got {transform!r}"
            )
        if transform.sources and place:
            raise ValueError(f"feature {name!r} must have {transform!r} first in its chain")
        if gives in _LAST:
            last = type(transforms[place - 1]).__name__
            raise ValueError(f"feature {name!r} must have {last} last, got {transform!r} after it")
        if transform.takes == "id" and gives == "number":
            raise ValueError(
                f"feature {name!r} must have ids before {transform!r}, got numbers: put buckets before it"
            )
        gives = gives if transform.gives == "same" else transform.gives
    return _Chain(column, transforms)


def _image(transform: Transform, state: State, counts: Counts) -> Counts:
    """Returns the counts of a transform's output."""
    if transform.sources:  # combinations of columns were not counted
        image = Counts(missing=counts.total)
    else:
        column, weights = counts.as_column()
        image = Counts().update(transform.run(state, column), weights)
    if transform.gives == "id":
        # Ids that did not occur are possible, too.
        width = min(transform.output(state).width, _MOST_IDS)
        image = image.update(np.arange(width), np.zeros(width, np.int64))
    return image
