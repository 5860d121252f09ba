"""Exact softmax over very many classes, a block of them at a time: no [B, C] array at all.

**What is computed.** With s the inner product of an input and a class's row, b its bias, τ the temperature
and κ the soft cap,

    u = (s + b) / τ,     z = κ tanh(u / κ)  (z = u without a cap),     z = −∞ for a masked class,
    L = log Σ_c exp(z_c)                                               (the log-partition),
    loss = Σ_c t_c ω_c (L − z_c) + ζ L².

The target t shares 1 − ε evenly among the example's true classes and ε among the K classes that are not
masked (label smoothing); ω are class weights, 1 by default; ζ is the weight of the z-loss. Masking comes
after the cap, so what is masked stays out.

**How.** A sweep keeps, for each example, the largest logit and the sum of exponentials so far, both
float32, and rescales the sum when the largest grows (Milakov & Gimelshein, 2018). The gradient

    ∂loss/∂z_c = (Σ_k t_k ω_k + 2 ζ L) exp(z_c − L) − t_c ω_c

is made in a second sweep, which computes each block's logits anew: four matrix products in place of three,
and the memory of one block in place of [B, C].
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxml.softmax import checks, sweeps
from jaxml.softmax.logits import (
    check_table,
    check_temperature,
    products,
    true_classes,
)
from jaxml.softmax.search import with_block
from jaxml.types import Array, PyTree

BY_PRODUCTS = ("argmax", "entropy", "log_partition", "top_k")

# Logits of a block, [block, B]: few enough to stay in a core's cache while they are used.
_BLOCK_LOGITS = 2**20

# What may be shifted by: −inf − −inf would be NaN.
_FINITE = (-3.4e38, 3.4e38)


def blockwise_softmax_loss(
    inputs,
    labels,
    weights,
    biases=None,
    *,
    block_size: int | None = None,
    temperature=1.0,
    label_smoothing=0.0,
    z_loss=0.0,
    softcap=None,
    class_weights=None,
    class_mask=None,
    ignore_label: int | None = None,
    where=None,
    gradient_filter: float | None = None,
    by_products: Sequence[str] = (),
    k: int = 1,
):
    """Exact cross-entropy of every example, in the memory of one block of classes.

        loss = Σ_c t_c ω_c (L − z_c) + ζ L²

    as in the module's docstring; without options it is `full_softmax_loss`, value and gradients. When
    there are more classes than `block_size`, no array of B · C elements exists in the compiled program,
    forward or backward. A gradient costs two sweeps, four matrix products; if only the mean over the
    batch is wanted, see `blockwise_softmax_mean_loss`.

    Args:
        inputs: [*batch, D], any float.
        labels: integers in [0, C): [*batch], one class each, or [*batch, T], several that share
            the target mass evenly.
        weights: [C, D], any float.
        biases: [C] or None. A bias of −inf takes its class out, as `class_mask` does.
        block_size: classes at a time, at least 1; more than C are C. None: about 2²⁰ logits a block.
        temperature: scalar > 0, may be traced.
        label_smoothing: ε in [0, 1], may be traced.
        z_loss: ζ ≥ 0, may be traced; 1e−4 is usual (PaLM).
        softcap: κ > 0 or None, may be traced; 30 is usual (Gemma 2).
        class_weights: [C] floats ≥ 0 or None. The mean over a batch is not divided by them.
        class_mask: bool [C] or None; False takes a class out of every example's softmax.
        ignore_label: a label that masks itself (−100, say), whatever `where` says.
        where: None, or bool of the labels' shape; False masks a label, which may then hold any id.
            T counts the labels that are left.
        gradient_filter: None, or a probability below which a whole block may be left out: a block in
            which no label lies and no example gives any class more than this has the gradient 0. What
            is left out of ∂loss/∂z is at most this in each entry, times Σ t ω + 2 ζ L.
        by_products: any of "log_partition" (L, float32 [*batch], differentiable), "argmax" (int32
            [*batch], ties go to the lower id), "top_k" (scores and ids [*batch, k]) and "entropy" (of the
            softmax, in nats); they cost no further sweep.
        k: how many for "top_k", in [1, C].

    Returns:
        float32 [*batch], or `(losses, by_products)` with a dictionary if any are asked for. An example with
        no label left has loss 0 and gradient 0, whatever its inputs hold. A label out of range that is
        only known inside `jit` gives NaN.

    Raises:
        ValueError: for shapes that do not fit, an empty table, a block size below 1, an option outside its
            range or a label out of range (when their values are known), or an unknown by-product.

    Numerics: float32 carries and logits whatever the inputs; the products of the gradient take
    ∂loss/∂z in the operands' dtype, as the forward product takes its own. A true class that is masked has
    loss +inf. Class weights, mask, ε, ζ and κ are constants: no gradient flows into them.

    >>> import jax.numpy as jnp
    >>> inputs, labels, weights = jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3))
    >>> blockwise_softmax_loss(inputs, labels, weights, block_size=2)  # log 4
    Array([1.3862944, 1.3862944], dtype=float32)

    Source: Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024 (recomputed blocks and
    gradient filtering).
    """
    problem = _problem(
        inputs,
        labels,
        weights,
        biases,
        block_size=block_size,
        temperature=temperature,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_label=ignore_label,
        where=where,
        gradient_filter=gradient_filter,
    )
    unknown = [name for name in by_products if name not in BY_PRODUCTS]
    if unknown:
        raise ValueError(f"by_products must be among {BY_PRODUCTS}, got {unknown[0]!r}")
    num_classes = jnp.shape(weights)[0]
    if not 1 <= checks.positive("k", k) <= num_classes:
        raise ValueError(f"k must be in [1, {num_classes}], got {k}")
    wanted = _Wanted(
        best=k if "top_k" in by_products else int("argmax" in by_products),
        entropy="entropy" in by_products,
    )
    losses, extra = _loss(problem.options, wanted, *problem.arguments)
    losses = problem.refuse(losses)
    if not by_products:
        return losses.reshape(problem.batch)
    results: dict[str, Any] = {}
    for name in by_products:
        if name == "argmax":
            results[name] = extra["best"][1][:, 0].reshape(problem.batch)
        elif name == "top_k":
            results[name] = tuple(x.reshape(*problem.batch, k) for x in extra["best"])
        else:
            results[name] = extra[name].reshape(problem.batch)
    return losses.reshape(problem.batch), results


def blockwise_softmax_mean_loss(
    inputs,
    labels,
    weights,
    biases=None,
    *,
    block_size: int | None = None,
    tile_size: int | None = None,
    temperature=1.0,
    label_smoothing=0.0,
    z_loss=0.0,
    softcap=None,
    class_weights=None,
    class_mask=None,
    ignore_label: int | None = None,
    where=None,
    gradient_filter: float | None = None,
) -> Array:
    """The mean of `blockwise_softmax_loss` over the examples that have a label, its gradients made with it.

    A mean's cotangent is one number, so the gradients can be made in the forward pass and multiplied by it
    in the backward pass. With `tile_size` examples at a time, whose logits for *all* classes, [C, tile],
    are held, that takes three matrix products instead of four, but reads and writes the gradient of the
    table once a tile: it pays where C · tile logits fit in memory for a tile of hundreds of examples.
    Otherwise, two sweeps over blocks of classes, as in `blockwise_softmax_loss`.

    Args:
        inputs: [*batch, D], any float.
        labels: as in `blockwise_softmax_loss`.
        weights: [C, D], any float.
        biases: [C] or None.
        block_size: of the sweeps, as in `blockwise_softmax_loss`.
        tile_size: examples whose logits are held at once; 0 for sweeps. None: as many as make 2²⁸ logits
            (1 GiB), and sweeps if those are fewer than 256 and not the whole batch.
        temperature: as in `blockwise_softmax_loss`.
        label_smoothing: as in `blockwise_softmax_loss`.
        z_loss: as in `blockwise_softmax_loss`.
        softcap: as in `blockwise_softmax_loss`.
        class_weights: as in `blockwise_softmax_loss`.
        class_mask: as in `blockwise_softmax_loss`.
        ignore_label: as in `blockwise_softmax_loss`.
        where: as in `blockwise_softmax_loss`.
        gradient_filter: as in `blockwise_softmax_loss`; has no effect on tiles.

    Returns:
        float32 scalar; 0, with gradient 0, where no example has a label.

    Raises:
        ValueError: as `blockwise_softmax_loss`, and for a negative tile size.

    >>> import jax.numpy as jnp
    >>> inputs, labels, weights = jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3))
    >>> blockwise_softmax_mean_loss(inputs, labels, weights, block_size=2)  # log 4
    Array(1.3862944, dtype=float32)

    Source: Hsu et al., Liger Kernel, 2024 (gradients in the forward pass, a tile of examples at a time).
    """
    problem = _problem(
        inputs,
        labels,
        weights,
        biases,
        block_size=block_size,
        temperature=temperature,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_label=ignore_label,
        where=where,
        gradient_filter=gradient_filter,
    )
    size, num_classes = problem.arguments[0].shape[0], jnp.shape(weights)[0]
    if tile_size is None:
        tile_size = min(2**28 // num_classes, size)
        tile_size = tile_size if tile_size >= min(256, size) else 0
    elif tile_size < 0:
        raise ValueError(f"tile_size must be at least 0, got {tile_size}")
    loss = _mean_loss(problem.options, min(tile_size, size), *problem.arguments)
    return jnp.where(problem.refused.any(), jnp.nan, loss)


def blockwise_softmax_update(
    inputs,
    labels,
    table,
    state: PyTree,
    rule: Callable[[Array, PyTree, Array], tuple[Array, PyTree]],
    *,
    biases=None,
    block_size: int | None = None,
    temperature=1.0,
    label_smoothing=0.0,
    z_loss=0.0,
    softcap=None,
    class_weights=None,
    class_mask=None,
    ignore_label: int | None = None,
    where=None,
    gradient_filter: float | None = None,
    max_row_norm=None,
) -> tuple[Array, Array, Array, PyTree]:
    """One step of exact softmax training in the memory of its table: no [C, D] gradient either.

    The first sweep gives the losses, the second makes a block's gradient of the *mean* loss, over the
    examples that have a label, and hands it to `rule` together with the block's rows. Under donation table
    and state are updated in place.

    The step is gated on the mean loss before the second sweep: if it is not finite, no bit of table and
    state changes, and `d_inputs` is 0. There is no norm of the whole gradient to clip by, since the whole
    gradient never exists; `max_row_norm` clips each row's.

    Args:
        inputs: [*batch, D], any float.
        labels: as in `blockwise_softmax_loss`.
        table: [C, D], any float, or uint16, the bits of a bfloat16 table.
        state: the slots of a row optimizer: a pytree whose leaves have C rows, or are scalars.
        rule: `rule(rows, slots, gradients) -> (rows, slots)` for float32 rows [K, D]; `sgd(0.1).rule` of
            `jaxml.tables`, say. It is called for every class: one that has no gradient but a state that
            moves (Adam's moments) moves on, as under a dense optimizer.
        biases: [C] or None, constants.
        block_size: as in `blockwise_softmax_loss`.
        temperature: as in `blockwise_softmax_loss`.
        label_smoothing: as in `blockwise_softmax_loss`.
        z_loss: as in `blockwise_softmax_loss`.
        softcap: as in `blockwise_softmax_loss`.
        class_weights: as in `blockwise_softmax_loss`.
        class_mask: as in `blockwise_softmax_loss`.
        ignore_label: as in `blockwise_softmax_loss`.
        where: as in `blockwise_softmax_loss`.
        gradient_filter: as in `blockwise_softmax_loss`.
        max_row_norm: None, or a scalar > 0, the largest Euclidean norm of a row's gradient.

    Returns:
        `(losses, d_inputs, table, state)`: float32 [*batch]; [*batch, D] in the inputs' dtype, the
        gradient of the mean loss, at the table as it was; the table and its state after the step.

    Raises:
        ValueError: as `blockwise_softmax_loss`; state leaves that have neither C rows nor no axis.

    >>> import jax.numpy as jnp
    >>> rule = lambda rows, slots, gradients: (rows - 0.1 * gradients, slots)
    >>> inputs, labels, table = jnp.ones((2, 3)), jnp.array([0, 0]), jnp.zeros((4, 3))
    >>> losses, d_inputs, table, state = blockwise_softmax_update(inputs, labels, table, {}, rule)
    >>> print(losses, table[:, 0])
    [1.3862944 1.3862944] [ 0.075 -0.025 -0.025 -0.025]
    """
    table = jnp.asarray(table)
    problem = _problem(
        inputs,
        labels,
        table,
        biases,
        block_size=block_size,
        temperature=temperature,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        class_weights=class_weights,
        class_mask=class_mask,
        ignore_label=ignore_label,
        where=where,
        gradient_filter=gradient_filter,
    )
    num_classes = table.shape[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.ndim(leaf) and jnp.shape(leaf)[0] != num_classes:
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} must be a scalar or have {num_classes} rows as "
                f"the table, got shape {jnp.shape(leaf)}"
            )
    options, (x, _, biases, scale, data) = problem.options, problem.arguments
    losses, extra = _forward(options, _Wanted(), x, table, biases, scale, data)
    losses = problem.refuse(losses)
    count = jnp.maximum(data.counted.sum(), 1)
    accepted = jnp.isfinite(losses.sum())
    share = jnp.where(data.counted, 1.0 / count, 0.0)
    log_partition = extra["log_partition"]
    # Every block is given the scalars as they were, and the last one's are kept.
    scalars, slots = _split(state)
    columns = sweeps.columns(x)

    def step_block(carry, start: Array, size: int):
        d_columns, table, slots, _ = carry
        block = _block(x, columns, table, biases, scale, data, start, size)
        d_scores = _d_scores(block, data, scale, share, None, log_partition, start)

        def gradients_at(rows):
            return sweeps.d_columns(rows.astype(block.rows.dtype), d_scores), sweeps.d_rows(
                x, d_scores
            )

        def step(_, kept):
            d_columns, rows, slots, _ = kept
            of_columns, gradients = _unless_filtered(
                options.gradient_filter, gradients_at, rows, block, data, log_partition, start
            )
            if max_row_norm is not None:
                norms = jnp.sqrt(jnp.sum(gradients**2, axis=-1, keepdims=True))
                gradients *= jnp.minimum(1.0, max_row_norm / jnp.maximum(norms, 1e-30))
            rows, new = rule(rows, _joined(scalars, slots), gradients)
            advanced, new = _split(new)
            return d_columns + of_columns, *_of_dtypes((rows, new, advanced), kept[1:])

        old = jax.tree.map(lambda slot: lax.dynamic_slice_in_dim(slot, start, size), slots)
        kept = (d_columns, block.rows.astype(jnp.float32), old, scalars)
        # A loop of one turn, or of none: what it starts from is read before anything is written, so that
        # XLA need not copy the whole table and its slots, in every block.
        d_columns, rows, new, advanced = lax.fori_loop(0, accepted.astype(jnp.int32), step, kept)

        def write(whole: Array, part: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(whole, part, start, 0)

        table = write(table, _stored(rows, table.dtype))
        return d_columns, table, jax.tree.map(write, slots, new), advanced

    carry = (jnp.zeros(columns.shape, jnp.float32), table, slots, scalars)
    d_columns, table, slots, scalars = sweeps.sweep(
        step_block, carry, num_classes, options.block_size
    )
    d_inputs = jnp.where(data.counted[:, None], d_columns.T, 0.0)
    return (
        losses.reshape(problem.batch),
        d_inputs.astype(problem.dtype).reshape(*problem.batch, table.shape[1]),
        table,
        _joined(scalars, slots),
    )


class _Options(NamedTuple):
    """What is known while tracing."""

    block_size: int
    gradient_filter: float | None


class _Wanted(NamedTuple):
    """By-products of the first sweep, besides the log-partition."""

    best: int = 0
    entropy: bool = False


class _Data(NamedTuple):
    """What a loss depends on without a gradient; None stands for an option that is not used."""

    ids: Array  # int32 [N, T], -1 where there is no class
    target: Array  # [N, T], the mass of a true class times its weight
    counted: Array  # bool [N], whether a label is left
    mass: Array  # [N], Σ t ω over all classes
    smooth: Array | None  # [C], the mass of any class times its weight
    mask: Array | None  # bool [C], False for classes that are out
    softcap: Array | None
    z_loss: Array


class _Problem(NamedTuple):
    """The arguments in one form: a flat batch, and one representation of every option."""

    options: _Options
    arguments: tuple[Array, Array, Array | None, Array, _Data]
    refused: Array  # bool [N]
    batch: tuple[int, ...]
    dtype: Any  # of the inputs

    def refuse(self, losses: Array) -> Array:
        return jnp.where(self.refused, jnp.nan, losses)


def _problem(
    inputs,
    labels,
    weights,
    biases,
    *,
    block_size,
    temperature,
    label_smoothing,
    z_loss,
    softcap,
    class_weights,
    class_mask,
    ignore_label,
    where,
    gradient_filter,
) -> _Problem:
    inputs, weights = jnp.asarray(inputs), jnp.asarray(weights)
    biases = None if biases is None else jnp.asarray(biases)
    check_table(inputs, weights, biases)
    check_temperature(temperature)
    num_classes, dim = weights.shape
    _check_range("label_smoothing", label_smoothing, 0, 1)
    _check_range("z_loss", z_loss, 0, math.inf)
    if softcap is not None:
        _check_range("softcap", softcap, 0, math.inf)
        if not isinstance(softcap, jax.core.Tracer) and not np.asarray(softcap) > 0:
            raise ValueError(f"softcap must be greater than 0, got {softcap}")
    if gradient_filter is not None and not 0 <= gradient_filter <= 1:
        raise ValueError(f"gradient_filter must be in [0, 1], got {gradient_filter}")
    for name, values in (("class_weights", class_weights), ("class_mask", class_mask)):
        if values is not None and jnp.shape(values) != (num_classes,):
            raise ValueError(f"{name} must be {(num_classes,)}, got {jnp.shape(values)}")
    if class_weights is not None and not isinstance(class_weights, jax.core.Tracer):
        smallest = np.asarray(class_weights).min(initial=math.inf)
        if not smallest >= 0:
            raise ValueError(f"class_weights must be at least 0, got {smallest}")
    if ignore_label is not None:
        kept = jnp.asarray(labels) != ignore_label
        where = kept if where is None else kept & jnp.asarray(where, bool)
    true = true_classes(labels, where, inputs, num_classes)

    batch = inputs.shape[:-1]
    size = math.prod(batch)
    if block_size is None:
        block_size = max(_BLOCK_LOGITS // max(size, 1), 256)
    block_size = min(checks.positive("block_size", block_size), num_classes)

    ids, present = (x.reshape(size, true.ids.shape[-1]) for x in (true.ids, true.present))
    count = present.sum(-1)
    counted = count > 0
    inputs = inputs.reshape(size, dim)
    # Zero times NaN is NaN: what an example without labels holds must not reach a product.
    x = jnp.where(counted[:, None], inputs, 0)
    mask = None if class_mask is None else jnp.asarray(class_mask, bool)
    if biases is not None:
        absent = jnp.isneginf(biases)
        mask = ~absent if mask is None else mask & ~absent
        biases = jnp.where(absent, 0, biases).astype(jnp.float32)

    weight = None if class_weights is None else jnp.asarray(class_weights, jnp.float32)
    smoothing = jnp.asarray(label_smoothing, jnp.float32)
    target = jnp.where(present, (1.0 - smoothing) / jnp.maximum(count, 1)[:, None], 0.0)
    if weight is not None:
        target *= jnp.where(ids >= 0, weight[jnp.maximum(ids, 0)], 1.0)
    mass, smooth = target.sum(-1), None
    if isinstance(label_smoothing, jax.Array) or np.asarray(label_smoothing) > 0:
        num_kept = num_classes if mask is None else jnp.maximum(mask.sum(), 1)
        smooth = jnp.full(num_classes, smoothing / num_kept)
        smooth = smooth if weight is None else smooth * weight
        smooth = smooth if mask is None else jnp.where(mask, smooth, 0.0)
        mass += jnp.where(counted, smooth.sum(), 0.0)
    data = _Data(
        ids=ids,
        target=target,
        counted=counted,
        mass=mass,
        smooth=smooth,
        mask=mask,
        softcap=None if softcap is None else jnp.asarray(softcap, jnp.float32),
        z_loss=jnp.asarray(z_loss, jnp.float32),
    )
    scale = 1.0 / jnp.asarray(temperature, jnp.float32)
    options = _Options(block_size, gradient_filter)
    refused = true.refused.reshape(size, true.ids.shape[-1]).any(-1)
    return _Problem(
        options, (x, weights, biases, scale, lax.stop_gradient(data)), refused, batch, inputs.dtype
    )


def _check_range(name: str, value, low: float, high: float) -> None:
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
    if not isinstance(value, jax.core.Tracer) and not low <= np.asarray(value) <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}")


class _Block(NamedTuple):
    rows: Array  # [K, D]
    logits: Array  # float32 [K, N], −inf where a class is masked
    slope: Array | None  # ∂z/∂u, where there is a soft cap


def _block(x, columns, table, biases, scale, data: _Data, start: Array, size: int) -> _Block:
    """The logits of the classes from `start` on."""
    rows = _as_float(lax.dynamic_slice_in_dim(table, start, size))
    logits = sweeps.scores(rows, columns)
    if biases is not None:
        logits += lax.dynamic_slice_in_dim(biases, start, size)[:, None]
    logits *= scale
    slope = None
    if data.softcap is not None:
        share = jnp.tanh(logits / data.softcap)
        logits, slope = data.softcap * share, 1.0 - share**2
    if data.mask is not None:
        kept = lax.dynamic_slice_in_dim(data.mask, start, size)[:, None]
        logits = jnp.where(kept, logits, -jnp.inf)
        slope = jnp.where(kept, 1.0 if slope is None else slope, 0.0)
    return _Block(rows, logits, slope)


def _true_logits(x, table, biases, scale, data: _Data) -> Array:
    """The logits of the true classes, [N, T]; anything where there is none."""
    ids = jnp.maximum(data.ids, 0)
    rows = _as_float(jnp.take(table, ids, axis=0, mode="clip"))
    logits = products(x, rows)
    if biases is not None:
        logits += biases[ids]
    logits *= scale
    if data.softcap is not None:
        logits = data.softcap * jnp.tanh(logits / data.softcap)
    return logits if data.mask is None else jnp.where(data.mask[ids], logits, -jnp.inf)


class _Carry(NamedTuple):
    peak: Array  # [N], the largest logit so far, finite
    total: Array  # [N], Σ exp(z − peak)
    below: Array | None  # [N], Σ (z − peak) exp(z − peak), for the entropy
    smooth: Array | None  # [N], Σ z smooth
    best: tuple[Array, Array] | None  # scores and ids [N, k]


def _forward(options: _Options, wanted: _Wanted, x, table, biases, scale, data: _Data):
    """The first sweep: losses [N] and the by-products, the log-partition always among them."""
    columns = sweeps.columns(x)
    num_classes = table.shape[0]

    def fold(carry: _Carry, start: Array, size: int) -> _Carry:
        z = _block(x, columns, table, biases, scale, data, start, size).logits
        peak = jnp.maximum(carry.peak, jnp.minimum(z.max(0), _FINITE[1]))
        shrink = jnp.exp(carry.peak - peak)
        exponentials = jnp.exp(z - peak[None])
        below = smooth = None
        if carry.below is not None:
            # −inf times zero would be NaN.
            distance = jnp.where(exponentials > 0, z - peak[None], 0.0)
            moved = jnp.where(carry.total > 0, (carry.peak - peak) * carry.total, 0.0)
            below = shrink * (carry.below + moved) + (distance * exponentials).sum(0)
        if carry.smooth is not None and data.smooth is not None:
            smooth = carry.smooth + _smoothed(z, data.smooth, start)
        best = carry.best
        if wanted.best:
            best = with_block(best, z.T, start, wanted.best)
        total = carry.total * shrink + exponentials.sum(0)
        return _Carry(peak, total, below, smooth, best)

    zeros = jnp.zeros(x.shape[0], jnp.float32)
    carry = _Carry(
        peak=jnp.full_like(zeros, _FINITE[0]),
        total=zeros,
        below=zeros if wanted.entropy else None,
        smooth=None if data.smooth is None else zeros,
        best=None,
    )
    # The first block must hold k classes: no filler then ever competes with a score of −inf.
    first = min(num_classes, -(-wanted.best // options.block_size) * options.block_size)
    if first:
        carry = fold(carry, jnp.int32(0), first)
    carry = sweeps.sweep(
        lambda carry, start, size: fold(carry, start + first, size),
        carry,
        num_classes - first,
        options.block_size,
    )
    log_total = jnp.log(carry.total)
    losses = _losses(x, table, biases, scale, data, carry.peak, log_total, carry.smooth)
    extra: dict[str, Any] = {"log_partition": carry.peak + log_total}
    if wanted.entropy:
        extra["entropy"] = log_total - carry.below / carry.total
    if wanted.best:
        extra["best"] = carry.best
    return losses, extra


def _losses(x, table, biases, scale, data: _Data, peak, log_total, smooth) -> Array:
    """[N] from Σ exp(z − peak) and, with label smoothing, Σ z smooth."""
    log_partition = peak + log_total
    # Differences to the peak first: logits around ±1e4 keep their loss.
    distance = peak[:, None] - _true_logits(x, table, biases, scale, data) + log_total[:, None]
    losses = (data.target * jnp.where(data.target > 0, distance, 0.0)).sum(-1)
    if data.smooth is not None:
        losses += data.smooth.sum() * log_partition - smooth
    losses += data.z_loss * log_partition**2
    return jnp.where(data.counted, losses, 0.0)


def _smoothed(z: Array, smooth: Array, start) -> Array:
    """Σ z smooth over a block [K, N]; what is masked has no share."""
    share = lax.dynamic_slice_in_dim(smooth, start, z.shape[0])[:, None]
    return (jnp.where(jnp.isneginf(z), 0.0, z) * share).sum(0)


def _d_scores(block: _Block, data: _Data, scale, d_losses, d_log, log_partition, start):
    """∂/∂s of the block, float32 [K, N]: what the losses' and the log-partition's cotangents make of it."""
    factor = d_losses * (data.mass + 2.0 * data.z_loss * log_partition)
    factor = factor if d_log is None else factor + d_log
    finite = jnp.where(jnp.isfinite(log_partition), log_partition, 0.0)
    d_logits = factor[None] * jnp.exp(block.logits - finite[None])
    share = d_losses[:, None] * data.target

    def subtract(d_logits: Array, own: Array, t: Array) -> Array:
        mass = lax.dynamic_index_in_dim(share, t, 1, keepdims=False)
        return d_logits - jnp.where(own, mass[None], 0.0)

    d_logits = sweeps.over_true(subtract, data.ids, d_logits, start)
    if data.smooth is not None:
        smooth = lax.dynamic_slice_in_dim(data.smooth, start, block.logits.shape[0])
        d_logits -= smooth[:, None] * d_losses[None]
    if block.slope is not None:
        d_logits *= block.slope
    return d_logits * scale


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss(options: _Options, wanted: _Wanted, x, table, biases, scale, data: _Data):
    return _forward(options, wanted, x, table, biases, scale, data)


def _loss_fwd(options, wanted, x, table, biases, scale, data):
    losses, extra = _forward(options, wanted, x, table, biases, scale, data)
    return (losses, extra), (x, table, biases, scale, data, extra["log_partition"])


def _loss_bwd(options: _Options, wanted: _Wanted, kept, cotangents):
    """The second sweep."""
    x, table, biases, scale, data, log_partition = kept
    d_losses, d_extra = cotangents
    d_losses = jnp.where(data.counted, d_losses, 0.0)
    d_log = jnp.where(data.counted, d_extra["log_partition"], 0.0)
    log_partition = jnp.where(data.counted, log_partition, 0.0)
    return *_gradients(options, x, table, biases, scale, data, d_losses, d_log, log_partition), None


def _gradients(options: _Options, x, table, biases, scale, data, d_losses, d_log, log_partition):
    """Of inputs, table, biases and scale, in one sweep."""
    columns = sweeps.columns(x)

    def add_block(carry, start: Array, size: int):
        d_columns, d_table, d_biases = carry
        block = _block(x, columns, table, biases, scale, data, start, size)

        def gradients_at(rows):
            d_scores = _d_scores(block, data, scale, d_losses, d_log, log_partition, start)
            return sweeps.d_columns(rows, d_scores), sweeps.d_rows(x, d_scores), d_scores.sum(1)

        of_columns, of_rows, of_biases = _unless_filtered(
            options.gradient_filter, gradients_at, block.rows, block, data, log_partition, start
        )
        d_table = lax.dynamic_update_slice_in_dim(d_table, of_rows.astype(table.dtype), start, 0)
        if d_biases is not None:
            d_biases = lax.dynamic_update_slice_in_dim(d_biases, of_biases, start, 0)
        return d_columns + of_columns, d_table, d_biases

    carry = (
        jnp.zeros(columns.shape, jnp.float32),
        jnp.zeros(table.shape, table.dtype),
        None if biases is None else jnp.zeros(biases.shape, jnp.float32),
    )
    d_columns, d_table, d_biases = sweeps.sweep(
        add_block, carry, table.shape[0], options.block_size
    )
    d_x = d_columns.T
    # u is (s + b) · scale, and Σ s ∂s is Σ x ∂x: no further pass over the logits.
    d_scale = (x.astype(jnp.float32) * d_x).sum()
    if biases is not None:
        d_scale += (biases * d_biases).sum()
    return d_x.astype(x.dtype), d_table, d_biases, d_scale / scale


def _unless_filtered(
    threshold: float | None, gradients_at, rows, block: _Block, data: _Data, log_partition, start
):
    """`gradients_at(rows)`, or zeros where nothing in the block matters.

    A block matters if a label lies in it, or if some example gives one of its classes a probability above
    the threshold.
    """
    if threshold is None:
        return gradients_at(rows)
    highest = (block.logits.max(0) - log_partition).max()
    own = (data.ids >= start) & (data.ids < start + block.logits.shape[0])
    matters = (highest > jnp.log(threshold)) | own.any()
    zeros = jax.eval_shape(gradients_at, rows)
    return lax.cond(
        matters,
        gradients_at,
        lambda rows: jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), zeros),
        rows,
    )


_loss.defvjp(_loss_fwd, _loss_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mean_loss(options: _Options, tile_size: int, x, table, biases, scale, data: _Data) -> Array:
    losses, _ = _forward(options, _Wanted(), x, table, biases, scale, data)
    return losses.sum() / jnp.maximum(data.counted.sum(), 1)


def _mean_loss_fwd(options, tile_size, x, table, biases, scale, data):
    share = jnp.where(data.counted, 1.0 / jnp.maximum(data.counted.sum(), 1), 0.0)
    if tile_size:
        return _by_tiles(options, tile_size, x, table, biases, scale, data, share)
    losses, extra = _forward(options, _Wanted(), x, table, biases, scale, data)
    log_partition = jnp.where(data.counted, extra["log_partition"], 0.0)
    gradients = _gradients(options, x, table, biases, scale, data, share, None, log_partition)
    return (losses * share).sum(), gradients


def _mean_loss_bwd(options, tile_size, gradients, cotangent):
    scaled = jax.tree.map(lambda g: (g * cotangent).astype(g.dtype), gradients)
    return *scaled, None


_mean_loss.defvjp(_mean_loss_fwd, _mean_loss_bwd)


def _by_tiles(options: _Options, tile_size: int, x, table, biases, scale, data: _Data, share):
    """The mean loss and its gradients, from the logits of some examples and all classes at a time."""
    num_classes, zero = table.shape[0], jnp.int32(0)

    def add_tile(carry, start: Array, size: int):
        total, d_x, d_table, d_biases, d_scale = carry

        def cut(array):
            return lax.dynamic_slice_in_dim(array, start, size)

        own, part = cut(x), cut(share)
        per_example = {
            name: cut(getattr(data, name)) for name in ("ids", "target", "counted", "mass")
        }
        tile = data._replace(**per_example)
        block = _block(own, sweeps.columns(own), table, biases, scale, tile, zero, num_classes)
        peak = jnp.clip(block.logits.max(0), *_FINITE)
        log_total = jnp.log(jnp.exp(block.logits - peak[None]).sum(0))
        smooth = None if data.smooth is None else _smoothed(block.logits, data.smooth, zero)
        losses = _losses(own, table, biases, scale, tile, peak, log_total, smooth)
        log_partition = jnp.where(tile.counted, peak + log_total, 0.0)
        d_scores = _d_scores(block, tile, scale, part, None, log_partition, zero)
        d_own, of_biases = sweeps.d_columns(block.rows, d_scores).T, d_scores.sum(1)
        of_scale = (own.astype(jnp.float32) * d_own).sum()
        if biases is not None:
            of_scale += (biases * of_biases).sum()
            d_biases += of_biases
        d_x = lax.dynamic_update_slice_in_dim(d_x, d_own.astype(x.dtype), start, 0)
        d_table += sweeps.d_rows(own, d_scores)
        return total + (losses * part).sum(), d_x, d_table, d_biases, d_scale + of_scale / scale

    carry = (
        jnp.zeros(()),
        jnp.zeros_like(x),
        jnp.zeros(table.shape, jnp.float32),
        None if biases is None else jnp.zeros(biases.shape, jnp.float32),
        jnp.zeros(()),
    )
    total, d_x, d_table, d_biases, d_scale = sweeps.sweep(add_tile, carry, x.shape[0], tile_size)
    return total, (d_x, d_table.astype(table.dtype), d_biases, d_scale)


def _as_float(rows: Array) -> Array:
    """Rows of a table as the numbers they are: uint16 holds the bits of bfloat16 (see `tables.storage`)."""
    return lax.bitcast_convert_type(rows, jnp.bfloat16) if rows.dtype == jnp.uint16 else rows


def _stored(rows: Array, dtype: Any) -> Array:
    """The reverse, rounded to nearest."""
    if dtype == jnp.uint16:
        return lax.bitcast_convert_type(rows.astype(jnp.bfloat16), jnp.uint16)
    return rows.astype(dtype)


def _split(state: PyTree) -> tuple[PyTree, PyTree]:
    """The scalars of a state and its slots, each with None in the other's places."""
    scalars = jax.tree.map(lambda leaf: leaf if jnp.ndim(leaf) == 0 else None, state)
    return scalars, jax.tree.map(lambda leaf: None if jnp.ndim(leaf) == 0 else leaf, state)


def _of_dtypes(values: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda value, old: value.astype(old.dtype), values, like)


def _joined(scalars: PyTree, slots: PyTree) -> PyTree:
    return jax.tree.map(
        lambda scalar, slot: slot if scalar is None else scalar,
        scalars,
        slots,
        is_leaf=lambda leaf: leaf is None,
    )
