"""Every symptom has the form that the registry asks for; their order; remedies as words and as data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import monitor
from jaxml.monitor.diagnosis import _ordered
from jaxml.monitor.findings import Symptom
from jaxml.monitor.symptoms import REGISTRY


def finding(symptom, where="hidden_0", **evidence):
    return monitor.Finding(symptom, 4, where, "error", evidence, "too far")


@pytest.mark.parametrize("symptom", REGISTRY, ids=lambda symptom: symptom.name)
def test_every_symptom_is_complete(symptom):
    assert symptom.detect or symptom.in_curve
    assert set(symptom.after) <= {*monitor.SYMPTOMS, "*"}
    for where in ("hidden_0", "input", "output", "loss"):
        for tried in ([], [monitor.remedy(finding(symptom.name, where))]):
            remedy = monitor.remedy(finding(symptom.name, where), tried=tried)
            assert remedy.changes() and str(remedy)


def test_causes_come_before_consequences_however_symptoms_are_listed():
    for seed in range(3):
        shuffled = [REGISTRY[i] for i in np.random.default_rng(seed).permutation(len(REGISTRY))]
        names = [symptom.name for symptom in _ordered(shuffled)]
        at = {name: i for i, name in enumerate(names)}
        for symptom in REGISTRY:
            assert all(at[name] < at[symptom.name] for name in symptom.after if name != "*")
        assert names[-1] in ("no_learnable_signal", "loss_stuck")


def test_a_circular_order_is_an_error():
    nothing = REGISTRY[0].remedy
    with pytest.raises(ValueError, match="circular"):
        _ordered([Symptom("a", nothing, after=("b",)), Symptom("b", nothing, after=("a",))])


def test_the_evidence_decides_and_the_words_agree():
    rate = finding(
        "exploding_gradient", learning_rate_factor=0.04, learning_rate_to_try=4e-3, clip_to_try=12.5
    )
    changes = {"learning_rate_factor": 0.04, "learning_rate": 4e-3, "clip": 12.5}
    assert monitor.remedy(rate).changes() == changes
    assert str(monitor.remedy(rate)) == (
        "set the learning rate to 0.004, clip gradients to a norm of 12.5"
    )
    data = rate._replace(symptom="non_finite", where="input")
    assert monitor.remedy(data).changes() == {"data": "drop_non_finite"}
    assert monitor.remedy([data, rate]) == monitor.remedy(data)
    assert monitor.remedy([]).changes() == {}
    with pytest.raises(ValueError, match="symptom"):
        monitor.remedy(finding("cough"))


def test_a_line_to_read():
    line = finding("exploding_gradient", "hidden_2", norm=3.1e4)
    assert str(line._replace(step=1041, remedy="less far")) == (
        "step 1,041 · exploding gradient in `hidden_2` (norm 3.1e+04) · cause: too far · remedy: less far"
    )


def test_a_signal_is_held_out_and_in_standard_errors():
    """Standard normal without a signal, large with one, and 0 for losses that ignore the labels."""
    noise = np.random.default_rng(0)

    def losses(params, x, y):
        return jnp.square(jnp.tanh(x @ params["in"]) @ params["out"] - y)

    params = {"in": noise.normal(size=(8, 16)), "out": noise.normal(size=16)}
    signal = jax.jit(jax.vmap(functools.partial(monitor.held_out_signal, losses, params)))
    x, y = noise.normal(size=(200, 400, 8)), noise.normal(size=(200, 400))
    blind = np.asarray(signal(x, y))
    assert abs(blind.mean()) < 0.25 and 0.85 < blind.std() < 1.15
    assert np.median(signal(x, x[..., 0] + y)) > 4
    assert monitor.held_out_signal(lambda p, x, _: losses(p, x, 0), params, x[0], y[0]) == 0


@pytest.mark.parametrize("number", [4, 5, 1023, 1024, 3000])
def test_a_signal_of_few_or_many_examples(number):
    x = np.random.default_rng(0).normal(size=(number, 3))
    losses = lambda params, x, y: jnp.square(x @ params - y)  # noqa: E731
    assert np.isfinite(monitor.held_out_signal(losses, jnp.ones(3), x, x[:, 0]))
