"""Columns to features: fitted in one pass over the training data, pure in use.

Two stages. `encode` runs in NumPy, on the host, and ends in numbers a device can hold: text, 64-bit ids
and times become int32 ids, everything a chain does before its last ids is done exactly, other numbers
become float32. `apply` is a pure JAX function of that: scaling, interpolation, one-hot. It can be
jitted, vmapped, differentiated, and compiled into the model that is served, and gives a row the same
bits alone as in a batch.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.features import categories, crosses, storage
from jaxml.features.columns import MAX_DISTINCT, Column, Counts, read
from jaxml.features.transform import Output, Pair, State, Transform, opaque, split
from jaxml.types import Array

__all__ = ["FeaturePipeline", "Gathered", "Spec"]

Spec: TypeAlias = Transform | Sequence[Transform] | tuple[str, Transform | Sequence[Transform]]
"""A chain of transforms of the column of the feature's own name, or (column, chain)."""

_FORMAT = 1


class Gathered(NamedTuple):
    """What a pass over data leaves behind: enough to fit every feature.

    Attributes:
        counts: for each column, and whether they are exact, its `Counts`.
        num_rows: rows seen.
    """

    counts: Mapping[tuple[str, bool], Counts]
    num_rows: int


class _Chain(NamedTuple):
    """A feature: its column, its transforms, and how many of them run on the host."""

    column: str
    transforms: tuple[Transform, ...]
    num_host: int

    @property
    def parts(self) -> list[str] | None:
        """The columns of a cross."""
        first = self.transforms[0] if self.transforms else None
        return list(first.options["columns"]) if first and first.name == "cross" else None

    @property
    def exact(self) -> bool:
        return any(each.exact for each in self.transforms)

    @property
    def reads(self) -> bool:
        """Whether fitting needs the column's values."""
        return self.parts is None and any(each.reads for each in self.transforms)


class FeaturePipeline:
    """Named features, each a chain of transforms of a column.

        pipeline = FeaturePipeline({
            "distance": [log_scaling(), z_score()],           # float32 [B]
            "delay": [clipping(quantiles=(0.01, 0.99)), imputation("median"), z_score()],
            "delay is missing": ("delay", missing_indicator()),
            "carrier": [vocabulary(32, num_oov=1), one_hot()], # float32 [B, V + 2]
            "dest": vocabulary(),                              # int32 [B], for an embedding
            "hour": bucketize([6, 12, 18]),                    # int32 [B]
            "carrier × hour": cross(["carrier", "hour"], 1000),# of the ids of both
        })
        fitted = pipeline.fit(train)                           # or of an iterable of chunks
        encoded = fitted.encode(rows)                          # NumPy, on the host
        features = fitted.apply(encoded)                       # JAX, pure: dict of arrays
        dense, ids = fitted.stack(features)                    # float32 [B, D], int32 [B, K]

    `fit` returns a fitted pipeline and leaves this one as it was. Fitting in chunks (`empty`, `update`,
    `merge`, `finish`) gives the bits of fitting at once, whatever the order of the chunks: distinct
    values are counted, exactly up to 2²⁰ of them a column (`Counts` states the error beyond). Later
    transforms of a chain are fitted on what the earlier ones make of the same counts.

    Args:
        features: for each feature a transform, a chain of them, or (column, chain) where the column has
            another name; an empty chain takes a number as it is. A `cross` stands first in its chain.
        state: what was fitted, as from `state`.

    Raises:
        ValueError: no feature, what is no transform, or a chain that does not fit together.

    Numerics: a number is encoded as one float32, or as two ([B, 2], the second what the first leaves
    over) where one would blur what the chain looks at: seconds since 1970, 1e9 + noise.

    Example:
        >>> table = {"distance": [200, 1200, 4200], "carrier": ["UA", "B6", "UA"]}
        >>> from jaxml.features import linear_scaling, one_hot, vocabulary
        >>> chains = {"distance": linear_scaling(), "carrier": [vocabulary(), one_hot()]}
        >>> fitted = FeaturePipeline(chains).fit(table)
        >>> fitted({"distance": [1200], "carrier": ["DL"]})
        {'distance': Array([0.25], dtype=float32), 'carrier': Array([[0., 0., 1., 0.]], dtype=float32)}
    """

    def __init__(
        self, features: Mapping[str, Spec], *, state: Mapping[str, Sequence[State]] | None = None
    ) -> None:
        if not isinstance(features, Mapping):
            raise ValueError(f"features is {features!r}, wanted a mapping of names to transforms")
        if not features:
            raise ValueError("features is empty, wanted at least one")
        self._chains = {name: _chain(name, spec) for name, spec in features.items()}
        for name in self._chains:
            self._check_no_circle(name, ())
        self._state: dict[str, tuple[State, ...]] | None = None
        self._program: Callable[..., dict[str, Any]] | None = None  # compiled once a shape
        if state is not None:
            self._state = self.with_state(state)._state

    def __repr__(self) -> str:
        told = ", ".join(
            f"{name!r}: ({chain.column!r}, {list(chain.transforms)})"
            for name, chain in self._chains.items()
        )
        return f"FeaturePipeline({{{told}}}){'' if self._state is None else ', fitted'}"

    # Fitting.

    def fit(self, data: Any) -> "FeaturePipeline":
        """A fitted pipeline.

        Args:
            data: columns by name (a mapping, or a data frame), or an iterable of such tables, which is
                read once.

        Returns:
            `FeaturePipeline`; this one stays as it is.

        Raises:
            ValueError: a column is missing, empty, of unlike length or of the wrong type, or a
                transform cannot be fitted on it; the message names the feature and the column.
        """
        gathered = self.empty()
        tables: Iterable[Any] = data if _column_names(data) is None else [data]
        for columns in tables:
            gathered = self.update(gathered, columns)
        return self.finish(gathered)

    def empty(self) -> Gathered:
        """What is known before the first row."""
        keys = {(c.column, c.exact) for c in self._chains.values() if c.reads}
        return Gathered(
            {key: Counts.empty(0 if key[1] else MAX_DISTINCT) for key in sorted(keys)}, 0
        )

    def update(self, gathered: Gathered, columns: Mapping[str, ArrayLike]) -> Gathered:
        """What is known after a table more."""
        table = _Table(columns, self._columns())
        counts = {
            (name, exact): each.update(table[name], name=f"column {name!r}")
            for (name, exact), each in gathered.counts.items()
        }
        return Gathered(counts, gathered.num_rows + table.num_rows)

    def merge(self, first: Gathered, second: Gathered) -> Gathered:
        """What is known from two parts of the data; commutative and associative, to the bit."""
        counts = {
            key: each.merge(second.counts[key], name=f"column {key[0]!r}")
            for key, each in first.counts.items()
        }
        return Gathered(counts, first.num_rows + second.num_rows)

    def finish(self, gathered: Gathered) -> "FeaturePipeline":
        """The pipeline, fitted on what was gathered."""
        if not gathered.num_rows:
            raise ValueError("columns are empty, wanted at least one row")
        state = {}
        for name, chain in self._chains.items():
            rows = Counts.empty()._replace(missing=gathered.num_rows)
            counts = gathered.counts.get((chain.column, chain.exact), rows)
            try:
                state[name] = _fit_chain(chain, counts)
            except ValueError as error:
                raise ValueError(_told(name, chain, error)) from error
        return self.with_state(state)

    def with_state(self, state: Mapping[str, Any]) -> "FeaturePipeline":
        """The same features with another state.

        Args:
            state: as from `state`, or what a checkpoint makes of it that keeps no types: mappings of
                field names (and "0", "1", … for places in a chain), or sequences, for the tuples.

        Raises:
            ValueError: a feature is missing, or its state is that of another chain.
        """
        made = object.__new__(FeaturePipeline)
        made._chains, made._program = self._chains, None
        made._state = {
            name: storage.typed(name, chain.transforms, _of_feature(state, name))
            for name, chain in self._chains.items()
        }
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_program": None}  # a compiled program does not travel

    @property
    def state(self) -> dict[str, tuple[State, ...]]:
        """What was fitted: for each feature the states of its transforms, a pytree of NumPy arrays."""
        if self._state is None:
            raise ValueError("the pipeline is not fitted, wanted `fitted = pipeline.fit(columns)`")
        return dict(self._state)

    # Use.

    def encode(
        self, columns: Mapping[str, ArrayLike], state: Mapping[str, Any] | None = None
    ) -> dict[str, NDArray]:
        """The host's stage: columns to int32 ids and float32 numbers.

        Args:
            columns: by name, [B] each, or a scalar each for a single row; more of them do no harm.
            state: None for this pipeline's own.

        Returns:
            For each feature int32 [B] if it has become ids, else float32 [B], or [B, 2] where one
            float32 does not do.

        Raises:
            ValueError: a column is missing, of unlike length, or of another type than in fitting.
        """
        if state is not None:
            return self.with_state(state).encode(columns)
        return self._encode(columns)

    def _encode(
        self,
        columns: Mapping[str, ArrayLike],
        hashed: dict[str, tuple[NDArray, NDArray]] | None = None,
    ) -> dict[str, NDArray]:
        """`encode`, which fills `hashed`, if there is one, with keys and buckets."""
        state = self.state
        table = _Table(columns, self._columns())
        done: dict[str, Any] = {}

        def on_host(name: str) -> Any:
            if name not in done:
                chain, states = self._chains[name], state[name]
                try:
                    done[name] = run(name, chain, states)
                except ValueError as error:
                    raise ValueError(_told(name, chain, error)) from error
            return done[name]

        def run(name: str, chain: _Chain, states: Sequence[State]) -> Any:
            values: Any = None if chain.parts else table[chain.column]
            for transform, own in zip(chain.transforms[: chain.num_host], states, strict=False):
                if transform.name == "cross":
                    named = {part: component(name, part) for part in chain.parts or ()}
                    values = transform.apply(own, named)
                    if hashed is not None:
                        keys = crosses.keys(list(named.values()), transform.options["seed"])
                        hashed[name] = keys, values
                else:
                    made = apply_on_host(transform, own, values)
                    if hashed is not None and transform.name == "hash_buckets":
                        hashed[name] = categories.hashes(values), made
                    values = made
            return values

        def component(name: str, part: str) -> Any:
            return on_host(part) if part != name and self._gives_ids(part) else table[part]

        encoded = {}
        for name, chain in self._chains.items():
            values = on_host(name)
            if chain.num_host and chain.transforms[chain.num_host - 1].gives == "id":
                encoded[name] = np.asarray(values, np.int32)
            elif _takes_ids(chain):
                encoded[name] = categories.as_ids(values)
            else:
                try:
                    pair = split(values, _is_fine(chain, state[name][chain.num_host :]))
                except ValueError as error:
                    raise ValueError(_told(name, chain, error)) from error
                both = pair.low is not None
                encoded[name] = np.stack([pair.high, pair.low], -1) if both else pair.high
        return encoded

    def apply(
        self, encoded: Mapping[str, Any], state: Mapping[str, Sequence[State]] | None = None
    ) -> dict[str, Any]:
        """The device's stage: pure, for `jit`, `vmap` and `grad`.

        Args:
            encoded: as from `encode`, of any leading shape.
            state: None for this pipeline's own. Another fit's `state`, or its `device_state`, makes the
                state an argument of a program that is compiled once for many fits; where it is traced,
                the pipeline's own says which numbers come in two halves.

        Returns:
            For each feature int32 [*B] ids, a float32 [*B] number, or a float32 [*B, depth] vector;
            the same bits for a row alone and in a batch.

        Raises:
            ValueError: a feature is missing, or features are of unlike shape.
        """
        own = self.device_state if state is None else self._device_part(state)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(own))
        known = self.device_state if traced else own
        fine = tuple(name for name, chain in self._chains.items() if _is_fine(chain, known[name]))
        values = {}
        for name in self._chains:
            if name not in encoded:
                raise ValueError(f"encoded has no feature {name!r}, wanted {list(self._chains)}")
            values[name] = encoded[name]
            if name in fine and np.shape(values[name])[-1:] != (2,):
                raise ValueError(
                    f"feature {name!r} has shape {np.shape(values[name])}, wanted [..., 2]: the two "
                    "halves of a number, as `encode` gives them with this state"
                )
        shapes = {
            name: np.shape(each)[: -1 if name in fine else None] for name, each in values.items()
        }
        if len(set(shapes.values())) > 1:
            raise ValueError(f"encoded features have shapes {shapes}, wanted one")
        if self._program is None:
            self._program = jax.jit(self._apply, static_argnums=2)
        made = self._program(values, own, fine)
        return {name: made[name] for name in self._chains}  # jit sorts

    def _device_part(self, state: Mapping[str, Any]) -> dict[str, tuple[State, ...]]:
        """What `apply` reads of a state, or of a `device_state`."""
        parts = {}
        for name, chain in self._chains.items():
            own, rest = _of_feature(state, name), chain.transforms[chain.num_host :]
            whole = len(own) == len(chain.transforms)
            parts[name] = (
                storage.typed(name, chain.transforms, own)[chain.num_host :]
                if whole
                else storage.typed(name, rest, own)
            )
        return parts

    def _apply(
        self,
        encoded: Mapping[str, Any],
        own: Mapping[str, Sequence[State]],
        fine: tuple[str, ...],
    ) -> dict[str, Any]:
        features = {}
        for name, chain in self._chains.items():
            values: Any = jnp.asarray(encoded[name])
            if name in fine:
                values = Pair(values[..., 0], values[..., 1])
            for transform, each in zip(chain.transforms[chain.num_host :], own[name], strict=True):
                if transform.name != "one_hot" and not isinstance(values, Pair):
                    values = Pair(values.astype(jnp.float32), None)  # ids are numbers here
                values = transform.core(jnp, opaque(each), values)
            features[name] = values.value if isinstance(values, Pair) else values
        return features

    def stack(self, features: Mapping[str, Any]) -> tuple[Array, Array]:
        """Features as a model takes them: one matrix, and ids for embeddings.

        Args:
            features: as from `apply`.

        Returns:
            dense: float32 [*B, D], numbers and vectors one after the other, named by `dense_names`.
            ids: int32 [*B, K], named by `id_names`; column k is below `id_sizes[k]`.
        """
        dense, ids = [], []
        for name, chain in self._chains.items():
            values = jnp.asarray(features[name])
            if _gives(chain) == "id":
                ids.append(values[..., None])
            else:
                dense.append(values if _gives(chain) == "vector" else values[..., None])
        shape = ids[0].shape[:-1] if ids else dense[0].shape[:-1]
        return (
            jnp.concatenate([jnp.zeros((*shape, 0), jnp.float32), *dense], axis=-1),
            jnp.concatenate([jnp.zeros((*shape, 0), jnp.int32), *ids], axis=-1),
        )

    def __call__(self, columns: Mapping[str, ArrayLike]) -> dict[str, Any]:
        """`apply(encode(columns))`."""
        return self.apply(self.encode(columns))

    def hashed(self, columns: Mapping[str, ArrayLike]) -> dict[str, tuple[NDArray, NDArray]]:
        """For each feature that hashes, the 64-bit key and the bucket of every row.

        Rows of one bucket and different keys are what a model cannot tell apart.
        """
        found: dict[str, tuple[NDArray, NDArray]] = {}
        self._encode(columns, found)
        return found

    # What it is.

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, in order."""
        return tuple(self._chains)

    @property
    def device_state(self) -> dict[str, tuple[State, ...]]:
        """The part of the state that `apply` reads: arrays alone, no text."""
        state = self.state
        return {name: state[name][chain.num_host :] for name, chain in self._chains.items()}

    @property
    def id_names(self) -> tuple[str, ...]:
        """The features that are ids."""
        return tuple(name for name, chain in self._chains.items() if _gives(chain) == "id")

    @property
    def id_sizes(self) -> tuple[int, ...]:
        """How many ids each of `id_names` can take: the rows of its embedding table."""
        return tuple(self.output(name).width for name in self.id_names)

    @property
    def dense_names(self) -> tuple[str, ...]:
        """A name for each column of the dense matrix."""
        named: list[str] = []
        for name, chain in self._chains.items():
            if _gives(chain) == "vector":
                named.extend(f"{name}={label}" for label in self._labels(name))
            elif _gives(chain) != "id":
                named.append(name)
        return tuple(named)

    def output(self, name: str) -> Output:
        """What a fitted feature can put out: width, range, out-of-vocabulary ids."""
        known = Output()
        for transform, own in zip(self._chains[name].transforms, self.state[name], strict=True):
            made = transform.output(own)
            if transform.gives == "same":
                known = known._replace(
                    low=max(known.low, made.low), high=min(known.high, made.high)
                )
            elif transform.gives == "vector":
                known = made._replace(out_of_vocabulary=known.out_of_vocabulary)
            else:
                known = made
        return known

    def chain(self, name: str) -> tuple[str, tuple[Transform, ...]]:
        """Column and transforms of a feature."""
        return self._chains[name].column, self._chains[name].transforms

    # To a file and back.

    def to_dict(self) -> dict[str, Any]:
        """The fitted pipeline in what JSON can hold; `from_dict` gives it back to the bit."""
        state = self.state
        return {
            "format": _FORMAT,
            "features": [
                {
                    "name": name,
                    "column": chain.column,
                    "transforms": [
                        {
                            "name": each.name,
                            "options": dict(each.options),
                            "state": storage.written(own),
                        }
                        for each, own in zip(chain.transforms, state[name], strict=True)
                    ],
                }
                for name, chain in self._chains.items()
            ],
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "FeaturePipeline":
        """The pipeline that `to_dict` wrote.

        Raises:
            ValueError: of another format, or with a transform that is not known.
        """
        if written.get("format") != _FORMAT:
            raise ValueError(f"format is {written.get('format')!r}, wanted {_FORMAT}")
        features: dict[str, Spec] = {}
        state = {}
        for feature in written["features"]:
            chain, states = [], []
            for each in feature["transforms"]:
                if each["name"] not in storage.KINDS:
                    raise ValueError(
                        f"transform is {each['name']!r}, wanted one of {list(storage.KINDS)}"
                    )
                constructor, kind = storage.KINDS[each["name"]]
                chain.append(constructor(**each["options"]))
                states.append(storage.read_back(each["state"], kind))
            features[feature["name"]] = (feature["column"], chain)
            state[feature["name"]] = states
        return cls(features, state=state)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the fitted pipeline as JSON; the file is there whole or not at all."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
        try:
            temporary.write_text(text, encoding="utf-8", errors="surrogatepass")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FeaturePipeline":
        """The pipeline that `save` wrote."""
        text = Path(path).read_text(encoding="utf-8", errors="surrogatepass")
        return cls.from_dict(json.loads(text))

    def _columns(self) -> list[str]:
        """Names of the columns that are read."""
        wanted: dict[str, None] = {}
        for name, chain in self._chains.items():
            parts = chain.parts
            for part in [chain.column] if parts is None else parts:
                if parts is None or part == name or not self._gives_ids(part):
                    wanted[part] = None
        return list(wanted)

    def _gives_ids(self, name: str) -> bool:
        """Whether a feature of that name is ids when it leaves the host."""
        chain = self._chains.get(name)
        return bool(chain and chain.num_host and chain.transforms[chain.num_host - 1].gives == "id")

    def _check_no_circle(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(
                f"features {[*above, name]} are crosses of each other, wanted no circle"
            )
        for part in self._chains[name].parts or ():
            if part != name and self._gives_ids(part):
                self._check_no_circle(part, (*above, name))

    def _labels(self, name: str) -> list[str]:
        chain, states = self._chains[name], self.state[name]
        width = self.output(name).width
        before = [
            (transform, own)
            for transform, own in zip(chain.transforms, states, strict=True)
            if transform.gives == "id"
        ]
        if before and before[-1][0].name == "vocabulary":
            terms = [str(term) for term in before[-1][1].terms.tolist()]
            num_oov = before[-1][0].options["num_oov"]
            others = ["?"] if num_oov == 1 else [f"?{i}" for i in range(num_oov)]
            return [*terms, *others, "missing"][:width]
        return [str(i) for i in range(width)]


def _is_fine(chain: _Chain, device: Sequence[State]) -> bool:
    """Whether the device's part of a chain, of that state, needs both halves of a number."""
    for transform, own in zip(chain.transforms[chain.num_host :], device, strict=True):
        if bool(getattr(own, "fine", False)):
            return True
        if transform.stage != "either":  # what passes both halves on
            return False
    return False


def _of_feature(state: Mapping[str, Any], name: str) -> Any:
    if not isinstance(state, Mapping) or name not in state:
        raise ValueError(f"state has no feature {name!r}")
    return state[name]


def _told(name: str, chain: _Chain, error: ValueError) -> str:
    return f"feature {name!r} of column {chain.column!r}: {error}"


def _column_names(table: Any) -> list[str] | None:
    """Of a mapping, a data frame (pandas, polars), an Arrow table or a structured array; else None."""
    if hasattr(table, "keys"):
        return list(table.keys())
    for names in (
        getattr(getattr(table, "dtype", None), "names", None),
        getattr(table, "column_names", None),
        getattr(table, "columns", None),
    ):
        if names is not None and all(isinstance(name, str) for name in names):
            return list(names)
    return None


class _Table:
    """Columns of one length, each read once."""

    def __init__(self, columns: Mapping[str, ArrayLike], names: Sequence[str]) -> None:
        self._columns: dict[str, Column] = {}
        present = _column_names(columns)
        if present is None:
            raise ValueError(
                f"columns is a {type(columns).__name__}, wanted a mapping of names to arrays"
            )
        for name in names:
            if name not in present:
                raise ValueError(f"columns has no {name!r}, wanted {list(names)}")
            self._columns[name] = read(columns[name], f"column {name!r}")
        shapes = {name: column.missing.shape for name, column in self._columns.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"columns have shapes {shapes}, wanted one length")
        self.num_rows = next(iter(self._columns.values())).missing.size

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]


def _chain(name: str, spec: Spec) -> _Chain:
    """A feature's chain, checked."""
    given: Any = spec
    column = name
    # A transform is a tuple, too.
    if (
        not isinstance(given, Transform)
        and isinstance(given, tuple)
        and isinstance((*given, 0)[0], str)
    ):
        if len(given) != 2:
            raise ValueError(f"feature {name!r} is {given!r}, wanted (column, transforms)")
        column, given = given
    if not isinstance(given, Transform | Sequence):
        raise ValueError(f"feature {name!r} is {given!r}, wanted transforms")
    transforms: tuple[Transform, ...] = (given,) if isinstance(given, Transform) else tuple(given)
    gives = "raw"
    for place, transform in enumerate(transforms):
        if not isinstance(transform, Transform):
            raise ValueError(f"feature {name!r} holds {transform!r}, wanted transforms")
        if transform.name == "cross" and place:
            raise ValueError(f"feature {name!r} has cross after others, wanted it first")
        if gives == "vector":
            raise ValueError(f"feature {name!r} has {transform!r} after one_hot, wanted it last")
        if transform.name == "one_hot" and gives == "number":
            raise ValueError(
                f"feature {name!r} has one_hot of numbers, wanted ids: put buckets before it"
            )
        gives = gives if transform.gives == "same" else transform.gives
    hosts = [place for place, each in enumerate(transforms) if each.stage == "host"]
    return _Chain(column, transforms, hosts[-1] + 1 if hosts else 0)


def _gives(chain: _Chain) -> str:
    """ "number", "id" or "vector"."""
    given = [each.gives for each in chain.transforms if each.gives != "same"]
    return given[-1] if given else "number"


def _takes_ids(chain: _Chain) -> bool:
    """Whether the device's part begins with ids as they are in the column."""
    rest = [each for each in chain.transforms[chain.num_host :] if each.stage != "either"]
    return bool(rest and rest[0].name == "one_hot")


def apply_on_host(transform: Transform, state: State, values: Any) -> Any:
    """A transform of a column in NumPy, without a compiler.

    Args:
        transform: any but a cross.
        state: its own.
        values: a column, or what the transform before made of it.

    Returns:
        ids, numbers or a `Column`.
    """
    if transform.stage != "device":
        return transform.core(np, state, values)
    if transform.name == "one_hot":
        return transform.core(np, state, categories.as_ids(values))
    # As the device would be given them: what is fitted on rounded values knows no others.
    pair = split(values, getattr(state, "fine", False))
    with np.errstate(all="ignore"):
        made = transform.core(np, state, pair)
    return made


def _fit_chain(chain: _Chain, counts: Counts) -> tuple[State, ...]:
    states = []
    for place, transform in enumerate(chain.transforms):
        states.append(transform.finish(counts))
        if any(each.reads for each in chain.transforms[place + 1 :]):
            counts = _image(transform, states[-1], counts)
    return tuple(states)


def _image(transform: Transform, state: State, counts: Counts) -> Counts:
    """The counts of what a transform makes of values that were counted."""
    image = Counts.empty(counts.max_distinct)
    if transform.name == "cross":  # what the columns hold together was not counted
        image = image._replace(missing=counts.total)
    else:
        column, weights = counts.as_column()
        image = image.update(apply_on_host(transform, state, column), weights)
    if transform.gives == "id":
        # Every id that can come, also those that did not.
        width = min(transform.output(state).width, MAX_DISTINCT)
        image = image.update(np.arange(width), np.zeros(width, np.int64))
    return image
