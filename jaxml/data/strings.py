"""Many strings packed into two arrays, which load in one read and which every checkpoint can hold."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class Strings:
    """A sequence of strings that become `str` only when they are read.

    Attributes:
        utf8: [num_bytes] uint8, the strings' UTF-8 one after the other.
        offsets: [num_strings + 1] int64, where each begins; the last entry is num_bytes.

    >>> places = Strings.pack(["München", "Київ"])
    >>> len(places), places[-1], places.take([1, 0])
    (2, 'Київ', ['Київ', 'München'])
    """

    utf8: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def pack(cls, strings: Iterable[str]) -> "Strings":
        """Packs strings, lone surrogates included (JSON may hold them)."""
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(string) for string in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return self.take([range(len(self))[index]])[0]

    def __iter__(self) -> Iterator[str]:
        blob = self.utf8.tobytes()
        for start, end in itertools.pairwise(self.offsets.tolist()):
            yield blob[start:end].decode("utf-8", "surrogatepass")

    def take(self, indices: ArrayLike) -> list[str]:
        """Returns the strings at `indices`, in that order."""
        rows = np.asarray(indices, np.int64)
        starts, ends = self.offsets[:-1][rows].tolist(), self.offsets[1:][rows].tolist()
        utf8 = self.utf8
        return [
            utf8[start:end].tobytes().decode("utf-8", "surrogatepass")
            for start, end in zip(starts, ends, strict=True)
        ]
