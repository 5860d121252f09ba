"""One battery for all losses, parametrized over `VARIANTS`. A new loss is a row there."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses

CLASSES = 5
rng = np.random.default_rng(0)


class Variant(NamedTuple):
    """One loss.

    Attributes:
        loss: `loss(outputs, targets, where=None) -> losses`.
        reference: of one example, in float64: `reference(output, target)`.
        kind: of its targets: "number", "binary", "label" (integers), "distribution" or "teacher" (numbers
            of the outputs' shape).
        influence: the largest gradient by one output, None if there is none.
    """

    loss: Callable
    reference: Callable
    kind: str
    influence: float | None = 1.0


def softplus(z):
    return np.logaddexp(0.0, z)


def cross_entropy(z, q):
    q = np.eye(len(z))[q] if np.ndim(q) == 0 else q
    log_p = z - np.logaddexp.reduce(z)
    return -np.sum(q * np.where(q > 0, log_p, 0))


def smoothed(z, y):
    return cross_entropy(z, 0.9 * np.eye(len(z))[y] + 0.1 / len(z))


def focal(z, y, gamma=1.5, alpha=0.25):
    sign, a = (1, alpha) if y == 1 else (-1, 1 - alpha)
    return a * np.exp(-gamma * softplus(sign * z)) * softplus(-sign * z)


def from_teacher(z, t, temperature=2.0):
    p, log_q = (
        x / temperature - np.logaddexp.reduce(x / temperature) for x in (t.astype(float), z)
    )
    return temperature**2 * np.sum(np.exp(p) * (p - log_q))


def distilled(z, t, **options):
    """The teacher's best class is the label."""
    return losses.distillation(z, t, jnp.argmax(t, -1), alpha=0.3, temperature=2.0, **options)


PROJECTION = rng.normal(size=(CLASSES, CLASSES)).astype(np.float32)

VARIANTS = {
    "squared": Variant(losses.squared, lambda o, t: (o - t) ** 2, "number", influence=None),
    "absolute": Variant(losses.absolute, lambda o, t: abs(o - t), "number"),
    "huber": Variant(
        lambda o, t, **k: losses.huber(o, t, 0.7, **k),
        lambda o, t: (o - t) ** 2 / 2 if abs(o - t) <= 0.7 else 0.7 * (abs(o - t) - 0.35),
        "number",
        influence=0.7,
    ),
    "quantile": Variant(
        lambda o, t, **k: losses.quantile(o, t, 0.8, **k),
        lambda o, t: max(0.8 * (t - o), -0.2 * (t - o)),
        "number",
        influence=0.8,
    ),
    "sigmoid": Variant(
        losses.sigmoid_binary_cross_entropy,
        lambda z, y: (y * softplus(-z) if y else 0) + ((1 - y) * softplus(z) if y != 1 else 0),
        "binary",
    ),
    "focal": Variant(
        lambda z, y, **k: losses.focal(z, y, gamma=1.5, alpha=0.25, **k), focal, "binary",
        influence=1.1,
    ),
    "softmax": Variant(losses.softmax_cross_entropy, cross_entropy, "label"),
    "softmax of distributions": Variant(
        losses.softmax_cross_entropy, cross_entropy, "distribution"
    ),
    "softmax, smoothed": Variant(
        lambda z, y, **k: losses.softmax_cross_entropy(z, y, label_smoothing=0.1, **k),
        smoothed,
        "label",
    ),
    "one_vs_all": Variant(
        losses.one_vs_all,
        lambda z, y: softplus(np.where(np.arange(len(z)) == y, -z, z)).sum(),
        "label",
    ),
    "soft_targets": Variant(
        lambda z, t, **k: losses.soft_targets(z, t, temperature=2.0, **k),
        from_teacher,
        "teacher",
        influence=2.0,
    ),
    "distillation": Variant(
        distilled,
        lambda z, t: 0.3 * from_teacher(z, t) + 0.7 * cross_entropy(z, t.argmax()),
        "teacher",
        influence=1.3,
    ),
    "hint": Variant(
        lambda x, t, **k: losses.hint(x, t, PROJECTION, **k),
        lambda x, t: np.mean((x @ PROJECTION - t) ** 2),
        "teacher",
        influence=None,
    ),
}  # fmt: skip

BATCH = (2, 3)
each = pytest.mark.parametrize("name", VARIANTS)


def is_multiclass(name):
    return VARIANTS[name].kind in ("label", "distribution", "teacher")


def problem(name, batch=BATCH):
    """Outputs and targets, as exact in float32 as in float64."""
    noise = np.random.default_rng(3)
    shape = (*batch, CLASSES) if is_multiclass(name) else batch
    targets = {
        "number": lambda: noise.normal(size=batch).astype(np.float32),
        "binary": lambda: noise.integers(0, 2, batch),
        "label": lambda: noise.integers(0, CLASSES, batch),
        "distribution": lambda: noise.dirichlet(np.ones(CLASSES), batch).astype(np.float32),
        "teacher": lambda: 2 * noise.normal(size=shape).astype(np.float32),
    }[VARIANTS[name].kind]()
    return (2 * noise.normal(size=shape)).astype(np.float32), targets


def reference(name, outputs, targets):
    """Each example by itself, in float64."""
    found = np.empty(outputs.shape[: outputs.ndim - is_multiclass(name)])
    for at in np.ndindex(found.shape):
        found[at] = VARIANTS[name].reference(np.asarray(outputs[at], np.float64), targets[at])
    return found


@functools.cache
def program(name):
    """Losses, and the gradient by the outputs of their sum under a cotangent: one program for all tests."""

    def total(outputs, targets, where, cotangent):
        value = VARIANTS[name].loss(outputs, targets, where=where)
        return (value * cotangent).sum(), value

    def run(outputs, targets, where, cotangent):
        gradient, value = jax.grad(total, has_aux=True)(outputs, targets, where, cotangent)
        return value, gradient

    return jax.jit(run)


def run(name, outputs, targets, where=None, cotangent=None):
    where = np.ones(BATCH, bool) if where is None else where
    cotangent = np.ones(BATCH, np.float32) if cotangent is None else cotangent
    return (np.array(part) for part in program(name)(outputs, targets, where, cotangent))


@each
def test_value_and_gradient_are_the_references(name):
    outputs, targets = problem(name)
    weight = rng.normal(size=BATCH).astype(np.float32)
    value, gradient = run(name, outputs, targets, cotangent=weight)
    assert value.dtype == np.float32 and value.shape == BATCH
    np.testing.assert_allclose(value, reference(name, outputs, targets), rtol=2e-6, atol=2e-7)
    step, outputs = 1e-6, outputs.astype(np.float64)
    for at in np.ndindex(outputs.shape):
        up, down = outputs.copy(), outputs.copy()
        up[at] += step
        down[at] -= step
        slope = (reference(name, up, targets) - reference(name, down, targets)) / (2 * step)
        wanted = (weight * slope)[at[:2]]
        np.testing.assert_allclose(gradient[at], wanted, rtol=1e-4, atol=1e-6)


@each
def test_eager_is_jit_and_vmap(name):
    outputs, targets = problem(name)
    value, _ = run(name, outputs, targets)
    eager = VARIANTS[name].loss(outputs, targets)
    assert eager.dtype == jnp.float32
    np.testing.assert_allclose(eager, value, rtol=2e-6, atol=2e-7)
    alone = jax.jit(jax.vmap(jax.vmap(VARIANTS[name].loss)))(outputs, targets)
    np.testing.assert_allclose(alone, value, rtol=2e-6, atol=2e-7)


@each
def test_half_precision_and_integers_are_computed_in_float32(name):
    outputs, targets = problem(name)
    half = jnp.asarray(outputs, jnp.bfloat16)
    value, gradient = run(name, half, targets)
    assert value.dtype == np.float32 and gradient.dtype == jnp.bfloat16
    exact = reference(name, np.asarray(half, np.float64), targets)
    np.testing.assert_allclose(value, exact, rtol=5e-6, atol=1e-6)
    whole = np.round(outputs).astype(np.int64)
    exact = reference(name, whole.astype(float), targets)
    np.testing.assert_allclose(VARIANTS[name].loss(whole, targets), exact, rtol=5e-6, atol=1e-6)


@each
def test_extremes_have_finite_losses_and_bounded_influence(name):
    outputs, targets = problem(name)
    for sign in (1, -1):
        far = sign * np.sign(outputs) * np.float32(1e4)
        value, gradient = run(name, far, targets)
        np.testing.assert_allclose(value, reference(name, far, targets), rtol=2e-6, atol=1e-6)
        assert np.isfinite(gradient).all()
        bound = VARIANTS[name].influence
        if bound is None:
            assert np.abs(gradient).max() > 1e4
        else:
            assert np.abs(gradient).max() <= bound * (1 + 1e-6)
            assert VARIANTS[name].kind != "number" or np.abs(gradient).max() > bound * (1 - 1e-6)


@each
def test_masked_examples_are_not_there(name):
    outputs, targets = problem(name)
    clean, whole = run(name, outputs, targets)
    kept = np.array([[True, False, True], [False, True, False]])
    dirty, spoilt = outputs.copy(), targets.copy()
    dirty[0, 1], dirty[1, 0] = np.nan, np.inf
    spoilt[1, 0], spoilt[1, 2] = (99, -7) if spoilt.dtype != np.float32 else (np.nan, -np.inf)
    value, gradient = run(name, dirty, spoilt, where=kept)
    np.testing.assert_array_equal(value, np.where(kept, clean, 0))
    np.testing.assert_array_equal(gradient[kept], whole[kept])
    assert (gradient[~kept] == 0).all()
    # Not refused, though its labels are known to be wrong.
    jax.eval_shape(lambda: VARIANTS[name].loss(dirty, spoilt, where=kept))
    value, gradient = run(name, dirty, spoilt, where=np.zeros(BATCH, bool))
    assert (value == 0).all() and (gradient == 0).all()
    with pytest.raises(ValueError, match=r"where.*\(2, 3\)"):
        VARIANTS[name].loss(outputs, targets, where=kept[..., None])
    with pytest.raises(ValueError, match="where must be bool"):
        VARIANTS[name].loss(outputs, targets, where=np.ones(BATCH))


@each
def test_a_bad_example_spoils_itself_alone(name):
    outputs, targets = problem(name)
    clean, _ = run(name, outputs, targets)
    outputs[1, 1] = np.nan
    value, _ = run(name, outputs, targets)
    clean[1, 1] = np.nan
    np.testing.assert_array_equal(value, clean)


@each
def test_shapes_that_do_not_fit_are_refused(name):
    """[N, 1] beside [N] would make N² losses."""
    outputs, targets = problem(name, (4,))
    wrong = {
        "targets must|labels must|teacher_(logits|features) must|projection must": [
            (np.expand_dims(outputs, 1), targets),
            (outputs, targets[:, None]),
            (outputs, targets[:3]),
        ],
        "must be real numbers": [(outputs + 1j, targets), (outputs.astype(str), targets)],
    }
    for message, pairs in wrong.items():
        for one, other in pairs:
            with pytest.raises(ValueError, match=message):
                jax.eval_shape(lambda: VARIANTS[name].loss(one, other))  # noqa: B023


@each
def test_no_examples_have_no_losses(name):
    outputs, targets = problem(name, (0,))
    assert jax.eval_shape(lambda: VARIANTS[name].loss(outputs, targets)).shape == (0,)
