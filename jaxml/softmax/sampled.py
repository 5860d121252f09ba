"""Losses over the true classes and a few sampled ones, in place of all classes.

**What is computed, in this order.** With s the inner product of an input and a class's row, b the
class's bias, τ the temperature and E[n] the expected count that the sampler reports,

    logit = (s + b) / τ  −  log E[n]                     (the second term by `correction`)

and then a sampled class that is one of the example's own true classes, an accidental hit, gets the
logit −∞ (by `remove_accidental_hits`). Empty slots get it too. Last, with `num_hard`, an example keeps
only that many of its candidates, those with the highest logits.

**What `correction` makes of it.** Write i for the true class, P for the softmax over all classes.

- `"both"` subtracts log E[n] from true and sampled logits. This is TensorFlow's sampled softmax:
  the loss of telling the true class from the others *in the set of candidates*, after how often
  each gets there is taken out. Its best logits are log P plus a constant of the example
  (Jean et al., 2015). Its denominator is no estimate of the partition function: it counts the true
  class with exp(z_i) / E[n_i], as though that class were there by chance, while it always is.
- `"negatives"` subtracts it from the sampled logits only. With hits removed the denominator,

      exp(z_i) + N,   N = Σ_j exp(z_j) / E[n_j]   over the sampled j ≠ i,   E[N] = Σ_{j≠i} exp(z_j),

  is an unbiased estimate of the partition function. The loss is its logarithm, and so too small on
  average, by about half the estimate's relative variance.
- `"none"` subtracts nothing: the best logits are log P − log E[n] plus a constant. They rank
  classes by how much more likely than usual they are, and are wrong as estimates of P.

With all classes as candidates, each with the expected count 1, and hits removed, all three are
the full softmax.

**The corrected logQ of 2025** (Khrylchenko et al., arXiv 2507.09331) is the loss

    L = sg(1 − p) · [ −z_i + log Σ_j exp(z_j − log Q'_j) ]

over the sampled j that are no hits, where sg stops the gradient and p estimates P_i. Its gradient
is that of `"negatives"` with hits removed, whose loss ℓ = −z_i + log(exp(z_i) + N) has

    ∇ℓ = −∇z_i + p ∇z_i + (1 − p) ∇log N = (1 − p) (−∇z_i + ∇log N),
    p = exp(z_i) / (exp(z_i) + N),

and log N differs from the logarithm in L by nothing but a term that is the same for all j. Such a
term has no gradient, but it moves p: **the gradients are equal exactly when L takes p from the same
N.** The paper draws n times with replacement, has Q'_j = Q_j / (1 − Q_i), and takes p from
N' = (1/m) Σ_j exp(z_j) / Q'_j, m being the number of draws that are no hits. With E[n_j] = n Q_j
that is N' = N · n (1 − Q_i) / m: since m has the mean n (1 − Q_i), the weights 1 − p agree up to
the scatter of m. They agree exactly when hits cannot be drawn: then m = n, and the expected counts
are n Q'_j.

**Precision.** Inputs and rows may be bf16; logits, sums and losses are float32. Log-sum-exp is
shifted by the largest logit; losses are differences to it, so they survive logits around ±1e4.
Expected counts are data: no gradient flows into them. A true class's count is clamped at float32's
smallest normal number, 1.2e−38, so a label that the sampler thinks impossible has a finite loss,
its logit lifted by at most 87.3.
"""

import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxml.softmax import checks
from jaxml.softmax.candidates import Candidates
from jaxml.softmax.logits import (
    TrueClasses,
    check_table,
    check_temperature,
    products,
    softplus,
    true_classes,
    with_bias_and_temperature,
)
from jaxml.types import Array

Correction = Literal["both", "negatives", "none"]


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
    """Cross-entropy of the softmax over the true and the sampled classes.

        loss = log( Σ_t exp(z_t) + Σ_j exp(z_j) ) − (1/T) Σ_t z_t

    with the corrected logits z of the module's docstring, t over the example's true classes and j
    over its candidates. Equal to `tf.nn.sampled_softmax_loss` given the same candidates and counts.

    Gathers the rows and calls `sampled_softmax_loss_from_rows`. The gradient with respect to
    `weights` is dense, [C, D]: with very many classes gather the rows yourself, and differentiate
    with respect to those.

    Args:
        inputs: [*batch, D], any float.
        labels: integers in [0, C): [*batch], one class each, or [*batch, T], several that share
            the target mass evenly.
        weights: [C, D], any float.
        biases: [C] or None. A bias of −inf takes its class out.
        candidates: ids [S], shared by the batch, or [*batch, S]; a slot is empty when its id is
            outside [0, C) or its expected count is 0. Duplicates count as often as they occur.
        correction: "both", "negatives" or "none"; the module's docstring says what each estimates.
        remove_accidental_hits: whether a sampled class that is also a true class of the example is
            left out of that example's loss.
        temperature: scalar > 0, may be traced.
        where: None, or bool of the labels' shape; False masks a label, which may then hold any id
            and is no accidental hit. T counts the labels that are left.
        num_hard: None, or in [1, S]: mines hard negatives, see `sampled_softmax_loss_from_rows`.

    Returns:
        float32 [*batch]. An example with no label left has loss 0 and gradient 0, whatever its
        inputs hold. A label out of range that is only known inside `jit` gives NaN, and not the
        loss of another class.

    Raises:
        ValueError: for shapes that do not fit, an empty table, an unknown correction, a
            temperature that is not positive, `num_hard` outside [1, S], or a label out of range
            (when its value is known).

    >>> import jax.numpy as jnp
    >>> inputs, labels, weights = jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3))
    >>> every_class = Candidates(jnp.arange(4), jnp.ones(4), jnp.ones(2))
    >>> sampled_softmax_loss(inputs, labels, weights, None, every_class)  # log 4
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    return sampled_softmax_loss_from_rows(
        candidates=candidates,
        **_gathered(inputs, labels, weights, biases, candidates, where),
        correction=correction,
        remove_accidental_hits=remove_accidental_hits,
        temperature=temperature,
        num_hard=num_hard,
    )


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
    num_hard: int | None = None,
) -> Array:
    """`sampled_softmax_loss` of rows that were gathered already.

    Its time, memory and gradients do not depend on the number of classes, and rows may be
    transformed (normalised, say) before they come here.

    Args:
        inputs: [*batch, D], any float.
        true_rows: [*batch, D] or [*batch, T, D], the rows of the labels.
        sampled_rows: [S, D] or [*batch, S, D], the rows of `candidates.ids`. With ids [*batch, S]
            that are the same for all examples (only their counts differ) [S, D] will do.
        labels: integers [*batch] or [*batch, T], needed to find accidental hits.
        candidates: as in `sampled_softmax_loss`. Without `num_classes` a slot is empty when
            its expected count is 0 or its id negative. Rows of empty slots may hold anything.
        true_biases: None or [*batch] or [*batch, T], as the labels.
        sampled_biases: None or [S] or [*batch, S], as `sampled_rows`.
        correction: as in `sampled_softmax_loss`.
        remove_accidental_hits: as in `sampled_softmax_loss`.
        temperature: scalar > 0, may be traced.
        where: None, or bool of the labels' shape; the rows of masked labels may hold anything.
        num_classes: the bound of labels and ids, if they are to be held to it.
        num_hard: None, or in [1, S]: every example keeps the candidates that it scores highest, after
            correction and removal of hits, and the others leave its denominator. It sharpens late
            training; the loss no longer estimates that of the full softmax, whatever the correction.

    Returns:
        float32 [*batch].

    Raises:
        ValueError: as `sampled_softmax_loss`.

    >>> import jax.numpy as jnp
    >>> inputs, labels, rows = jnp.ones((1, 3)), jnp.array([5]), jnp.zeros((2, 3))
    >>> two_of_many = Candidates(jnp.array([7, 9]), jnp.ones(2), jnp.ones(1))
    >>> sampled_softmax_loss_from_rows(inputs, rows[:1], rows, labels, two_of_many)  # log 3
    Array([1.0986123], dtype=float32)
    """
    check_temperature(temperature)
    true_logits, sampled_logits, true = _logits(
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
    if num_hard is not None:
        sampled_logits = _hardest(sampled_logits, num_hard)
    count = true.present.sum(-1)
    present_logits = jnp.where(true.present, true_logits, -jnp.inf)
    # The candidates are shifted by their own peak, which is there already: what takes more to compute
    # XLA would compute anew for each of [S, *batch].
    peak = _finite_peak(sampled_logits, axis=0)
    highest = jnp.maximum(peak, _finite_peak(present_logits, axis=-1))
    total = jnp.exp(present_logits - highest[..., None]).sum(-1)
    total += jnp.exp(peak - highest) * jnp.exp(sampled_logits - peak[None]).sum(0)
    below = jnp.where(true.present, highest[..., None] - true_logits, 0.0).sum(-1)
    below /= jnp.maximum(count, 1)
    return jnp.log(jnp.where(count > 0, total, 1.0)) + below


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
    """Noise-contrastive estimation: every class decides for itself whether it is true or sampled.

        loss = Σ_t [ log(1 + exp(z_t)) − z_t / T ]  +  Σ_j log(1 + exp(z_j))

    with the corrected logits z of the module's docstring at temperature 1; each of T true classes
    has the target 1/T. Equal to `tf.nn.nce_loss` given the same candidates and counts. With
    `correction="both"` and hits kept, the best logits are log P itself, normalised (Gutmann &
    Hyvärinen, 2012).

    Args:
        inputs: [*batch, D], any float.
        labels: integers in [0, C): [*batch] or [*batch, T].
        weights: [C, D], any float.
        biases: [C] or None. A bias of −inf takes its class out.
        candidates: as in `sampled_softmax_loss`.
        correction: as in `sampled_softmax_loss`; with any but "both" it is no longer NCE ("none" is
            negative sampling).
        remove_accidental_hits: whether a sampled class that is also a true class of the example is
            left out: then it is "sampled logistic", see `sampled_logistic_loss`.
        where: None, or bool of the labels' shape; False masks a label.

    Returns:
        float32 [*batch]; 0, with gradient 0, for an example with no label left.

    Raises:
        ValueError: as `sampled_softmax_loss`.

    >>> import jax.numpy as jnp
    >>> one_other = Candidates(jnp.array([1]), jnp.ones(1), jnp.ones(1))
    >>> nce_loss(jnp.ones((1, 3)), jnp.array([0]), jnp.zeros((4, 3)), None, one_other)  # 2 log 2
    Array([1.3862944], dtype=float32)
    """
    return nce_loss_from_rows(
        candidates=candidates,
        **_gathered(inputs, labels, weights, biases, candidates, where),
        correction=correction,
        remove_accidental_hits=remove_accidental_hits,
    )


def nce_loss_from_rows(
    inputs,
    true_rows,
    sampled_rows,
    labels,
    candidates: Candidates,
    *,
    true_biases=None,
    sampled_biases=None,
    correction: Correction = "both",
    remove_accidental_hits: bool = False,
    where=None,
    num_classes: int | None = None,
) -> Array:
    """`nce_loss` of rows that were gathered already.

    Args:
        inputs: [*batch, D], any float.
        true_rows: [*batch, D] or [*batch, T, D], the rows of the labels.
        sampled_rows: [S, D] or [*batch, S, D], as in `sampled_softmax_loss_from_rows`.
        labels: integers [*batch] or [*batch, T].
        candidates: as in `sampled_softmax_loss_from_rows`.
        true_biases: None or [*batch] or [*batch, T], as the labels.
        sampled_biases: None or [S] or [*batch, S], as `sampled_rows`.
        correction: as in `nce_loss`.
        remove_accidental_hits: as in `nce_loss`.
        where: None, or bool of the labels' shape; the rows of masked labels may hold anything.
        num_classes: the bound of labels and ids, if they are to be held to it.

    Returns:
        float32 [*batch].

    Raises:
        ValueError: as `sampled_softmax_loss`.

    >>> import jax.numpy as jnp
    >>> one_other, row = Candidates(jnp.array([1]), jnp.ones(1), jnp.ones(1)), jnp.zeros((1, 3))
    >>> nce_loss_from_rows(jnp.ones((1, 3)), row, row, jnp.array([0]), one_other)
    Array([1.3862944], dtype=float32)
    """
    true_logits, sampled_logits, true = _logits(
        inputs,
        true_rows,
        sampled_rows,
        labels,
        candidates,
        true_biases,
        sampled_biases,
        correction=correction,
        remove_accidental_hits=remove_accidental_hits,
        temperature=1.0,
        where=where,
        num_classes=num_classes,
    )
    count = true.present.sum(-1)
    target = 1.0 / jnp.maximum(count, 1)[..., None]
    true_losses = softplus(true_logits) - target * true_logits
    loss = jnp.where(true.present, true_losses, 0.0).sum(-1)
    loss += softplus(sampled_logits).sum(0)
    return jnp.where(count > 0, loss, 0.0)


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
    """`nce_loss` with accidental hits removed.

        loss = Σ_t [ log(1 + exp(z_t)) − z_t / T ]  +  Σ_{j no hit} log(1 + exp(z_j))

    Args:
        inputs: [*batch, D], any float.
        labels: integers in [0, C): [*batch] or [*batch, T].
        weights: [C, D], any float.
        biases: [C] or None.
        candidates: as in `sampled_softmax_loss`.
        correction: as in `nce_loss`.
        where: None, or bool of the labels' shape; False masks a label.

    Returns:
        float32 [*batch].

    Raises:
        ValueError: as `sampled_softmax_loss`.

    >>> import jax.numpy as jnp
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


class _Logits(NamedTuple):
    true: Array  # [*batch, T], finite where masked
    sampled: Array  # [S, *batch], −inf where empty or removed
    classes: TrueClasses


def _logits(
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
    temperature,
    where,
    num_classes: int | None,
) -> _Logits:
    """Corrected float32 logits of the true and the sampled classes, for every loss here.

    Everything on [S, *batch] is elementwise on the product, so that XLA runs it in the passes that
    the loss makes anyway; in particular the mask of hits is never stored. Candidates come first
    because that is how the products with shared rows are fast, see `_shared_products`.
    """
    if correction not in get_args(Correction):
        raise ValueError(f"correction must be one of {get_args(Correction)}, got {correction!r}")
    if num_classes is not None:
        num_classes = checks.positive("num_classes", num_classes)
    inputs, true_rows, sampled_rows = map(jnp.asarray, (inputs, true_rows, sampled_rows))
    true = true_classes(labels, where, inputs, num_classes)
    labels_shape = jnp.shape(labels)
    candidates = _checked_candidates(candidates, inputs.shape, labels_shape)
    _check_shape("true_rows", true_rows, (*labels_shape, inputs.shape[-1]))
    # Rows that all examples share may come with counts that differ between them.
    shared = sampled_rows.ndim == 2
    rows_shape = candidates.ids.shape[-1:] if shared else candidates.ids.shape
    _check_shape("sampled_rows", sampled_rows, (*rows_shape, inputs.shape[-1]))

    # What masked labels, examples without labels and empty slots hold may be NaN, and zero times
    # NaN is NaN in the gradient of a product: it goes before the product, not after.
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
    true_logits = with_bias_and_temperature(true_scores, true_biases, temperature)
    if shared:
        sampled_scores = _shared_products(inputs, sampled_rows)
    else:
        sampled_scores = jnp.moveaxis(products(inputs, sampled_rows), -1, 0)
    if sampled_biases is not None:
        sampled_biases = _candidates_first(sampled_biases, sampled_scores.ndim)
    sampled_logits = with_bias_and_temperature(sampled_scores, sampled_biases, temperature)

    if correction == "both":
        true_count = candidates.true_expected_count.reshape(true.ids.shape)
        true_logits -= _log_count(jnp.where(true.present, true_count, 1.0))
    removed = jnp.where(empty, -jnp.inf, 0.0)
    if correction != "none":
        removed -= _log_count(jnp.where(empty, 1.0, candidates.expected_count))
    # Adding −inf, and not selecting it, keeps the mask out of the gradient: exp makes it 0 there.
    sampled_logits += _candidates_first(removed, sampled_logits.ndim)
    if remove_accidental_hits:
        hit = _hits(true.ids, _candidates_first(candidates.ids, sampled_logits.ndim))
        sampled_logits += jnp.where(hit, -jnp.inf, 0.0)
    return _Logits(jnp.where(true.refused, jnp.nan, true_logits), sampled_logits, true)


def _hardest(sampled_logits: Array, num_hard: int) -> Array:
    """The `num_hard` largest of [S, *batch], for each example."""
    num_sampled = sampled_logits.shape[0]
    if not 1 <= checks.positive("num_hard", num_hard) <= num_sampled:
        raise ValueError(f"num_hard must be in [1, {num_sampled}], got {num_hard}")
    return jnp.moveaxis(jax.lax.top_k(jnp.moveaxis(sampled_logits, 0, -1), num_hard)[0], -1, 0)


def _finite_peak(logits: Array, axis: int) -> Array:
    """The largest logit, to shift by: finite whatever they are, since −inf − −inf would be NaN."""
    limit = float(jnp.finfo(jnp.float32).max)
    return jax.lax.stop_gradient(jnp.minimum(logits.max(axis, initial=-limit), limit))


def _candidates_first(x: Array, ndim: int) -> Array:
    """[S] as [S, 1…] and [*batch, S] as [S, *batch], to go with logits of `ndim` axes."""
    return x.reshape(-1, *(1,) * (ndim - 1)) if x.ndim == 1 else jnp.moveaxis(x, -1, 0)


def _shared_products(inputs: Array, rows: Array) -> Array:
    """`products` with [S, D], as [S, *batch]: the form whose gradients are fast as well.

    Rows times inputsᵀ, and both gradients of that, are products that XLA's CPU backend computes
    without turning round what is large; with [*batch, S] autodiff leads to some that take up to twice
    as long. The barrier keeps XLA from folding the small transpose back into the products.
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
    return jax.lax.fori_loop(0, num_true, or_equal, none, unroll=max(1, min(num_true, 8)))


def _log_count(expected_count: Array) -> Array:
    count = jax.lax.stop_gradient(expected_count).astype(jnp.float32)
    return jnp.log(jnp.maximum(count, jnp.finfo(jnp.float32).tiny))


def _gathered(inputs, labels, weights, biases, candidates: Candidates, where) -> dict:
    """The arguments of the row form, with rows and biases looked up in the table."""
    inputs, weights = jnp.asarray(inputs), jnp.asarray(weights)
    biases = None if biases is None else jnp.asarray(biases)
    check_table(inputs, weights, biases)
    true = true_classes(labels, where, inputs, weights.shape[0])
    true_ids = true.ids.reshape(jnp.shape(labels))
    candidates = _checked_candidates(candidates, inputs.shape, true_ids.shape)

    def look_up(table, ids):
        # Ids of no class read some row or other, and what they read is thrown away.
        return None if table is None else jnp.take(table, ids, axis=0, mode="clip")

    return dict(
        inputs=inputs,
        true_rows=look_up(weights, true_ids),
        sampled_rows=look_up(weights, candidates.ids),
        labels=labels,
        true_biases=look_up(biases, true_ids),
        sampled_biases=look_up(biases, candidates.ids),
        where=where,
        num_classes=weights.shape[0],
    )


def _checked_candidates(candidates: Candidates, inputs_shape, labels_shape) -> Candidates:
    """The candidates as JAX arrays, or ValueError if they do not fit inputs and labels."""
    candidates = jax.tree.map(jnp.asarray, candidates)
    shape = candidates.ids.shape
    if len(shape) != 1 and (len(shape) != len(inputs_shape) or shape[:-1] != inputs_shape[:-1]):
        raise ValueError(
            f"candidates.ids must be [S] or {(*inputs_shape[:-1], 'S')} for inputs {inputs_shape}, "
            f"got {shape}"
        )
    if not jnp.issubdtype(candidates.ids.dtype, jnp.integer):
        raise ValueError(f"candidates.ids must be integers, got {candidates.ids.dtype}")
    _check_shape("candidates.expected_count", candidates.expected_count, shape)
    _check_shape("candidates.true_expected_count", candidates.true_expected_count, labels_shape)
    return candidates


def _check_shape(name: str, value: Array, shape: tuple) -> None:
    if value.shape != tuple(shape):
        raise ValueError(f"{name} must be {tuple(shape)}, got {value.shape}")
