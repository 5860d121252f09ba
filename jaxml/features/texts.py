"""Texts as arrays of numbers, which every checkpoint can hold: NumPy's own texts are unknown to msgpack,
to orbax and to JAX.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Texts(NamedTuple):
    """N texts.

    Attributes:
        utf8: uint8 [T], their bytes one after the other.
        ends: int64 [N], where in `utf8` each ends.
    """

    utf8: Any
    ends: Any

    def tolist(self) -> list[str]:
        """The texts.

        >>> pack(["Köln", "", "UA"]).tolist()
        ['Köln', '', 'UA']
        """
        whole = np.asarray(self.utf8, np.uint8).tobytes()
        ends = np.asarray(self.ends).tolist()
        # What is no character by itself (half of a surrogate pair) is kept as well.
        return [
            whole[start:end].decode("utf-8", "surrogatepass")
            for start, end in zip([0, *ends], ends, strict=False)
        ]


def pack(texts: Sequence[str]) -> Texts:
    """Texts as `Texts`."""
    each = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum(np.array([len(one) for one in each], np.int64), dtype=np.int64)
    return Texts(np.frombuffer(b"".join(each), np.uint8), ends)
