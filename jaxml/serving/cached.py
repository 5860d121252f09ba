"""Answers that were computed before, and the model for the others.

cached = Cached(bundle, "answers")                         # of `static.predict(…, key="id")`
cached.predict({"id": [17, 4]}).outputs["probability"]     # [2]
"""

import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml.serving import lookup
from jaxml.serving.bundle import Bundle
from jaxml.serving.static import LOOKUP, described_outputs, read_record
from jaxml.validation.columns import Table, plain, read_column, read_columns, table_columns

__all__ = ["Answers", "Cached"]


class Answers(NamedTuple):
    """Answers to B rows, and where they come from.

    Attributes:
        outputs: [B, …] by name; NaN, None, −1 or False where there is no answer.
        known: bool [B], whether the answer was computed before.
        age: float64 [B], seconds since it was; 0 for one of now, NaN where there is none.
        bundle: [B], the digest of the bundle that computed it; None where there is none.
    """

    outputs: dict[str, NDArray[Any]]
    known: NDArray[np.bool_]
    age: NDArray[np.float64]
    bundle: NDArray[Any]


class Cached:
    """Answers known keys from those that `predict` computed, and others by the model when told to.

    To be used in one thread at a time.

    Args:
        bundle: answers unknown keys.
        directory: of `predict` with a key; another version of the model may have computed it.

    Attributes:
        key: the column of the keys.
        asked: the number of keys so far.
        known: the number of those that were known.

    Raises:
        ValueError: there are no look-ups, or of other outputs than the bundle's.
    """

    def __init__(self, bundle: Bundle, directory: str | os.PathLike[str]) -> None:
        self._bundle, self._record = bundle, read_record(Path(directory))
        self.key: str = self._record["key"]
        if self.key is None:
            raise ValueError(f"{directory}: there are no look-ups: predict with a key")
        if self._record["outputs"] != described_outputs(bundle):
            raise ValueError(f"{directory}: holds other outputs than the bundle has")
        self._lookup = lookup.Lookup(Path(directory) / LOOKUP)
        self.asked = self.known = 0

    def __repr__(self) -> str:
        return f"<Cached by {self.key!r}: {self.known:,} of {self.asked:,} keys were known>"

    @property
    def coverage(self) -> float:
        """The share of the keys so far that were known; NaN before the first."""
        return self.known / self.asked if self.asked else math.nan

    def predict(self, columns: Table, *, fallback: bool = False) -> Answers:
        """Returns the answers to rows.

        Args:
            columns: the key, [B]; all inputs of the bundle too if the model is to be asked.
            fallback: ask the model for unknown keys.

        Raises:
            ValueError: the key column is absent, or of another type than in the table; as
                `Bundle.predict`.
        """
        given = table_columns(columns)
        if self.key not in given:
            raise ValueError(f"columns must hold the key {self.key!r}, got {list(given)}")
        keys = read_column(self.key, given[self.key])
        kind = {str: "BYTES", int: "INT"}.get(self._lookup.key_type or object)
        if keys.num_present and kind and keys.type != kind:
            raise ValueError(
                f"column {self.key!r} must hold {kind} as the table did, got {keys.type}"
            )
        found = self._lookup.many(list(dict.fromkeys(plain(keys.known()))))
        pairs = zip(plain(keys.values), keys.present.tolist(), strict=True)
        answers = [found.get(each) if there else None for each, there in pairs]
        known = np.array([each is not None for each in answers], bool)
        self.asked, self.known = self.asked + len(known), self.known + int(known.sum())
        return self._joined(given, [each for each in answers if each is not None], known, fallback)

    def _joined(
        self, given: dict[str, Any], answers: list[dict[str, Any]], known: NDArray, fallback: bool
    ) -> Answers:
        outputs = {}
        for name, (dtype, shape) in self._bundle.program.outputs.items():
            kind = np.dtype(object) if name in self._bundle.labels else dtype
            nothing = {"f": np.nan, "O": None, "b": False}.get(kind.kind, -1)
            outputs[name] = np.full((len(known), *shape), nothing, kind)
            if answers:
                outputs[name][known] = np.array([each[name] for each in answers], kind)
        age, digest = np.full(len(known), np.nan), np.full(len(known), None, object)
        computed = np.array(self._lookup.computed)
        chunks = [each["row"] // self._record["chunk_rows"] for each in answers]
        age[known] = time.time() - computed[chunks] if answers else []
        digest[known] = self._record["bundle"]
        if fallback and not known.all():
            names = self._bundle.columns
            if not set(names) <= set(given):
                raise ValueError(
                    f"columns must hold {list(names)} to ask the model, got {list(given)}"
                )
            read = read_columns({name: given[name] for name in names})
            unknown = {name: column.take(~known) for name, column in read.items()}
            for name, values in self._bundle.predict(unknown).items():
                outputs[name][~known] = values
            age[~known], digest[~known] = 0.0, self._bundle.manifest.digest
        return Answers(outputs, known, age, digest)
