"""Every streaming metric equals its one-call form: merged in any order, under vmap, scan and sharded."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import metrics
from jaxml.metrics import streaming

rng = np.random.default_rng(0)
N = 240  # four batches of 60: one compiled update a metric


def binary():
    labels = rng.random(N) < 0.3
    scores = 1 / (1 + np.exp(-(rng.normal(size=N) * 2 + labels)))
    return labels.astype(np.int32), np.round(scores, 2).astype(np.float32)


def classes():
    labels, scores = rng.integers(0, 5, N), rng.normal(size=(N, 5)).round(1)
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return labels.astype(np.int32), p.astype(np.float32)


def values():
    labels = rng.normal(size=N) * 3 + 100
    return labels.astype(np.float32), (labels + rng.standard_t(2, N)).astype(np.float32)


# name -> (streaming metric, one-call form, data, tolerance)
TABLE = {
    "accuracy": (streaming.accuracy(), metrics.accuracy, binary, 1e-6),
    "accuracy of classes": (streaming.accuracy(), metrics.accuracy, classes, 1e-6),
    "precision": (streaming.precision(), metrics.precision, binary, 1e-6),
    "recall": (
        streaming.recall(0.25),
        functools.partial(metrics.recall, threshold=0.25),
        binary,
        1e-6,
    ),
    "fpr": (streaming.false_positive_rate(), metrics.false_positive_rate, binary, 1e-6),
    "f_beta": (streaming.f_beta(2.0), functools.partial(metrics.f_beta, beta=2.0), binary, 1e-6),
    "confusion_matrix": (streaming.confusion_matrix(5), metrics.confusion_matrix, classes, 1e-4),
    "confusion_counts": (streaming.confusion_counts(), metrics.confusion_counts, binary, 1e-4),
    "top_k": (
        streaming.top_k_accuracy(2),
        functools.partial(metrics.top_k_accuracy, k=2),
        classes,
        1e-6,
    ),
    # Scores of two decimals have a bin each, so that even the areas are exact.
    "roc_auc": (streaming.roc_auc(), metrics.roc_auc, binary, 2e-6),
    "average_precision": (streaming.average_precision(), metrics.average_precision, binary, 2e-6),
    "log_loss": (streaming.log_loss(), metrics.log_loss, binary, 1e-5),
    "log_loss of classes": (streaming.log_loss(), metrics.log_loss, classes, 1e-5),
    "brier": (streaming.brier(), metrics.brier, binary, 1e-6),
    "brier of classes": (streaming.brier(), metrics.brier, classes, 1e-6),
    "prediction_bias": (streaming.prediction_bias(), metrics.prediction_bias, binary, 1e-6),
    "ece": (streaming.calibration_error(), metrics.calibration_error, classes, 1e-5),
    "mse": (streaming.mean_squared_error(), metrics.mean_squared_error, values, 1e-4),
    "rmse": (streaming.root_mean_squared_error(), metrics.root_mean_squared_error, values, 1e-5),
    "mae": (streaming.mean_absolute_error(), metrics.mean_absolute_error, values, 1e-5),
}
assert {name for name in streaming.__all__} - {
    "Accumulator", "BoundedAuc", "roc_auc_with_bound", "roc_curve", "precision_recall_curve",
    "threshold_counts", "reliability_diagram",
} <= {m.__name__ for m in vars(streaming).values() if callable(m)}  # fmt: skip


def leaves(value):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])


def batches(parts):
    return [[part[i : i + 60] for part in parts] for i in range(0, N, 60)]


@pytest.mark.parametrize("name", TABLE)
def test_the_value_is_that_of_the_one_call_form_in_any_order_of_merging(name):
    metric, exact, make, tolerance = TABLE[name]
    labels, scores = make()
    weights = rng.choice([0.5, 1.0, 2.0], N).astype(np.float32)
    mask = rng.random(N) < 0.8
    # What the mask takes out holds the worst there is.
    bad_scores = np.where(mask.reshape(-1, *(1,) * (scores.ndim - 1)), scores, np.nan)
    bad_labels = np.where(mask.reshape(-1, *(1,) * (labels.ndim - 1)), labels, -7)
    bad_weights = np.where(mask, weights, np.nan)
    wanted = exact(labels, scores, weights=weights, mask=mask)
    states = [
        metric.update(metric.empty(), *batch)
        for batch in batches((bad_labels, bad_scores, bad_weights, mask))
    ]
    one, two, three, four = states
    forward = metric.merge(metric.merge(metric.merge(one, two), three), four)
    backward = metric.merge(four, metric.merge(three, metric.merge(two, one)))
    got = metric.compute(forward)
    np.testing.assert_allclose(leaves(got), leaves(wanted), atol=tolerance, rtol=tolerance)
    # Counts, and weights of few bits, are integers (of a sort): the same to the bit in any order.
    if make in (binary, classes) and "loss" not in name and "brier" not in name:
        if name not in ("ece", "prediction_bias"):
            np.testing.assert_array_equal(leaves(forward), leaves(backward))
    np.testing.assert_allclose(leaves(metric.compute(backward)), leaves(got), atol=1e-6, rtol=1e-6)
    # An elementwise sum merges as well, to float32.
    added = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *states)
    np.testing.assert_allclose(
        leaves(metric.compute(added)), leaves(got), atol=1e-4 if make is values else 1e-5, rtol=1e-5
    )
    # Nothing at all changes nothing, to the bit, and alone is NaN or zeros.
    again = metric.merge(forward, metric.empty())
    np.testing.assert_array_equal(leaves(again), leaves(forward))
    assert all(np.isnan(v) or v == 0 for v in leaves(metric.compute(metric.empty())))
    # A row out of place that nothing masks is NaN, not a wrong figure.
    broken = metric.update(
        one, bad_labels[:60] * 0, bad_scores[:60] * np.nan, bad_weights[:60], mask[:60]
    )
    assert np.isnan(leaves(metric.compute(broken))).all()


SOME = ["roc_auc", "accuracy"]


@pytest.mark.parametrize("name", SOME)
def test_vmap_and_scan(name):
    metric, exact, make, _ = TABLE[name]
    data = [jnp.asarray(np.stack(part)) for part in zip(*batches(make()), strict=True)]
    each = jax.vmap(lambda y, s: metric.compute(metric.update(metric.empty(), y, s)))(*data)
    loop = [metric.compute(metric.update(metric.empty(), y, s)) for y, s in zip(*data, strict=True)]
    np.testing.assert_allclose(each, loop, atol=1e-6)
    scanned = jax.jit(
        lambda data: jax.lax.scan(
            lambda state, batch: (metric.update(state, *batch), None), metric.empty(), data
        )[0]
    )(data)
    flat = [np.reshape(part, (-1, *part.shape[2:])) for part in data]
    np.testing.assert_allclose(metric.compute(scanned), exact(*flat), atol=2e-6)


def test_shapes_are_checked_when_traced():
    metric = streaming.roc_auc()
    with pytest.raises(
        ValueError, match=r"scores must have the shape of labels, \(2,\); got \(3,\)"
    ):
        metric.update(metric.empty(), jnp.zeros(2), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"weights must have shape \(2,\); got \(1,\)"):
        metric.update(metric.empty(), jnp.zeros(2), jnp.zeros(2), jnp.zeros(1))
    with pytest.raises(ValueError, match=r"mask must have shape \(2,\); got \(1,\)"):
        metric.update(metric.empty(), jnp.zeros(2), jnp.zeros(2), mask=jnp.zeros(1))


def test_a_batch_of_any_shape_dtype_and_of_nothing():
    metric = streaming.accuracy()
    for dtype in (jnp.bfloat16, jnp.float16, np.float64):
        y, s = np.array([[0, 1], [1, 0]]), np.array([[0.25, 0.5], [0.25, 0.75]])
        state = metric.update(metric.empty(), y.astype(bool), jnp.asarray(s.astype(dtype)))
        assert metric.compute(state) == 0.5
    state = metric.update(state, jnp.zeros((0, 3), int), jnp.zeros((0, 3)))
    assert metric.compute(state) == 0.5


def test_a_mask_of_zeros_and_ones_is_a_mask_and_other_numbers_are_none():
    metric, y, s = streaming.accuracy(), jnp.array([0, 1, 7]), jnp.array([0.2, 0.1, jnp.nan])
    for mask, wanted in (([1, 1, 0], 0.5), ([1.0, 1.0, 0.0], 0.5), ([2, 1, 0], np.nan)):
        state = metric.update(metric.empty(), y, s, mask=jnp.array(mask))
        np.testing.assert_equal(float(metric.compute(state)), wanted)


def test_integers_do_not_wrap():
    """Ids of 8 bits beside 256 classes, and of 64 bits beyond 32."""
    scores = jnp.zeros((3, 256)).at[:, 200].set(1.0)
    for metric, wanted in (
        (streaming.log_loss(from_logits=True), metrics.log_loss),
        (streaming.top_k_accuracy(1), metrics.accuracy),
    ):
        for dtype in (jnp.uint8, jnp.int16):
            ids = jnp.array([1, 200, 2], dtype)
            got = metric.compute(metric.update(metric.empty(), ids, scores))
            options = {"from_logits": True} if wanted is metrics.log_loss else {}
            assert float(got) == pytest.approx(wanted(ids, scores, **options), rel=1e-5)
    state = metric.update(metric.empty(), np.array([2**32 + 200, 1, 1]), scores)
    assert np.isnan(metric.compute(state))


def test_the_same_hyperparameters_are_the_same_metric():
    assert streaming.precision(0.25) is streaming.precision(0.25)
    assert streaming.precision(0.25) is not streaming.precision(0.5)
    threshold = jax.vmap(
        lambda t: streaming.recall(t).compute(
            streaming.recall(t).update(
                streaming.recall(t).empty(), jnp.array([1, 1]), jnp.array([0.2, 0.6])
            )
        )
    )(jnp.array([0.1, 0.5, 0.9]))
    np.testing.assert_array_equal(threshold, [1, 0.5, 0])


SHARDED = """
import json, jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from jaxml import metrics
from jaxml.metrics import streaming
rng = np.random.default_rng(0)
labels = (rng.random(800) < 0.2).astype(np.int32)
scores = rng.random(800).astype(np.float32)
mesh = Mesh(np.array(jax.devices()), ("data",))
found = {"devices": len(jax.devices())}
both = metrics.collection({"auc": streaming.roc_auc(), "log_loss": streaming.log_loss()})
for name in ("all_reduce", "psum"):
    def step(labels, scores):
        state = both.update(both.empty(), labels, scores)
        if name == "psum":
            return both.compute(jax.lax.psum(state, "data"))
        return both.compute(metrics.all_reduce(both, state, "data"))
    of = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=P("data"), out_specs=P()))
    found[name] = {k: float(v) for k, v in of(labels, scores).items()}
found["wanted"] = {"auc": metrics.roc_auc(labels, scores), "log_loss": metrics.log_loss(labels, scores)}
print(json.dumps(found))
"""


def test_four_devices_see_what_one_sees():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        path for path in ["", *sys.path] if path is not None
    )
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 4
    for name in ("all_reduce", "psum"):
        assert found[name]["log_loss"] == pytest.approx(found["wanted"]["log_loss"], abs=1e-5)
        assert found[name]["auc"] == pytest.approx(found["wanted"]["auc"], abs=1e-3)
