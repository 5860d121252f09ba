"""The characters of a text as ids, in their order. Nothing is fitted."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.features.transform import Output, Transform
from jaxml.validation.columns import Column

__all__ = ["characters"]


@dataclasses.dataclass(frozen=True, repr=False)
class characters(Transform):
    """The characters of a text: several ids a row, int32 [B, max_length], 0 past the end.

    Id i + 1 is the character `alphabet[i]`. A text that is missing or empty, is longer, or has another
    character is refused with a ValueError.

    Args:
        alphabet: the characters, each once.
        max_length: characters of the longest text, ≥ 1.

    Example:
        >>> transform = characters("abc", 4)
        >>> transform.apply(transform.fit(["cab"]), ["cab", "b"])
        array([[3, 1, 2, 0],
               [2, 0, 0, 0]], dtype=int32)
    """

    alphabet: str
    max_length: int

    gives = "ids"

    def __post_init__(self) -> None:
        if not isinstance(self.alphabet, str) or not self.alphabet:
            raise ValueError(f"alphabet must be a text of characters, got {self.alphabet!r}")
        if len(set(self.alphabet)) < len(self.alphabet):
            raise ValueError(f"alphabet must have each character once, got {self.alphabet!r}")
        self._set(max_length=checks.integer("max_length", self.max_length, 1))

    def run(self, state: tuple[()], column: Column) -> NDArray[np.int32]:
        if not column.is_text and column.num_present:
            raise ValueError(f"values must be text, got {column.known().tolist()[0]!r}")
        texts: list[Any] = column.exact().ravel().tolist()
        ids = np.zeros((len(texts), self.max_length), np.int32)
        number = {character: i for i, character in enumerate(self.alphabet, 1)}
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not 1 <= len(text) <= self.max_length:
                raise ValueError(
                    f"values[{row}] must be a text of 1 to {self.max_length} characters, got {text!r:.60}"
                )
            try:
                ids[row, : len(text)] = [number[character] for character in text]
            except KeyError as error:
                raise ValueError(
                    f"values[{row}] must be of the characters {self.alphabet!r}, got "
                    f"{error.args[0]!r} in {text!r:.60}"
                ) from error
        return ids.reshape(*column.values.shape, self.max_length)

    def output(self, state: tuple[()]) -> Output:
        return Output(len(self.alphabet) + 1, length=self.max_length)
