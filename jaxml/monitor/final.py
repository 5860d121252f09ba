"""Diagnostics that are too expensive to run every step; run once after training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import trees
from jaxml.monitor.history import After
from jaxml.monitor.symptoms.no_learnable_signal import LITTLE, held_out_signal
from jaxml.types import Array, PyTree

__all__ = ["FinalDiagnostics"]

# Training examples it is measured on.
_SAMPLE = 512

# Examples and products that the largest curvature is found with.
_CURVED, _PRODUCTS = 256, 12

# Norms, as powers of two, at which an optimizer is asked whether it clips; what begins at the last of them
# is an adaptive optimizer that a large gradient has all to itself.
_EXPONENTS = np.arange(-60, 21, dtype=np.float64)
_TRUSTED = 12

# Rows that show whether inputs predict labels.
_HELD_OUT = 4096

_FURTHER = (3.0, 10.0, 30.0, 100.0)


class FinalDiagnostics:
    """Compares trained models with their initial parameters; one program for all models of a shape.

    Args:
        compute: `compute(params, model_state, x, y, key, training) -> (loss of each example, outputs, …)`.
        loss: `loss(outputs, labels) -> ` loss of each example.
        optimizer: `optimizer(hyperparameters) -> ` an optax transformation.
        data: `(x, y)`, what was trained on.
    """

    def __init__(
        self,
        compute: Callable[..., Any],
        loss: Callable[[Any, Array], Array],
        optimizer: Callable[[Any], Any],
        data: tuple[PyTree, NDArray[Any]],
    ) -> None:
        self._data = data
        finite = np.ones(len(data[1]), bool)
        for values in jax.tree.leaves(data):
            finite &= np.isfinite(values.reshape(len(values), -1).astype(np.float64)).all(1)
        self._usable = np.flatnonzero(finite)
        self._compute, self._loss, self._optimizer = compute, loss, optimizer
        # Data are arguments, not constants: another run of the same shapes is the same program.
        self._losses = jax.jit(self._losses_of)
        self._curvature = jax.jit(self._curvature_of)
        self._limits = jax.jit(self._limits_of)
        self._signal = jax.jit(self._signal_of)

    def measure(
        self,
        first: tuple[PyTree, PyTree],
        last: tuple[PyTree, PyTree],
        opt_state: PyTree,
        *,
        seed: int,
        curved: bool,
        hyperparameters: Any = None,
    ) -> After:
        """Returns all diagnostics.

        Args:
            first: parameters and model state before the first step.
            last: the same after the last step.
            opt_state: of the guarded optimizer after the last step.
            seed: of the choice of examples.
            curved: whether to measure curvature, too.
            hyperparameters: of the optimizer.
        """
        params, model_state = first
        last_params, last_state = last
        further, held_out = {}, np.nan
        loss = mismatched = before = before_mismatched = constant = varies = np.nan
        sharpness, limits = (np.nan, np.nan), (np.nan, np.nan)
        if len(self._usable):
            generator = np.random.Generator(np.random.PCG64(seed))
            order = generator.permutation(self._usable)[:_SAMPLE]
            x, y = jax.tree.map(jnp.asarray, trees.take(self._data, order))
            # Other examples' labels, several times over: a constant is as good on these as on their own.
            turns = [max(1, len(order) * part // 8) for part in (1, 3, 5, 7)]
            others = jnp.stack([jnp.roll(y, turn, axis=0) for turn in turns])

            def losses(params: PyTree, model_state: PyTree) -> list[float]:
                return [*map(float, self._losses(params, model_state, x, y, others))]

            before, before_mismatched, *_ = losses(params, model_state)
            loss, mismatched, constant, varies = losses(last_params, last_state)
            for factor in _FURTHER:
                moved = jax.tree.map(lambda a, b, f=factor: a + f * (b - a), params, last_params)
                further[factor] = losses(moved, last_state)[0]
            if curved:
                few = trees.take((x, y), slice(_CURVED))
                sharpness = (
                    float(self._curvature(params, model_state, *few)),
                    float(self._curvature(last_params, last_state, *few)),
                )
            ignorant = min(mismatched, constant)
            if not ignorant - loss > LITTLE * abs(ignorant):
                rows = trees.take(self._data, generator.permutation(self._usable)[:_HELD_OUT])
                held_out = float(self._signal(params, model_state, *rows))
            limits = self._of_optimizer(last, opt_state.inner, x, y, hyperparameters)
        return After(
            loss=loss,
            mismatched_loss=mismatched,
            constant_loss=constant,
            first_loss=before,
            first_mismatched_loss=before_mismatched,
            further=further,
            sharpness=sharpness,
            clips_at=limits[0],
            epsilon_share=limits[1],
            equal_units=_equal_units(params),
            output_constant=bool(varies == 0),
            held_out=held_out,
        )

    # What is compiled

    def _signal_of(self, params: PyTree, model_state: PyTree, x: PyTree, y: Array) -> Array:
        def losses(params: PyTree, x: PyTree, y: Array) -> Array:
            return self._compute(params, model_state, x, y, None, False)[0]

        return held_out_signal(losses, params, x, y)

    def _mean(self, params: PyTree, model_state: PyTree, x: PyTree, y: Array) -> Array:
        return jnp.mean(self._compute(params, model_state, x, y, None, False)[0])

    def _losses_of(
        self, params: PyTree, model_state: PyTree, x: PyTree, y: Array, others: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Mean loss, with the labels of others, of one answer for all; how far the outputs are apart."""
        each, outputs, _ = self._compute(params, model_state, x, y, None, False)
        of_others = jax.lax.map(lambda other: self._mean(params, model_state, x, other), others)
        leaves = jax.tree.leaves(outputs)
        varies = jnp.stack([jnp.max(jnp.ptp(leaf, axis=0)) for leaf in leaves]).max()
        # One answer for all: each output's median over the examples.
        middle = jax.tree.map(
            lambda leaf: jnp.broadcast_to(jnp.median(leaf, axis=0, keepdims=True), leaf.shape),
            outputs,
        )
        constant = jnp.mean(self._loss(middle, y).astype(jnp.float32))
        return jnp.mean(each), jnp.mean(of_others), constant, varies

    def _curvature_of(self, params: PyTree, model_state: PyTree, x: PyTree, y: Array) -> Array:
        """The largest |eigenvalue| of the Hessian, by power iteration."""
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(0), len(leaves))
        start = jax.tree.unflatten(
            structure,
            [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)],
        )
        gradient = jax.grad(lambda params: self._mean(params, model_state, x, y))

        def product(carry: tuple[PyTree, Array], _: None):
            direction = carry[0]
            curved = jax.jvp(gradient, (params,), (direction,))[1]
            norm = trees.global_norm(curved)
            safe = jnp.where(norm > 0, norm, 1.0)
            return (jax.tree.map(lambda leaf: leaf / safe, curved), norm), None

        length = trees.global_norm(start)
        start = jax.tree.map(lambda leaf: leaf / length, start)
        return jax.lax.scan(product, (start, jnp.zeros(())), None, _PRODUCTS)[0][1]

    def _limits_of(
        self,
        hyperparameters: Any,
        params: PyTree,
        model_state: PyTree,
        inner: PyTree,
        x: PyTree,
        y: Array,
    ) -> tuple[Array, Array]:
        """Whether twice the gradient makes another update, at each norm; what epsilon takes."""
        update = optax.with_extra_args_support(self._optimizer(hyperparameters)).update
        gradients = jax.grad(lambda params: self._mean(params, model_state, x, y))(params)
        norm = trees.global_norm(gradients)
        direction = jax.tree.map(lambda leaf: leaf / jnp.maximum(norm, 1e-30), gradients)

        def move(length: Array, inner: PyTree) -> PyTree:
            scaled = jax.tree.map(lambda leaf: length * leaf, direction)
            return update(scaled, inner, params, value=jnp.float32(0))[0]

        def changes(exponent: Array) -> Array:
            near, far = (move(2.0 ** (exponent + i), inner) for i in (0.0, 1.0))
            away = trees.global_norm(jax.tree.map(jnp.subtract, near, far))
            return away > 1e-4 * trees.global_norm(far)

        changed = jax.lax.map(changes, jnp.asarray(_EXPONENTS, jnp.float32))
        whole, smaller = (
            trees.global_norm(move(factor * norm, _scale_moments(inner, factor)))
            for factor in (1.0, 0.5)
        )
        return changed, jnp.where(whole > 0, 1 - smaller / whole, jnp.nan)

    def _of_optimizer(
        self,
        last: tuple[PyTree, PyTree],
        inner: PyTree,
        x: PyTree,
        y: Array,
        hyperparameters: Any,
    ) -> tuple[float, float]:
        """From which norm on the optimizer clips, and what epsilon takes: see `After`."""
        changed, shrunk = self._limits(hyperparameters, *last, inner, x, y)
        # It clips where from some norm on nothing changes, and below something does.
        last = np.flatnonzero(np.asarray(changed))
        clips_at = np.nan
        if len(last) and last[-1] + 1 < len(changed) - _TRUSTED:
            clips_at = 2.0 ** _EXPONENTS[last[-1] + 1]
        return float(clips_at), float(shrunk) if _moments(inner) else np.nan


def _holds_moments(node: Any) -> bool:
    """Whether a node of an optimizer's state has second moments, as `nu`."""
    return hasattr(node, "_fields") and "nu" in node._fields


def _moments(state: PyTree) -> list[Any]:
    return [n for n in jax.tree.leaves(state, is_leaf=_holds_moments) if _holds_moments(n)]


def _scale_moments(state: PyTree, factor: float) -> PyTree:
    """A state as it would be had all gradients been scaled by this: of second moments the square."""

    def scale(node: Any) -> Any:
        if not _holds_moments(node):
            return node
        by = {"mu": factor, "nu": factor**2, "nu_max": factor**2}
        return node._replace(
            **{
                name: jax.tree.map(lambda leaf, by=by[name]: by * leaf, getattr(node, name))
                for name in by
                if name in node._fields
            }
        )

    return jax.tree.map(scale, state, is_leaf=_holds_moments)


def _equal_units(params: PyTree) -> tuple[str, ...]:
    """Layers all of whose units have the same weights, which are not zero."""
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        values = np.asarray(leaf, np.float64)
        if values.ndim < 2 or values.shape[-1] < 2 or values.size == values.shape[-1]:
            continue
        flat = values.reshape(-1, values.shape[-1])
        if np.all(flat == flat[:, :1]) and flat.any():
            names.append("/".join(str(getattr(part, "key", part)) for part in path[:-1]))
    return tuple(names)
