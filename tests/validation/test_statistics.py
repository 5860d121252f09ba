"""Whether a table is drawn from where the reference was."""

import pickle

import numpy as np
import pytest
from scipy import special, stats
from sklearn import datasets

from jaxml.validation import two_samples
from jaxml.validation.statistics import find_changes, generate_statistics


def population(rows, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    group = rng.choice(["a", "b", "c", "d"], rows, p=[0.4, 0.3, 0.2, 0.1])
    day = np.datetime64("2013-01-01") + (rng.integers(0, 364, rows)).astype("m8[D]")
    hour = rng.choice([6, 12, 18], rows)
    return {
        "x": x,
        "y": x + rng.normal(size=rows),
        "group": group,
        "name": np.char.add(group, (rng.zipf(1.5, rows) % 500).astype(str)),
        "gaps": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(0, 9, rows)),
        "flag": rng.random(rows) < np.where(group == "a", 0.7, 0.2),
        "when": day.astype("M8[h]") + hour.astype("m8[h]"),
    }


@pytest.fixture(scope="module")
def reference():
    return generate_statistics(population(20_000, 0))


def test_false_alarms_are_as_rare_as_promised(reference):
    """Of 50 tables at most 10 are to be accused at a significance of 0.2; 20 or more in one run of 1000."""
    accused = {0.01: 0, 0.2: 0}
    pool = population(50 * 1000, 1)
    for i in range(50):
        table = {name: values[1000 * i : 1000 * (i + 1)] for name, values in pool.items()}
        for significance in accused:
            found = find_changes(table, reference, significance=significance)
            accused[significance] += bool(found)
    assert accused[0.2] <= 19 and accused[0.01] <= 4


def some(rng, share, new, old):
    return np.where(rng.random(len(old)) < share, new, old)


DAMAGE = {
    "shuffled": ("y", lambda v, r: r.permutation(v), "ASSOCIATION_CHANGED", "xy"),
    "moved": ("x", lambda v, r: v + 0.3, "DISTRIBUTION_CHANGED", "x"),
    "gaps": ("gaps", lambda v, r: some(r, 0.05, np.nan, v), "MISSING_RATE_CHANGED", ["gaps"]),
    "no gaps": ("gaps", lambda v, r: np.nan_to_num(v), "MISSING_RATE_CHANGED", ["gaps"]),
    "all gaps": ("y", lambda v, r: np.full(len(v), None), "MISSING_RATE_CHANGED", "y"),
    "padded": ("name", lambda v, r: some(r, 0.02, v + " ", v), "UNSEEN_VALUES", ["name"]),
    "new": ("group", lambda v, r: some(r, 0.01, "e", v), "UNSEEN_VALUES", ["group"]),
    "negated": ("flag", lambda v, r: ~v, "DISTRIBUTION_CHANGED", ["flag"]),
    "flipped": ("flag", lambda v, r: v ^ (r.random(len(v)) < 0.15), None, ["flag", "group"]),
    "zone": ("when", lambda v, r: v + np.timedelta64(3, "h"), "DISTRIBUTION_CHANGED", ["when"]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_by_kind_and_place(reference, name):
    column, change, kinds, columns = DAMAGE[name]
    rng = np.random.default_rng(7)
    table = population(3000, 1234)
    assert find_changes(table, reference) == []
    found = find_changes({**table, column: change(table[column], rng)}, reference)
    assert found
    assert {a.column for a in found} <= set(columns)
    if kinds is not None:
        assert kinds in {a.kind for a in found}
    for each in found:
        assert 0 <= each.share <= 1 and str(each) and (each.rows < 3000).all()


def test_rows_that_are_there_twice_or_were_in_the_reference(reference):
    known, table = population(20_000, 0), population(3000, 99)
    twice = {k: np.concatenate([v, v[:40]]) for k, v in table.items()}
    (found,) = find_changes(twice, reference)
    assert found.kind == "DUPLICATE_ROWS" and found.rows.tolist() == list(range(3000, 3040))
    mixed = {k: np.concatenate([v, known[k][:200]]) for k, v in table.items()}
    (found,) = find_changes(mixed, reference)
    assert found.kind == "SHARED_ROWS" and (found.rows >= 3000).all()
    assert found.share == pytest.approx(200 / 3200, abs=0.04)


def test_differences_between_spans_are_tolerated():
    def span(month, rows, damage=False):
        rng = np.random.default_rng([month, 5])
        season = np.sin(month)
        x = rng.normal(season, 1, rows)
        y = rng.permutation(x) if damage else x + rng.normal(0, 0.3, rows)
        name = np.char.add("n", (rng.integers(0, 300, rows) + 10 * month).astype(str))
        return {"x": x, "y": y, "name": name, "month": np.full(rows, month)}

    months = [span(month, 2000) for month in range(8)]
    known = {k: np.concatenate([m[k] for m in months]) for k in months[0]}
    strict = generate_statistics(known)
    lenient = generate_statistics(known, spans=known["month"])
    assert find_changes(span(8, 2000), strict)
    assert find_changes(span(8, 2000), lenient) == []
    found = find_changes(span(8, 2000, damage=True), lenient)
    assert "ASSOCIATION_CHANGED" in {a.kind for a in found}
    with pytest.raises(ValueError, match="at least two spans"):
        generate_statistics(known, spans=np.zeros(16_000))
    with pytest.raises(ValueError, match="3 of 'spans'"):
        generate_statistics(known, spans=[1, 2, 3])


def test_kept_statistics_find_the_same(reference):
    loaded = pickle.loads(pickle.dumps(reference))
    table = population(2000, 3)
    table["x"] = table["x"] + 0.6
    found = [[str(a) for a in find_changes(table, each)] for each in (reference, loaded)]
    assert found[0] == found[1] != []


def test_tails_are_those_of_the_textbook():
    for freedom in (2, 30, 900):
        terms = np.arange(freedom // 2)
        for statistic in (0.1, 5.0, 100.0, 1500.0, 4000.0):
            half = statistic / 2  # For even degrees of freedom the tail is that of a Poisson.
            wanted = special.logsumexp(terms * np.log(half) - special.gammaln(terms + 1)) - half
            found = two_samples.log_p_chi_square(statistic, freedom)
            assert found == pytest.approx(wanted, rel=0.01, abs=1e-6)
    # Two-sample z-test of 30/100 and 45/100: z = 2.1909.
    proportions = two_samples.log_p_proportions
    assert proportions(30, 100, 45, 100) == pytest.approx(np.log(0.02846), abs=1e-3)
    assert proportions(0, 10, 0, 10) == proportions(1, 10, 1, 10) == 0
    binomial, poisson = stats.binom.logsf(2, 20, 0.1), stats.poisson.logsf(2, 2.5)
    assert two_samples.log_p_binomial(3, 20, 0.1) == pytest.approx(binomial)
    assert two_samples.log_p_poisson(3, 2.5) == pytest.approx(poisson)
    assert two_samples.log_p_binomial(0, 20, 0.1) == two_samples.log_p_poisson(0, 2.5) == 0


def names(number):
    return np.array([f"name {i}" for i in range(number)], object)


def zipf(number, power):
    weights = np.arange(1, number + 1.0) ** -power
    return weights / weights.sum()


def cities(rng, rows):
    place = rng.integers(0, 800, rows)
    return {"city": names(800)[place], "region": names(90)[place // 9], "x": rng.normal(size=rows)}


def unique(rng, rows):
    person = rng.integers(0, 4 * rows, rows)
    return {"name": names(4 * rows)[person], "age": person % 80, "y": person + 0.5}


def long_tail(rng, rows):
    few = rng.choice(names(127), rows, p=zipf(127, 0.7))
    return {"many": rng.choice(names(3000), rows, p=zipf(3000, 1.1)), "few": few}


def rare(rng, rows):
    share = [0.6, 0.3, 0.09, 0.008, 0.0015, 0.0005]
    return {name: rng.choice(names(6), rows, p=share) for name in "abcd"}


def integers(rng, rows):
    return {
        "a": rng.integers(0, 100, rows),
        "b": rng.integers(0, 140, rows),
        "c": rng.poisson(3, rows),
    }


def ties(rng, rows):
    spike = np.where(rng.random(rows) < 0.7, 0, rng.exponential(size=rows))
    return {"a": spike, "b": np.round(rng.normal(size=rows), 1), "c": np.minimum(spike, 1)}


def functions(rng, rows):
    x = rng.normal(size=rows)
    near = x + 0.01 * rng.normal(size=rows)
    return {"x": x, "down": -x, "up": np.exp(x), "near": near, "far": x + rng.normal(size=rows)}


def gaps(rng, rows):
    draw = rng.random(rows)
    share = {"a": 0.5, "b": 0.1, "c": 0.02, "d": 0.001, "e": 0.9}
    return {k: np.where(draw < v, np.nan, rng.normal(size=rows)) for k, v in share.items()}


def flags(rng, rows):
    return {f"flag {i}": rng.random(rows) < p for i, p in enumerate((0.5, 0.1, 0.01, 0.001, 0.999))}


def dates(rng, rows):
    day = np.datetime64("2020-01-01") + rng.integers(0, 700, rows).astype("m8[D]")
    return {"day": day, "text": day.astype(str).astype(object), "g": rng.choice(names(3), rows)}


def combinations(rng, rows):
    return {"a": rng.integers(0, 8, rows), "b": rng.choice(names(3), rows)}


def wide(rng, rows):
    texts = {f"text {i}": rng.choice(names(3 + 3 * i), rows) for i in range(6)}
    return texts | {f"number {i}": rng.normal(size=rows) for i in range(6)}


POPULATIONS = (
    cities, unique, long_tail, rare, integers, ties, functions, gaps, flags, dates, combinations, wide,
)  # fmt: skip


def num_accused(draw, draws, significance):
    """Two random parts of one population, of equal and of unequal sizes."""
    accused = 0
    for known, given in ((1000, 1000), (1000, 100), (60, 60), (200, 1500)):
        for i in range(draws):
            table = draw(np.random.default_rng([i, known, given]), known + given)
            kept = generate_statistics({k: v[:known] for k, v in table.items()})
            rest = {k: v[known:] for k, v in table.items()}
            accused += bool(find_changes(rest, kept, significance=significance))
    return accused


@pytest.mark.parametrize("draw", POPULATIONS)
def test_tables_of_one_population_are_not_accused(draw):
    """Of 12 at a significance of 0.2, 8 or more are accused once in 1,700 runs."""
    assert num_accused(draw, 3, 0.2) <= 7


@pytest.mark.slow
@pytest.mark.parametrize("draw", POPULATIONS)
def test_accusations_are_as_rare_as_promised(draw):
    """Of 200: 1 % is 2, and 9 or more once in 4,000 runs; 20 % is 40, and 60 or more once in 2,000."""
    assert num_accused(draw, 50, 0.01) <= 8
    assert num_accused(draw, 50, 0.2) <= 59


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_halves_of_real_tables_are_not_accused(name):
    """With names and dates that occur once. Of 20 halves at 0.2, 12 are accused once in 10,000 runs."""
    data = getattr(datasets, f"load_{name}")()
    table = {f"{i}": column for i, column in enumerate(data.data.T[:8])}
    size = len(data.target)
    day = np.datetime64("2001-01-01") + np.arange(size).astype("m8[D]")
    table |= {"target": data.target, "name": names(size), "day": day, "text": day.astype(str)}
    accused = 0
    for share in (0.5, 0.8):
        for seed in range(10):
            order = np.random.default_rng(seed).permutation(size)
            known, rest = np.split(order, [int(share * size)])
            kept = generate_statistics({k: v[known] for k, v in table.items()})
            rest = {k: v[rest] for k, v in table.items()}
            accused += bool(find_changes(rest, kept, significance=0.2))
    assert accused <= 11


def test_a_quarter_of_many_equally_frequent_texts_that_become_more_frequent_is_found():
    weights = np.where(np.arange(800) < 200, 1.6, 1.0)
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        kept = generate_statistics({"city": rng.choice(names(800), 8000)})
        moved = rng.choice(names(800), 8000, p=weights / weights.sum())
        found += [each.kind for each in find_changes({"city": moved}, kept)]
    assert found.count("DISTRIBUTION_CHANGED") >= 8


def test_a_rare_text_does_not_hide_how_the_frequent_ones_go_with_others():
    rng = np.random.default_rng(0)

    def sample(shuffle):
        sex = rng.choice(["m", "f"], 1000)
        height = rng.normal(np.where(sex == "m", 1.8, 1.6), 0.1)
        sex = rng.permutation(sex) if shuffle else sex
        return {"sex": np.append(sex, "unknown"), "height": np.append(height, 1.7)}

    kept = generate_statistics(sample(False))
    assert find_changes(sample(False), kept) == []
    (found,) = find_changes(sample(True), kept)
    assert found.kind == "ASSOCIATION_CHANGED"


def test_rows_that_come_in_periods_are_counted_alike():
    hour = np.arange(2400) % 24
    table = {"hour": hour, "load": hour % 8 + np.random.default_rng(0).normal(size=2400)}
    kept = generate_statistics({k: v[:1200] for k, v in table.items()})
    assert find_changes({k: v[1200:] for k, v in table.items()}, kept) == []


def test_a_table_in_float32_has_the_values_of_its_reference():
    rng = np.random.default_rng(0)
    table = {"a": rng.choice([0.1, 0.2, 0.7, 1e-9], 2000), "b": np.round(rng.normal(size=2000), 1)}
    kept = generate_statistics({k: v[:1000] for k, v in table.items()})
    for dtype in (np.float32, np.float64):
        assert find_changes({k: v[1000:].astype(dtype) for k, v in table.items()}, kept) == []


@pytest.mark.parametrize("sizes", [(1000, 300), (300, 1000), (1000, 1000), (200, 5000)])
@pytest.mark.parametrize("distinct", [24, 3000, 100_000])
def test_repeated_rows_saturate_and_their_number_is_estimated(sizes, distinct):
    """Of 25 references, four more than a hundredth would be one run in 10,000."""
    rng = np.random.default_rng(0)
    accused = 0
    for _ in range(25):
        known, given = ({"x": rng.integers(0, distinct, size)} for size in sizes)
        kinds = {each.kind for each in find_changes(given, generate_statistics(known))}
        accused += not kinds.isdisjoint({"DUPLICATE_ROWS", "SHARED_ROWS"})
    assert accused <= 3


def test_few_repeated_rows_are_found_in_a_small_batch():
    rng = np.random.default_rng(0)
    kept = generate_statistics(unique(rng, 1000) | {"z": rng.normal(size=1000)})
    batch = unique(rng, 300) | {"z": rng.normal(size=300)}
    batch["name"] = rng.choice(names(4000), 300)
    batch = {k: np.concatenate([v, v[:6]]) for k, v in batch.items()}
    found = [each for each in find_changes(batch, kept) if each.kind == "DUPLICATE_ROWS"]
    assert [each.rows.tolist() for each in found] == [list(range(300, 306))]


def test_expected_repeats_are_those_of_random_parts():
    rng = np.random.default_rng(0)
    whole = rng.zipf(1.6, 4000) % 5000
    counts = np.unique(np.unique(whole, return_counts=True)[1], return_counts=True)
    for size in (10, 300, 2000, 4000):
        parts = [rng.choice(whole, size, replace=False) for _ in range(200)]
        repeats = np.mean([size - len(np.unique(part)) for part in parts])
        found = two_samples.expected_repeats(*counts, size)
        assert found == pytest.approx(repeats, rel=0.02, abs=0.3)


def test_small_and_strange_tables_go_through(reference):
    table = population(3000, 5)
    none = {k: v[:0] for k, v in table.items()}
    assert find_changes(none, reference) == []
    assert find_changes({k: v[:1] for k, v in table.items()}, reference) == []
    assert find_changes({}, reference) == []
    # Left to the schema.
    assert find_changes({**table, "x": table["x"].astype(str)}, reference) == []
    assert find_changes({k: v for k, v in table.items() if k != "x"}, reference) == []
    empty = generate_statistics(none)
    assert find_changes(table, empty) == []
    odd = {"v": np.array([np.inf, -np.inf, np.nan, 0.0] * 50), "n": np.full(200, None)}
    assert find_changes(odd, generate_statistics(odd), significance=1e-9) is not None
    with pytest.raises(ValueError, match="significance"):
        find_changes(table, reference, significance=0)
    with pytest.raises(ValueError, match=r"statistics must be what .*, got dict"):
        find_changes(table, table)
    with pytest.raises(ValueError, match="'spans' must be one-dimensional"):
        generate_statistics(table, spans="month")
    with pytest.raises(ValueError, match="INT 1 in row 0, BYTES"):
        generate_statistics({"a": [1, "x"]})
