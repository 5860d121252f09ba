"""What is missing: said as a number of its own, or filled in.

Missing are NaN, None, NaT and the empty text. An imputed value looks like any other, so a model that is
to know better gets the indicator beside it.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.features.columns import Column, Counts, read
from jaxml.features.options import number
from jaxml.features.scaling import moments, quantile
from jaxml.features.texts import Texts, pack
from jaxml.features.transform import Output, Pair, Transform, halves, make, on_device, run, split

__all__ = ["imputation", "missing_indicator"]

Strategy = Literal["mean", "median", "most_frequent", "constant"]


def missing_indicator() -> Transform:
    """1 where a value is missing, 0 where it is there.

    Returns:
        A `Transform` of any column to float32.

    Example:
        >>> transform = missing_indicator()
        >>> transform.apply(transform.fit([1.0]), [2.0, float("nan")])
        Array([0., 1.], dtype=float32)
    """

    def core(xp: Any, state: tuple[()], values: Any) -> Any:
        if isinstance(values, Pair):
            return xp.isnan(values.high).astype(np.float32)
        return read(values).missing.astype(np.float32)

    def apply(state: tuple[()], values: Any) -> Any:
        if isinstance(values, jax.Array):
            return run(core, state, split(values, False))
        return jnp.asarray(core(np, state, values))

    def output(state: tuple[()]) -> Output:
        return Output(low=0.0, high=1.0)

    return make(
        "missing_indicator",
        {},
        lambda counts: (),
        apply,
        core,
        output,
        gives="number",
        stage="host",
        reads=False,
    )


class Fill(NamedTuple):
    """Of `imputation`.

    Attributes:
        value: float64 scalar, or one text as `Texts`; what goes into the gaps.
    """

    value: Any


def imputation(strategy: Strategy = "median", value: float | str | None = None) -> Transform:
    """What is missing, filled in: by one value for the whole column.

    Args:
        strategy: "mean" or "median" of the finite numbers; "most_frequent", of numbers or texts, the
            least of those that are equally frequent; "constant".
        value: what to fill in, for "constant" alone.

    Returns:
        A `Transform`: numbers to float32, texts (on the host) to texts. Infinities stay.

    Raises:
        ValueError: another strategy, or a value without "constant", or none with it; in fitting, a
            column without a value to go by.

    Example:
        >>> transform = imputation("mean")
        >>> transform.apply(transform.fit([1.0, None, 3.0]), [None, 5.0])
        Array([2., 5.], dtype=float32)
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy is {strategy!r}, wanted one of {get_args(Strategy)}")
    if (value is not None) != (strategy == "constant"):
        raise ValueError(
            f"value is {value!r} with strategy {strategy!r}, wanted it with 'constant' alone"
        )
    if isinstance(value, str):
        value = str(value)
    elif value is not None:
        value = number("value", value)
        if math.isinf(value):
            raise ValueError(f"value is {value}, wanted a finite number or a text")

    def finish(counts: Counts) -> Fill:
        if strategy == "constant":
            return Fill(pack([value]) if isinstance(value, str) else np.float64(value))
        if strategy == "most_frequent" and counts.texts:
            # Of the texts that are as frequent, the first by code points.
            return Fill(pack([_most_frequent(counts.texts)]))
        values, often = counts.numbers()
        if strategy == "most_frequent":
            return Fill(np.float64(values[np.argmax(often)]))
        if strategy == "mean":
            return Fill(np.float64(moments(values, often)[0]))
        return Fill(np.float64(quantile(values, often, 0.5)))

    def core(xp: Any, state: Fill, values: Any) -> Any:
        if isinstance(values, Pair):
            gone = xp.isnan(values.high)
            high, low = _halves(state.value)
            rest = None if values.low is None else xp.where(gone, low, values.low)
            return Pair(xp.where(gone, high, values.high), rest)
        column = read(values)
        texts = isinstance(state.value, Texts)
        if texts != column.is_text and not column.missing.all():
            first = column.values[~column.missing].tolist()[0]
            raise ValueError(
                f"values holds {first!r}, wanted {'text' if texts else 'numbers'} as in fitting"
            )
        if texts:
            filled = np.where(column.missing, np.array(state.value.tolist()[0]), column.values)
            return Column(filled, np.zeros(filled.shape, bool))
        whole = column.values.dtype.kind in "iu" and float(state.value).is_integer()
        # Integers stay integers, which hold more digits than a float.
        kept = column.values if whole else np.asarray(column.values, np.float64)
        fill = np.asarray(state.value).astype(kept.dtype)
        return Column(np.where(column.missing, fill, kept), np.zeros(kept.shape, bool))

    def apply(state: Fill, values: Any) -> Any:
        if isinstance(values, jax.Array):
            return run(core, state, split(values, False))
        filled = core(np, state, values)
        return filled.values if filled.is_text else on_device(split(filled, False)).value

    options = {"strategy": strategy, "value": value}
    return make(
        "imputation",
        options,
        finish,
        apply,
        core,
        lambda state: Output(),
        gives="same",
        stage="either",
        reads=strategy != "constant",
    )


def _halves(value: Any) -> tuple[Any, Any]:
    if isinstance(value, jax.Array):
        pair = split(value)
        return pair.high, np.float32(0) if pair.low is None else pair.low
    return halves(float(value))


def _most_frequent(texts: Mapping[str, int]) -> str:
    return min(texts, key=lambda text: (-texts[text], text))
