"""Learning from a teacher's softmax over very many classes: its best k, and a sample of the others.

The teacher's answers are computed once and kept, k ids and probabilities of each example
(`top_k_probabilities`), not one of C. With P the teacher's probabilities, K its k best classes, z the
student's logits, and candidates j outside of K with expected counts E[n],

    Z = Σ_K exp(z_c) + N,    N = Σ_j exp(z_j) / E[n_j]

is an unbiased estimate of the student's partition function. The cross-entropy of teacher and student is

    loss = log Z − Σ_K P_c z_c − rest

where the rest of the teacher's mass, r = 1 − Σ_K P_c, enters as one of

- **one bucket**, if only the k best are known: rest = r log N, the loss of telling the k classes and
  "another" apart. It is smaller than the cross-entropy by r times that of the two distributions *within*
  the others: the student learns how much they have, not which of them has it.
- **a sample**, if the teacher's probabilities of the candidates are known, too: with b = log Σ_K exp(z_c),

      rest = r b + Σ_j P_j (z_j − b) / E[n_j],

  an unbiased estimate of Σ_{c∉K} P_c z_c. A constant added to all z does not change the loss.

The logarithm of an estimate is too small on average, by about half its relative variance: with a sample
that is the only bias of the loss; with one bucket log N has the opposite one, times r.

Measured for 10,000 classes, k = 10, r = 0.56 and uniform candidates, in nats (200 draws for 32 examples):
the cross-entropy is 6.10, that of one bucket 1.98. With 256, 1,024 and 4,096 candidates the bias is −0.025,
−0.007 and −0.000 with one bucket and −0.14, −0.03 and −0.01 with a sample, and the standard deviation of an
example's loss 0.17, 0.10 and 0.05 with one bucket and 1.36, 0.67 and 0.28 with a sample.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import meshes
from jaxml.softmax.logits import checked_labels, infinite
from jaxml.softmax.sampled import candidates_first, corrected_logits, finite_peak, log_counts
from jaxml.softmax.samplers import Candidates
from jaxml.types import Array


@meshes.laid_out_as("inputs")
def sampled_distillation_loss_from_rows(
    inputs,
    teacher_rows,
    sampled_rows,
    teacher_ids,
    teacher_probabilities,
    candidates: Candidates,
    *,
    candidate_probabilities=None,
    temperature=1.0,
    where=None,
    num_classes: int | None = None,
) -> Array:
    """Returns the cross-entropy of a teacher's and the student's softmax, estimated, float32 [*batch].

    See the module's docstring. Candidates among the teacher's k best are left out. No gradient flows into
    probabilities. With a table of all classes pass `weights[ids]` as rows.

    Args:
        inputs: [*batch, D].
        teacher_rows: [*batch, k, D], the student's rows of `teacher_ids`.
        sampled_rows: [S, D] or [*batch, S, D], those of `candidates.ids`.
        teacher_ids: [*batch, k], the teacher's best classes, distinct.
        teacher_probabilities: [*batch, k], at least 0, with a sum of at most 1.
        candidates: of any sampler; `true_expected_count` is not used.
        candidate_probabilities: [*batch, S], the teacher's probabilities of the candidates, those of empty
            slots ignored; None for the rest in one bucket.
        temperature: of the student's scores, and of the softmax that the teacher's probabilities come from.
            For a gradient whose scale does not depend on it multiply the loss by its square.
        where: bool [*batch].
        num_classes: as in `sampled_softmax_loss_from_rows`.

    Numerics: without a candidate outside of K the rest is left out.

    >>> row, other = jnp.ones((1, 1, 3)), jnp.zeros((2, 3))
    >>> candidates = Candidates(jnp.array([7, 9]), jnp.array([1.0, 0.5]), None)  # 9 stands for two classes
    >>> sampled_distillation_loss_from_rows(
    ...     jnp.zeros((1, 3)), row, other, jnp.array([[5]]), jnp.array([[0.7]]), candidates
    ... ).round(4)  # log 4 − 0.3 log 3
    Array([1.0567], dtype=float32)
    """
    inputs = jnp.asarray(inputs)
    ids_shape = np.shape(teacher_ids)
    if len(ids_shape) != inputs.ndim or not ids_shape[-1]:
        raise ValueError(
            f"teacher_ids must be {(*inputs.shape[:-1], 'k')}, k ≥ 1, for inputs {inputs.shape}, "
            f"got {ids_shape}"
        )
    if jnp.shape(teacher_rows) != (*ids_shape, inputs.shape[-1]):
        raise ValueError(
            f"teacher_rows must be {(*ids_shape, inputs.shape[-1])}, got {jnp.shape(teacher_rows)}"
        )
    if where is not None and np.shape(where) != inputs.shape[:-1]:
        raise ValueError(f"where must be {inputs.shape[:-1]}, got {np.shape(where)}")
    kept = jnp.ones((*inputs.shape[:-1], 1), bool)
    if where is not None:
        kept = jnp.asarray(where, bool)[..., None]
    of_teacher = jnp.broadcast_to(kept, ids_shape)
    checked_labels(teacher_ids, of_teacher, num_classes, name="teacher_ids")
    known = _probabilities("teacher_probabilities", teacher_probabilities, ids_shape, kept)
    if not isinstance(known, jax.core.Tracer):
        total = np.asarray(known).sum(-1)
        if (total > 1.01).any():
            raise ValueError(
                f"teacher_probabilities must have a sum of at most 1, got {total.max()}"
            )
    logits = corrected_logits(
        inputs,
        teacher_rows,
        sampled_rows,
        teacher_ids,
        replace(candidates, true_expected_count=jnp.ones(ids_shape)),
        None,
        None,
        correction="negatives",
        remove_accidental_hits=True,
        temperature=temperature,
        where=of_teacher,
        num_classes=num_classes,
    )
    best, others = logits.true, logits.sampled
    # Shifted as in `sampled._softmax`, for the same reason.
    peak = finite_peak(others, axis=0)
    highest = jnp.maximum(peak, finite_peak(best, axis=-1))
    of_best = jnp.exp(best - highest[..., None]).sum(-1)
    of_others = jnp.exp(others - peak[None]).sum(0)
    log_total = highest + jnp.log(of_best + jnp.exp(peak - highest) * of_others)
    loss = (known * infinite(log_total[..., None] - jnp.where(known > 0, best, 0.0))).sum(-1)
    rest = jnp.maximum(1 - known.sum(-1), 0.0)
    some = of_others > 0
    if candidate_probabilities is None:
        log_others = peak + jnp.log(jnp.where(some, of_others, 1.0))
        loss += jnp.where(some, rest * (log_total - log_others), 0.0)
    else:
        shape = (*inputs.shape[:-1], jnp.shape(candidates.ids)[-1])
        filled = jnp.broadcast_to(jnp.asarray(candidates.expected_count) > 0, shape)
        of_candidates = _probabilities(
            "candidate_probabilities", candidate_probabilities, shape, kept & filled
        )
        log_count, of_candidates = (
            candidates_first(each, others.ndim)
            for each in (log_counts(candidates.expected_count), of_candidates)
        )
        # −∞ marks what is no candidate of the example; the corrected logit of others is z_j − log E[n_j].
        counted = (of_candidates > 0) & ~jnp.isneginf(others)
        weights = jnp.where(counted, of_candidates * jnp.exp(-log_count), 0.0)
        own_peak = finite_peak(best, axis=-1)
        log_best = own_peak + jnp.log(jnp.exp(best - own_peak[..., None]).sum(-1))
        above = jnp.where(counted, others + log_count - log_best[None], 0.0)
        above = (weights * above).sum(0)
        loss += jnp.where(some, rest * (log_total - log_best) - above, 0.0)
    loss = jnp.where(logits.classes.refused.any(-1), jnp.nan, loss)
    return loss if where is None else jnp.where(jnp.asarray(where), loss, 0.0)


def _probabilities(name: str, values, shape: tuple, kept) -> Array:
    """Returns probabilities of this shape, 0 where they are not kept. Known ones are checked."""
    if np.shape(values) != shape:
        raise ValueError(f"{name} must be {shape}, got {np.shape(values)}")
    if not any(isinstance(each, jax.core.Tracer) for each in (values, kept)):
        given = np.where(kept, np.asarray(values, np.float32), 0)
        bad = np.argwhere(~((given >= 0) & (given <= 1.01)))
        if len(bad):
            at = tuple(bad[0].tolist())
            raise ValueError(f"{name} must be in [0, 1], got {given[at]} at {at}")
    return jax.lax.stop_gradient(jnp.where(kept, jnp.asarray(values, jnp.float32), 0))
