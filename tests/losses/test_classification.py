"""Losses of classes at infinite logits, for labels of every kind, on any axis, with one class."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses

inf = np.inf
MULTICLASS = {
    "softmax": losses.softmax_cross_entropy,
    "smoothed": lambda z, y, **k: losses.softmax_cross_entropy(z, y, label_smoothing=0.2, **k),
    "one_vs_all": losses.one_vs_all,
}
each = pytest.mark.parametrize("name", MULTICLASS)


@functools.cache
def program(loss):
    """Losses and the gradient of their sum, one compiled program for all tests of a shape."""

    def total(z, y):
        value = loss(z, y)
        return value.sum(), value

    return jax.jit(lambda z, y: jax.grad(total, has_aux=True)(z, y)[::-1])


@pytest.mark.parametrize("loss", [losses.sigmoid_binary_cross_entropy, losses.focal])
def test_infinite_log_odds_are_certainty(loss):
    value, gradient = program(loss)(jnp.array([inf, -inf, inf, -inf]), np.array([1, 0, 0, 1]))
    np.testing.assert_array_equal(value, [0, 0, inf, inf])
    np.testing.assert_array_equal(gradient[:2], [0, 0])


def test_infinite_logits_of_classes():
    z = jnp.array([[inf, 0.0, 1.0], [inf, 0.0, 1.0], [-inf, 0.0, 1.0], [-inf, 0.0, 1.0]])
    value, gradient = program(losses.softmax_cross_entropy)(z, np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(value, [0, inf, inf, np.log1p(np.e)], rtol=1e-6)
    assert np.isfinite(gradient[jnp.array([0, 3])]).all() and gradient[3, 0] == 0
    assert gradient[3, 2] > 0 and abs(gradient[3].sum()) < 1e-6
    nothing, _ = program(losses.softmax_cross_entropy)(jnp.full((4, 3), -inf), np.zeros(4, int))
    assert np.isnan(nothing).all()


def test_smoothing_at_infinite_logits():
    """The other classes have a share of the labels, unless they are excluded."""
    z = jnp.array([[inf, 0.0, 1.0], [inf, -inf, -inf], [inf, inf, -inf]])
    value, _ = program(MULTICLASS["smoothed"])(z, np.zeros(3, int))
    np.testing.assert_allclose(value, [inf, 0, np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "smoothed"])
def test_derivatives_of_every_order_at_an_excluded_class(name):
    z, direction = jnp.array([1.0, 2.0, -inf]), jnp.array([1.0, 3.0, 5.0])
    loss = lambda z: MULTICLASS[name](z, 0)  # noqa: E731
    without = lambda z: MULTICLASS[name](z[:2], 0)  # noqa: E731

    def derivatives(loss, z):
        product = jax.jvp(jax.grad(loss), (z,), (direction,))[1]
        return jax.jvp(loss, (z,), (direction,)), jax.grad(loss)(z), product

    found, wanted = jax.jit(lambda: (derivatives(loss, z), derivatives(without, z)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)


def test_an_excluded_class_costs_nothing_unless_it_is_a_target():
    z = np.array([0.0, 1.0, -inf], np.float32)
    found = jax.jit(
        lambda: [
            losses.softmax_cross_entropy(z, np.array([0.5, 0.5, 0.0])),
            losses.softmax_cross_entropy(z, 0, label_smoothing=0.5),
            losses.softmax_cross_entropy(z, np.array([0.5, 0.0, 0.5])),
        ]
    )()
    wanted = [np.log1p(np.e) - 0.5, np.log1p(np.e) - 0.25, inf]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)

    def smoothed(z, smoothing):
        return losses.softmax_cross_entropy(z, 0, label_smoothing=smoothing)

    forward = jax.jit(lambda: jax.jvp(smoothed, (z, 0.5), (np.ones(3), 1.0))[1])()
    np.testing.assert_allclose(forward, -0.5, rtol=1e-6)  # of the smoothing: (z_0 − z_1) / 2
    backward = jax.jit(jax.grad(smoothed, (0, 1)))(z, 0.5)
    np.testing.assert_allclose(backward[1], -0.5, rtol=1e-6)
    assert np.isfinite(backward[0]).all() and backward[0][2] == 0


@pytest.mark.parametrize("name", ["softmax", "smoothed"])
def test_a_single_class_has_no_loss_and_none_is_refused(name):
    value, gradient = program(MULTICLASS[name])(jnp.array([[3.0], [-2.0]]), np.zeros(2, int))
    assert (value == 0).all() and (gradient == 0).all()
    for z, y in ((np.ones((4, 0)), np.zeros(4, int)), (np.float32(1), 0)):
        with pytest.raises(ValueError, match="at least one class"):
            MULTICLASS[name](z, y)


def test_a_constant_added_to_all_logits_changes_nothing():
    z, y = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), np.arange(4) % 3
    run = program(losses.softmax_cross_entropy)
    np.testing.assert_allclose(run(z + 64, y)[0], run(z, y)[0], atol=3e-5)


@each
def test_labels_out_of_range(name):
    loss = MULTICLASS[name]
    z = jnp.zeros((4, 3))
    for bad in (-1, 3, 2**33):
        with pytest.raises(ValueError, match=rf"labels must be in \[0, 3\).*\(1,\) is {bad}"):
            loss(z, np.array([0, bad, 2, 1]))
    late = np.asarray(program(loss)(z, jnp.array([0, 3, 2, 1]))[0])
    assert np.isnan(late).tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match="labels must be integers, got dtype float"):
        loss(z, np.array([0.0, 1.0, 2.0, 1.0]))


@each
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int16])
def test_small_integers_do_not_wrap(name, dtype):
    """256 classes are 0 in 8 bits."""
    z = jnp.zeros((3, 256)).at[:, 100].set(3.0)
    y = jnp.array([1, 100, 127])
    got, wanted = jax.jit(lambda *ids: [MULTICLASS[name](z, each) for each in ids])(
        y.astype(dtype), y
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.sigmoid_binary_cross_entropy, losses.focal])
def test_binary_labels_out_of_range(loss):
    z = jnp.zeros(3)
    with pytest.raises(ValueError, match=r"labels must be .*\(2,\) is 2"):
        loss(z, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="labels must be"):
        loss(z, np.array([0, 1, -1]))
    with pytest.raises(ValueError, match="labels must be"):
        loss(z, np.array([0, 1, np.nan]))
    np.testing.assert_allclose(loss(z, np.array([True, False, True])), loss(z, [1, 0, 1]))


def test_a_traced_binary_label_out_of_range_is_nan():
    for loss in (losses.sigmoid_binary_cross_entropy, losses.focal):
        late = jax.jit(loss)(jnp.zeros(3), jnp.array([0, 1, -1]))
        assert np.isnan(late).tolist() == [False, False, True]


def test_invalid_distributions_are_refused():
    z = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"distributions.*one_vs_all.*\(1,\)"):
        losses.softmax_cross_entropy(z, np.array([[0, 1, 0], [1, 1, 0]]))
    with pytest.raises(ValueError, match=r"distributions.*\(0,\)"):
        losses.softmax_cross_entropy(z, np.array([[-0.5, 1.5, 0], [1, 0, 0]]))
    half = jax.nn.softmax(jnp.arange(3.0)).astype(jnp.bfloat16)
    assert np.isfinite(losses.softmax_cross_entropy(np.zeros(3), half))


def test_one_hot_and_integers_agree_and_smoothing_is_traced():
    z, y = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), np.arange(4) % 3
    one_hot = np.eye(3, dtype=np.float32)[y]
    plain, _ = program(losses.softmax_cross_entropy)(z, y)
    for given in (one_hot, one_hot.astype(np.int32), one_hot.astype(bool)):
        np.testing.assert_allclose(losses.softmax_cross_entropy(z, given), plain, rtol=1e-5)
    several, _ = program(losses.one_vs_all)(z, one_hot)
    np.testing.assert_allclose(several, program(losses.one_vs_all)(z, y)[0], rtol=1e-6)
    run = jax.jit(lambda s: losses.softmax_cross_entropy(z, y, label_smoothing=s))
    np.testing.assert_allclose(run(0.0), plain, rtol=1e-5)
    uniform = losses.softmax_cross_entropy(z, np.full((4, 3), 1 / 3, np.float32))
    np.testing.assert_allclose(run(1.0), uniform, rtol=1e-5)


def test_focal_without_gamma_is_cross_entropy_and_its_gradients_are_finite():
    z = jnp.array([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])

    @jax.jit
    def run(y, gamma):
        losses_of = functools.partial(losses.focal, labels=y, gamma=gamma)
        return losses_of(z), jax.grad(lambda z: losses_of(z).sum())(z)

    for y in (np.zeros(7), np.ones(7)):
        plain = losses.sigmoid_binary_cross_entropy(z, y)
        np.testing.assert_allclose(run(y, 0.0)[0], plain, rtol=1e-6)
        for gamma in (0.0, 0.5, 2.0):
            assert np.isfinite(run(y, gamma)[1]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.focal(np.ones(1), [1], gamma=-1.0), r"gamma must be .* of at least 0"),
        (
            lambda: losses.focal(np.ones(1), [1], alpha=1.5),
            r"alpha must be .* in \[0, 1\], got 1.5",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((1, 2)), [1], label_smoothing=-0.1),
            "label_smoothing must be a finite number in",
        ),
    ],
)
def test_hyperparameters_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call()
