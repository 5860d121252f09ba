"""The data set: aliases as bags of hashed n-grams."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.geonames.config import Config
from jaxml import features
from jaxml.data import cache, geonames

EXAMPLE_QUERIES = (
    "Muenchen",
    "Мюнхен",
    "Munich",
    "Nueva York",
    "東京",
    "Sankt-Peterburg",
    "Lisbona",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Aliases:
    """The data set and the n-gram ids of every alias, `[num_pairs, max_ngrams]`.

    For a student also what it is taught of every training alias: places `[num_train, k]` and their
    probabilities; None to learn the labels alone.
    """

    names: geonames.GeoNames
    ngrams: np.ndarray
    taught: tuple[np.ndarray, np.ndarray] | None = None


def pipeline(config: Config) -> features.FeaturePipeline:
    """Returns the feature of a name, the same in training and in answers; it learns nothing from data."""
    ngrams = features.character_ngrams(config.num_buckets, config.max_ngrams)
    return features.FeaturePipeline({"name": ngrams}).fit({"name": EXAMPLE_QUERIES})


def hashed(config: Config, aliases: Sequence[str]) -> np.ndarray:
    """Returns the n-gram ids of aliases."""
    return pipeline(config).encode({"name": aliases})["name"]


def load_names(config: Config) -> geonames.GeoNames:
    """Returns all places, or for a quick look the first few, with a held-out share to match."""
    if config.num_places is None:
        return geonames.load()
    cities = geonames.read_cities()
    few = {key: cities[key] for key in list(cities)[: config.num_places]}
    held_out = max(1, config.num_places // 12)
    return geonames.build(few, num_test=held_out, num_validation=max(1, held_out // 4))


def load_aliases(config: Config) -> Aliases:
    """Returns data and n-gram ids; the ids of the whole data set are cached on disk."""
    names = load_names(config)
    if config.num_places is not None:
        return Aliases(names, hashed(config, list(names.alias)))
    name = f"geonames-ngrams-{config.max_ngrams}-{config.num_buckets}"
    ids = cache.cached_array(name, lambda: hashed(config, list(names.alias)))
    return Aliases(names, ids)
