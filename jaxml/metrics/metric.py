"""`Metric`: a mergeable metric as four pure functions over a small pytree."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxml.types import Array, PyTree

__all__ = ["Metric", "all_reduce", "collection"]


class Metric(NamedTuple):
    """A metric that is accumulated batch by batch, in any order and on any number of devices.

    Attributes:
        empty: `empty() -> state` of no data.
        update: `update(state, labels, scores, weights=None, mask=None) -> state`; pure, for `jit`, `vmap`
            and `scan`.
        merge: `merge(state, state) -> state` of the data of both. Commutative to the bit. Counts are exact
            up to 2⁴⁷, and so associative to the bit; other sums have 48 bits.
        compute: `compute(state) -> value`. NaN where the metric is undefined, and after any label, score or
            weight out of range that no mask left out: `jit` cannot raise.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxml.metrics import streaming
        >>> metric = streaming.accuracy()
        >>> one = metric.update(metric.empty(), jnp.array([0, 1]), jnp.array([0.1, 0.9]))
        >>> two = metric.update(metric.empty(), jnp.array([1, 1]), jnp.array([0.1, 0.9]))
        >>> print(metric.compute(metric.merge(one, two)))
        0.75
    """

    empty: Callable[[], PyTree]
    update: Callable[..., PyTree]
    merge: Callable[[PyTree, PyTree], PyTree]
    compute: Callable[[PyTree], Any]


def collection(metrics: Mapping[str, Metric]) -> Metric:
    """Several metrics of the same labels and scores as one, whose state and value are dicts by name.

    >>> import jax.numpy as jnp
    >>> from jaxml.metrics import streaming
    >>> both = collection({"accuracy": streaming.accuracy(), "brier": streaming.brier()})
    >>> state = both.update(both.empty(), jnp.array([0, 1]), jnp.array([0.5, 0.5]))
    >>> {name: float(value) for name, value in both.compute(state).items()}
    {'accuracy': 0.5, 'brier': 0.25}
    """
    parts = dict(metrics)
    if not parts:
        raise ValueError("metrics must hold at least one, got none")

    def each(of: Callable[[str, Metric], Any]) -> dict[str, Any]:
        return {name: of(name, metric) for name, metric in parts.items()}

    return Metric(
        empty=lambda: each(lambda _, metric: metric.empty()),
        update=lambda state, labels, scores, weights=None, mask=None: each(
            lambda name, metric: metric.update(state[name], labels, scores, weights, mask)
        ),
        merge=lambda a, b: each(lambda name, metric: metric.merge(a[name], b[name])),
        compute=lambda state: each(lambda name, metric: metric.compute(state[name])),
    )


def all_reduce(metric: Metric, state: PyTree, axis_name: str) -> PyTree:
    """Merges the states of all devices along a mapped axis (`shard_map`, `vmap`); each gets the result.

    `jax.lax.psum(state, axis_name)` merges the states of `streaming` as well, with counts that are exact
    below 2²⁴ only. Here the states are gathered and merged one by one, without loss.

    >>> import jax.numpy as jnp
    >>> from jaxml.metrics import streaming
    >>> metric = streaming.accuracy()
    >>> def share(labels, scores):
    ...     return all_reduce(metric, metric.update(metric.empty(), labels, scores), "devices")
    >>> states = jax.vmap(share, axis_name="devices")(jnp.eye(2), jnp.ones((2, 2)))
    >>> print(jax.vmap(metric.compute)(states))
    [0.5 0.5]
    """
    size, own = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)

    def gather(leaf: Array) -> Array:
        # A sum with zeros: its type says that all devices have the same, that of `all_gather` does not.
        return jax.lax.psum(jnp.zeros((size, *leaf.shape), leaf.dtype).at[own].set(leaf), axis_name)

    gathered = jax.tree.map(gather, state)
    first = jax.tree.map(lambda leaf: leaf[0], gathered)
    rest = jax.tree.map(lambda leaf: leaf[1:], gathered)
    return jax.lax.scan(lambda a, b: (metric.merge(a, b), None), first, rest)[0]
