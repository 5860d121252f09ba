"""Tests of two samples being of one population. Each returns a log p-value, since many are below 1e-300."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

# Cells with fewer rows to be expected on the smaller side are pooled.
_FEWEST = 5


def chi_square(
    reference: NDArray[np.int64], table: NDArray[np.int64], drift: float = 0.0
) -> tuple[float, float, NDArray[np.float64]]:
    """Returns log p of Pearson's χ² test, the excess of χ² per row, and the parts of χ² by cell.

    Rare cells are pooled with others that are about as frequent in both samples together: which cells are
    pooled does not depend on which sample the rows are in, so the test holds for any number of cells.

    Args:
        reference: [C] rows of the reference by cell.
        table: [C] rows of the table by cell.
        drift: excess per row that is tolerated. χ² is divided by what a table of this size would show of
            it.
    """
    totals = float(reference.sum()), float(table.sum())
    parts = np.zeros(len(reference))
    if not all(totals):
        return 0.0, 0.0, parts
    both = reference + table
    used = np.flatnonzero(both)
    order = used[np.argsort(-both[used], kind="stable")]
    expected = both[order] * (min(totals) / sum(totals))
    # Rare cells come last; a pool ends where it is full.
    before = np.cumsum(np.where(expected < _FEWEST, expected, 0.0))
    own = np.count_nonzero(expected >= _FEWEST)
    pools = np.floor((before - expected)[own:] / _FEWEST).astype(np.int64)
    last = max(int(before[-1] / _FEWEST) - 1, 0)  # The remainder joins the last pool.
    pool = np.concatenate([np.arange(own), own + np.minimum(pools, last)])
    a, b = np.bincount(pool, reference[order]), np.bincount(pool, table[order])
    if own < len(order) and before[-1] < _FEWEST:
        a, b = a[:own], b[:own]
    freedom = len(a) - 1
    if freedom < 1:
        return 0.0, 0.0, parts
    ratio = math.sqrt(totals[1] / totals[0])
    each = (a * ratio - b / ratio) ** 2 / np.maximum(a + b, 1)
    sizes = np.bincount(pool)
    kept = pool < len(each)
    parts[order[kept]] = (each / sizes[: len(each)])[pool[kept]]
    statistic = float(each.sum())
    harmonic = totals[0] * totals[1] / sum(totals)
    excess = max(statistic / freedom - 1, 0.0) / harmonic
    # Many cells of few rows vary more than χ² does: a multiple of χ² of the same mean and variance.
    share = min(totals) / sum(totals)
    kurtosis = max(1 - 6 * share * (1 - share), 0.0) / (1 - share)
    variance = 2 * freedom + kurtosis * ((1 / (share * (a + b))).sum() - len(a) ** 2 / min(totals))
    scale = max(variance / (2 * freedom), 1.0)
    statistic /= scale * (1 + drift * harmonic)
    return log_p_chi_square(statistic, freedom / scale), excess, parts


def log_p_chi_square(statistic: float, freedom: float) -> float:
    """Returns log P(χ² > statistic); beyond the smallest float, the leading term of the tail."""
    tail = float(special.chdtrc(freedom, statistic))
    if tail > 1e-300:
        return math.log(tail)
    half = statistic / 2
    return (freedom / 2 - 1) * math.log(half) - half - math.lgamma(freedom / 2)


def log_p_binomial(number: int, trials: int, share: float) -> float:
    """Returns log P(X ≥ number)."""
    return _log(special.betainc(number, trials - number + 1, share)) if number else 0.0


def log_p_poisson(number: int, expected: float) -> float:
    """Returns log P(X ≥ number)."""
    return _log(special.gammainc(number, expected)) if number else 0.0


def _log(probability: float) -> float:
    return math.log(max(float(probability), 1e-300))


def log_p_proportions(
    hits_a: int, num_a: int, hits_b: int, num_b: int, slack: float = 0.0
) -> float:
    """Returns log p of two proportions being at most `slack` apart, two-sided."""
    pooled = (hits_a + hits_b) / (num_a + num_b)
    variance = pooled * (1 - pooled) * (1 / num_a + 1 / num_b)
    apart = max(abs(hits_a / num_a - hits_b / num_b) - slack, 0.0)
    if variance <= 0 or apart == 0:
        return 0.0
    if min(pooled, 1 - pooled) * min(num_a, num_b) < 10 and not slack:
        # Too few for a normal law: given their number, how many of the rarer kind are in the table.
        if pooled > 0.5:
            hits_a, hits_b = num_a - hits_a, num_b - hits_b
        total, share = hits_a + hits_b, num_a / (num_a + num_b)
        tails = log_p_binomial(hits_a, total, share), log_p_binomial(hits_b, total, 1 - share)
        return min(min(tails) + math.log(2), 0.0)
    return float(math.log(2) + special.log_ndtr(-apart / math.sqrt(variance)))


def log_p_new_cells(reference: NDArray[np.int64], table: NDArray[np.int64]) -> float:
    """Returns log p of so many cells having rows of the table alone.

    A cell with c rows in both together has all of them in the table with probability ρᶜ, ρ = M / (N + M);
    the number of such cells is close to Poisson.
    """
    both = (reference + table)[reference + table > 0].astype(np.float64)
    number = int(((reference == 0) & (table > 0)).sum())
    if not number:
        return 0.0
    return log_p_poisson(number, float(((table.sum() / both.sum()) ** both).sum()))


def expected_repeats(
    counts: NDArray[np.int64], multiplicity: NDArray[np.int64], size: int
) -> float:
    """Returns how many of `size` rows repeat another, by the rarefaction of a reference.

    A distinct row with n copies among N is missing from a random part of M rows with probability
    C(N − n, M) / C(N, M). For M above N pairs of equal rows grow with the square of the size.

    Args:
        counts: numbers of copies that occur in the reference.
        multiplicity: how many distinct rows have each number of copies.
        size: M.

    References:
        Hurlbert. "The Nonconcept of Species Diversity" (Ecology 1971).
    """
    total = float((counts * multiplicity).sum())
    part = min(size, total)
    rest = np.maximum(total - counts - part, 0)
    log_absent = (
        special.gammaln(total - counts + 1) - special.gammaln(rest + 1)
        - special.gammaln(total + 1) + special.gammaln(total - part + 1)
    )  # fmt: skip
    absent = np.where(total - counts >= part, np.exp(log_absent), 0.0)
    repeats = part - float((multiplicity * (1 - absent)).sum())
    return min(max(repeats, 0.0) * (size / part) ** 2, float(size))
