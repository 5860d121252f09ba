"""Losses by which a student learns from a teacher, beside what the battery tests of all losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses

inf = np.inf
random = np.random.default_rng(0)
STUDENT, TEACHER = random.normal(size=(2, 6, 5)).astype(np.float32)


def softmax(z, temperature=1.0):
    z = np.exp(np.asarray(z, np.float64) / temperature)
    return z / z.sum(-1, keepdims=True)


@jax.jit
def gradient(student, teacher, temperature):
    return jax.grad(
        lambda z: losses.soft_targets(z, teacher, temperature=temperature).sum()
    )(student)  # fmt: skip


def test_the_gradients_scale_does_not_depend_on_a_high_temperature():
    """Hinton 2015, equation (4): (z − v) / C for zero-mean logits. Without T² it falls as 1/T²."""
    centred = [z - z.mean(-1, keepdims=True) for z in (STUDENT, TEACHER)]
    matching = (centred[0] - centred[1]) / STUDENT.shape[-1]
    for temperature in (50.0, 500.0):
        found = gradient(STUDENT, TEACHER, temperature)
        np.testing.assert_allclose(found, matching, atol=6 / temperature)
        # softmax(z / T) loses digits to 1/C as T grows.
        size = np.linalg.norm(found) / np.linalg.norm(matching)
        assert abs(size - 1) < 3 / temperature + 1e-3
    for temperature in (0.5, 4.0):
        wanted = temperature * (softmax(STUDENT, temperature) - softmax(TEACHER, temperature))
        np.testing.assert_allclose(gradient(STUDENT, TEACHER, temperature), wanted, atol=1e-6)


def test_a_student_that_agrees_has_no_loss_and_no_gradient():
    shifted = TEACHER + 3
    assert np.abs(losses.soft_targets(shifted, TEACHER, temperature=7.0)).max() < 1e-5
    assert np.abs(gradient(shifted, TEACHER, 7.0)).max() < 1e-5
    to_teacher = jax.grad(lambda t: losses.soft_targets(STUDENT, t).sum())(TEACHER)
    assert (to_teacher == 0).all()


def test_the_share_of_the_teacher():
    labels = np.array([0, 1, 2, 3, 4, 0])

    @jax.jit
    def mixed(alpha, student):
        return losses.distillation(student, TEACHER, labels, alpha=alpha, temperature=3.0)

    soft = losses.soft_targets(STUDENT, TEACHER, temperature=3.0)
    hard = losses.softmax_cross_entropy(STUDENT, labels)
    for alpha in (0.0, 0.25, 1.0):
        wanted = alpha * soft + (1 - alpha) * hard
        np.testing.assert_allclose(mixed(alpha, STUDENT), wanted, rtol=1e-5)
    one_hot = losses.distillation(STUDENT, TEACHER, np.eye(5)[labels], alpha=0.25, temperature=3.0)
    np.testing.assert_allclose(one_hot, mixed(0.25, STUDENT), rtol=1e-5)
    # A label that the student excludes has an infinite loss, which a share of 0 takes away.
    excluding = np.where(np.arange(5) == labels[0], -inf, STUDENT)[:1]
    teacher = np.where(np.arange(5) == labels[0], -inf, TEACHER)[:1]
    alone = losses.distillation(excluding, teacher, labels[:1], alpha=1.0)
    np.testing.assert_allclose(
        alone, losses.soft_targets(STUDENT[:1, 1:], TEACHER[:1, 1:]), rtol=1e-5
    )


def test_infinite_logits():
    z = jnp.array(
        [[0.0, 1.0, -inf], [0.0, -inf, 1.0], [0.0, 1.0, 2.0], [0.0, 1.0, inf], [-inf] * 3]
    )
    t = jnp.array(
        [[1.0, 0.5, -inf], [1.0, 0.5, -inf], [1.0, 0.5, -inf], [-inf, -inf, 4.0], [0.0] * 3]
    )

    def total(z, temperature):
        return losses.soft_targets(z, t, temperature=temperature).sum()

    value = losses.soft_targets(z, t, temperature=2.0)
    good = jnp.array([0, 2, 3])
    z, t = z[good], t[good]
    to_student, to_temperature = jax.jit(jax.grad(total, (0, 1)))(z, 2.0)
    assert np.isfinite(to_student).all() and np.isfinite(to_temperature) and to_student[0, 2] == 0
    around = [total(z, 2.0 + e) for e in (0.02, -0.02)]
    np.testing.assert_allclose(to_temperature, (around[0] - around[1]) / 0.04, rtol=1e-3)
    two = losses.soft_targets(z[:1, :2], t[:1, :2], temperature=2.0)[0]
    p, q = softmax(t[1, :2], 2.0), softmax(z[1], 2.0)[:2]
    wanted = [two, inf, 4 * np.sum(p * np.log(p / q)), 0, np.nan]
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_ensembles_as_teachers():
    members = random.normal(size=(3, 4, 5)).astype(np.float32)
    for temperature in (1.0, 4.0):
        found = losses.teacher_ensemble(members, temperature=temperature)
        wanted = softmax(members, temperature).mean(0)
        np.testing.assert_allclose(softmax(found, temperature), wanted, rtol=1e-5)
        geometric = losses.teacher_ensemble(members, average="logits", temperature=temperature)
        np.testing.assert_allclose(
            softmax(geometric, temperature), softmax(members.mean(0), temperature), rtol=1e-5
        )
    alone = losses.teacher_ensemble(members[:1], temperature=9.0)
    np.testing.assert_allclose(softmax(alone), softmax(members[0]), rtol=1e-5)
    excluding = jnp.asarray(members).at[0, :, 2].set(-inf)
    assert np.isfinite(losses.teacher_ensemble(excluding)).all()
    geometric = losses.teacher_ensemble(excluding, average="logits")
    assert np.isneginf(geometric[:, 2]).all() and np.isfinite(geometric[:, 3]).all()


def test_a_hint_teaches_student_and_projection():
    x, t, w = random.normal(size=(4, 3)), random.normal(size=(4, 6)), random.normal(size=(3, 6))
    both = jax.jit(jax.grad(lambda x, w, t: losses.hint(x, t, w).sum(), (0, 1, 2)))
    to_x, to_w, to_t = both(*(jnp.asarray(each, jnp.float32) for each in (x, w, t)))
    error = 2 * (x @ w - t) / 6
    np.testing.assert_allclose(to_x, error @ w.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_w, x.T @ error, rtol=1e-4, atol=1e-5)
    assert (to_t == 0).all()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: losses.soft_targets(STUDENT, TEACHER, temperature=0), "temperature must .* above 0"),
        (lambda: losses.distillation(STUDENT, TEACHER, [0] * 6, alpha=1.5), r"alpha must .*\[0, 1\]"),
        (lambda: losses.distillation(STUDENT, TEACHER, [0] * 6, alpha=-0.1), "alpha .* got -0.1"),
        (lambda: losses.distillation(STUDENT, TEACHER, [5] * 6), r"labels must be in \[0, 5\)"),
        (lambda: losses.soft_targets(STUDENT, TEACHER[:, :4]), r"student's classes.*\(6, 4\)"),
        (lambda: losses.teacher_ensemble(STUDENT, temperature=-1), "temperature must .* above 0"),
        (lambda: losses.teacher_ensemble(STUDENT, average="mean"), "average must be one of"),
        (lambda: losses.teacher_ensemble(STUDENT[0]), r"\[M, ..., C\] of M ≥ 1 members, got \(5,\)"),
        (lambda: losses.hint(STUDENT, TEACHER, np.ones((4, 5))), r"projection must be \[D, E\]"),
        (lambda: losses.hint(STUDENT, TEACHER, np.ones((5, 4))), r"teacher_features must be \(6, 4\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(run, message):
    with pytest.raises(ValueError, match=message):
        run()
