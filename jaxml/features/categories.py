"""Categories to ids, and ids to vectors.

Ids are int32 from 0 on, for an embedding table or for `one_hot`. Text and 64-bit ids exist on the host
alone, so `vocabulary` and `hash_buckets` run in NumPy, in the first stage of a pipeline.

What is missing (None, NaN, "") is a category of its own: the last id. What was not seen in fitting goes to
the out-of-vocabulary ids, several of them if wanted, chosen by a hash that is the same everywhere.

Source: Google's Machine Learning Crash Course, "Categorical data"; `tft.compute_and_apply_vocabulary`
for the order of ids.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml import hashing
from jaxml.features.columns import Column, Counts, read
from jaxml.features.options import integer, optional_integer
from jaxml.features.texts import Texts, pack
from jaxml.features.transform import Output, Transform, make, run

__all__ = ["hash_buckets", "hashes", "one_hot", "vocabulary"]


def hashes(values: Any, name: str = "values") -> NDArray[np.uint64]:
    """The 64-bit hash of each value of a column; what is missing has one, too.

    Args:
        values: as for `columns.read`.
        name: what to call them in an error.

    Returns:
        uint64 of the shape of the values. See `hashing` for the algorithm.

    >>> (hashes([7, 8]) == hashes(np.array([7.0, np.nan]))).tolist()
    [True, False]
    """
    column = read(on_host(values, name), name)
    if not column.is_text:
        filled = np.where(column.missing, np.zeros((), column.values.dtype), column.values)
        return hashing.with_missing(hashing.hash_numbers(filled), column.missing)
    texts = column.values.ravel().tolist()
    index: dict[str, int] = {}
    rows = np.fromiter((index.setdefault(text, len(index)) for text in texts), np.int64, len(texts))
    each = hashing.hash_texts(list(index))[rows] if texts else np.zeros(0, np.uint64)
    return hashing.with_missing(each.reshape(column.values.shape), column.missing)


def on_host(values: Any, name: str) -> Any:
    """The values, unless they are known on a device alone."""
    if isinstance(values, jax.core.Tracer):
        raise ValueError(f"{name} is traced, wanted values on the host: encode them outside of jit")
    return values


class Vocabulary(NamedTuple):
    """Of `vocabulary`.

    Attributes:
        terms: V `Texts`, or [V] int64, uint64 or float64: the categories, in falling frequency, those
            as frequent in rising order; `terms.tolist()` lists them.
        counts: [V] int64, how often each occurred.
    """

    terms: Any
    counts: Any


def vocabulary(max_size: int | None = None, num_oov: int = 1, *, min_count: int = 1) -> Transform:
    """The most frequent categories, each with an id; the others share the out-of-vocabulary ids.

    id = 0 … V − 1 by falling frequency, V + hash mod `num_oov` for what is not among them, and
    V + num_oov for what is missing.

    Args:
        max_size: how many categories get an id, ≥ 1; None for all.
        num_oov: how many ids the unseen share, ≥ 1.
        min_count: how often a category must occur to get one, ≥ 1.

    Returns:
        A `Transform` of texts or numbers, on the host, to int32 ids below V + num_oov + 1. Numbers are
        looked up by value, whatever their dtype, 64-bit ids exactly.

    Raises:
        ValueError: an argument out of range; in fitting, a column without one category; in use,
            numbers where there was text, or text where there were numbers: all of them would be
            unseen, which is never meant.

    Example:
        >>> transform = vocabulary(max_size=2)
        >>> transform.apply(transform.fit(["UA", "B6", "UA", "AA"]), ["UA", "AA", "DL", None])
        array([0, 1, 2, 3], dtype=int32)
    """
    max_size = optional_integer("max_size", max_size, 1)
    num_oov = integer("num_oov", num_oov, 1)
    min_count = integer("min_count", min_count, 1)

    def finish(counts: Counts) -> Vocabulary:
        if counts.texts:
            known = sorted(counts.texts.items(), key=lambda item: (-item[1], item[0]))
            kept = [(term, often) for term, often in known if often >= min_count][:max_size]
            often = np.array([count for _, count in kept], np.int64)
            return Vocabulary(pack([term for term, _ in kept]), often)
        if not len(counts.values):
            raise ValueError(
                f"values has no category among {counts.total} rows, wanted at least one"
            )
        order = np.lexsort((counts.values, -counts.counts))
        order = order[counts.counts[order] >= min_count][:max_size]
        return Vocabulary(counts.values[order], counts.counts[order])

    # Looking up needs an index, which is made once for each state and kept while it is in use.
    indices: dict[int, tuple[Any, Any]] = {}

    def index_of(terms: Any) -> Any:
        leaf = terms.utf8 if isinstance(terms, Texts) else terms
        kept = indices.get(id(leaf))
        if kept is None or kept[0] is not leaf:
            made: Any
            if isinstance(terms, Texts):
                made = {term: rank for rank, term in enumerate(terms.tolist())}
            else:
                numbers = _wide(np.asarray(terms))
                made = numbers, np.argsort(numbers, kind="stable")
            indices.clear()
            indices[id(leaf)] = kept = (leaf, made)
        return kept[1]

    def apply(state: Vocabulary, values: Any) -> NDArray[np.int32]:
        column = read(on_host(values, "values"))
        size = len(state.counts)
        texts = isinstance(state.terms, Texts)
        if column.is_text != texts and size and not column.missing.all():
            first = column.values[~column.missing].ravel()[:1].tolist()[0]
            raise ValueError(
                f"values holds {first!r}, wanted {'text' if texts else 'numbers'} "
                f"such as {state.terms.tolist()[0]!r}"
            )
        if texts or not size:
            index = index_of(state.terms) if size else {}
            flat = column.values.ravel().tolist()
            ids = np.fromiter((index.get(each, -1) for each in flat), np.int32, len(flat))
            ids = ids.reshape(column.values.shape)
        else:
            terms, order = index_of(state.terms)
            ids = _look_up(terms, order, column)
        unseen = (ids < 0) & ~column.missing
        if num_oov == 1 or not unseen.any():
            ids = np.where(unseen, size, ids)
        else:
            others = Column(column.values[unseen], column.missing[unseen])
            ids = np.array(ids)
            ids[unseen] = size + hashing.buckets(hashes(others), num_oov)
        return np.where(column.missing, size + num_oov, ids).astype(np.int32)

    def output(state: Vocabulary) -> Output:
        size = len(state.counts)
        return Output(size + num_oov + 1, out_of_vocabulary=(size, size + num_oov))

    return make(
        "vocabulary",
        {"max_size": max_size, "num_oov": num_oov, "min_count": min_count},
        finish,
        apply,
        lambda xp, state, values: apply(state, values),
        output,
        gives="id",
        stage="host",
        exact=True,
    )


def _wide(terms: NDArray) -> NDArray:
    """Terms in 64 bits, of which JAX leaves 32."""
    return terms.astype({"i": np.int64, "u": np.uint64, "f": np.float64}[terms.dtype.kind])


def _look_up(terms: NDArray, order: NDArray[np.int64], column: Column) -> NDArray[np.int32]:
    """Ranks of numbers, −1 for those that are no term."""
    values = column.values
    if values.dtype != terms.dtype:
        # A comparison in float64 would take 2⁵³ + 1 for 2⁵³: both become what holds both exactly.
        if values.dtype.kind == "f" and terms.dtype.kind in "iu":
            whole = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
            missing = column.missing | ~whole
            inner = Column(np.where(missing, 0, values).astype(np.int64), missing)
            return np.where(missing, -1, _look_up(terms, order, inner)).astype(np.int32)
        if values.dtype.kind in "iu" and terms.dtype.kind in "iu":
            if values.dtype.kind == "u":  # beyond int64: no term is
                return np.where(
                    values < 2**63,
                    _look_up(terms, order, Column(values.astype(np.int64), column.missing)),
                    -1,
                ).astype(np.int32)
            unsigned = Column(np.maximum(values, 0).astype(np.uint64), column.missing)
            return np.where(values < 0, -1, _look_up(terms, order, unsigned)).astype(np.int32)
        values = values.astype(np.float64)
    rising = terms[order]
    at = np.minimum(np.searchsorted(rising, values), len(rising) - 1)
    return np.where(rising[at] == values, order[at], -1).astype(np.int32)


def hash_buckets(num_buckets: int, *, seed: int = 0) -> Transform:
    """Any category to one of n buckets, with nothing to fit: for very many categories, or new ones.

    Different categories may share a bucket; `features.check` says how many rows are mistaken for
    another.

    Args:
        num_buckets: n in [1, 2³¹ − 1).
        seed: of the hash, in [0, 2⁶⁴); another seed lets other categories collide.

    Returns:
        A `Transform` of texts or numbers, on the host, to int32 ids in [0, n), and n for what is missing.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> transform = hash_buckets(1000)
        >>> transform.apply(transform.fit(["N14228"]), ["N14228", "N24211", ""])
        array([ 743,  345, 1000], dtype=int32)
    """
    num_buckets, seed = num_buckets_and_seed(num_buckets, seed)

    def apply(state: tuple[()], values: Any) -> NDArray[np.int32]:
        column = read(on_host(values, "values"))
        ids = hashing.buckets(hashing.combine([hashes(column)], seed), num_buckets)
        return np.where(column.missing, num_buckets, ids).astype(np.int32)

    return make(
        "hash_buckets",
        {"num_buckets": num_buckets, "seed": seed},
        lambda counts: (),
        apply,
        lambda xp, state, values: apply(state, values),
        lambda state: Output(num_buckets + 1),
        gives="id",
        stage="host",
        reads=False,
    )


def num_buckets_and_seed(num_buckets: int, seed: int) -> tuple[int, int]:
    """Both as Python ints; refuses what they cannot be."""
    return integer("num_buckets", num_buckets, 1, 2**31 - 2), integer("seed", seed, 0, 2**64 - 1)


class OneHot(NamedTuple):
    """Of `one_hot`.

    Attributes:
        ids: int32 [depth], 0 … depth − 1.
    """

    ids: Any


def one_hot(depth: int | None = None) -> Transform:
    """Ids to vectors of zeros with a 1 at the id.

    Args:
        depth: length of a vector, ≥ 1. None: as many as the ids that the transform before can give, or,
            where there is none before, the greatest id seen and one.

    Returns:
        A `Transform` of integers to float32, with one more axis, of length `depth`; an id outside
        [0, depth) gives zeros alone.

    Raises:
        ValueError: a depth below 1; in fitting, values that are no ids.

    Example:
        >>> transform = one_hot()
        >>> transform.apply(transform.fit([0, 2]), [2, 7])
        Array([[0., 0., 1.],
               [0., 0., 0.]], dtype=float32)
    """
    depth = optional_integer("depth", depth, 1)

    def finish(counts: Counts) -> OneHot:
        if depth is not None:
            return OneHot(np.arange(depth, dtype=np.int32))
        values, _ = counts.numbers()
        if values[0] < 0 or (values != np.floor(values)).any() or values[-1] >= 2**20:
            bad = values[(values < 0) | (values != np.floor(values)) | (values >= 2**20)][0]
            raise ValueError(f"values holds {bad:g}, wanted ids: integers of at least 0, below 2²⁰")
        return OneHot(np.arange(int(values[-1]) + 1, dtype=np.int32))

    def core(xp: Any, state: OneHot, ids: Any) -> Any:
        return (ids[..., None] == xp.asarray(state.ids).reshape((1,) * ids.ndim + (-1,))).astype(
            np.float32
        )

    def apply(state: OneHot, values: Any) -> Any:
        ids = values if isinstance(values, jax.Array) else jnp.asarray(as_ids(values))
        return run(core, state, ids)

    return make(
        "one_hot",
        {"depth": depth},
        finish,
        apply,
        core,
        lambda state: Output(len(state.ids), low=0.0, high=1.0),
        gives="vector",
        stage="device",
        reads=depth is None,
    )


def as_ids(values: Any) -> NDArray[np.int32]:
    """Values as int32 ids; what is missing, or no id, as −1."""
    column = read(values)
    if column.is_text:
        raise ValueError(
            "values holds text, wanted ids: put vocabulary or hash_buckets before one_hot"
        )
    if column.values.dtype.kind == "f":
        whole = column.values == np.floor(column.values)
        safe = np.where(whole, column.values, -1)
    else:
        safe = column.values
    # What is no id, or missing, is one that no vector has.
    return np.where(column.missing, -1, np.clip(safe, -1, 2**31 - 1)).astype(np.int32)
