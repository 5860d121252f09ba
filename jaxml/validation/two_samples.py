"""Tests of two samples being of one population. Each returns a log p-value, since many are below 1e-300."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

# Cells with fewer rows to be expected on the smaller side are pooled.
_FEWEST = 5


def is_rare(both: NDArray[np.int64], num_a: float, num_b: float) -> NDArray[np.bool_]:
    """Returns which of the counts of two samples together are too small for a cell of its own."""
    return both * (min(num_a, num_b) / (num_a + num_b)) < _FEWEST


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


def log_p_negative_binomial(number: int, expected: float, size: float) -> float:
    """Returns log P(X ≥ number) of a Poisson number whose rate is known from `size` others like it.

    Its variance is μ + μ²/size for the mean μ.
    """
    return _log(special.betainc(number, size, expected / (expected + size))) if number else 0.0


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
    copies: NDArray[np.int64], multiplicity: NDArray[np.int64], size: int
) -> float:
    """Returns how many of `size` rows repeat another, by the rarefaction of a reference.

    A distinct row with n copies among N has Mn/N among M rows, and is missing with probability
    (1 − M/N)ⁿ. For M above N pairs of equal rows grow with the square of the size.

    Args:
        copies: numbers of copies that occur in the reference.
        multiplicity: how many distinct rows have each number of copies.
        size: M.

    References:
        Hurlbert. "The Nonconcept of Species Diversity" (Ecology 1971).
    """
    ratio = size / float((copies * multiplicity).sum())
    part = min(ratio, 1.0)
    repeats = (multiplicity * (copies * part - 1 + (1 - part) ** copies)).sum()
    return float(min(repeats * (ratio / part) ** 2, size))


def log_p_repeats(
    number: int, copies: NDArray[np.int64], multiplicity: NDArray[np.int64], size: int
) -> float:
    """Returns log p of so many of `size` rows repeating another, given the reference's repeats.

    Its arguments are those of `expected_repeats`. The law is a negative binomial, whose variance is that
    of the table's number and of the reference's estimate together: both are numbers of rows less numbers
    of distinct rows. It is estimated as the expectation is, without bias for Poisson numbers of copies,
    less what the numbers of rows being given takes away. One pair more than was seen may well exist.
    """
    total = float((copies * multiplicity).sum())
    part = min(size / total, 1.0)
    n, of_each = np.append(copies, 2), np.append(multiplicity, 1)
    absent, again = (1 - part) ** n, part * n * (1 - (1 - part) ** (n - 1))
    variance = (1 + part) * (2 * again - part * n) + absent + absent**2 - 2 * (1 - 2 * part) ** n
    mean = (of_each * (n * part - 1 + absent)).sum()
    given = (of_each * again).sum() ** 2 * (1 + 1 / part) / total
    spread = max((of_each * variance).sum() - given - mean, part**4)
    grown = max(size / total, 1.0) ** 2
    return log_p_negative_binomial(number, float(mean * grown), float(mean**2 / spread))
