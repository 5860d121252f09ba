"""Recurrent cells, each applied to all steps of a sequence at once.

Inputs are [T, B, num_gates × features], gate by gate, projected already by one product for all steps. The
state is float32 (float64 for float64 inputs), whatever the dtype of the inputs: it sums over time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxml import meshes
from jaxml.models.initializers import InitializerSpec, initializer
from jaxml.models.taps import OverTime
from jaxml.types import Array, PyTree

__all__ = ["CELLS", "Cell", "Masks"]

# Initial moduli and phases of a linear recurrent unit: slow ones, for long memories.
_RING = (0.9, 0.999)
_LARGEST_PHASE = jnp.pi / 10


Taps: TypeAlias = tuple[PyTree, PyTree] | None
"""What is added to the carry that enters, and that leaves, each step; trees with time in front."""


class Masks(NamedTuple):
    """What happens before and at each step.

    Attributes:
        resets: bool [T, B], whether the state is set to zero before the step; None for nowhere.
        valid: bool [T, B], whether the step counts: the others leave the state as it is. None for all.
    """

    resets: Array | None = None
    valid: Array | None = None


def _blocks(*inits: Callable[..., Array]) -> Callable[..., Array]:
    """Returns an initializer of the gates' kernels (or biases) side by side, each by its own."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        keys = jax.random.split(key, len(inits))
        part = (*shape[:-1], shape[-1] // len(inits))
        parts = [each(one, part, dtype) for each, one in zip(inits, keys, strict=True)]
        return jnp.concatenate(parts, axis=-1)

    return init


class Cell(OverTime):
    """A recurrent cell.

    Attributes:
        features: width of the state and of the outputs.
        reverse: run from the last step to the first. Steps that do not count come first then, and leave the
            state at zero.
        recurrent_init, forget_bias: as in `Recurrent`.
    """

    features: int
    reverse: bool = False
    recurrent_init: InitializerSpec = "orthogonal"
    forget_bias: float = 1.0

    num_gates: ClassVar[int]

    def projection(self) -> dict[str, Any]:
        """Returns the initializers of the dense layer before the cell."""
        return {}

    def zeros(self, batch: Any, dtype: Any) -> PyTree:
        """Returns the state before the first step, a tree of `[batch, features]`."""
        return jnp.zeros((batch, self.features), dtype)


class _Sequential(Cell):
    """A cell whose gates see the state, so that step follows step. Its output is the state's last leaf."""

    def step(self, carry: PyTree, inputs: Array, product: Array) -> PyTree:
        """Returns the next state, given the projected inputs and the product of the last output."""
        raise NotImplementedError  # Abstract: each cell has its own.

    def setup(self) -> None:
        init = _blocks(*[initializer(self.recurrent_init)] * self.num_gates)
        shape = (self.features, self.num_gates * self.features)
        self.kernel = self.param("kernel", init, shape)

    def __call__(
        self, inputs: Array, carry: PyTree, masks: Masks, taps: Taps = None
    ) -> tuple[Array, PyTree]:
        kernel = self.kernel.astype(inputs.dtype)
        step = self.step

        def body(before: PyTree, now: tuple[Any, ...]) -> tuple[PyTree, Array]:
            x, resets, valid, entering, leaving = now
            if entering is not None:
                before = jax.tree.map(jnp.add, before, entering)
            start = before
            if resets is not None:
                start = jax.tree.map(lambda leaf: jnp.where(resets[:, None], 0, leaf), start)
            h = jax.tree.leaves(start)[-1]
            product = jnp.dot(h.astype(x.dtype), kernel, preferred_element_type=h.dtype)
            after = step(start, x.astype(h.dtype), product)
            if leaving is not None:
                after = jax.tree.map(jnp.add, after, leaving)
            if valid is not None:
                after = jax.tree.map(
                    lambda new, old: jnp.where(valid[:, None], new, old), after, before
                )
            return after, jax.tree.leaves(after)[-1]

        steps = (inputs, masks.resets, masks.valid, *(taps or (None, None)))
        first = jax.tree.map(lambda leaf: leaf[0], steps)
        carry = meshes.settled(lambda before: body(before, first)[0], carry)
        carry, outputs = jax.lax.scan(body, carry, steps, reverse=self.reverse)
        return outputs.astype(inputs.dtype), carry


class Simple(_Sequential):
    """The simple recurrent network: h = tanh(W x + b + U h)."""

    num_gates = 1

    def step(self, carry: Array, inputs: Array, product: Array) -> Array:
        return jnp.tanh(inputs + product)


class LSTM(_Sequential):
    """Long short-term memory: c = f c + i g, h = o tanh(c), with gates i, f, g, o in this order.

    The forget gate's bias starts at 1 unless told otherwise (Jozefowicz et al. 2015).
    """

    num_gates = 4

    def projection(self) -> dict[str, Any]:
        zeros, forget = nn.initializers.zeros, nn.initializers.constant(self.forget_bias)
        return {"bias_init": _blocks(zeros, forget, zeros, zeros)}

    def zeros(self, batch: Any, dtype: Any) -> PyTree:
        return (jnp.zeros((batch, self.features), dtype),) * 2

    def step(self, carry: PyTree, inputs: Array, product: Array) -> PyTree:
        i, f, g, o = jnp.split(inputs + product, 4, axis=-1)
        c = jax.nn.sigmoid(f) * carry[0] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return c, jax.nn.sigmoid(o) * jnp.tanh(c)


class GRU(_Sequential):
    """The gated recurrent unit: h = (1 − z) n + z h, with gates r, z and n = tanh(W x + r (U h + b)).

    The reset gate r acts after the product, as in cuDNN and Flax.
    """

    num_gates = 3

    def setup(self) -> None:
        super().setup()
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)

    def step(self, carry: Array, inputs: Array, product: Array) -> Array:
        rz, n = jnp.split(inputs, [2 * self.features], axis=-1)
        u_rz, u_n = jnp.split(product, [2 * self.features], axis=-1)
        r, z = jnp.split(jax.nn.sigmoid(rz + u_rz), 2, axis=-1)
        n = jnp.tanh(n + r * (u_n + self.bias[None].astype(u_n.dtype)))
        return n + z * (carry - n)


class _Linear(Cell):
    """A cell whose state is h = a h + b, with a and b of the inputs alone."""

    def coefficients(self, inputs: Array) -> tuple[Array, Array]:
        """Returns a, `[T, B or 1, features]`, and b, `[T, B, features]`."""
        raise NotImplementedError  # Abstract: each cell has its own.

    def states(self, inputs: Array, carry: PyTree, masks: Masks, taps: Taps) -> tuple[Array, Array]:
        """Returns the states of all steps, and the last one."""
        a, b = self.coefficients(inputs)
        if masks.resets is not None:
            a = jnp.where(masks.resets[..., None], 0, a)
        if taps is not None:
            b = b + _complex(taps[1])
        if masks.valid is not None:
            a = jnp.where(masks.valid[..., None], a, 1)
            b = jnp.where(masks.valid[..., None], b, 0)
        if taps is not None:
            b = b + a * _complex(taps[0])
        first, last = (-1, 0) if self.reverse else (0, -1)
        b = b.at[first].add(_kept(a[first], _complex(carry)))
        # On two CPU cores the parallel scan takes 1.6 to 6 times as long to run, 6 to 17 to compile.
        states = jax.lax.platform_dependent(
            a,
            b,
            cpu=partial(step_by_step, reverse=self.reverse),
            default=partial(in_parallel, reverse=self.reverse),
        )
        return states, states[last]


def _complex(carry: PyTree) -> Array:
    return jax.lax.complex(*carry) if isinstance(carry, tuple) else carry


def step_by_step(a: Array, b: Array, reverse: bool = False) -> Array:
    """Returns the states h = a h + b of all steps from zero on, in as many steps as there are."""

    def body(before: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        after = _kept(now[0], before) + now[1]
        return after, after

    return jax.lax.scan(body, jnp.zeros_like(b[0]), (a, b), reverse=reverse)[1]


def in_parallel(a: Array, b: Array, reverse: bool = False) -> Array:
    """Returns the same as `step_by_step`, in a logarithm of the number of steps."""

    def compose(first: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
        return _kept(then[0], first[0]), _kept(then[0], first[1]) + then[1]

    return jax.lax.associative_scan(compose, (a, b), reverse=reverse)[1]


def _kept(a: Array, before: Array) -> Array:
    """a · before; 0 for a = 0, as at a reset, even if what was before is not finite."""
    return jnp.where(a == 0, 0, a * before)


def _positive(x: Array) -> Array:
    """g of Feng et al.: above 0, and continuous."""
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))


class _Minimal(_Linear):
    def __call__(
        self, inputs: Array, carry: Array, masks: Masks, taps: Taps = None
    ) -> tuple[Array, Array]:
        states, carry = self.states(inputs.astype(carry.dtype), carry, masks, taps)
        return states.astype(inputs.dtype), carry


class MinGRU(_Minimal):
    """The minimal gated recurrent unit: h = (1 − z) h + z g(W x), z = σ(V x) (Feng et al. 2024).

    g(x) = x + ½ for x ≥ 0, else σ(x). As 0 < z < 1, the products of the scan cannot overflow.
    """

    num_gates = 2

    def coefficients(self, inputs: Array) -> tuple[Array, Array]:
        z, h = jnp.split(inputs, 2, axis=-1)
        return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * _positive(h)


class MinLSTM(_Minimal):
    """The minimal LSTM: h = f / (f + i) h + i / (f + i) g(W x) (Feng et al. 2024), without overflow.

    f / (f + i) is the sigmoid of log f − log i. The forget gate's bias starts as the LSTM's.
    """

    num_gates = 3

    def projection(self) -> dict[str, Any]:
        zeros, forget = nn.initializers.zeros, nn.initializers.constant(self.forget_bias)
        return {"bias_init": _blocks(forget, zeros, zeros)}

    def coefficients(self, inputs: Array) -> tuple[Array, Array]:
        f, i, h = jnp.split(inputs, 3, axis=-1)
        kept = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
        return jax.nn.sigmoid(kept), jax.nn.sigmoid(-kept) * _positive(h)


class LRU(_Linear):
    """The linear recurrent unit: h = λ h + γ B x, y = gelu(Re(C h) + D x) (Orvieto et al. 2023).

    λ = exp(−exp(ν) + i exp(θ)) is complex and diagonal, and starts uniformly on a ring with moduli of 0.9
    to 0.999 and phases of at most π / 10; γ is learned and starts at √(1 − |λ|²). The state is a pair of
    real and imaginary parts. GELU replaces the paper's network of each step, or a stack would be linear.
    """

    num_gates = 3

    def projection(self) -> dict[str, Any]:
        half = nn.initializers.variance_scaling(0.5, "fan_in", "normal")
        return {"kernel_init": _blocks(half, half, nn.initializers.lecun_normal())}

    def zeros(self, batch: Any, dtype: Any) -> PyTree:
        return (jnp.zeros((batch, self.features), dtype),) * 2

    def setup(self) -> None:
        low, high = (r**2 for r in _RING)
        shape = (self.features,)

        def nu(key: Array) -> Array:
            squared = jax.random.uniform(key, shape, jnp.float32, low, high)
            return jnp.log(-0.5 * jnp.log(squared))

        def theta(key: Array) -> Array:
            return jnp.log(jax.random.uniform(key, shape, jnp.float32, 1e-6, _LARGEST_PHASE))

        def gamma(key: Array) -> Array:
            return 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(self.nu)))

        self.nu, self.theta = self.param("nu", nu), self.param("theta", theta)
        self.gamma = self.param("gamma", gamma)
        half = nn.initializers.variance_scaling(0.5, "fan_in", "normal")
        kernel = (2 * self.features, self.features)
        self.kernel = self.param("kernel", half, kernel, jnp.float32)

    def coefficients(self, inputs: Array) -> tuple[Array, Array]:
        decay, phase = jnp.exp(-jnp.exp(self.nu)), jnp.exp(self.theta)
        a = jax.lax.complex(decay * jnp.cos(phase), decay * jnp.sin(phase))
        real, imaginary, _ = jnp.split(inputs, 3, axis=-1)
        scale = jnp.exp(self.gamma)[None, None]
        b = jax.lax.complex(scale * real, scale * imaginary)
        return jnp.broadcast_to(a, (len(inputs), 1, self.features)).astype(b.dtype), b

    def __call__(
        self, inputs: Array, carry: PyTree, masks: Masks, taps: Taps = None
    ) -> tuple[Array, PyTree]:
        wide = inputs.astype(carry[0].dtype)
        states, last = self.states(wide, carry, masks, taps)
        parts = jnp.concatenate([states.real, -states.imag], axis=-1).astype(inputs.dtype)
        outputs = parts @ self.kernel.astype(inputs.dtype) + inputs[..., 2 * self.features :]
        return jax.nn.gelu(outputs), (last.real, last.imag)


CELLS: dict[str, type[Cell]] = {
    "simple": Simple,
    "lstm": LSTM,
    "gru": GRU,
    "mingru": MinGRU,
    "minlstm": MinLSTM,
    "lru": LRU,
}
"""Recurrent cells by name."""
