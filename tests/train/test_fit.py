"""Training with a monitor: what it says, what it keeps out, and that it changes nothing else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import models, train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 6)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int32)
KEY = jax.random.key(0)


def cross_entropy(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def squared(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


def fit(model, optimizer, data=(X, Y), loss=cross_entropy, **kw):
    settings = {"num_steps": 300, "batch_size": 64, "key": KEY, **kw}
    return train.fit(model, loss, optimizer, data, **settings)


def symptoms(fitted):
    return [finding.symptom for finding in fitted.findings]


@pytest.fixture(scope="module")
def healthy():
    model = models.MLP((32, 32), 2)
    return (
        fit(model, optax.adam(1e-2), validation_data=(X[:100], Y[:100])),
        fit(model, optax.adam(1e-2), monitor=False),
    )


def test_a_healthy_run_is_left_alone(healthy):
    watched, plain = healthy
    assert watched.findings == []
    np.testing.assert_allclose(watched.loss_curve, plain.loss_curve, rtol=1e-4, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        watched.params,
        plain.params,
    )
    assert (watched.history.coefficient == 1).all() and watched.history.accepted.all()


def test_what_a_fit_holds(healthy):
    watched, plain = healthy
    assert watched.loss_curve.shape == (300,) and plain.findings == [] and plain.history is None
    assert len(watched.validation_curve) == len(watched.validation_steps)
    assert watched.validation_steps[0] == 0 and watched.validation_steps[-1] == 300
    assert watched.validation_curve[-1] < 0.5 * watched.validation_curve[0]
    history = watched.history
    assert history.layers == ("hidden_0", "hidden_1", "output")
    assert history.statistics.shape == (300, 3, 6) and history.activity.shape == (30, 3, 12)
    assert 1 < history.noise_scale() < 1e5 and (history.moment_ratio[20:] > 0).all()
    assert history.alive.shape == (30, 66)
    assert len(plain.validation_curve) == 0


def test_without_a_monitor_nothing_is_compiled_in(healthy):
    _, plain = healthy
    assert jax.tree.structure(plain.opt_state) == jax.tree.structure(
        optax.adam(1e-2).init(plain.params)
    )


def test_the_same_key_gives_the_same_bits():
    runs = [fit(nn.Dense(2), optax.sgd(0.1), num_steps=20) for _ in range(2)]
    for a, b in zip(*map(jax.tree.leaves, (runs[0].params, runs[1].params)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_vanishing_over_depth():
    fitted = fit(models.MLP((8,) * 8, 2, "sigmoid"), optax.adam(1e-3))
    assert symptoms(fitted) == ["vanishing_gradient"]
    (finding,) = fitted.findings
    assert finding.where == "hidden_0" and finding.evidence["activation"] == "sigmoid"


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_verdicts_on_shape_do_not_see_the_scale_of_the_loss(factor):
    fitted = fit(
        models.MLP((8,) * 8, 2, "sigmoid"),
        optax.sgd(0.05 / factor),
        loss=lambda outputs, labels: factor * cross_entropy(outputs, labels),
    )
    assert symptoms(fitted) == ["vanishing_gradient"]


def test_a_learning_rate_that_is_too_high():
    y = (X @ np.arange(1, 7)).astype(np.float32)
    fitted = fit(nn.Dense(1), optax.sgd(5.0), (X, y), squared)
    first = fitted.findings[0]
    assert first.symptom == "learning_rate_too_high"
    assert first.evidence["learning_rate"] == pytest.approx(5.0, rel=1e-2)
    rate = first.evidence["learning_rate_to_try"]
    # The curvature of a squared loss over unit normal columns is 2: the longest stable rate is 1.
    assert 0.3 < rate < 0.6
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))
    cured = fit(nn.Dense(1), optax.sgd(rate), (X, y), squared)
    assert cured.findings == [] and cured.loss_curve[-1] < 1e-6


def test_a_learning_rate_that_is_too_low():
    assert symptoms(fit(models.MLP((32,), 2), optax.sgd(1e-5))) == ["learning_rate_too_low"]


def test_labels_without_a_pattern():
    labels = np.random.default_rng(1).permutation(Y)
    fitted = fit(models.MLP((16,), 2), optax.adam(1e-3), (X, labels), num_steps=200)
    assert symptoms(fitted) == ["no_learnable_signal"]


def bad_rows():
    x = X.copy()
    x[5, 2], x[77, 0] = np.nan, np.inf
    return x


def test_bad_rows_are_reported_and_cost_their_steps():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x, training=False):
            x = nn.BatchNorm(use_running_average=not training)(x)
            return models.MLP((32, 32), 2)(x)

    fitted = fit(Normalised(), optax.adam(1e-2), (bad_rows(), Y))
    (finding,) = fitted.findings
    assert (finding.symptom, finding.where) == ("non_finite", "input")
    assert (finding.evidence["row"], finding.evidence["column"]) == (5, 2)
    refused = ~fitted.history.accepted
    # Each row comes once an epoch of nine and a bit batches.
    assert 30 <= refused.sum() <= 70
    for leaf in jax.tree.leaves((fitted.params, fitted.model_state, fitted.opt_state.inner)):
        assert np.isfinite(leaf).all()
    assert np.nanmean(fitted.loss_curve[-20:]) < 0.4


def test_bad_rows_are_dropped_or_refused():
    fitted = fit(nn.Dense(2), optax.sgd(0.1), (bad_rows(), Y), num_steps=20, on_bad_data="drop")
    assert np.isfinite(fitted.loss_curve).all()
    with pytest.raises(ValueError, match=r"x\[5\], column 2"):
        fit(nn.Dense(2), optax.sgd(0.1), (bad_rows(), Y), on_bad_data="raise")


def test_rows_in_their_own_order():
    def first_label(outputs, labels):
        return labels.astype(jnp.float32) + 0 * outputs[:, 0]

    fitted = fit(
        nn.Dense(1), optax.sgd(0.1), (X[:100], np.arange(100.0)), first_label, shuffle=False,
        num_steps=12, batch_size=10, monitor=False,
    )  # fmt: skip
    np.testing.assert_allclose(fitted.loss_curve, [4.5 + 10 * (i % 10) for i in range(12)])


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"every": 0}, "every"),
        ({"on_bad_data": "ignore"}, "on_bad_data"),
        ({"data": (X, Y[:3])}, "data"),
        ({"data": X}, "data"),
        ({"data": (X, np.array(["a"] * 600))}, "data"),
    ],
)
def test_bad_arguments(wrong, name):
    with pytest.raises(ValueError, match=name):
        fit(nn.Dense(2), optax.sgd(0.1), **wrong)


def test_findings_are_reported_at_the_end():
    """An operation without a finite result, from a step on."""

    def undefined(outputs, labels):
        return cross_entropy(outputs, labels) + 0 * jnp.log(2.0 - jnp.max(jnp.abs(outputs)))

    said = []
    fitted = fit(models.MLP((32,), 2), optax.adam(0.05), loss=undefined, say=said.append)
    assert said == [str(finding) for finding in fitted.findings]
    found = next(f for f in fitted.findings if f.symptom == "non_finite")
    assert found.evidence["steps_rejected"] == np.sum(~fitted.history.accepted) > 100
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))
