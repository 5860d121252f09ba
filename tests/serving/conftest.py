"""A tiny model of flights that every test of serving shares."""

import contextlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxml import features, models, serving
from jaxml.validation.schema import infer_schema

AIRPORTS = ["EWR", "JFK", "LGA"]


def _flights(num_rows=400, seed=0):
    """Raw columns, and the label `late`."""
    rng = np.random.default_rng(seed)
    columns = {
        "origin": rng.choice(AIRPORTS, num_rows),
        "distance": rng.integers(80, 5000, num_rows),
        "wind": np.where(rng.random(num_rows) < 0.1, np.nan, rng.gamma(2.0, 5.0, num_rows)),
        "hour": rng.integers(5, 24, num_rows),
    }
    late = np.nan_to_num(columns["wind"]) + columns["hour"] + rng.normal(0, 3, num_rows) > 26
    return columns, late.astype(np.int64)


def _pipeline(columns):
    return features.FeaturePipeline(
        {
            "origin": features.vocabulary(),
            "distance": [features.log_scaling(), features.z_score()],
            "wind": [features.imputation("mean"), features.z_score()],
            "wind is missing": ("wind", features.missing_indicator()),
            "hour": features.bucketize([9, 13, 18]),
        }
    ).fit(columns)


def _make_bundle(path, columns, *, seed=0, name="flights", **options):
    """Writes a bundle of a small network with random parameters."""
    pipeline = _pipeline(columns)
    module = models.TabularMLP(pipeline.id_sizes, 2, (8,), 1)
    dense, ids = pipeline.stack(pipeline(columns))
    params = module.init(jax.random.key(seed), {"dense": dense[:2], "ids": ids[:2]})

    def predict(variables, x):
        return {"probability": jax.nn.sigmoid(module.apply(variables, x)[..., 0])}

    serving.save(
        path,
        model=predict,
        params=params,
        pipeline=pipeline,
        schema=infer_schema(columns),
        training=columns,
        name=name,
        max_batch=8,
        **options,
    )
    return lambda given: np.asarray(
        predict(params, dict(zip(("dense", "ids"), pipeline.stack(pipeline(given)), strict=True)))[
            "probability"
        ]
    )


def _logistic(columns, late, *, strength=1.0):
    """Arguments of `serving.save` for a logistic regression; with strength 0 it knows nothing."""
    pipeline = _pipeline(columns)
    dense, ids = pipeline.stack(pipeline(columns))
    fitted = LogisticRegression().fit(np.hstack([dense, ids]), late)
    params = {
        "kernel": fitted.coef_[0].astype(np.float32),
        "bias": np.float32(fitted.intercept_[0]),
    }
    params["kernel"] *= strength

    def predict(variables, x):
        inputs = jnp.concatenate([x["dense"], x["ids"].astype(jnp.float32)], axis=1)
        # A sum of products, so that a row has one answer to the last bit in any batch.
        logits = (inputs * variables["kernel"][None]).sum(1) + variables["bias"]
        return {"probability": jax.nn.sigmoid(logits)}

    return {
        "model": predict,
        "params": params,
        "pipeline": pipeline,
        "schema": infer_schema(columns),
        "training": columns,
        "name": "flights",
        "max_batch": 8,
    }


@pytest.fixture(scope="session")
def flights():
    """`flights(num_rows, seed)` returns raw columns and labels."""
    return _flights


@pytest.fixture(scope="session")
def make_bundle():
    """`make_bundle(path, columns, seed=…, **options)` writes a bundle and returns its model's answers."""
    return _make_bundle


@pytest.fixture(scope="session")
def logistic():
    """`logistic(columns, labels, strength=…)` returns `serving.save`'s arguments for a fit."""
    return _logistic


@pytest.fixture(scope="session")
def columns():
    """400 rows of raw columns."""
    return _flights()[0]


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory, columns, make_bundle):
    """A bundle on disk; tests that change it copy it first."""
    path = tmp_path_factory.mktemp("bundle") / "flights"
    make_bundle(path, columns)
    return path


@pytest.fixture(scope="session")
def bundle(bundle_path):
    """The bundle, loaded."""
    return serving.load(bundle_path)


@contextlib.contextmanager
def _running(path, **options):
    """Serves a store or bundle in a thread; yields its URL and the `Service`."""
    import uvicorn

    from jaxml.serving.server import Options, Service, configured

    ready = threading.Event()
    service = Service(path, Options(**options), lambda error: error or ready.set())
    config = configured(service)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(60)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", service
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="session")
def running():
    """`with running(path, **options) as (url, service)` serves a store or bundle in a thread."""
    return _running


@pytest.fixture(scope="session")
def url(bundle_path, running):
    """Where the bundle is served."""
    with running(bundle_path) as (place, _):
        yield place
