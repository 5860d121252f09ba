"""Integers of any dtype, wherever ids or labels are taken: none wraps, none is compared in too few bits.

Each of `PLACES` takes four ids of 300 classes. What it makes of ids of another dtype must be what it makes
of int32; of ids that 32 bits cannot hold, what it makes of an id out of range, or it raises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import losses, metrics, models, softmax, tables, train
from jaxml.metrics import streaming

C, D = 300, 2
random = np.random.default_rng(0)
LOGITS, X = random.normal(size=(4, C)).astype(np.float32), np.ones((4, D), np.float32)
TABLE = random.normal(size=(C, D)).astype(np.float32)
GOOD, FAR = np.array([1, 100, 0, 100], np.int32), 2**32 + 1


def updated(ids):
    optimizer = tables.sgd(1.0)
    gradient = tables.RowGradient(ids, jnp.ones((4, D)))
    return optimizer.update(gradient, optimizer.init(jnp.asarray(TABLE)), jnp.asarray(TABLE))[0]


def of_layer(loss, *arguments, **options):
    return lambda ids: loss(X, ids, TABLE, None, *arguments, **options)


def of_metric(metric, scores=LOGITS):
    def of(ids):
        return metric.compute(metric.update(metric.empty(), ids, scores))

    return of


def drawn(sampler, num_sampled, state=()):
    return lambda ids: sampler.sample(
        state, jax.random.key(0), ids, num_sampled
    ).true_expected_count  # fmt: skip


def of_candidates(ids):
    candidates = softmax.Candidates(ids, jnp.ones(4), jnp.ones(4))
    return softmax.sampled_softmax_loss(X, np.array([0, 1, 2, 3]), TABLE, None, candidates)


def of_teacher(ids):
    candidates = softmax.Candidates(jnp.array([5, 6]), jnp.ones(2), None)
    return softmax.sampled_distillation_loss_from_rows(
        X, jnp.take(TABLE, ids[:, None], axis=0, mode="clip"), TABLE[5:7], ids[:, None],
        np.full((4, 1), 0.5), candidates, num_classes=C,
    )  # fmt: skip


EMBEDDING = models.Embedding(C, D)
VARIABLES = {"params": {"table": {"embedding": TABLE}}}
UNIFORM, QUEUE = softmax.uniform(C), softmax.queue(C, 6)

PLACES = {
    "softmax_cross_entropy": lambda ids: losses.softmax_cross_entropy(LOGITS, ids),
    "smoothed": lambda ids: losses.softmax_cross_entropy(LOGITS, ids, label_smoothing=0.1),
    "distillation": lambda ids: losses.distillation(LOGITS, LOGITS[::-1], ids),
    "one_vs_all": lambda ids: losses.one_vs_all(LOGITS, ids),
    "weighted": lambda ids: losses.weighted(losses.softmax_cross_entropy, np.arange(C) / C)(
        LOGITS, ids
    ),
    "full": of_layer(softmax.full_softmax_loss),
    "blockwise": of_layer(softmax.blockwise_softmax_loss, block_size=200),
    "one_vs_all_loss": of_layer(softmax.one_vs_all_loss, block_size=200),
    "candidates": of_candidates,
    "teacher": of_teacher,
    "sample": drawn(UNIFORM, 3),
    "in_batch": drawn(softmax.in_batch(C), 4, softmax.in_batch(C).init()),
    "update": lambda ids: QUEUE.update(QUEUE.init(), ids).ids,
    "probability": lambda ids: UNIFORM.probability((), ids),
    "expected_count": lambda ids: UNIFORM.expected_count((), ids, 3),
    "top_k_accuracy": of_metric(streaming.top_k_accuracy(2)),
    "accuracy": of_metric(streaming.accuracy(), jnp.array([1, 2, 0, 100])),
    "accuracy of scores": of_metric(streaming.accuracy()),
    "log_loss": of_metric(streaming.log_loss(from_logits=True)),
    "confusion_matrix": of_metric(streaming.confusion_matrix(C), GOOD),
    "predictions": lambda ids: of_metric(streaming.confusion_matrix(C), ids)(GOOD),
    "gather_rows": lambda ids: tables.gather_rows(jnp.asarray(TABLE), ids),
    "gather_bags": lambda ids: tables.gather_bags(jnp.asarray(TABLE), ids),
    "coalesce": lambda ids: tables.coalesce(tables.RowGradient(ids, jnp.ones(4))).values,
    "row update": updated,
    "Embedding": lambda ids: EMBEDDING.apply(VARIABLES, ids),
}
UNBOUNDED = ("accuracy", "coalesce")


def same(found, wanted):
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", PLACES)
def test_integers_of_any_dtype_are_the_same_ids(name):
    place = jax.jit(PLACES[name])
    wanted = place(jnp.asarray(GOOD))
    assert np.isfinite(np.asarray(wanted)).all()
    same(place(jnp.asarray(GOOD, jnp.uint8)), wanted)
    for dtype in (np.uint8, np.int8, np.uint64):
        same(PLACES[name](GOOD.astype(dtype)), wanted)
    # Where there is no bound, −1 is the id out of range.
    outside = place(jnp.asarray([-1 if name in UNBOUNDED else C, *GOOD[1:]], jnp.int32))
    same(place(jnp.asarray([2**31 + 5, *GOOD[1:]], jnp.uint32)), outside)
    far = np.array([FAR, *GOOD[1:]])
    try:
        found = PLACES[name](far)
    except ValueError as error:
        assert "4294967297" in str(error)
    else:
        same(found, outside)
    with jax.enable_x64(True):
        same(place(jnp.asarray(far)), outside)
        same(place(jnp.asarray(GOOD, int)), wanted)


LABELLED = {
    "softmax": lambda y, w: losses.softmax_cross_entropy(LOGITS, y, where=w),
    "distillation": lambda y, w: losses.distillation(LOGITS, LOGITS[::-1], y, where=w),
    "one_vs_all": lambda y, w: losses.one_vs_all(LOGITS, y, where=w),
    "blockwise": lambda y, w: softmax.blockwise_softmax_loss(X, y, TABLE, where=w, block_size=200),
    "accuracy": lambda y, w: (
        lambda metric: metric.compute(metric.update(metric.empty(), y, LOGITS, mask=w))
    )(streaming.accuracy()),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_to_ignore_may_be_anything_their_dtype_holds(name):
    kept = np.array([False, True, True, True])
    wanted = LABELLED[name](GOOD, kept)
    for dtype, label in ((np.int8, -100), (np.uint8, 255), (np.int64, FAR), (np.uint64, 2**64 - 1)):
        labels = GOOD.astype(dtype)
        labels[0] = label
        same(LABELLED[name](labels, kept), wanted)


def test_candidates_of_a_few_bits_beside_more_classes():
    parts = softmax.Neighbourhoods(jnp.arange(C).reshape(2, -1), jnp.arange(C) // (C // 2))
    share = jnp.ones(2) / 2
    drawn = [
        softmax.neighbourhood_candidates(parts, jnp.arange(2), share, jnp.asarray(GOOD, dtype))
        for dtype in (jnp.uint8, jnp.int32)
    ]
    np.testing.assert_array_equal(drawn[0].expected_count, drawn[1].expected_count)


def test_whole_numbers_that_float64_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="row 1"):
        metrics.accuracy([1, 2**53], [1, 2**53 + 1])


def test_weights_of_many_bits_do_not_wrap():
    metric = streaming.accuracy()
    state = metric.update(metric.empty(), GOOD[:2] * 0, np.array([0.1, 0.9]), np.array([2**32, 0]))
    assert metric.compute(state) == 1
    heavy = metrics.bootstrap(
        metric, np.tile([0, 0, FAR], 20), np.tile([0.1, 0.9, 0.9], 20), key=0, num_samples=3
    )
    assert np.isnan(heavy.value) and np.isnan(heavy.samples).all()


def a_task(moved):
    """Adds `moved` to the rows of the batch; with a loss of NaN to none."""

    def loss(params, model_state, rows, batch, context, key):
        return rows["table"].sum() * batch["factor"].mean(), (model_state, {})

    task = train.Task(loss, lambda batch, state, key: ({"table": batch["ids"]}, None))
    rows = {"table": lambda step: tables.sgd(moved)}
    state = train.create_state(
        jax.random.key(0), tables={"table": jnp.zeros((C, 1))}, row_optimizers=rows
    )
    return train.make_step(task, row_optimizers=rows), state


def test_a_refused_step_moves_no_row_of_ids_of_8_bits():
    step, state = a_task(1.0)
    batch = {"ids": jnp.array([3, 4], jnp.uint8), "factor": jnp.array([jnp.nan])}
    after, report = jax.jit(step)(state, batch)
    assert not report.accepted and not after.tables["table"].any()


def test_integers_of_training_data_that_do_not_fit_are_refused():
    step, state = a_task(1.0)
    batches = {"ids": np.array([[3, FAR]]), "factor": np.ones((1, 1), np.float32)}
    with pytest.raises(ValueError, match="batches must hold integers of 32 bits, got 4294967297"):
        train.run(train.repeat(step), state, lambda *_: batches, num_steps=1, steps_per_call=1)
    with pytest.raises(
        ValueError, match="data must hold integers of 32 bits, got 4294967297 in row 1"
    ):
        train.fit(
            models.Linear(3), losses.softmax_cross_entropy, optax.sgd(0.1),
            (np.ones((3, 2)), np.array([0, FAR, 2])), num_steps=1, batch_size=1, key=0,
        )  # fmt: skip
