"""Real classification problems with many classes: each example is a bag of features.

Classes are numbered by falling frequency in training, as log-uniform sampling and adaptive softmax need.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxml.data import cache, corpus, flights, gcide, geonames
from jaxml.features import hashed_ngrams

NAMES = ("geonames", "flights", "words")

_NUM_TEST = 20_000
_SEED = 2013


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Examples to learn from, and held-out ones.

    Attributes:
        name: of the data set.
        num_classes: C.
        num_features: rows of the feature table; this id marks an empty slot.
        bags: int32 [N, L], the features of all examples.
        labels: int32 [N] in [0, C).
        train: int64, the examples to learn from.
        test: int64, the held-out ones, in random order.
        counts: int64 [C], the occurrences of each class in training, falling.
        class_learning_rate: of gradient descent, tuned for an exact softmax and batches of 512.
    """

    name: str
    num_classes: int
    num_features: int
    bags: NDArray[np.int32]
    labels: NDArray[np.int32]
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    counts: NDArray[np.int64]
    class_learning_rate: float


def load(name: str, *, small: int | None = None, cache_dir: Path | None = None) -> Problem:
    """Returns one of the problems.

    - `geonames`: 1.16 million spellings of 234,908 places; features are hashed character n-grams.
    - `flights`: which of 4,043 aircraft flies? 334,264 departures from New York in 2013; features are
      carrier, flight number, route, date and hour, some of them crossed.
    - `words`: which of 84,827 words comes next? 3.7 million words of a dictionary; features are the three
      words before, each with its distance.

    Args:
        name: of `NAMES`.
        small: use only so many places, flights, or entries; None for all.
        cache_dir: directory for parsed data; None for the user's cache directory.
    """
    if name == "geonames":
        return _geonames(small, cache_dir)
    if name == "flights":
        return _flights(small)
    if name == "words":
        return _words(small, cache_dir)
    raise ValueError(f"problems must be among {NAMES}, got {name!r}")


def _geonames(small: int | None, cache_dir: Path | None) -> Problem:
    num_buckets, max_ngrams = 2**18, 48
    if small is None:
        names = geonames.load(cache_dir)
    else:
        cities = geonames.read_cities()
        few = {key: cities[key] for key in list(cities)[:small]}
        names = geonames.build(few, num_test=max(1, small // 4), num_validation=1)

    def hashed() -> NDArray[np.int32]:
        return hashed_ngrams(list(names.alias), num_buckets=num_buckets, max_ngrams=max_ngrams)

    if small is None:
        # The same cache entry as that of `experiments.geonames`.
        name = f"geonames-ngrams-{max_ngrams}-{num_buckets}"
        bags = cache.cached_array(name, hashed, cache_dir)
    else:
        bags = hashed()
    return _problem("geonames", num_buckets, bags, names.place, names.train, names.test.pairs)


def _flights(small: int | None) -> Problem:
    columns = ("carrier", "flight", "tailnum", "origin", "dest", "month", "day", "hour")
    table = flights.read_flights(columns)
    known = np.flatnonzero(table["tailnum"] != "")[:small]
    code = {
        name: np.unique(values[known], return_inverse=True)[1] for name, values in table.items()
    }
    crosses = (
        ("carrier",),
        ("carrier", "flight"),
        ("origin", "dest"),
        ("carrier", "origin", "dest"),
        ("carrier", "month"),
        ("carrier", "hour"),
        ("carrier", "month", "day"),
        ("carrier", "dest", "month"),
        ("carrier", "origin", "month", "day"),
    )
    bags, num_features = [], 0
    for cross in crosses:
        mixed = np.zeros(len(known), np.int64)
        for name in cross:
            mixed = mixed * (code[name].max() + 1) + code[name]
        values, feature = np.unique(mixed, return_inverse=True)
        bags.append(num_features + feature)
        num_features += len(values)
    order = np.random.Generator(np.random.PCG64(_SEED)).permutation(len(known))
    num_test = min(_NUM_TEST, len(known) // 4)
    return _problem(
        "flights",
        num_features,
        np.stack(bags, axis=1).astype(np.int32),
        code["tailnum"],
        np.sort(order[num_test:]),
        order[:num_test],
    )


def _words(small: int | None, cache_dir: Path | None) -> Problem:
    if small is None:
        text = gcide.load(cache_dir)
    else:
        text = corpus.build(list(itertools.islice(gcide.documents(), small)), held_out=0.1)
    labels = np.concatenate([text.train, text.test])
    num_features = 3 * text.num_words
    bags = np.full((len(labels), 3), num_features, np.int32)
    inside, before = np.ones(len(labels), bool), labels
    for distance in range(3):
        before = np.concatenate([[corpus.END], before[:-1]])
        bags[:, distance] = np.where(inside, distance * text.num_words + before, num_features)
        inside = inside & (before != corpus.END)  # What is farther away is another entry.
    num_train = len(text.train)
    order = np.random.Generator(np.random.PCG64(_SEED)).permutation(len(text.test))
    return _problem(
        "words",
        num_features,
        bags,
        labels,
        np.arange(num_train),
        num_train + order[: min(_NUM_TEST, len(order))],
    )


# The lowest loss of the exact softmax after 2,000 steps among 1.2, 2.4 and 4.8 (places; samplers become
# worse from 7.2 on) and among 0.15, 0.6 and 2.4 (aircraft, whose classes occur much more often). Of words
# 0.15 and 0.6 were compared, with the unigram sampler after 1,000 steps.
_CLASS_LEARNING_RATE = {"geonames": 4.8, "flights": 0.15, "words": 0.15}


def _problem(name, num_features, bags, labels, train, test) -> Problem:
    counts = np.bincount(labels[train], minlength=labels.max() + 1)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    test = np.random.Generator(np.random.PCG64(_SEED)).permutation(test)
    return Problem(
        name,
        len(order),
        num_features,
        bags,
        rank[labels],
        np.asarray(train),
        test,
        counts[order],
        _CLASS_LEARNING_RATE[name],
    )
