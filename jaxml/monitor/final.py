"""Diagnostics that are too expensive to run every step; run once after training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml import trees
from jaxml.monitor.guarding import update_given_loss
from jaxml.monitor.history import After
from jaxml.monitor.inputs import neighbour_signal
from jaxml.monitor.symptoms.no_learnable_signal import held_out_signal
from jaxml.types import Array, PyTree

__all__ = ["FinalDiagnostics"]

# Compile time counts, not run time.
_RUNS_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# Training examples that losses are measured on; of these, those for the curvature; those for the signal.
_SAMPLE, _CURVATURE_SAMPLE, _SIGNAL_SAMPLE = 512, 256, 4096

# Power iterations for the largest eigenvalue.
_ITERATIONS = 12

# How far the parameters are moved, as a multiple of the way from the first to the last ones.
_FACTORS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)

# Norms, as powers of two, of the gradients that show whether an optimizer clips. An adaptive optimizer
# normalises gradients at the large end anyway, so a clip among the last ones is not reported.
_EXPONENTS = np.arange(-30, 21)
_NORMALISED = 12


class FinalDiagnostics:
    """Compares trained models with their initial parameters.

    All models of the same shapes share one compiled program. Curvature and signal are programs of their
    own, compiled when they are first needed.

    Args:
        compute: `compute(params, model_state, x, y, key, training) -> (loss of each example, outputs, …)`.
        loss: `loss(outputs, labels) -> ` loss of each example.
        optimizer: `optimizer(hyperparameters) -> ` an optax transformation.
    """

    def __init__(
        self,
        compute: Callable[..., Any],
        loss: Callable[[Any, Array], Array],
        optimizer: Callable[[Any], Any],
    ) -> None:
        self._compute, self._loss, self._optimizer = compute, loss, optimizer
        self._losses_and_limits = jax.jit(self._losses_and_limits_of, compiler_options=_RUNS_ONCE)
        self._curvatures = jax.jit(self._curvatures_of, compiler_options=_RUNS_ONCE)
        self._signal = jax.jit(self._signal_of, compiler_options=_RUNS_ONCE)

    def measure(
        self,
        data: tuple[PyTree, Any],
        *,
        first: tuple[PyTree, PyTree],
        last: tuple[PyTree, PyTree],
        opt_state: PyTree,
        seed: int,
        curved: bool,
        hyperparameters: Any = None,
    ) -> After:
        """Returns all diagnostics but `held_out` and `neighbours`.

        Args:
            data: `(x, y)`, NumPy arrays that the model was trained on.
            first: parameters and model state before the first step.
            last: the same after the last step.
            opt_state: of the guarded optimizer after the last step.
            seed: of the choice of examples.
            curved: whether to measure the curvature.
            hyperparameters: of the optimizer.
        """
        rows = _finite_rows(data, seed)
        losses = np.full((len(_FACTORS), 4), np.nan)
        sharpness, clips_at, epsilon_share = (np.nan, np.nan), np.nan, np.nan
        divides_by_zero = False
        if len(rows):
            x, y = trees.take(data, rows[:_SAMPLE])
            inner = opt_state.inner
            found = self._losses_and_limits(hyperparameters, first, last, inner, x, y)
            losses, changes, sizes, at_rest = (np.asarray(each, np.float64) for each in found)
            # The norm from which on a larger gradient makes no other update.
            changed = np.flatnonzero(changes > 1e-4)
            if len(changed) and changed[-1] + 1 < len(changes) - _NORMALISED:
                clips_at = float(2.0 ** _EXPONENTS[changed[-1] + 1])
            if _moments(inner) and sizes[0] > 0:
                epsilon_share = float(1 - sizes[1] / sizes[0])
            divides_by_zero = not at_rest
            if curved:
                generator = np.random.default_rng(seed)
                start = jax.tree.map(
                    lambda leaf: generator.standard_normal(leaf.shape, np.float32), last[0]
                )
                few = trees.take((x, y), slice(_CURVATURE_SAMPLE))
                before, after = np.asarray(self._curvatures(first, last, start, *few), np.float64)
                sharpness = float(before), float(after)
        return After(
            loss=float(losses[1, 0]),
            mismatched_loss=float(losses[1, 1]),
            constant_loss=float(losses[1, 2]),
            first_loss=float(losses[0, 0]),
            further=dict(zip(_FACTORS[2:], map(float, losses[2:, 0]), strict=True)),
            sharpness=sharpness,
            clips_at=clips_at,
            epsilon_share=epsilon_share,
            equal_units=_equal_units(first[0]),
            output_constant=bool(losses[1, 3] == 0),
            divides_by_zero=divides_by_zero,
        )

    def held_out(
        self, data: tuple[PyTree, Any], first: tuple[PyTree, PyTree], *, seed: int
    ) -> dict[str, float]:
        """Returns `After.held_out` and `neighbours`, which are measured only if there is doubt."""
        rows = _finite_rows(data, seed)[:_SIGNAL_SAMPLE]
        if not len(rows):
            return {}
        x, y = trees.take(data, rows)
        return {
            "held_out": float(self._signal(*first, x, y)),
            "neighbours": neighbour_signal(x, np.asarray(y)),
        }

    # Compiled.

    def _losses_and_limits_of(
        self, hyperparameters: Any, first: Any, last: Any, inner: PyTree, x: PyTree, y: Array
    ) -> tuple[Array, Array, Array, Array]:
        def at(factor: Array) -> Array:
            """Loss with the right labels, with others', of one answer for all; whether outputs vary."""
            params, model_state = _between(first, last, factor)
            outputs = self._compute(params, model_state, x, y, None, False)[1]
            # Labels of other examples, several times over.
            turns = [max(1, len(y) * part // 8) for part in (1, 3, 5, 7)]
            labels = jnp.stack([y, *(jnp.roll(y, turn, axis=0) for turn in turns)])
            losses = jax.lax.map(lambda labels: self._mean(outputs, labels), labels)
            median = jax.tree.map(lambda leaf: _one_answer(leaf, len(y)), outputs)
            pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(median), strict=True)
            varies = sum(jnp.any(leaf != middle) for leaf, middle in pairs)
            return jnp.stack(
                [losses[0], jnp.mean(losses[1:]), self._mean(median, y), jnp.float32(varies)]
            )

        losses = jax.lax.map(at, np.array(_FACTORS, np.float32))
        return losses, *self._limits_of(hyperparameters, first[0], last[0], inner)

    def _mean(self, outputs: Any, labels: Array) -> Array:
        return jnp.mean(self._loss(outputs, labels).astype(jnp.float32))

    def _limits_of(
        self, hyperparameters: Any, first: PyTree, last: PyTree, inner: PyTree
    ) -> tuple[Array, Array, Array]:
        """How much doubling a gradient of each norm changes its update, relative; norms of an update, as it
        is, and with gradient and moments halved; and whether the update of nothing but zeros is finite."""
        update = update_given_loss(self._optimizer(hyperparameters))
        averages = [node.mu for node in _moments(inner) if hasattr(node, "mu")]
        shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
        usable = [mu for mu in averages if shapes(mu) == shapes(last)]
        # A gradient as the optimizer has had them.
        gradient = usable[0] if usable else jax.tree.map(jnp.subtract, last, first)
        norm = optax.tree.norm(gradient)

        def move(before: PyTree, given: tuple[Array, Array]) -> tuple[PyTree, tuple[Array, Array]]:
            length, factor = given
            scaled = jax.tree.map(
                lambda g, p: (length / jnp.maximum(norm, 1e-30) * g).astype(p.dtype), gradient, last
            )
            state = _scale_moments(inner, factor)
            updates = update(scaled, state, last, value=jnp.float32(0))[0]
            updates = jax.tree.map(lambda u: jnp.real(u).astype(jnp.float32), updates)
            away = optax.tree.norm(jax.tree.map(jnp.subtract, updates, before))
            return updates, (optax.tree.norm(updates), away)

        lengths = jnp.concatenate(
            [np.asarray(2.0**_EXPONENTS, np.float32), jnp.stack([norm, 0.5 * norm, 0.0 * norm])]
        )
        factors = jnp.array([1.0] * (len(_EXPONENTS) + 1) + [0.5, 0.0], jnp.float32)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), last)
        _, (sizes, aways) = jax.lax.scan(move, nothing, (lengths, factors))
        changes = aways[1:-3] / jnp.where(sizes[1:-3] > 0, sizes[1:-3], 1.0)
        return changes, sizes[-3:-1], jnp.isfinite(sizes[-1])

    def _signal_of(self, params: PyTree, model_state: PyTree, x: PyTree, y: Array) -> Array:
        losses = lambda params, x, y: self._compute(params, model_state, x, y, None, False)[0]  # noqa: E731
        return held_out_signal(losses, params, x, y)

    def _curvatures_of(self, first: Any, last: Any, start: PyTree, x: PyTree, y: Array) -> Array:
        """The largest |eigenvalue| of the Hessian at the first and last parameters, by power iteration."""

        def at(factor: Array) -> Array:
            params, model_state = _between(first, last, factor)

            def mean(params: PyTree) -> Array:
                return jnp.mean(self._compute(params, model_state, x, y, None, False)[0])

            def product(carry: tuple[PyTree, Array], _: None):
                direction = jax.tree.map(lambda v, p: v.astype(p.dtype), carry[0], params)
                curved = jax.jvp(jax.grad(mean), (params,), (direction,))[1]
                norm = trees.global_norm(curved)
                safe = jnp.where(norm > 0, norm, 1.0)
                unit = jax.tree.map(lambda c: jnp.real(c / safe).astype(jnp.float32), curved)
                return (unit, norm), None

            length = trees.global_norm(start)
            unit = jax.tree.map(lambda v: v / length, start)
            carry = unit, jnp.zeros((), jnp.float32)
            return jax.lax.scan(product, carry, None, _ITERATIONS)[0][1]

        return jax.lax.map(at, np.array(_FACTORS[:2], np.float32))


def _one_answer(outputs: Array, number: int) -> Array:
    """The median of the answers for all examples; what is no answer, such as a scale for all, as it is."""
    if outputs.shape[:1] != (number,) or not jnp.issubdtype(outputs.dtype, jnp.floating):
        return outputs
    return jnp.broadcast_to(jnp.median(outputs, axis=0), outputs.shape)


def _between(first: Any, last: Any, factor: Array) -> Any:
    """Parameters moved `factor` of the way from the first to the last ones, and the model state of the end
    that is nearer."""
    (params, model_state), (last_params, last_state) = first, last

    def moved(a: Array, b: Array) -> Array:
        far = (a + factor * (b - a)).astype(a.dtype)
        return jnp.where(factor == 0, a, jnp.where(factor == 1, b, far))

    return jax.tree.map(moved, params, last_params), jax.tree.map(
        lambda a, b: jnp.where(factor == 0, a, b), model_state, last_state
    )


def _finite_rows(data: tuple[PyTree, Any], seed: int) -> Any:
    """Rows in a random order, without those that hold a number that is not finite."""
    rows = np.random.Generator(np.random.PCG64(seed)).permutation(len(data[1]))
    rows = rows[: 2 * _SIGNAL_SAMPLE]
    finite = np.ones(len(rows), bool)
    for values in jax.tree.leaves(trees.take(data, rows)):
        finite &= np.isfinite(values.reshape(len(values), -1).astype(np.float64)).all(1)
    return rows[finite]


def _holds_moments(node: Any) -> bool:
    """Whether a node of an optimizer's state has second moments, as `nu`, and not under another name."""
    fields = getattr(node, "_fields", ())
    if "nu" not in fields or "mu" not in fields:
        return "nu" in fields
    structures: Any = jax.tree.structure(node.mu), jax.tree.structure(node.nu)
    return bool(structures[0] == structures[1])


def _moments(state: PyTree) -> list[Any]:
    return [n for n in jax.tree.leaves(state, is_leaf=_holds_moments) if _holds_moments(n)]


def _scale_moments(state: PyTree, factor: Array) -> PyTree:
    """The state as if all gradients had been multiplied by this factor."""

    def scale(node: Any) -> Any:
        if not _holds_moments(node):
            return node
        scaled = {
            name: jax.tree.map(
                lambda leaf, by=by: (by * leaf).astype(leaf.dtype), getattr(node, name)
            )
            for name, by in {"mu": factor, "nu": factor**2, "nu_max": factor**2}.items()
            if name in node._fields
        }
        return node._replace(**scaled)

    return jax.tree.map(scale, state, is_leaf=_holds_moments)


def _equal_units(params: PyTree) -> tuple[str, ...]:
    """Names of layers whose units all have the same weights, other than 0."""
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        values = np.asarray(leaf, np.complex128 if np.iscomplexobj(leaf) else np.float64)
        if values.ndim < 2 or values.shape[-1] < 2 or values.size == values.shape[-1]:
            continue
        flat = values.reshape(-1, values.shape[-1])
        if np.all(flat == flat[:, :1]) and flat.any():
            names.append(jax.tree_util.keystr(path[:-1], simple=True, separator="/"))
    return tuple(names)
