"""Categories to ids, ids to vectors, and crosses: one category for each combination of several columns.

Ids are int32 from 0 on, for an embedding table or `one_hot`. Missing values are a category of their own,
the last id. Values that were not seen in fitting share the out-of-vocabulary ids, chosen by a hash (see
`jaxml.hashing`) that is the same in every process. Numbers are categories by value, whatever their dtype,
and 64-bit ids are exact; the text "5" is another category than the number 5.

References:
    Google's Machine Learning Crash Course, "Categorical data"; `tft.compute_and_apply_vocabulary` for the
    order of ids.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml import checks, hashing
from jaxml.features.counts import Counts
from jaxml.features.transform import Output, Transform
from jaxml.validation.columns import Column, is_table, read_column, table_columns

__all__ = ["cross", "hash_buckets", "one_hot", "vocabulary"]


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """State of `vocabulary`: the categories in order of their ids, and how often each occurred."""

    terms: tuple[Any, ...]
    counts: tuple[int, ...]

    @functools.cached_property
    def ids(self) -> dict[Any, int]:
        """The id of each term. Python compares integers and floats exactly."""
        return {term: i for i, term in enumerate(self.terms)}


@dataclasses.dataclass(frozen=True, repr=False)
class vocabulary(Transform):
    """The most frequent categories, each with an id; the others share the out-of-vocabulary ids.

    id = 0 … V − 1 by falling frequency, V + hash mod `num_oov` for other values, and V + num_oov for
    missing ones. Numbers where the vocabulary holds text, or text where it holds numbers, are an error.

    Args:
        max_size: the maximal number of categories with an id, ≥ 1; None for all.
        num_oov: number of out-of-vocabulary ids, ≥ 1.
        min_count: how often a category must occur to get an id, ≥ 1.

    Example:
        >>> transform = vocabulary(max_size=2)
        >>> transform.apply(transform.fit(["UA", "B6", "UA", "AA"]), ["UA", "AA", "DL", None])
        array([0, 1, 2, 3], dtype=int32)
    """

    max_size: int | None = None
    num_oov: int = 1
    _: dataclasses.KW_ONLY
    min_count: int = 1

    gives = "id"
    State = Vocabulary

    def __post_init__(self) -> None:
        if self.max_size is not None:
            self._set(max_size=checks.integer("max_size", self.max_size, at_least=1))
        self._set(num_oov=checks.integer("num_oov", self.num_oov, at_least=1))
        self._set(min_count=checks.integer("min_count", self.min_count, at_least=1))

    def fitted(self, counts: Counts) -> Vocabulary:
        if not len(counts.values):
            raise ValueError(f"values must hold a category, got none in {counts.total} rows")
        order = np.argsort(-counts.counts, kind="stable")
        kept = order[counts.counts[order] >= self.min_count][: self.max_size]
        return Vocabulary(tuple(counts.values[kept].tolist()), tuple(counts.counts[kept].tolist()))

    def run(self, state: Vocabulary, column: Column) -> NDArray[np.int32]:
        find, values = state.ids.get, column.exact()
        size, missing = len(state.terms), column.missing
        if size and column.num_present:
            texts = isinstance(state.terms[0], str)
            if texts != column.is_text:
                raise ValueError(
                    f"values must be {'text' if texts else 'numbers'} such as {state.terms[0]!r}, "
                    f"got {column.known().tolist()[0]!r}"
                )
        found = (find(value, size) for value in values.ravel().tolist())
        ids = np.fromiter(found, np.int32, values.size).reshape(values.shape)
        if self.num_oov > 1 and (ids == size).any():
            ids += np.where(ids == size, hashing.buckets(column.hashes(), self.num_oov), 0)
        return np.where(missing, size + self.num_oov, ids).astype(np.int32)

    def output(self, state: Vocabulary) -> Output:
        size = len(state.terms)
        return Output(size + self.num_oov + 1, out_of_vocabulary=(size, size + self.num_oov))

    def labels(self, state: Vocabulary, width: int) -> list[str]:
        unseen = ["?"] if self.num_oov == 1 else [f"?{i}" for i in range(self.num_oov)]
        return [*map(str, state.terms), *unseen, "missing"][:width]

    def _fields(self, state: Vocabulary) -> dict[str, Any]:
        # JSON has no infinities; a string among numbers is one.
        terms = [str(term) if term in (-np.inf, np.inf) else term for term in state.terms]
        texts = bool(terms) and isinstance(state.terms[0], str)
        return {"terms": terms, "counts": list(state.counts), "texts": texts}

    @classmethod
    def _state(cls, written: Mapping[str, Any]) -> Vocabulary:
        terms = written["terms"]
        if not written["texts"]:
            terms = [float(term) if isinstance(term, str) else term for term in terms]
        return Vocabulary(tuple(terms), tuple(written["counts"]))


class _Hashed(Transform):
    """Transforms that put hashes into `num_buckets` buckets."""

    num_buckets: int
    seed: int

    gives = "id"

    def _check(self) -> None:
        most = 2**31 - 2
        self._set(num_buckets=checks.integer("num_buckets", self.num_buckets, 1, most))
        self._set(seed=checks.integer("seed", self.seed, 0, 2**64 - 1))


@dataclasses.dataclass(frozen=True, repr=False)
class hash_buckets(_Hashed):
    """Any category to one of n buckets, with nothing to fit: for very many categories, or new ones.

    Ids are in [0, n), and n for missing values. Categories may share a bucket; `features.check` reports how
    many rows that concerns.

    Args:
        num_buckets: n in [1, 2³¹ − 1).
        seed: of the hash, in [0, 2⁶⁴); another seed makes other categories collide.

    Example:
        >>> transform = hash_buckets(1000)
        >>> transform.apply(transform.fit(["N14228"]), ["N14228", "N24211", None])
        array([ 743,  345, 1000], dtype=int32)
    """

    num_buckets: int
    _: dataclasses.KW_ONLY
    seed: int = 0

    def __post_init__(self) -> None:
        self._check()

    def keys(self, column: Column) -> NDArray[np.uint64]:
        return hashing.combine([column.hashes()], self.seed)

    def run(self, state: tuple[()], column: Column) -> NDArray[np.int32]:
        ids = hashing.buckets(self.keys(column), self.num_buckets)
        return np.where(column.missing, self.num_buckets, ids).astype(np.int32)

    def output(self, state: tuple[()]) -> Output:
        return Output(self.num_buckets + 1)


@dataclasses.dataclass(frozen=True, repr=False)
class cross(_Hashed):
    """The combination of several columns' values, in one of n buckets.

        h₀ = mix(seed),  hₖ = mix(hₖ₋₁ · M + hash(valueₖ))

    A linear model can learn that flights of a carrier are late and that evenings are; it needs the cross to
    learn that this carrier is late in the evening. Each value is hashed by itself, so ("a", "bc") and
    ("ab", "c") differ, and so do ("a", "b") and ("b", "a"). A missing value counts as one more value.

    Args:
        columns: two names or more. In a `FeaturePipeline` the name of a feature whose output is ids means
            these ids (numbers are crossed by their buckets); any other is the name of a column.
        num_buckets: n in [1, 2³¹ − 1).
        seed: of the hash, in [0, 2⁶⁴).

    Its `fit` and `apply` take a table with these columns (a mapping, a data frame, a pyarrow Table), or the
    columns in order.

    Example:
        >>> transform = cross(["carrier", "hour"], 1000)
        >>> table = {"carrier": ["UA", "UA", "B6"], "hour": [5, 6, 5]}
        >>> transform.apply(transform.fit(table), table)
        array([822, 818, 757], dtype=int32)
    """

    columns: Sequence[str]
    num_buckets: int
    _: dataclasses.KW_ONLY
    seed: int = 0

    def __post_init__(self) -> None:
        several = np.iterable(self.columns) and not isinstance(self.columns, str)
        names = list(self.columns) if several else []
        if len(names) < 2 or not all(isinstance(name, str) for name in names):
            raise ValueError(f"columns must be two names or more, got {self.columns!r}")
        self._set(columns=tuple(map(str, names)))
        self._check()

    @property
    def sources(self) -> Sequence[str]:
        return self.columns

    def keys(self, column: Sequence[Column]) -> NDArray[np.uint64]:
        return hashing.combine([each.hashes() for each in column], self.seed)

    def run(self, state: tuple[()], column: Sequence[Column]) -> NDArray[np.int32]:
        return hashing.buckets(self.keys(column), self.num_buckets)

    def output(self, state: tuple[()]) -> Output:
        return Output(self.num_buckets)

    def read(self, values: Any) -> tuple[Column, ...]:
        if is_table(values):
            present = table_columns(values)
            for name in self.columns:
                if name not in present:
                    raise ValueError(
                        f"values must have the columns {list(self.columns)}, got no {name!r}"
                    )
            values = [present[name] for name in self.columns]
        if len(values) != len(self.columns):
            raise ValueError(f"values must be {len(self.columns)} columns, got {len(values)}")
        named = zip(self.columns, values, strict=True)
        columns = tuple(read_column(name, each) for name, each in named)
        shapes = [each.values.shape for each in columns]
        if len(set(shapes)) > 1:
            raise ValueError(f"columns must have one shape, got {shapes}")
        return columns


class Depth(NamedTuple):
    """State of `one_hot`: the length of a vector."""

    depth: int


@dataclasses.dataclass(frozen=True, repr=False)
class one_hot(Transform):
    """Ids to vectors of zeros with a 1 at the id; an id outside [0, depth) gives zeros.

    Args:
        depth: length of a vector, ≥ 1. None: the number of ids that the transform before can give; without
            one, the greatest id seen plus 1.

    Example:
        >>> transform = one_hot()
        >>> transform.apply(transform.fit([0, 2]), [2, 7])
        array([[0., 0., 1.],
               [0., 0., 0.]], dtype=float32)
    """

    depth: int | None = None

    gives = "vector"
    takes = "id"
    State = Depth

    def __post_init__(self) -> None:
        if self.depth is not None:
            self._set(depth=checks.integer("depth", self.depth, at_least=1))

    @property
    def reads(self) -> bool:
        return self.depth is None

    def fitted(self, counts: Counts) -> Depth:
        if self.depth is not None:
            return Depth(self.depth)
        values, _ = counts.numbers()
        bad = (values < 0) | (values != np.floor(values)) | (values >= 2**20)
        if bad.any():
            raise ValueError(
                f"values must be ids, integers of at least 0 and below 2²⁰, got {values[bad][0]:g}"
            )
        return Depth(int(values[-1]) + 1)

    def run(self, state: Depth, column: Column) -> NDArray[np.float32]:
        if column.is_text and column.num_present:
            raise ValueError(
                f"values must be ids, got texts such as {column.known()[0]!r}: put vocabulary or "
                "hash_buckets before one_hot"
            )
        ids = column.numbers()[..., None]  # NaN equals no id
        return (ids == np.arange(state.depth)).astype(np.float32)

    def output(self, state: Depth) -> Output:
        return Output(state.depth, low=0.0, high=1.0)
