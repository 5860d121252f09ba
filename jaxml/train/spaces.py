"""What a sweep goes over: grids, and samples from distributions."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

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
    """Between two bounds."""

    low: float
    high: float

    def at(self, share: float) -> Any:
        """The value below which such a share of the distribution lies."""
        return self.low + share * (self.high - self.low)


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """Between two positive bounds, every order of magnitude as likely as any other."""

    low: float
    high: float

    def at(self, share: float) -> Any:
        """The value below which such a share of the distribution lies."""
        return math.exp(math.log(self.low) + share * math.log(self.high / self.low))


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values, each as likely as any other."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at such a share of the list."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


def uniform(low: float, high: float) -> Uniform:
    """Uniform on [low, high).

    Args:
        low: finite.
        high: finite, at least `low`.

    Raises:
        ValueError: if they are not.

    Example:
        >>> uniform(0.0, 2.0).at(0.25)
        0.5
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"low and high must be finite and ordered, got {low} and {high}")
    return Uniform(float(low), float(high))


def log_uniform(low: float, high: float) -> LogUniform:
    """Log-uniform on [low, high): learning rates, penalties, whatever is known to an order of magnitude.

    Args:
        low: above 0.
        high: finite, at least `low`.

    Raises:
        ValueError: if they are not.

    Example:
        >>> round(log_uniform(1e-4, 1e-2).at(0.5), 6)
        0.001
    """
    if not (0 < low <= high and math.isfinite(high)):
        raise ValueError(f"low and high must be above 0, finite and ordered, got {low} and {high}")
    return LogUniform(float(low), float(high))


def choice(values: Sequence[Any]) -> Choice:
    """One of these.

    Args:
        values: at least one.

    Raises:
        ValueError: if there is none.

    Example:
        >>> choice([32, 64]).at(0.7)
        64
    """
    if not len(values):
        raise ValueError("values must hold at least one, got none")
    return Choice(tuple(values))


def grid(space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination, the last name running fastest.

    Args:
        space: name → values; a single number stands for itself.

    Returns:
        A dict for each combination.

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
    """Draws combinations, each name by itself.

    Random search meets many more values of each hyperparameter than a grid of the same size (Bergstra and
    Bengio, "Random Search for Hyper-Parameter Optimization", 2012). Here each is drawn with one value in
    each of `num` equal parts of its distribution, in an order of its own (Latin hypercube sampling): no
    part is left out by chance.

    Args:
        key: typed key.
        num: combinations, at least 1.
        space: name → `log_uniform`, `uniform`, `choice`, or a number that is the same in all.

    Returns:
        `num` dicts.

    Raises:
        ValueError: if `num` is below 1, or a name has no distribution.

    Example:
        >>> drawn = random_space(jax.random.key(0), 4, {"learning_rate": log_uniform(1e-4, 1.0)})
        >>> sorted(math.floor(math.log10(each["learning_rate"])) for each in drawn)
        [-4, -3, -2, -1]
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
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
