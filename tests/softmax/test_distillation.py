"""Distillation from the teacher's best k and a sample, against the softmax over all classes in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import softmax
from jaxml.softmax import Candidates

CLASSES, DIM, BATCH, K, NUM_SAMPLED = 40, 5, 6, 4, 15
random = np.random.default_rng(0)
X = random.normal(size=(BATCH, DIM)).astype(np.float32)
W = random.normal(size=(CLASSES, DIM)).astype(np.float32)
SCORES = (X @ random.normal(size=(CLASSES, DIM)).T).astype(np.float64)
P = np.exp(SCORES) / np.exp(SCORES).sum(-1, keepdims=True)
BEST = np.argsort(-P, axis=-1)[:, :K]
OF_BEST = np.take_along_axis(P, BEST, -1)
SAMPLER = softmax.uniform(CLASSES)
EVERY = Candidates(jnp.arange(CLASSES), jnp.ones(CLASSES), None)
TEMPERATURE = 2.0


def loss(x, w, candidates, of_candidates=None, *, ids=BEST, known=OF_BEST, **options):
    rows = [jnp.take(w, each, axis=0, mode="clip") for each in (ids, candidates.ids)]
    return softmax.sampled_distillation_loss_from_rows(
        x, *rows, ids, known, candidates, candidate_probabilities=of_candidates,
        temperature=TEMPERATURE, num_classes=CLASSES, **options,
    )  # fmt: skip


def log_softmax(x, w):
    z = np.asarray(x, np.float64) @ np.asarray(w, np.float64).T / TEMPERATURE
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def exact(x, w):
    return -(P * log_softmax(x, w)).sum(-1)


def in_one_bucket(x, w):
    """k classes and one of all others."""
    log_q = log_softmax(x, w)
    of_best = np.take_along_axis(log_q, BEST, -1)
    log_others = np.log(1 - np.exp(of_best).sum(-1))
    return -(OF_BEST * of_best).sum(-1) - (1 - OF_BEST.sum(-1)) * log_others


KINDS = {"one bucket": (in_one_bucket, False), "a sample": (exact, True)}
each = pytest.mark.parametrize("kind", KINDS)


@each
def test_with_every_class_a_candidate_it_is_exact(kind):
    reference, sample = KINDS[kind]
    of_candidates = jnp.asarray(P, jnp.float32) if sample else None

    def total(x, w):
        value = loss(x, w, EVERY, of_candidates)
        return value.sum(), value

    gradient, value = jax.jit(jax.grad(total, (0, 1), has_aux=True))(X, W)
    np.testing.assert_allclose(value, reference(X, W), rtol=2e-6)
    eps = 1e-6
    for at in ((0, 1), (3, 2)):
        moved = [np.array(X, np.float64), np.array(X, np.float64)]
        moved[0][at] += eps
        moved[1][at] -= eps
        slope = (reference(moved[0], W).sum() - reference(moved[1], W).sum()) / (2 * eps)
        np.testing.assert_allclose(gradient[0][at], slope, rtol=1e-4, atol=1e-6)
    for at in ((BEST[0, 0], 1), (7, 2)):
        moved = [np.array(W, np.float64), np.array(W, np.float64)]
        moved[0][at] += eps
        moved[1][at] -= eps
        slope = (reference(X, moved[0]).sum() - reference(X, moved[1]).sum()) / (2 * eps)
        np.testing.assert_allclose(gradient[1][at], slope, rtol=1e-4, atol=1e-6)


def test_the_k_best_of_all_classes_need_no_candidates():
    """K is then every class; and a teacher that is certain of one class is a label."""
    ids = np.tile(np.arange(CLASSES), (BATCH, 1))
    none = Candidates(jnp.full(3, CLASSES), jnp.zeros(3), None)
    found = loss(X, W, none, ids=ids, known=P)
    np.testing.assert_allclose(found, exact(X, W), rtol=2e-6)
    labels, certain = BEST[:, :1], np.ones((BATCH, 1))
    candidates = SAMPLER.sample((), jax.random.key(1), labels[:, 0], NUM_SAMPLED)
    wanted = softmax.sampled_softmax_loss(
        X, labels[:, 0], W, None, candidates, correction="negatives", temperature=TEMPERATURE
    )
    for of_candidates in (None, np.zeros((BATCH, NUM_SAMPLED))):
        found = loss(X, W, candidates, of_candidates, ids=labels, known=certain)
        np.testing.assert_allclose(found, wanted, rtol=2e-6)


@each
def test_a_constant_added_to_all_logits_changes_nothing(kind):
    candidates = SAMPLER.sample((), jax.random.key(2), BEST, NUM_SAMPLED)
    of_candidates = P[:, np.asarray(candidates.ids)] if KINDS[kind][1] else None
    wide = lambda x, w, c: (np.c_[x, np.full(len(x), c)], np.c_[w, np.ones(len(w))])  # noqa: E731
    found = [
        loss(*map(jnp.float32, wide(X, W, shift)), candidates, of_candidates)
        for shift in (0, -16, 16)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=3e-5)
    np.testing.assert_allclose(found[2], found[0], atol=3e-5)


def draws(kind, num_keys):
    """Losses [num_keys, BATCH], and the estimates of log Z, of draws of their own."""

    @jax.jit
    @jax.vmap
    def one(key):
        candidates = SAMPLER.sample((), key, BEST, NUM_SAMPLED)
        of_candidates = jnp.asarray(P, jnp.float32)[:, candidates.ids] if KINDS[kind][1] else None
        z = jnp.float32(X @ W.T / TEMPERATURE)
        hit = (candidates.ids[None, :, None] == BEST[:, None]).any(-1)
        others = jnp.where(hit, 0, jnp.exp(z[:, candidates.ids]) / candidates.expected_count[None])
        best = jnp.exp(jnp.take_along_axis(z, BEST, -1)).sum(-1)
        estimates = jnp.log(best + others.sum(-1)), jnp.log(others.sum(-1))
        return loss(X, W, candidates, of_candidates), estimates

    return [
        np.asarray(each, np.float64)
        for each in jax.tree.leaves(one(jax.random.split(jax.random.key(5), num_keys)))
    ]


@each
def test_the_bias_is_that_of_the_logarithms_alone(kind):
    """E[loss] less the exact loss is E[log Z] − log Z, and for one bucket less r (E[log N] − log N)."""
    reference = KINDS[kind][0](X, W)
    found, log_total, log_others = draws(kind, 4_000)
    z = np.asarray(X, np.float64) @ W.T / TEMPERATURE
    total = np.exp(z).sum(-1)
    others = total - np.exp(np.take_along_axis(z, BEST, -1)).sum(-1)
    # Without the error of the logarithms every draw is unbiased.
    unbiased = found - (log_total - np.log(total))
    if kind == "one bucket":
        unbiased += (1 - OF_BEST.sum(-1)) * (log_others - np.log(others))
    error = unbiased.std(0) / np.sqrt(len(unbiased))
    assert (np.abs(unbiased.mean(0) - reference) < 4 * error + 1e-5).all()
    # And this error is about half the relative variance.
    variance = np.exp(log_total - np.log(total)).var(0)
    shrinkage = (log_total - np.log(total)).mean(0)
    assert (shrinkage < 0).all() and np.allclose(shrinkage, -variance / 2, rtol=0.3, atol=2e-3)
    assert np.abs(found.mean(0) - reference).max() < 0.6 * variance.max() + 4 * error.max()


@each
def test_masked_examples_are_not_there(kind):
    candidates = SAMPLER.sample((), jax.random.key(3), BEST, NUM_SAMPLED)
    of_candidates = P[:, np.asarray(candidates.ids)] if KINDS[kind][1] else None
    clean = loss(X, W, candidates, of_candidates)
    where = np.arange(BATCH) != 2
    x, ids, known = X.copy(), BEST.copy(), OF_BEST.copy()
    x[2], ids[2], known[2] = np.nan, -1, np.nan
    if of_candidates is not None:
        of_candidates = np.where(where[:, None], of_candidates, np.nan)

    def total(x):
        value = loss(x, W, candidates, of_candidates, ids=ids, known=known, where=where)
        return value.sum(), value

    gradient, value = jax.grad(total, has_aux=True)(jnp.asarray(x))
    np.testing.assert_array_equal(value, np.where(where, clean, 0))
    assert np.isfinite(gradient).all() and (gradient[2] == 0).all()


@pytest.mark.parametrize("score", [-80.0, -110.0, -1000.0])
def test_a_sample_far_above_the_best_classes(score):
    """log Z is 0 then, and the cross-entropy −0.6 times the score."""
    found = softmax.sampled_distillation_loss_from_rows(
        jnp.ones((1, 1)), jnp.full((1, 1, 1), score), jnp.zeros((1, 1)), jnp.array([[0]]),
        jnp.array([[0.6]]), Candidates(jnp.array([1]), jnp.ones(1), None),
        candidate_probabilities=jnp.array([[0.4]]),
    )  # fmt: skip
    np.testing.assert_allclose(found, -0.6 * score, rtol=1e-6)


def test_empty_slots_and_repeated_candidates():
    """Slots that are empty count for nothing; a class in five slots is counted by a fifth in each."""
    few = Candidates(jnp.array([1, 7, 9]), jnp.ones(3), None)
    wanted = loss(X, W, few, P[:, [1, 7, 9]])
    empty = Candidates(jnp.array([1, CLASSES, 7, 9]), jnp.array([1.0, 0, 1, 1]), None)
    of_slots = jnp.take(P, empty.ids, axis=-1)
    assert np.isnan(of_slots).any()
    for of in (loss, jax.jit(loss)):
        np.testing.assert_allclose(of(X, W, empty, of_slots), wanted, rtol=1e-6)
    ids = np.repeat([1, 7, 9], 5)
    often = Candidates(jnp.array(ids), jnp.full(15, 5.0), None)
    assert P[:, ids].sum(-1).max() > 1.01
    np.testing.assert_allclose(loss(X, W, often, P[:, ids]), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature must .* above 0"),
        ({"teacher_ids": BEST[:, 0]}, r"teacher_ids must be \(6, 'k'\)"),
        ({"teacher_ids": np.full((BATCH, K), CLASSES)}, r"teacher_ids must be in \[0, 40\), got 40"),
        ({"teacher_probabilities": OF_BEST[:, :2]}, r"probabilities must be \(6, 4\), got \(6, 2\)"),
        ({"teacher_probabilities": np.full((BATCH, K), 0.4)}, "sum of at most 1, got 1.6"),
        ({"teacher_probabilities": -OF_BEST}, r"probabilities must be in \[0, 1\], got -"),
        ({"candidate_probabilities": P}, r"candidate_probabilities must be \(6, 3\), got \(6, 40\)"),
        ({"candidate_probabilities": 2 * P[:, 6:9] + 1}, r"candidate_probabilities must be in \[0, 1\]"),
        ({"where": np.ones((BATCH, K), bool)}, r"where must be \(6,\), got \(6, 4\)"),
        ({"teacher_rows": W[BEST][..., :3]}, r"teacher_rows must be \(6, 4, 5\), got \(6, 4, 3\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, message):
    few = Candidates(jnp.arange(3), jnp.ones(3), None)
    arguments = dict(
        inputs=X, teacher_rows=W[BEST], sampled_rows=W[:3], teacher_ids=BEST,
        teacher_probabilities=OF_BEST, candidates=few, num_classes=CLASSES,
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        softmax.sampled_distillation_loss_from_rows(**{**arguments, **change})
