"""Histories with one fault each, made by hand, and the few that only a training can show."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import models, monitor, train
from jaxml.models.taps import Layer

STEPS, WIDTH = 200, 8
NAMES = ("hidden_0", "hidden_1", "hidden_2", "output")
AFTER = monitor.After(
    loss=0.1, mismatched_loss=3.0, constant_loss=2.3, first_loss=2.4,
    further={3.0: 0.2, 10.0: 1.0, 30.0: 5.0}, sharpness=(1.0, 1.0), clips_at=np.nan,
    epsilon_share=0.0, equal_units=(), output_constant=False,
)  # fmt: skip


class Example:
    """A healthy run of a ReLU network, to be spoiled; `failed` replaces what was learned."""

    def __init__(self, *, failed=False, kind="dense"):
        rng = np.random.default_rng(0)
        looks = np.arange(0, STEPS, 10)
        self.statistics = np.ones((STEPS, 4, len(monitor.STATISTICS)))
        self.statistic("update_norm")[:] = 1e-3 * rng.uniform(0.5, 2, (STEPS, 4))
        self.activity = np.zeros((len(looks), 4, len(monitor.ACTIVITY)))
        for name in ("gradient_norm", "rms", "spread"):
            self.look(name)[:] = 1.0
        self.look("relu")[:, :3] = 1.0
        fall = np.exp(-np.arange(STEPS) / 40) * 2.2 + 0.1
        loss = np.full(STEPS, 2.3) if failed else fall
        self.after = AFTER
        data = monitor.inspect(rng.normal(size=(100, 5)), rng.integers(0, 3, 100))
        self.fields = dict(
            losses=loss * np.exp(0.05 * rng.normal(size=STEPS)),
            accepted=np.ones(STEPS, bool), coefficient=np.ones(STEPS), norm=np.ones(STEPS),
            bound=np.full(STEPS, 5.0), layers=NAMES, measured=np.arange(STEPS) % 10 == 0,
            tapped=tuple(Layer(name, kind, (name,), (64, WIDTH)) for name in NAMES), looks=looks,
            alive=np.ones((len(looks), 4 * WIDTH), bool), over_time=np.zeros((len(looks), 0, 32)),
            gain=np.zeros((len(looks), 0)), times=(), validation_losses=np.zeros(0),
            data=data, steps_per_epoch=2.0, shuffled=True, by_input=False,
        )  # fmt: skip
        if failed:
            self.set(loss=2.3, mismatched_loss=2.3, further={3.0: 2.5, 10.0: 5.0})

    def statistic(self, name):
        return self.statistics[:, :, monitor.STATISTICS.index(name)]

    def look(self, name):
        return self.activity[:, :, monitor.ACTIVITY.index(name)]

    def __getitem__(self, name):
        return self.fields[name]

    def set(self, **changes):
        for name, value in changes.items():
            if name in self.fields:
                self.fields[name] = value
            elif hasattr(self.after, name):
                self.after = dataclasses.replace(self.after, **{name: value})
            else:
                self.fields["data"] = self.fields["data"]._replace(**{name: value})
        return self

    def findings(self):
        history = monitor.History(
            **self.fields, statistics=self.statistics, activity=self.activity, after=self.after
        )
        return monitor.diagnose(history)


def vanishing():
    run = Example(failed=True)
    run.look("gradient_norm")[:] = 0.1 ** np.array([6.0, 4.0, 2.0, 0.0])
    run.look("sigmoid")[:], run.look("relu")[:] = 1.0, 0.0
    return run


def through_time():
    run = Example(failed=True, kind="cell")
    run.set(times=(60,), gain=np.full((20, 1), np.log(0.7)), over_time=np.zeros((20, 1, 32)))
    run.set(tapped=(run["tapped"][0],), layers=NAMES[:1])
    run.statistics, run.activity = run.statistics[:, :1], run.activity[:, :1]
    return run.set(alive=run["alive"][:, :WIDTH])


def exploding():
    run = Example()
    run["norm"][50:100:5], run["coefficient"][50:100:5] = 100.0, 0.05
    run.statistic("gradient_norm")[50, 1] = 100.0
    return run


def rejected():
    run = Example()
    run["accepted"][120:125] = False
    run.statistic("gradient_norm")[120, 2] = np.inf
    return run


def divided():
    run = Example(failed=True).set(divides_by_zero=True)
    run["accepted"][3:] = False
    run.statistic("update_norm")[3:, :] = 0.0
    run.statistic("update_norm")[3:, 1] = np.nan
    return run


def dead():
    run = Example(failed=True)
    run["alive"][8:, WIDTH : 2 * WIDTH] = False
    return run


def dead_output():
    run = Example(failed=True)
    run.look("relu")[:, -1], run.look("cut")[:, -1] = 1.0, 0.9
    return run


def saturated():
    run = Example(failed=True)
    run.look("relu")[:], run.look("saturated")[:, 1] = 0.0, 0.9
    return run


def zero():
    run = Example(failed=True)
    run.statistic("parameter_norm")[:, 1] = 0.0
    return run


def large():
    run = Example(failed=True)
    run.look("rms")[:] = [5.0, 50.0, 5e3, 5e5]
    return run


def small():
    run = Example(failed=True)
    fading = np.array([1e-1, 1e-2, 1e-3, 1e-4])
    run.look("rms")[:] = run.look("spread")[:] = fading
    run.look("gradient_norm")[:] = fading[::-1]
    return run


def too_high(momentum=False):
    run = Example(failed=True).set(sharpness=(30.0, 10.0))
    run.statistic("update_norm")[:] = 0.3
    if momentum:
        run.statistic("update_norm")[:] *= np.linspace(0.1, 1, STEPS)[:, None]
    return run


def born_saturated():
    run = too_high()
    run.look("relu")[:], run.look("saturated")[:, 1] = 0.0, 0.9
    return run


def held():
    """The gradient of a layer comes in, and the optimizer leaves it out."""
    run = Example(failed=True)
    run.statistic("update_norm")[:, 1] = 0.0
    return run


def cut_off():
    run = Example(failed=True)
    run.statistic("gradient_norm")[:, :2] = run.statistic("update_norm")[:, :2] = 0.0
    return run


def shrunk(held_out):
    run = Example(failed=True).set(held_out=held_out)
    run.statistic("parameter_norm")[:] *= np.geomspace(1, 0.01, STEPS)[:, None]
    run["alive"][8:, WIDTH : 2 * WIDTH] = False
    return run


def somewhat_learned_from_large_weights():
    run = large()
    run.after = AFTER
    return run.set(loss=0.9, mismatched_loss=40.0, constant_loss=3.0, first_loss=100.0)


def class_by_class():
    return Example(failed=True).set(shuffled=False, sorted_by_target=True)


def no_gradient():
    run = Example(failed=True)
    run.statistic("gradient_norm")[:] = 0.0
    return run


FAULTS = {
    "vanishing": (vanishing, "vanishing_gradient", "hidden_0"),
    "through time": (through_time, "vanishing_through_time", "hidden_0"),
    "exploding": (exploding, "exploding_gradient", "hidden_1"),
    "rejected": (rejected, "non_finite", "hidden_2"),
    "NaN in the data": (
        lambda: Example().set(bad_rows=np.array([7]), bad_cells=(("x", 7, 3),)),
        "non_finite", "input",
    ),
    "dead": (dead, "dead_relu", "hidden_1"),
    "ReLU at the output": (dead_output, "dead_relu", "output"),
    "saturated": (saturated, "saturated_activation", "hidden_1"),
    "weights of zero": (zero, "poor_initialization", "hidden_1"),
    "large weights": (large, "poor_initialization", "hidden_1"),
    "small weights": (small, "poor_initialization", "hidden_0"),
    "equal units": (
        lambda: Example(failed=True).set(equal_units=("hidden_0",)),
        "poor_initialization", "hidden_0",
    ),
    "rate too high": (too_high, "learning_rate_too_high", "all layers"),
    "rate too low": (
        lambda: Example(failed=True).set(further={3.0: 2.0, 10.0: 1.5}),
        "learning_rate_too_low", "all layers",
    ),
    "rate far too low": (
        lambda: Example(failed=True).set(further={3.0: 2.29999, 10.0: 2.29996, 30.0: 2.2998}),
        "learning_rate_too_low", "all layers",
    ),
    "saturated from the start": (born_saturated, "saturated_activation", "hidden_1"),
    "large weights, partly unlearned": (
        somewhat_learned_from_large_weights, "poor_initialization", "hidden_1",
    ),
    "held by the optimizer": (held, "frozen_layer", "hidden_1"),
    "cut off from the loss": (cut_off, "frozen_layer", "hidden_0"),
    "shrunk by a penalty": (
        lambda: shrunk(held_out=9.0), "excessive_regularization", "all layers",
    ),
    "shrunk without a signal": (lambda: shrunk(held_out=0.5), "no_learnable_signal", "input"),
    "wrong sign of the loss": (
        lambda: too_high().set(losses=-2.3 * 1.05 ** np.arange(STEPS), loss=-4e4),
        "unbounded_loss", "loss",
    ),
    "unscaled": (lambda: Example(failed=True).set(input_scale=1e4), "unscaled_input", "input"),
    "class by class": (class_by_class, "repetitive_data", "input"),
    "clipped by the optimizer": (
        lambda: Example(failed=True).set(clips_at=0.01), "clip_saturation", "all layers",
    ),
    "clipped by the guard": (
        lambda: Example().set(coefficient=np.full(STEPS, 0.5)), "clip_saturation", "all layers",
    ),
    "0 / 0 in the update": (divided, "zero_division", "hidden_1"),
    "below epsilon": (
        lambda: Example(failed=True).set(epsilon_share=0.5), "update_floor", "all layers",
    ),
    "no gradient": (no_gradient, "no_learnable_signal", "output"),
    "no signal": (lambda: Example(failed=True).set(held_out=0.3), "no_learnable_signal", "input"),
    "overfitting": (
        lambda: Example().set(validation_losses=2 * np.exp(-np.arange(20) / 2) + np.arange(20) / 9),
        "overfitting", "loss",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_nothing_else(name):
    make, symptom, where = FAULTS[name]
    assert [(finding.symptom, finding.where) for finding in make().findings()] == [(symptom, where)]


def test_a_healthy_run_has_no_findings():
    assert Example().findings() == []
    # Clipped now and then, dead units from the start, a column out of scale: no harm, no finding.
    run = Example().set(input_scale=1e4)
    run["norm"][[50, 150]], run["coefficient"][[50, 150]] = 100.0, 0.05
    run["alive"][:, : WIDTH // 2] = False
    assert run.findings() == []


def test_little_signal_is_no_fault_if_it_holds():
    assert Example(failed=True).set(held_out=5.0, neighbours=0.0).findings() == []


def test_a_model_that_cannot_learn_labels_does_not_accuse_them():
    assert Example(failed=True).set(held_out=0.5, neighbours=9.0).findings() == []
    x = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    fitted = train.fit(
        nn.Dense(2), optax.softmax_cross_entropy_with_integer_labels, optax.sgd(0.05),
        (x, (x.prod(1) > 0).astype(np.int32)), num_steps=60, batch_size=64, key=jax.random.key(0),
    )  # fmt: skip
    after = fitted.history.after
    assert fitted.findings == [] and after.held_out < 4 < after.neighbours


def test_layers_that_are_frozen_on_purpose_or_not_used_are_no_fault():
    run = Example()
    run.statistic("update_norm")[:, 0] = run.statistic("gradient_norm")[:, 1] = 0.0
    assert run.findings() == []
    # Of a layer that the model does not call there is nothing to say, even if the run fails.
    run = cut_off().set(layers=("unused", "spare", *NAMES[2:]), held_out=0.3)
    assert [finding.symptom for finding in run.findings()] == ["no_learnable_signal"]


def test_zeros_as_inputs_are_no_dead_units():
    run = dead().set(input_scale=0.0, held_out=0.0)
    assert [finding.symptom for finding in run.findings()] == ["no_learnable_signal"]


def test_a_head_of_zeros_that_is_held_explains_the_zeros_before_it():
    run = zero()
    run.statistic("gradient_norm")[:, :3] = run.statistic("update_norm")[:] = 0.0
    assert [(f.symptom, f.where) for f in run.findings()] == [("frozen_layer", "output")]


def test_a_few_steps_show_no_failure():
    for fault in (too_high, vanishing, dead, held):
        run, few = fault(), 2
        run.statistics, run.activity = run.statistics[:few], run.activity[:1]
        for name in ("losses", "accepted", "coefficient", "norm", "bound", "measured"):
            run.set(**{name: run[name][:few]})
        for name in ("looks", "alive", "over_time", "gain"):
            run.set(**{name: run[name][:1]})
        assert run.findings() == []


def test_swings_of_a_run_that_learns_all_the_same_are_no_fault():
    swings = np.exp(-np.arange(STEPS) / 40) + 0.3 + 0.2 * (-1.0) ** np.arange(STEPS)
    assert Example().set(losses=swings).findings() == []
    (finding,) = Example().set(losses=swings, loss=0.8).findings()
    assert finding.symptom == "loss_oscillation"


def test_losses_without_labels_and_below_zero():
    assert Example().set(loss=0.1, mismatched_loss=0.1, constant_loss=0.1).findings() == []
    # Slowing down, as towards a minimum, however far below 0.
    settles = -9e3 * (1 - np.exp(-np.arange(STEPS) / 40)) + 1
    far = dict(loss=-9e3, mismatched_loss=-10.0, constant_loss=-10.0, first_loss=1.0)
    assert Example().set(**far, losses=settles).findings() == []
    below = dict(loss=-1.2, mismatched_loss=-1.0, constant_loss=-1.0, first_loss=1.0)
    assert Example().set(**below).findings() == []


def test_an_explosion_in_a_schedule_or_with_momentum_has_no_known_rate():
    constant, scheduled = (monitor.remedy(too_high(m).findings()) for m in (False, True))
    assert constant.learning_rate == pytest.approx(1 / 30, rel=0.01)
    assert scheduled.learning_rate is None and scheduled.learning_rate_factor < 0.5


def test_the_cause_of_deaths_is_named_where_it_began():
    run = too_high()
    run["alive"][8:, WIDTH : 2 * WIDTH] = False
    began, dead = run.findings()
    assert (began.symptom, dead.symptom) == ("learning_rate_too_high", "dead_relu")
    assert "by step 80 all 8 units of `hidden_1` are dead" in began.cause
    assert dead.cause in began.cause and not dead.evidence["from_birth"]


def test_without_final_diagnostics_the_curve_decides_what_was_learned():
    run = Example()
    run.after = None
    assert run.findings() == []
    run = vanishing()
    run.after = None
    assert [finding.symptom for finding in run.findings()] == ["vanishing_gradient"]


# Trainings


def squared(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


@pytest.mark.parametrize("strength", [0.4, 0.0])
def test_a_weak_signal_is_told_from_none(strength):
    """A seventh of the variance can be known, and half of that is learned; or nothing can be."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 8)).astype(np.float32)
    y = (strength * x[:, 0] + rng.normal(size=3000)).astype(np.float32)
    fitted = train.fit(
        models.MLP((16,), 1), squared, optax.adam(1e-3), (x, y),
        num_steps=300, batch_size=64, key=jax.random.key(0),
    )  # fmt: skip
    assert (fitted.history.after.held_out > 4) == bool(strength)
    symptoms = [finding.symptom for finding in fitted.findings]
    assert symptoms == ([] if strength else ["no_learnable_signal"])


def test_sequences_without_cells_are_observed_at_their_inputs():
    """A sum that forgets: ∂E/∂x_t stands in for the gradient at a carry."""

    class Fading(nn.Module):
        @nn.compact
        def __call__(self, x):
            weights = 0.7 ** jnp.arange(x.shape[1] - 1, -1, -1.0)
            return nn.Dense(2)(jnp.einsum("btd,t->bd", x, weights))

    x = np.random.default_rng(0).normal(size=(800, 60, 4)).astype(np.float32)
    fitted = train.fit(
        Fading(), optax.softmax_cross_entropy_with_integer_labels, optax.adam(1e-3),
        (x, (x[:, 0, 0] > 0).astype(np.int32)),
        num_steps=200, batch_size=64, key=jax.random.key(0),
    )  # fmt: skip
    (finding,) = (f for f in fitted.findings if f.symptom == "vanishing_through_time")
    assert fitted.history.by_input
    assert finding.where == "input" and finding.evidence["measured_on"] == "∂E/∂x_t"
    assert finding.evidence["factor_a_step"] == pytest.approx(0.7, rel=1e-3)
