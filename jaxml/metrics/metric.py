"""What a mergeable metric is: `(empty, update, merge, compute)` over a small pytree."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxml.types import PyTree

__all__ = ["Metric", "all_reduce", "collection"]


class Metric(NamedTuple):
    """A metric that is gathered batch by batch, in any order and in any number of places.

    Attributes:
        empty: `empty() -> state`: nothing seen.
        update: `update(state, labels, scores, weights=None, mask=None) -> state`: pure; under `jit`, `vmap`
            and `scan`.
        merge: `merge(state, state) -> state`: of what two have seen. Commutative to the bit. Counts are
            exact up to 2⁴⁷, so for them it is associative to the bit, too; sums of other numbers have 48
            bits.
        compute: `compute(state) -> value`: the metric of all that was seen; NaN for none, and where it is
            undefined, and if a label, score or weight was out of place that no mask took out (inside `jit`
            nothing can be raised, and a wrong figure is worse than none).

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
    """Several metrics of the same labels and scores, gathered as one.

    Args:
        metrics: by name; at least one.

    Returns:
        A Metric whose state and value are dicts by those names.

    Raises:
        ValueError: for no metric.

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

    def empty() -> PyTree:
        return {name: metric.empty() for name, metric in parts.items()}

    def update(
        state: PyTree, labels: Any, scores: Any, weights: Any = None, mask: Any = None
    ) -> PyTree:
        return {
            name: metric.update(state[name], labels, scores, weights, mask)
            for name, metric in parts.items()
        }

    def merge(a: PyTree, b: PyTree) -> PyTree:
        return {name: metric.merge(a[name], b[name]) for name, metric in parts.items()}

    def compute(state: PyTree) -> Any:
        return {name: metric.compute(state[name]) for name, metric in parts.items()}

    return Metric(empty, update, merge, compute)


def all_reduce(metric: Metric, state: PyTree, axis_name: str) -> PyTree:
    """Merges the states of all devices along a mapped axis (`shard_map`, `vmap`, `pmap`).

    Every state of `streaming` also merges by an elementwise sum, so `jax.lax.psum(state, axis_name)` will
    do: counts stay exact while they are below 2²⁴, and beyond the sum rounds to float32's 24 bits. Here
    nothing is lost: the states are gathered and merged one by one.

    Args:
        metric: whose states they are.
        state: of this device.
        axis_name: of the mapped axis.

    Returns:
        The state of all that was seen, the same on every device.

    >>> import jax.numpy as jnp
    >>> from jaxml.metrics import streaming
    >>> metric = streaming.accuracy()
    >>> def share(labels, scores):
    ...     return all_reduce(metric, metric.update(metric.empty(), labels, scores), "devices")
    >>> states = jax.vmap(share, axis_name="devices")(jnp.eye(2), jnp.ones((2, 2)))
    >>> print(jax.vmap(metric.compute)(states))
    [0.5 0.5]
    """
    gathered = jax.lax.all_gather(state, axis_name)
    first = jax.tree.map(lambda leaf: leaf[0], gathered)
    rest = jax.tree.map(lambda leaf: leaf[1:], gathered)
    return jax.lax.scan(lambda a, b: (metric.merge(a, b), None), first, rest)[0]
