"""Spaces of hyperparameters: grids, and samples from distributions."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxml import checks
from jaxml.keys import as_key
from jaxml.types import Key


class Distribution(NamedTuple):
    """A distribution of a hyperparameter; `at(share)` is its quantile of a share in [0, 1)."""

    at: Callable[[float], Any]


def uniform(low: float, high: float) -> Distribution:
    """Returns the uniform distribution on [low, high), for `random_space`.

    >>> uniform(0.0, 2.0).at(0.25)
    0.5
    """
    low = checks.number("low", low)
    high = checks.number("high", high, at_least=low)
    return Distribution(lambda share: low + share * (high - low))


def log_uniform(low: float, high: float) -> Distribution:
    """Returns the log-uniform distribution on [low, high): for learning rates and penalties.

    >>> round(log_uniform(1e-4, 1e-2).at(0.5), 6)
    0.001
    """
    low = checks.number("low", low, above=0)
    high = checks.number("high", high, at_least=low)
    return Distribution(lambda share: math.exp(math.log(low) + share * math.log(high / low)))


def choice(values: Sequence[Any]) -> Distribution:
    """Returns the uniform distribution over some values, at least one.

    >>> choice([32, 64]).at(0.7)
    64
    """
    values = list(values)
    if not values:
        raise ValueError("values must hold at least one, got none")
    return Distribution(lambda share: values[min(int(share * len(values)), len(values) - 1)])


def grid(space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns every combination of the values, the last name running fastest.

    Args:
        space: name → values; a single number stands for itself.

    Raises:
        ValueError: if there is no name, or a name without values.

    Example:
        >>> grid({"learning_rate": [0.1, 0.2], "decay": 0.5})
        [{'learning_rate': 0.1, 'decay': 0.5}, {'learning_rate': 0.2, 'decay': 0.5}]
    """
    if not space:
        raise ValueError("space must name at least one hyperparameter, got none")
    values = {}
    for name, given in space.items():
        if isinstance(given, Distribution):
            raise ValueError(f"space[{name!r}] is a distribution: draw from it with random_space")
        values[name] = [given] if np.ndim(given) == 0 else list(given)
        if not values[name]:
            raise ValueError(f"space[{name!r}] must hold at least one value, got none")
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def random_space(key: Key, num: int, space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns combinations drawn by Latin hypercube sampling.

    Each hyperparameter has one value in each of `num` equal parts of its distribution, in a random order.
    Random search tries many more values of each than a grid of the same size.

    Args:
        key: a key, or an integer as seed.
        num: combinations, at least 1.
        space: name → `log_uniform`, `uniform`, `choice`, or a number that is the same in all.

    Raises:
        ValueError: if `num` is below 1, or a name has no distribution.

    References:
        Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012.

    Example:
        >>> drawn = random_space(jax.random.key(0), 4, {"learning_rate": log_uniform(1e-4, 1.0)})
        >>> sorted(math.floor(math.log10(each["learning_rate"])) for each in drawn)
        [-4, -3, -2, -1]
    """
    num = checks.integer("num", num, at_least=1)
    generator = np.random.default_rng(
        [int(word) for word in np.ravel(jax.random.key_data(as_key(key)))]
    )
    columns = {}
    for name, given in space.items():
        shares = (generator.permutation(num) + generator.random(num)) / num
        if isinstance(given, Distribution):
            columns[name] = [given.at(float(share)) for share in shares]
        elif np.ndim(given) == 0 and not isinstance(given, str):
            columns[name] = [given] * num
        else:
            raise ValueError(
                f"space[{name!r}] must be log_uniform, uniform, choice or a number, got {given!r}"
            )
    if not columns:
        raise ValueError("space must name at least one hyperparameter, got none")
    return [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]
