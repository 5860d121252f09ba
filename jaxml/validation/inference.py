"""A first draft of what a column should hold, from data believed to be good."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml.validation.columns import Column, is_utf8
from jaxml.validation.feature import Feature

# A drafted bound lies this many times the distance between the largest and the eleventh largest value
# beyond the largest.
_WIDENING = 5
# Distinct values that decide whether integers end where they end.
_LAST = 4
# With fewer rows a domain is drafted as it stands: nothing can be known of values not seen.
_FEW_ROWS = 20


def infer_feature(column: Column, max_domain: int, min_domain_mass: float) -> Feature:
    """Returns the draft for one column, see `schema.infer_schema`."""
    known, rows = column.known(), len(column.values)
    found: dict[str, Any] = {"type": column.type, "min_count": min(len(known), 1)}
    if not len(known):
        return Feature(**found)
    share = 1 - len(known) / rows
    slack = 2 * share + 3 * math.sqrt(share * (1 - share) / rows)
    found["min_fraction"] = math.floor(1000 * max(0.0, 1 - slack)) / 1000
    if column.is_bool:
        found["is_bool"] = True
    elif column.type in ("INT", "FLOAT"):
        found["min"], found["max"] = _range(known, column.type == "INT")
        found["whole_numbers"] = column.type == "FLOAT" and share > 0 and column.is_whole()
    elif column.is_text:
        codes, distinct = column.codes()
        rarest = np.bincount(codes[codes >= 0]).min()
        if len(distinct) <= max_domain and (rarest > 1 or rows < _FEW_ROWS):
            found["domain"] = tuple(sorted(filter(is_utf8, distinct)))
    if any(found.get(name) is not None for name in ("domain", "min", "max")):
        found["min_domain_mass"] = min_domain_mass
    return Feature(**found)


def _range(known: NDArray[Any], whole: bool) -> tuple[Any, Any]:
    """Returns the bounds, None where the values go to infinity."""
    finite = np.sort(known if whole else known[np.isfinite(known)])
    if not len(finite):
        return None, None
    # Python's numbers: differences of int64 extremes overflow int64.
    k = min(10, len(finite) // 20)
    low = _outwards(finite[: k + 1].tolist()[::-1], finite, whole, upper=False)
    high = _outwards(finite[-k - 1 :].tolist(), finite, whole, upper=True)
    open_below, open_above = (not whole and infinity in known for infinity in (-np.inf, np.inf))
    return None if open_below else low, None if open_above else high


def _outwards(end: list[Any], values: NDArray[Any], whole: bool, *, upper: bool) -> Any:
    """Returns the last of the end, moved outwards by `_WIDENING` times its distance to the first.

    The spacings of the k + 1 largest of an exponential tail are independent, E_j / j; as many fresh draws
    pass the bound with a probability of about Π_j j / (j + 5): 1 in 3,003 for k = 10, and 1 in 100 for a
    heavier tail, the lognormal's.
    """
    extreme, distance = end[-1], abs(end[-1] - end[0])
    wide = _WIDENING * distance
    if wide == 0 or (whole and _is_an_end(values, upper=upper)):
        return extreme
    bound = extreme + wide if upper else extreme - wide
    if not whole:
        if not math.isfinite(bound) or wide < 1e-298:
            return extreme
        bound = round(bound, 1 - math.floor(math.log10(wide)))
    # A column that was never negative does not become so, and the other way round.
    if upper:
        return min(bound, type(bound)(0)) if extreme <= 0 else bound
    return max(bound, type(bound)(0)) if extreme >= 0 else bound


def _is_an_end(values: NDArray[Any], *, upper: bool) -> bool:
    """Returns whether integers end where they end: 1 … 12, 0 … 99, but not counts of a rare event.

    The last values follow each other in steps of one, each seen five times or more on average (so that the
    next would have been missed by chance with a probability of e⁻⁵), and the last is not far rarer than
    those before it.
    """
    distinct, counts = np.unique(values, return_counts=True)
    outwards = slice(None) if upper else slice(None, None, -1)
    distinct, counts = distinct[outwards][-_LAST:], counts[outwards][-_LAST:]
    if abs(int(distinct[-1]) - int(distinct[0])) != len(distinct) - 1:
        return False
    before = counts[:-1].mean() if len(counts) > 1 else 0
    return bool(counts.mean() >= 5 and counts[-1] >= before / 3)
