"""Every transformation of Optax that needs gradients, parameters and the loss alone: guarded, and in `fit`.

A healthy run is the bare run. Names come from the namespaces, so that a new one is tried too, and fails
here if it needs more than the others.
"""

import functools
import inspect
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxml import losses, monitor, train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype(np.float32)
Y = np.tanh(X @ RNG.normal(size=(4, 3))).astype(np.float32)
KERNEL = RNG.normal(0, 0.3, (4, 3)).astype(np.float32)
MODEL = nn.Dense(3, kernel_init=lambda key, shape, dtype: jnp.asarray(KERNEL, dtype))
STEPS = 12

RATE = 0.05
SGD = optax.sgd(RATE)
IS_KERNEL = {"bias": False, "kernel": True}
EVEN = lambda step, **_: step % 2 == 0  # noqa: E731
NORM = lambda updates, *_, **__: optax.tree.norm(updates)  # noqa: E731

MATRICES = lambda params: jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), params)  # noqa: E731

NEEDS_MORE = {
    "lbfgs": "a function that evaluates the loss",
    "scale_by_backtracking_linesearch": "a function that evaluates the loss",
    "scale_by_zoom_linesearch": "a function that evaluates the loss",
    "sophia": "a function that evaluates the loss",
    "hutchinson_estimator_diag_hessian": "a function that evaluates the loss",
    "differentially_private_aggregate": "a gradient for each example",
    "dpsgd": "a gradient for each example",
    "lookahead": "pairs of fast and slow parameters",
    "monitor": "a state that may change its structure in the first step",
    "measure_with_ema": "to be within `monitor`: it returns no updates",
}

# Arguments besides a learning rate.
MADE = {
    "adaptive_grad_clip": lambda f: f(0.1),
    "add_noise": lambda f: f(0.1, 0.5, 0),
    "apply_if_finite": lambda f: f(SGD, 3),
    "chain": lambda f: f(optax.clip(1.0), SGD),
    "clip": lambda f: f(0.1),
    "clip_by_block_rms": lambda f: f(0.1),
    "clip_by_global_norm": lambda f: f(0.1),
    "conditionally_mask": lambda f: f(SGD, EVEN),
    "conditionally_transform": lambda f: f(optax.clip(0.1), EVEN),
    "ema": lambda f: f(0.9),
    "flatten": lambda f: f(optax.adam(RATE)),
    "freeze": lambda f: f({"bias": True, "kernel": False}),
    "inject_hyperparams": lambda f: f(optax.adam)(RATE),
    "inject_stateful_hyperparams": lambda f: f(optax.adam)(RATE),
    "masked": lambda f: f(optax.trace(0.9), IS_KERNEL),
    "mechanize": lambda f: f(SGD),
    "multi_transform": lambda f: f({True: optax.adam(RATE), False: SGD}, IS_KERNEL),
    "named_chain": lambda f: f(("clip", optax.clip(1.0)), ("sgd", SGD)),
    "partition": lambda f: f({True: optax.adam(RATE), False: SGD}, IS_KERNEL),
    "sam": lambda f: f(SGD, optax.chain(optax.contrib.normalize(), SGD)),
    "scale": lambda f: f(-RATE),
    "scale_by_muon": lambda f: optax.masked(f(weight_dimension_numbers=MATRICES), IS_KERNEL),
    "scale_by_rprop": lambda f: optax.chain(f(RATE), optax.scale(-1.0)),
    "scale_by_schedule": lambda f: f(lambda count: -RATE / (1 + count)),
    "schedule_free": lambda f: f(SGD, RATE),
    "selective_transform": lambda f: f(SGD, freeze_mask=IS_KERNEL),
    "snapshot": lambda f: f("norm", NORM),
    "split_real_and_imaginary": lambda f: f(optax.adam(RATE)),
    "stateless": lambda f: f(lambda updates, _: jax.tree.map(lambda u: -RATE * u, updates)),
    "stateless_with_tree_map": lambda f: f(lambda update, _: -RATE * update),
    "trace": lambda f: f(0.9),
    "with_extra_args_support": lambda f: f(SGD),
}

# Those that go down the gradient, though they have no learning rate.
DESCENDS = {
    "adadelta", "adafactor", "apply_if_finite", "chain", "cocob", "conditionally_mask", "dadapt_adamw",
    "dog", "dowg", "flatten", "inject_hyperparams", "inject_stateful_hyperparams", "mechanize", "momo",
    "momo_adam", "multi_transform", "named_chain", "partition", "polyak_sgd", "prodigy", "sam", "scale",
    "scale_by_cocob", "scale_by_schedule", "selective_transform", "split_real_and_imaginary",
    "stateless", "stateless_with_tree_map", "with_extra_args_support",
}  # fmt: skip


def made(space, name):
    """The transformation of this name; None if the name is not one's."""
    factory = getattr(space, name)
    if inspect.isclass(factory) or not inspect.isroutine(factory):
        return None
    signature = inspect.signature(factory)
    if name in MADE:
        found = MADE[name](factory)
    else:
        returned = str(signature.return_annotation)
        if "GradientTransformation" not in returned and "empty" not in returned:
            return None
        rate = {"learning_rate": RATE} if "learning_rate" in signature.parameters else {}
        try:
            found = factory(**rate)
        except TypeError:  # Without an annotation: some other function.
            assert "empty" in returned, f"{name} needs arguments: {signature}"
            return None
    if not hasattr(found, "update"):
        return None
    ascends = "learning_rate" not in signature.parameters and name not in DESCENDS
    return optax.chain(found, optax.scale(-RATE)) if ascends else found


@pytest.fixture(autouse=True)
def _as_optax_broadcasts():
    with jax.numpy_rank_promotion("allow"):
        yield


@functools.cache
def transformations():
    found = {"proximal_l1": optax.chain(SGD, losses.proximal_l1(RATE, 5.0))}
    found["MultiSteps"] = optax.MultiSteps(SGD, 100)
    found["keep_params_nonnegative"] = optax.chain(SGD, optax.keep_params_nonnegative())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for space in (optax, optax.contrib):
            for name in sorted({*dir(space)} - {*NEEDS_MORE, *found}):
                if not name.startswith("_") and (one := made(space, name)) is not None:
                    found[name] = one
    return found


def loss(outputs, targets):
    return jnp.mean(jnp.square(outputs - targets), axis=-1)


def trained(optimizer):
    """Parameters and losses of a run by hand, over all examples."""
    params = {"bias": jnp.zeros(3), "kernel": jnp.asarray(KERNEL)}
    update = monitor.guarding.update_given_loss(optimizer)

    def step(carry, _):
        params, state = carry
        mean = lambda params: jnp.mean(loss(MODEL.apply({"params": params}, X), Y))  # noqa: E731
        value, gradients = jax.value_and_grad(mean)(params)
        updates, state = update(gradients, state, params, value=value)
        seen = state.verdict if isinstance(state, monitor.GuardState) else None
        return (optax.apply_updates(params, updates), state), (value, seen)

    (params, _), seen = jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)
    return params, seen


@functools.cache
def bare_and_guarded(name):
    optimizer = transformations()[name]
    return jax.jit(lambda: (trained(optimizer), trained(monitor.guard(optimizer))))()


def close(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=False),
        one,
        other,
    )


def test_the_names_are_optax_s():
    assert len(transformations()) > 100
    assert not NEEDS_MORE.keys() & transformations().keys()
    assert {"adam", "sgd", "scale_by_adam", "muon", "prodigy", "masked"} <= transformations().keys()


def _slow(name, *, unless):
    return name if unless else pytest.param(name, marks=pytest.mark.slow)


# Those that `fit` has refused, or could not diagnose, and what everybody uses.
FEW = ["MultiSteps", "adam", "galore", "masked", "proximal_l1", "reduce_on_plateau", "sam", "sgd"]


@pytest.mark.parametrize("name", [_slow(name, unless=name in FEW) for name in transformations()])
def test_a_guarded_run_is_the_bare_run(name):
    (bare, (losses, _)), (guarded, (guarded_losses, found)) = bare_and_guarded(name)
    assert found.accepted.all() and (found.coefficients == 1).all()
    close((guarded, guarded_losses), (bare, losses))
    assert losses[-1] < 1.01 * losses[0]


@pytest.mark.parametrize("name", [_slow(name, unless=name in FEW) for name in transformations()])
def test_a_run_of_fit_is_the_bare_run(name):
    """With the monitor's final diagnostics: what fails in them is a warning, and so an error here."""
    fitted = train.fit(
        MODEL, loss, transformations()[name], (X, Y), num_steps=STEPS, batch_size=None, key=0
    )
    (bare, (losses, _)), _ = bare_and_guarded(name)
    close((dict(fitted.params), fitted.loss_curve), (bare, losses))
    assert fitted.history.accepted.all() and np.isfinite(fitted.history.after.loss)
