"""Counts may be written as floats, everywhere alike."""

import jax
import numpy as np
import pytest

from jaxml import checks, features, losses, metrics, models, softmax, tables
from jaxml.data import batches, grouping, scikit

KEY = jax.random.key(0)
X, Y = np.ones((3, 4), np.float32), np.array([0, 1, 2])
TABLE = np.ones((20, 4), np.float32)
COUNTS = {
    "sample": lambda n: softmax.uniform(n(20)).sample((), KEY, Y, n(5)),
    "mixed": lambda n: softmax.mixed([softmax.uniform(20)], [n(5)]).sample(((),), KEY, Y, n(5)),
    "adaptive": lambda n: softmax.adaptive_softmax([n(4), n(20)]).init(KEY, n(4)),
    "top_k": lambda n: softmax.top_k(X, TABLE, k=n(3), block_size=n(8)),
    "recommend": lambda n: softmax.recommend(n(1000), n(8), n(3), memory_bytes=n(16e9)),
    "table": lambda n: tables.init_table(KEY, n(5), n(3)),
    "batches": lambda n: batches.batch_indices(n(10), n(2), n(0), n(1)),
    "teams": lambda n: grouping.grouped_epoch(Y, n(2), seed=n(0), epoch=n(0)),
    "circles": lambda n: scikit.circles(n(4), 0.1, 0),
    "blobs": lambda n: scikit.blobs(n(6), n(3), 0),
    "confusion": lambda n: metrics.confusion_matrix(Y, Y, num_classes=n(4)),
    "weights": lambda n: losses.balanced_class_weights(Y, n(3)),
    "vocabulary": lambda n: features.vocabulary(n(2), n(1), min_count=n(1)).fit(Y).terms,
    "buckets": lambda n: features.hash_buckets(n(9), seed=n(1)).apply((), Y),
    "ngrams of a column": lambda n: features.character_ngrams(n(9), n(3)).apply((), ["a"]),
    "n-grams": lambda n: features.hashed_ngrams(["a"], num_buckets=n(9), max_ngrams=n(3)),
    "mlp": lambda n: models.MLP((n(2),), n(1)).init(KEY, X),
    "tabular": lambda n: models.TabularMLP((n(3),), n(2), (n(2),), n(1)).init(KEY, Y[:, None]),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_may_be_a_float(name):
    wanted = jax.tree.leaves(COUNTS[name](int))
    for kind in (float, np.float32):
        for one, other in zip(wanted, jax.tree.leaves(COUNTS[name](kind)), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), np.float32(0.5), "1", None])
def test_what_is_no_count_is_refused_by_name(value):
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1, got"):
        checks.integer("num_steps", value, at_least=1)
