"""`Transform`, the base class of feature transforms.

A transform is fitted once, on the counts of a column's values, and is then a pure function of a state and
values. All arithmetic is float64 NumPy on the host; results are float32 numbers and int32 ids, and a row
gets the same bits alone and in a batch.

A new transform is a frozen dataclass whose name is the public name and whose fields are its options:

    @dataclass(frozen=True, repr=False)
    class square(Transform):
        gives = "number"

        def run(self, state, column):
            return column.numbers() ** 2

It needs `fitted` if it learns something from the data (and then `State`), and `output` if its range is
known. Subclassing registers it, so that a saved pipeline finds it by name.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jaxml.features.counts import Counts
from jaxml.validation.columns import Column, read_column

State: TypeAlias = Any
"""The fitted values: a NamedTuple of numbers, texts and small NumPy arrays, or () if there are none."""

REGISTRY: dict[str, type["Transform"]] = {}
"""All transforms by name."""


class Output(NamedTuple):
    """The range of a fitted transform's output.

    Attributes:
        width: the number of ids, or the length of a vector; 1 for a number.
        low: lower bound of the output.
        high: upper bound of the output.
        out_of_vocabulary: ids [first, end) of unseen categories.
        length: the number of ids of a row.
    """

    width: int = 1
    low: float = -np.inf
    high: float = np.inf
    out_of_vocabulary: tuple[int, int] = (0, 0)
    length: int = 1


class Transform:
    """Base class of feature transforms; see the module's docstring for how to write one.

    Class attributes:
        gives: "number" (float32), "id" (int32), "vector" or "ids" (one more axis), or "same" as the input.
        takes: "any", or "id" where a number makes no sense.
        State: class of the fitted state, None if there is none.
    """

    gives: ClassVar[Literal["number", "id", "vector", "ids", "same"]]
    takes: ClassVar[Literal["any", "id"]] = "any"
    State: ClassVar[type | None] = None

    def __init_subclass__(cls) -> None:
        if not cls.__name__.startswith("_"):
            REGISTRY[cls.__name__] = cls

    # Each transform implements `run`, and the others where the default does not fit.

    def run(self, state: Any, column: Any) -> NDArray:
        """Returns float64 numbers or int32 ids.

        Args:
            state: from `fitted`.
            column: a `Column` of any shape; a tuple of them for a transform with `sources`.
        """
        raise NotImplementedError  # Abstract: there is no transform without it.

    def read(self, values: Any) -> Any:
        """Returns the values as a `Column`, or as one for each of the `sources`."""
        return read_column("values", values)

    def fitted(self, counts: Counts) -> Any:
        """Returns the state for a column with at least one row."""
        return ()

    def output(self, state: Any) -> Output:
        """Returns the range of the output."""
        return Output()

    def labels(self, state: Any, width: int) -> list[str]:
        """Returns names of the first `width` ids."""
        return [str(i) for i in range(width)]

    def keys(self, column: Any) -> NDArray[np.uint64] | None:
        """Returns the 64-bit keys that are put into buckets, None if the transform does not hash."""
        return None

    @property
    def reads(self) -> bool:
        """Whether fitting looks at the values."""
        return type(self).fitted is not Transform.fitted

    @property
    def sources(self) -> Sequence[str]:
        """Names of the columns that are read together; empty for a transform of one column."""
        return ()

    # What all have in common.

    def fit(self, values: Any) -> Any:
        """Returns the fitted state.

        Args:
            values: a column of N ≥ 1 numbers, texts or times: an array, a list, a series.

        Raises:
            ValueError: an empty column, or one that this transform cannot be fitted on.
        """
        column = self.read(values)
        if self.reads:
            return self.finish(Counts().update(column))
        first: Column = column[0] if self.sources else column
        return self.finish(Counts(missing=first.values.size))

    def finish(self, counts: Counts) -> Any:
        """Returns the fitted state, from counts that may come from several chunks of data."""
        if not counts.total:
            raise ValueError("values must hold at least one row, got none")
        return self.fitted(counts)

    def apply(self, state: Any, values: Any) -> NDArray:
        """Returns the transformed values: float32 or int32, of the shape of the values.

        Args:
            state: from `fit`.
            values: as for `fit`, of any shape.

        Raises:
            ValueError: values of another type than in fitting.
        """
        made = self.run(state, self.read(values))
        with np.errstate(over="ignore"):
            return handed_over(made)

    def to_json(self, state: Any) -> dict[str, Any]:
        """Returns name, options and state as JSON can hold them."""
        return {
            "name": type(self).__name__,
            "options": {name: _listed(value) for name, value in self._options().items()},
            "state": self._fields(state),
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> tuple["Transform", Any]:
        """Returns the transform and the state that `to_json` wrote."""
        name = written["name"]
        if name not in REGISTRY:
            raise ValueError(f"transform must be one of {sorted(REGISTRY)}, got {name!r}")
        kind = REGISTRY[name]
        return kind(**written["options"]), kind._state(written["state"])

    def _fields(self, state: Any) -> dict[str, Any]:
        fields = {} if self.State is None else state._asdict()
        return {name: _listed(value) for name, value in fields.items()}

    @classmethod
    def _state(cls, written: Mapping[str, Any]) -> Any:
        if cls.State is None:
            return ()
        fields = {
            name: np.array(value, np.float64) if isinstance(value, list) else value
            for name, value in written.items()
        }
        return cls.State(**fields)

    def _options(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}

    def _set(self, **options: Any) -> None:
        """Sets checked options of a frozen dataclass."""
        for name, value in options.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        options = self._options().items()
        given = ", ".join(f"{name}={value!r}" for name, value in options if value is not None)
        return f"{type(self).__name__}({given})"


def handed_over(made: NDArray) -> NDArray:
    """Returns what a model takes: float32 numbers and vectors, int32 ids; the caller ignores overflow."""
    return made if made.dtype == np.int32 else made.astype(np.float32, copy=False)


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
