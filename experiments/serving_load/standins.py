"""Small models in place of those of the experiments, for a first look: random parameters, real columns."""

from pathlib import Path

import jax
import numpy as np

from jaxml import features, models, serving, softmax, tables
from jaxml.data import flights
from jaxml.validation.schema import infer_schema

_TEXTS = ("carrier", "origin", "dest", "tailnum")
_NUMBERS = (
    "month", "day", "sched_dep_time", "sched_arr_time", "dep_delay", "flight", "air_time", "distance",
    "hour", "minute",
)  # fmt: skip
_FLIGHTS = 20_000
_PLACES, _DIM = 5, 64


def of_flights(path: Path) -> None:
    """Writes a bundle of a network on fourteen columns of the flights."""
    some = slice(None, None, 336_776 // _FLIGHTS)
    read = {name: v[some] for name, v in flights.read_flights((*_TEXTS, *_NUMBERS)).items()}
    columns = {name: read[name].astype(object) for name in _TEXTS}
    columns |= {
        name: np.where(read[name] == "", "nan", read[name]).astype(float) for name in _NUMBERS
    }
    chains: dict[str, features.pipeline.Spec] = {name: features.vocabulary() for name in _TEXTS}
    chains |= {name: [features.imputation("median"), features.z_score()] for name in _NUMBERS}
    pipeline = features.FeaturePipeline(chains).fit(columns)
    module = models.TabularMLP(pipeline.id_sizes, 8, (256, 128), 1)
    dense, ids = pipeline.stack(pipeline({name: v[:2] for name, v in columns.items()}))

    def predict(params, x):
        return {"probability": jax.nn.sigmoid(module.apply(params, x)[..., 0])}

    serving.save(
        path,
        model=predict,
        params=module.init(jax.random.key(0), {"dense": dense, "ids": ids}),
        pipeline=pipeline,
        schema=infer_schema(columns),
        training=columns,
        name="flights",
    )


def of_places(path: Path) -> None:
    """Writes a bundle that answers the names of airports with five places and their scores."""
    columns = {"name": flights.read_airports(["name"])["name"].astype(object)}
    pipeline = features.FeaturePipeline({"name": features.character_ngrams(2**14, 48)}).fit(columns)
    first, second = jax.random.split(jax.random.key(0))

    def predict(params, x):
        inputs = models.unit_norm(tables.gather_bags(params["ngrams"], x["ids"]))
        places = models.unit_norm(params["places"])
        scores, ids = softmax.top_k(inputs, places, k=_PLACES, block_size=2**16)
        return {"place": ids, "score": scores}

    serving.save(
        path,
        model=predict,
        params={
            "ngrams": jax.random.normal(first, (2**14, _DIM)),
            "places": jax.random.normal(second, (len(columns["name"]), _DIM)),
        },
        pipeline=pipeline,
        schema=infer_schema(columns),
        training=columns,
        name="geonames",
        labels={"place": columns["name"].tolist()},
    )
