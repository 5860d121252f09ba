"""Missing values: flagged as a number of their own, or filled in.

An imputed value looks like any other; put an indicator beside it if a model should know the difference.
"""

import dataclasses
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.features.counts import Counts
from jaxml.features.scaling import moments, quantile
from jaxml.features.transform import Output, Transform
from jaxml.validation.columns import Column, integers

__all__ = ["imputation", "missing_indicator"]

Strategy = Literal["mean", "median", "constant"]


@dataclasses.dataclass(frozen=True, repr=False)
class missing_indicator(Transform):
    """1 where a value is missing, 0 elsewhere, for any column.

    Example:
        >>> transform = missing_indicator()
        >>> transform.apply(transform.fit([1.0]), [2.0, float("nan")])
        array([0., 1.], dtype=float32)
    """

    gives = "number"

    def run(self, state: tuple[()], column: Column) -> NDArray[np.float64]:
        return column.missing.astype(np.float64)

    def output(self, state: tuple[()]) -> Output:
        return Output(low=0.0, high=1.0)


class Fill(NamedTuple):
    """State of `imputation`: the number that replaces missing ones."""

    value: float


@dataclasses.dataclass(frozen=True, repr=False)
class imputation(Transform):
    """Missing numbers replaced by one number for the whole column. Infinities stay.

    A text needs no imputation: `vocabulary`, `hash_buckets` and `cross` have a place for missing ones.

    Args:
        strategy: "mean" or "median" of the finite numbers, or "constant".
        value: the replacement, for "constant" only.

    Example:
        >>> transform = imputation("mean")
        >>> transform.apply(transform.fit([1.0, None, 3.0]), [None, 5.0])
        array([2., 5.], dtype=float32)
    """

    strategy: Strategy = "median"
    value: float | None = None

    gives = "same"
    State = Fill

    def __post_init__(self) -> None:
        checks.choice("strategy", self.strategy, get_args(Strategy))
        if (self.value is not None) != (self.strategy == "constant"):
            raise ValueError(
                f"value must be given with strategy 'constant' and no other, got {self.value!r} with "
                f"{self.strategy!r}"
            )
        if self.value is not None:
            self._set(value=checks.number("value", self.value))

    @property
    def reads(self) -> bool:
        return self.strategy != "constant"

    def fitted(self, counts: Counts) -> Fill:
        if self.value is not None:
            return Fill(self.value)
        values, often = counts.numbers()
        if self.strategy == "mean":
            return Fill(moments(values, often)[0])
        return Fill(float(quantile(values, often, 0.5)))

    def run(self, state: Fill, column: Column) -> NDArray:
        # Ids keep all digits, for a vocabulary that follows.
        if column.type != "INT" or not float(state.value).is_integer():
            numbers = column.numbers()
            numbers[column.missing] = state.value
            return numbers
        fill = integers([int(state.value)])
        values = column.exact()
        if values.dtype != fill.dtype:
            values, fill = values.astype(object), fill.astype(object)
        return np.where(column.missing, fill[0], values)
