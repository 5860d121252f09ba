"""What is measured when a training is over: too dear for every step, and telling all the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import monitor, trees
from jaxml.train.state import State
from jaxml.types import Array, PyTree

# Training examples it is measured on.
_SAMPLE = 512

# Examples and products that the largest curvature is found with.
_CURVED, _PRODUCTS = 256, 12

# Norms, as powers of two, at which an optimizer is asked whether it clips; what begins at the last of them
# is an adaptive optimizer that a large gradient has all to itself.
_EXPONENTS = np.arange(-60, 21, dtype=np.float64)
_TRUSTED = 12

# Examples that are foretold by a model trained without them, and how often with labels of others.
_HELD_OUT, _SHIFTS = 4096, 32

_FURTHER = (3.0, 10.0, 30.0, 100.0)


class Aftermath:
    """Measures a trained model against its untrained self."""

    def __init__(
        self,
        compute: Callable[..., Any],
        loss: Callable[[Any, Array], Array],
        optimizer: Any,
        params: PyTree,
        model_state: PyTree,
        data: tuple[NDArray[Any], NDArray[Any]],
        seed: int,
    ) -> None:
        x, y = data
        finite = np.isfinite(x.reshape(len(x), -1).astype(np.float64)).all(1)
        finite &= np.isfinite(y.reshape(len(y), -1).astype(np.float64)).all(1)
        chosen = np.flatnonzero(finite)
        order = np.random.Generator(np.random.PCG64(seed)).permutation(chosen)[:_SAMPLE]
        self._x, self._y = jnp.asarray(x[order]), jnp.asarray(y[order])
        # Other examples' labels, several times over: a constant is as good on these as on their own.
        turns = [max(1, len(order) * part // 8) for part in (1, 3, 5, 7)]
        self._others = jnp.stack([jnp.roll(self._y, turn, axis=0) for turn in turns])
        self._compute, self._optimizer = compute, optimizer
        self._first = params, model_state

        # Data are arguments, not constants: another run of the same shapes is the same program.
        @jax.jit
        def losses(
            params: PyTree, model_state: PyTree, x: Array, y: Array, others: Array
        ) -> tuple[Array, Array, Array, Array]:
            each, outputs, _ = compute(params, model_state, x, y, None, False)
            of_others = jax.lax.map(
                lambda other: jnp.mean(compute(params, model_state, x, other, None, False)[0]),
                others,
            )
            leaves = jax.tree.leaves(outputs)
            varies = jnp.stack([jnp.max(jnp.ptp(leaf, axis=0)) for leaf in leaves]).max()
            # One answer for all: each output's median over the examples.
            middle = jax.tree.map(
                lambda leaf: jnp.broadcast_to(jnp.median(leaf, axis=0, keepdims=True), leaf.shape),
                outputs,
            )
            constant = jnp.mean(loss(middle, y).astype(jnp.float32))
            return jnp.mean(each), jnp.mean(of_others), constant, varies

        self._compiled = losses

    def _losses(self, params: PyTree, model_state: PyTree) -> tuple[float, float, float, float]:
        """Mean loss, with the labels of others, of one answer for all; how far the outputs are apart."""
        found = self._compiled(params, model_state, self._x, self._y, self._others)
        loss, mismatched, constant, varies = map(float, found)
        return loss, mismatched, constant, varies

    def measure(self, state: State, curved: bool) -> monitor.After:
        """All of it.

        Args:
            state: after the last step.
            curved: whether to measure curvature, too.
        """
        params, model_state = self._first
        if not len(self._x):
            loss = mismatched = first = first_mismatched = constant = varies = np.nan
            further = {}
        else:
            first, first_mismatched, *_ = self._losses(params, model_state)
            loss, mismatched, constant, varies = self._losses(state.params, state.model_state)
            further = {
                factor: self._losses(self._moved(state, factor), state.model_state)[0]
                for factor in _FURTHER
            }
        sharpness = (np.nan, np.nan)
        if curved and len(self._x):
            sharpness = (
                self._sharpness(params, model_state),
                self._sharpness(state.params, state.model_state),
            )
        clips_at, epsilon = self._of_optimizer(state) if len(self._x) else (np.nan, np.nan)
        return monitor.After(
            loss=loss,
            mismatched_loss=mismatched,
            constant_loss=constant,
            first_loss=first,
            first_mismatched_loss=first_mismatched,
            further=further,
            sharpness=sharpness,
            clips_at=clips_at,
            epsilon_share=epsilon,
            equal_units=_equal_units(params),
            output_constant=bool(varies == 0),
        )

    def held_out(
        self, params: PyTree, model_state: PyTree, data: tuple[NDArray[Any], NDArray[Any]]
    ) -> float:
        """How far beyond chance labels are foretold, in deviations of the loss with others' labels.

        Args:
            params: trained without these examples.
            model_state: likewise.
            data: `(x, y)`.
        """
        x, y = (jnp.asarray(values[:_HELD_OUT]) for values in data)
        shifts = np.unique(np.linspace(1, len(x) - 1, _SHIFTS).round().astype(np.int32))

        @jax.jit
        def losses(params: PyTree, model_state: PyTree, x: Array, y: Array, by: Array) -> Array:
            def mean(shift: Array) -> Array:
                labels = jnp.roll(y, shift, axis=0)
                return jnp.mean(self._compute(params, model_state, x, labels, None, False)[0])

            return jax.lax.map(mean, by)

        found = np.asarray(
            losses(params, model_state, x, y, jnp.asarray([0, *shifts], jnp.int32)), np.float64
        )
        spread = found[1:].std()
        return float((found[1:].mean() - found[0]) / spread) if spread > 0 else 0.0

    def _moved(self, state: State, factor: float) -> PyTree:
        return jax.tree.map(
            lambda first, last: first + factor * (last - first), self._first[0], state.params
        )

    def _sharpness(self, params: PyTree, model_state: PyTree) -> float:
        """The largest |eigenvalue| of the Hessian, by power iteration."""
        x, y = self._x[:_CURVED], self._y[:_CURVED]

        @jax.jit
        def iterate(
            params: PyTree, model_state: PyTree, direction: PyTree, x: Array, y: Array
        ) -> Array:
            def mean(params: PyTree) -> Array:
                return jnp.mean(self._compute(params, model_state, x, y, None, False)[0])

            def product(carry: tuple[PyTree, Array], _: None):
                direction = carry[0]
                curved = jax.jvp(jax.grad(mean), (params,), (direction,))[1]
                norm = trees.global_norm(curved)
                safe = jnp.where(norm > 0, norm, 1.0)
                return (jax.tree.map(lambda leaf: leaf / safe, curved), norm), None

            start = trees.global_norm(direction)
            direction = jax.tree.map(lambda leaf: leaf / start, direction)
            return jax.lax.scan(product, (direction, jnp.zeros(())), None, _PRODUCTS)[0][1]

        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(0), len(leaves))
        direction = [
            jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
        ]
        start = jax.tree.unflatten(structure, direction)
        return float(iterate(params, model_state, start, x, y))

    def _of_optimizer(self, state: State) -> tuple[float, float]:
        """From which norm on the optimizer clips, and what epsilon takes: see `monitor.After`."""
        inner = state.opt_state.inner
        update = optax.with_extra_args_support(self._optimizer).update

        @jax.jit
        def measure(params: PyTree, model_state: PyTree, inner: PyTree, x: Array, y: Array):
            def mean(params: PyTree) -> Array:
                return jnp.mean(self._compute(params, model_state, x, y, None, False)[0])

            gradients = jax.grad(mean)(params)
            norm = trees.global_norm(gradients)
            direction = jax.tree.map(lambda leaf: leaf / jnp.maximum(norm, 1e-30), gradients)

            def move(length: Array, inner: PyTree) -> PyTree:
                scaled = jax.tree.map(lambda leaf: length * leaf, direction)
                return update(scaled, inner, params, value=jnp.float32(0))[0]

            def changes(exponent: Array) -> Array:
                """Whether twice the gradient makes another update."""
                near, far = (move(2.0 ** (exponent + i), inner) for i in (0.0, 1.0))
                away = trees.global_norm(jax.tree.map(jnp.subtract, near, far))
                return away > 1e-4 * trees.global_norm(far)

            changed = jax.lax.map(changes, jnp.asarray(_EXPONENTS, jnp.float32))
            whole, smaller = (
                trees.global_norm(move(factor * norm, _scale_moments(inner, factor)))
                for factor in (1.0, 0.5)
            )
            return changed, jnp.where(whole > 0, 1 - smaller / whole, jnp.nan)

        changed, shrunk = measure(state.params, state.model_state, inner, self._x, self._y)
        changed = np.asarray(changed)
        # It clips where from some norm on nothing changes, and below something does.
        last = np.flatnonzero(changed)
        clips_at = np.nan
        if len(last) and last[-1] + 1 < len(changed) - _TRUSTED:
            clips_at = 2.0 ** _EXPONENTS[last[-1] + 1]
        return float(clips_at), float(shrunk) if _moments(inner) else np.nan


def _moments(state: PyTree) -> list[Any]:
    return [
        n for n in jax.tree.leaves(state, is_leaf=monitor.holds_moments) if monitor.holds_moments(n)
    ]


def _scale_moments(state: PyTree, factor: float) -> PyTree:
    """A state as it would be had all gradients been scaled by this: of second moments the square."""

    def scale(node: Any) -> Any:
        if not monitor.holds_moments(node):
            return node
        by = {"mu": factor, "nu": factor**2, "nu_max": factor**2}
        return node._replace(
            **{
                name: jax.tree.map(lambda leaf, by=by[name]: by * leaf, getattr(node, name))
                for name in by
                if name in node._fields
            }
        )

    return jax.tree.map(scale, state, is_leaf=monitor.holds_moments)


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
