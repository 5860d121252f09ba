"""Losses over the true classes and a few sampled ones.

**Logits.** With s the inner product of an input and a class's row, b the class's bias, τ the temperature
and E[n] the expected count of the candidate,

    logit = (s + b) / τ  −  log E[n]                     (the second term by `correction`).

An accidental hit (a sampled class that is a true class of the example) and an empty slot get the logit −∞.

**Correction.** Write i for the true class, P for the softmax over all classes.

- `"both"` subtracts log E[n] from true and sampled logits, as TensorFlow does: the loss of telling the true
  class from the others *in the set of candidates*. Its best logits are log P plus a constant of the example
  (Jean et al., 2015). Its denominator does not estimate the partition function: it counts the true class
  with exp(z_i) / E[n_i], although that class is always there.
- `"negatives"` subtracts it from the sampled logits only. With hits removed the denominator,

      exp(z_i) + N,   N = Σ_j exp(z_j) / E[n_j]   over the sampled j ≠ i,   E[N] = Σ_{j≠i} exp(z_j),

  is an unbiased estimate of the partition function. The loss is its logarithm, so too small on average, by
  about half the estimate's relative variance.
- `"none"` subtracts nothing: the best logits are log P − log E[n] plus a constant. They are no estimates
  of P.

With all classes as candidates, each with the expected count 1, and hits removed, all three are the full
softmax. The corrected logQ of Khrylchenko et al. (2025, arXiv 2507.09331) has the gradient of
`"negatives"`.

**Arguments** of all sampled losses are described in `jaxml.softmax`, except for

- `candidates`: ids [S], shared by the batch, or [*batch, S]. A slot is empty if its id is outside [0, C) or
  its expected count is 0. Duplicates count as often as they occur.
- `remove_accidental_hits`: whether a hit leaves the example's loss.

Inputs and rows may be bf16. No gradient flows into expected counts. A true class's count is clamped at
float32's smallest normal number, so an impossible label has a finite loss.
"""

import math
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxml import checks, meshes
from jaxml.ids import as_int32
from jaxml.softmax.logits import (
    LARGEST,
    TrueClasses,
    at_most_largest,
    check_scalar,
    checked_table,
    infinite,
    products,
    softplus,
    true_classes,
    with_bias_and_temperature,
)
from jaxml.softmax.samplers import Candidates
from jaxml.types import Array

Correction = Literal["both", "negatives", "none"]


@meshes.laid_out_as("inputs")
def sampled_softmax_loss(
    inputs,
    labels,
    weights,
    biases,
    candidates: Candidates,
    *,
    correction: Correction = "both",
    remove_accidental_hits: bool = True,
    temperature=1.0,
    where=None,
    num_hard: int | None = None,
) -> Array:
    """Returns the cross-entropy of the softmax over the true and the sampled classes, float32 [*batch].

        loss = log( Σ_t exp(z_t) + Σ_j exp(z_j) ) − (1/T) Σ_t z_t

    with t over the example's true classes and j over its candidates; see the module's docstring. Equals
    `tf.nn.sampled_softmax_loss` for the same candidates and counts. The gradient of `weights` is dense,
    [C, D]: with very many classes use `sampled_softmax_loss_from_rows`.

    With `num_hard` in [1, S] each example keeps only the candidates that it scores highest; the loss then
    no longer estimates that of the full softmax.

    >>> inputs, labels, weights = jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3))
    >>> every_class = Candidates(jnp.arange(4), jnp.ones(4), jnp.ones(2))
    >>> sampled_softmax_loss(inputs, labels, weights, None, every_class)  # log 4
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    logits = corrected_logits(
        **_gathered(inputs, labels, weights, biases, candidates, where),
        correction=correction,
        remove_accidental_hits=remove_accidental_hits,
        temperature=temperature,
    )
    if num_hard is not None:
        num_sampled = logits.sampled.shape[0]
        num_hard = checks.integer("num_hard", num_hard, 1, num_sampled)
        hardest, _ = jax.lax.top_k(jnp.moveaxis(logits.sampled, 0, -1), num_hard)
        logits = logits._replace(sampled=jnp.moveaxis(hardest, -1, 0))
    return _softmax(logits)


@meshes.laid_out_as("inputs")
def sampled_softmax_loss_from_rows(
    inputs,
    true_rows,
    sampled_rows,
    labels,
    candidates: Candidates,
    *,
    true_biases=None,
    sampled_biases=None,
    correction: Correction = "both",
    remove_accidental_hits: bool = True,
    temperature=1.0,
    where=None,
    num_classes: int | None = None,
) -> Array:
    """Returns `sampled_softmax_loss` of gathered rows, float32 [*batch].

    Time, memory and gradients do not depend on the number of classes. Rows may be transformed before.

    Args:
        inputs: [*batch, D].
        true_rows: [*batch, D] or [*batch, T, D], the rows of the labels.
        sampled_rows: [S, D] or [*batch, S, D], the rows of `candidates.ids`. For ids [*batch, S] that are
            the same for all examples (only their counts differ) [S, D] is enough.
        true_biases: None, or the labels' shape.
        sampled_biases: None, or [S] or [*batch, S], as `sampled_rows`.
        num_classes: the bound of labels and ids. Without it a slot is empty only if its expected count is 0
            or its id negative.

    >>> inputs, labels, rows = jnp.ones((1, 3)), jnp.array([5]), jnp.zeros((2, 3))
    >>> two_of_many = Candidates(jnp.array([7, 9]), jnp.ones(2), jnp.ones(1))
    >>> sampled_softmax_loss_from_rows(inputs, rows[:1], rows, labels, two_of_many)  # log 3
    Array([1.0986123], dtype=float32)
    """
    return _softmax(
        corrected_logits(
            inputs,
            true_rows,
            sampled_rows,
            labels,
            candidates,
            true_biases,
            sampled_biases,
            correction=correction,
            remove_accidental_hits=remove_accidental_hits,
            temperature=temperature,
            where=where,
            num_classes=num_classes,
        )
    )


@meshes.laid_out_as("inputs")
def nce_loss(
    inputs,
    labels,
    weights,
    biases,
    candidates: Candidates,
    *,
    correction: Correction = "both",
    remove_accidental_hits: bool = False,
    where=None,
) -> Array:
    """Returns the loss of noise-contrastive estimation, float32 [*batch].

        loss = Σ_t [ log(1 + exp(z_t)) − z_t / T ]  +  Σ_j log(1 + exp(z_j))

    Every class decides whether it is true or sampled; each of T true classes has the target 1/T. Equals
    `tf.nn.nce_loss` for the same candidates and counts. With `correction="both"` and hits kept the best
    logits are log P itself (Gutmann & Hyvärinen, 2012); `"none"` is negative sampling.

    >>> one_other = Candidates(jnp.array([1]), jnp.ones(1), jnp.ones(1))
    >>> nce_loss(jnp.ones((1, 3)), jnp.array([0]), jnp.zeros((4, 3)), None, one_other)  # 2 log 2
    Array([1.3862944], dtype=float32)
    """
    return _binary(
        corrected_logits(
            **_gathered(inputs, labels, weights, biases, candidates, where),
            correction=correction,
            remove_accidental_hits=remove_accidental_hits,
        )
    )


def sampled_logistic_loss(
    inputs,
    labels,
    weights,
    biases,
    candidates: Candidates,
    *,
    correction: Correction = "both",
    where=None,
) -> Array:
    """Returns `nce_loss` with accidental hits removed, float32 [*batch].

    >>> a_hit = Candidates(jnp.array([0]), jnp.ones(1), jnp.ones(1))
    >>> sampled_logistic_loss(jnp.ones((1, 3)), jnp.array([0]), jnp.zeros((4, 3)), None, a_hit)
    Array([0.6931472], dtype=float32)
    """
    return nce_loss(
        inputs,
        labels,
        weights,
        biases,
        candidates,
        correction=correction,
        remove_accidental_hits=True,
        where=where,
    )


class CorrectedLogits(NamedTuple):
    """What `corrected_logits` returns, float32."""

    true: Array  # [*batch, T], finite where masked, and above
    sampled: Array  # [S, *batch], −inf where empty or removed, finite above
    classes: TrueClasses


def _softmax(logits: CorrectedLogits) -> Array:
    true_logits, sampled_logits, true = logits
    count = true.present.sum(-1)
    present_logits = jnp.where(true.present, true_logits, -jnp.inf)
    # The candidates are shifted by their own peak, which is at hand; XLA would compute anything more
    # expensive anew for each of [S, *batch].
    peak = finite_peak(sampled_logits, axis=0)
    highest = jnp.maximum(peak, finite_peak(present_logits, axis=-1))
    total = jnp.exp(present_logits - highest[..., None]).sum(-1)
    total += jnp.exp(peak - highest) * jnp.exp(sampled_logits - peak[None]).sum(0)
    distance = infinite(highest[..., None] - true_logits)
    below = jnp.where(true.present, distance, 0.0).sum(-1)
    below /= jnp.maximum(count, 1)
    return jnp.log(jnp.where(count > 0, total, 1.0)) + below


def _binary(logits: CorrectedLogits) -> Array:
    true_logits, sampled_logits, true = logits
    count = true.present.sum(-1)
    target = 1.0 / jnp.maximum(count, 1)[..., None]
    losses = target * infinite(softplus(-true_logits))
    losses += jnp.where(target < 1, (1 - target) * infinite(softplus(true_logits)), 0.0)
    loss = jnp.where(true.present, losses, 0.0).sum(-1) + infinite(softplus(sampled_logits)).sum(0)
    return jnp.where(count > 0, loss, 0.0)


def corrected_logits(
    inputs,
    true_rows,
    sampled_rows,
    labels,
    candidates: Candidates,
    true_biases,
    sampled_biases,
    *,
    correction: Correction,
    remove_accidental_hits: bool,
    temperature=1.0,
    where,
    num_classes: int | None,
) -> CorrectedLogits:
    """Returns the corrected float32 logits of the true and the sampled classes.

    Everything on [S, *batch] is elementwise on the product, so XLA fuses it with the loss; the mask of hits
    is never stored. Candidates come first to make the products with shared rows fast: `_shared_products`.
    """
    checks.choice("correction", correction, get_args(Correction))
    check_scalar("temperature", temperature, above=0)
    if num_classes is not None:
        num_classes = checks.integer("num_classes", num_classes, 1)
    inputs, true_rows, sampled_rows = map(jnp.asarray, (inputs, true_rows, sampled_rows))
    true = true_classes(labels, where, inputs, num_classes)
    labels_shape = jnp.shape(labels)
    candidates = _checked_candidates(candidates, inputs.shape, labels_shape)
    _check_shape("true_rows", true_rows, (*labels_shape, inputs.shape[-1]))
    # Rows that all examples share may come with counts that differ between them.
    shared = sampled_rows.ndim == 2
    rows_shape = candidates.ids.shape[-1:] if shared else candidates.ids.shape
    _check_shape("sampled_rows", sampled_rows, (*rows_shape, inputs.shape[-1]))

    # Masked labels, examples without labels and empty slots may hold NaN, and zero times NaN is NaN in the
    # gradient of a product: they become 0 before the product.
    empty = (candidates.ids < 0) | (candidates.expected_count <= 0)
    if num_classes is not None:
        empty |= candidates.ids >= num_classes
    inputs = jnp.where(true.present.any(-1, keepdims=True), inputs, 0)
    true_rows = true_rows.reshape(*true.ids.shape, inputs.shape[-1])
    true_rows = jnp.where(true.present[..., None], true_rows, 0)
    unused = empty.all(axis=tuple(range(empty.ndim - 1))) if shared else empty
    sampled_rows = jnp.where(unused[..., None], 0, sampled_rows)
    if true_biases is not None:
        true_biases = jnp.asarray(true_biases)
        _check_shape("true_biases", true_biases, labels_shape)
        true_biases = jnp.where(true.present, true_biases.reshape(true.ids.shape), 0)
    if sampled_biases is not None:
        sampled_biases = jnp.asarray(sampled_biases)
        _check_shape("sampled_biases", sampled_biases, rows_shape)
        sampled_biases = jnp.where(unused, 0, sampled_biases)

    true_scores = jnp.einsum(
        "...d,...td->...t",
        inputs.astype(jnp.float32),
        true_rows.astype(jnp.float32),
        precision="highest",
    )
    true_logits = at_most_largest(with_bias_and_temperature(true_scores, true_biases, temperature))
    if shared:
        sampled_scores = _shared_products(inputs, sampled_rows)
    else:
        sampled_scores = jnp.moveaxis(products(inputs, sampled_rows), -1, 0)
    if sampled_biases is not None:
        sampled_biases = candidates_first(sampled_biases, sampled_scores.ndim)
    sampled_logits = at_most_largest(
        with_bias_and_temperature(sampled_scores, sampled_biases, temperature)
    )

    if correction == "both":
        true_count = candidates.true_expected_count.reshape(true.ids.shape)
        true_logits -= log_counts(jnp.where(true.present, true_count, 1.0))
    removed = jnp.where(empty, -jnp.inf, 0.0)
    if correction != "none":
        removed -= log_counts(jnp.where(empty, 1.0, candidates.expected_count))
    # Adding −inf, and not selecting it, keeps the mask out of the gradient: exp makes it 0 there.
    sampled_logits += candidates_first(removed, sampled_logits.ndim)
    if remove_accidental_hits:
        hit = _hits(true.ids, candidates_first(candidates.ids, sampled_logits.ndim))
        sampled_logits += jnp.where(hit, -jnp.inf, 0.0)
    return CorrectedLogits(jnp.where(true.refused, jnp.nan, true_logits), sampled_logits, true)


def finite_peak(logits: Array, axis: int) -> Array:
    """The largest logit, to shift by: finite whatever they are, since −inf − −inf would be NaN."""
    return jax.lax.stop_gradient(logits.max(axis, initial=-LARGEST))


def candidates_first(x: Array, ndim: int) -> Array:
    """[S] as [S, 1…] and [*batch, S] as [S, *batch], to go with logits of `ndim` axes."""
    return x.reshape(-1, *(1,) * (ndim - 1)) if x.ndim == 1 else jnp.moveaxis(x, -1, 0)


def _shared_products(inputs: Array, rows: Array) -> Array:
    """`products` with [S, D], as [S, *batch]: the form with fast gradients.

    XLA's CPU backend computes rows times inputsᵀ, and both its gradients, without transposing a large
    operand; the products of [*batch, S] take up to twice as long. The barrier keeps XLA from folding the
    small transpose back into the products.
    """
    flat = inputs.reshape(math.prod(inputs.shape[:-1]), inputs.shape[-1])
    columns = jax.lax.optimization_barrier(flat.T)
    scores = products(rows, columns, rows_are_columns=True)
    return scores.reshape(rows.shape[0], *inputs.shape[:-1])


def _hits(true_ids: Array, ids: Array) -> Array:
    """Which of `ids` [S, *batch] or [S, 1…] are among `true_ids` [*batch, T]: [S, *batch]."""
    num_true = true_ids.shape[-1]

    # One true class at a time: `any` over [S, *batch, T] would store all that when T is large.
    # Unrolled while it is small, and then the comparisons fuse with what follows.
    def or_equal(t, hit):
        true_id = jax.lax.dynamic_index_in_dim(true_ids, t, axis=-1, keepdims=False)
        return hit | (true_id[None] == ids)

    none = jnp.zeros((ids.shape[0], *true_ids.shape[:-1]), bool)
    return meshes.fori_loop(0, num_true, or_equal, none, unroll=max(1, min(num_true, 8)))


def log_counts(expected_count: Array) -> Array:
    """Logarithms of expected counts, finite and without gradient."""
    count = jax.lax.stop_gradient(expected_count).astype(jnp.float32)
    return jnp.log(jnp.maximum(count, jnp.finfo(jnp.float32).tiny))


def _gathered(inputs, labels, weights, biases, candidates: Candidates, where) -> dict:
    """The arguments of the row form, with rows and biases looked up in the table."""
    inputs, weights, biases = checked_table(inputs, weights, biases)
    true = true_classes(labels, where, inputs, weights.shape[0])
    true_ids = true.ids.reshape(jnp.shape(labels))
    candidates = _checked_candidates(candidates, inputs.shape, true_ids.shape)

    def look_up(table, ids):
        # The row read for an id out of range is not used.
        return None if table is None else jnp.take(table, ids, axis=0, mode="clip")

    return dict(
        inputs=inputs,
        true_rows=look_up(weights, true_ids),
        sampled_rows=look_up(weights, candidates.ids),
        labels=labels,
        candidates=candidates,
        true_biases=look_up(biases, true_ids),
        sampled_biases=look_up(biases, candidates.ids),
        where=where,
        num_classes=weights.shape[0],
    )


def _checked_candidates(candidates: Candidates, inputs_shape, labels_shape) -> Candidates:
    """The candidates as JAX arrays, or ValueError if they do not fit inputs and labels."""
    ids = as_int32("candidates.ids", candidates.ids)
    candidates = replace(jax.tree.map(jnp.asarray, candidates), ids=ids)
    shape = candidates.ids.shape
    if len(shape) != 1 and (len(shape) != len(inputs_shape) or shape[:-1] != inputs_shape[:-1]):
        raise ValueError(
            f"candidates.ids must be [S] or {(*inputs_shape[:-1], 'S')} for inputs {inputs_shape}, "
            f"got {shape}"
        )
    _check_shape("candidates.expected_count", candidates.expected_count, shape)
    _check_shape("candidates.true_expected_count", candidates.true_expected_count, labels_shape)
    return candidates


def _check_shape(name: str, value: Array, shape: tuple) -> None:
    if value.shape != tuple(shape):
        raise ValueError(f"{name} must be {tuple(shape)}, got {value.shape}")
