"""Spaces of hyperparameters: grids, and samples from distributions."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxml import checks
from jaxml.types import Key

__all__ = [
    "Choice",
    "LogUniform",
    "Uniform",
    "choice",
    "grid",
    "log_uniform",
    "random_space",
    "uniform",
]


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Uniform between two bounds."""

    low: float
    high: float

    def at(self, share: float) -> Any:
        """Returns the quantile of a share in [0, 1)."""
        return self.low + share * (self.high - self.low)


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm, between two positive bounds."""

    low: float
    high: float

    def at(self, share: float) -> Any:
        """Returns the quantile of a share in [0, 1)."""
        return math.exp(math.log(self.low) + share * math.log(self.high / self.low))


@dataclasses.dataclass(frozen=True)
class Choice:
    """Each of some values with the same probability."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """Returns the value at a share in [0, 1) of the list."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


def uniform(low: float, high: float) -> Uniform:
    """Returns the uniform distribution on [low, high), for `random_space`.

    >>> uniform(0.0, 2.0).at(0.25)
    0.5
    """
    low = checks.number("low", low)
    return Uniform(low, checks.number("high", high, at_least=low))


def log_uniform(low: float, high: float) -> LogUniform:
    """Returns the log-uniform distribution on [low, high): for learning rates and penalties.

    >>> round(log_uniform(1e-4, 1e-2).at(0.5), 6)
    0.001
    """
    low = checks.number("low", low, above=0)
    return LogUniform(low, checks.number("high", high, at_least=low))


def choice(values: Sequence[Any]) -> Choice:
    """Returns the uniform distribution over some values, at least one.

    >>> choice([32, 64]).at(0.7)
    64
    """
    if not len(values):
        raise ValueError("values must hold at least one, got none")
    return Choice(tuple(values))


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
        if isinstance(given, Uniform | LogUniform | Choice):
            raise ValueError(f"space[{name!r}] is a distribution: draw from it with random_space")
        listed = [given] if np.ndim(given) == 0 else [each for each in given]
        if not listed:
            raise ValueError(f"space[{name!r}] must hold at least one value, got none")
        values[name] = listed
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def random_space(key: Key, num: int, space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns combinations drawn by Latin hypercube sampling.

    Each hyperparameter has one value in each of `num` equal parts of its distribution, in a random order.
    Random search tries many more values of each than a grid of the same size.

    Args:
        key: typed key.
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
    if not space:
        raise ValueError("space must name at least one hyperparameter, got none")
    seed = [int(word) for word in np.ravel(jax.random.key_data(key))]
    generator = np.random.Generator(np.random.PCG64(seed))
    columns = {}
    for name, distribution in space.items():
        shares = (generator.permutation(num) + generator.random(num)) / num
        if isinstance(distribution, Uniform | LogUniform | Choice):
            columns[name] = [distribution.at(float(share)) for share in shares]
        elif np.ndim(distribution) == 0 and not isinstance(distribution, str):
            columns[name] = [distribution] * num
        else:
            raise ValueError(
                f"space[{name!r}] must be log_uniform, uniform, choice or a number, "
                f"got {distribution!r}"
            )
    return [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]
