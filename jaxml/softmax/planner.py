"""Which output layer to train, from its size and the memory there is."""

import operator
from typing import Literal, NamedTuple

Variant = Literal["exact", "blockwise", "sampled", "adaptive"]

EXACT: tuple[Variant, ...] = ("exact", "blockwise")
VARIANTS: tuple[Variant, ...] = (*EXACT, "sampled", "adaptive")

NUM_SAMPLED = 2048
"""Candidates that a sampled softmax is reckoned with."""

# A block of the blockwise form: logits, their gradient, and the rows beside them.
_BLOCK_LOGITS = 2**20

# Up to this many times the candidates, scoring all classes costs less than what a sample gives away.
_WORTH_SAMPLING = 4

# Operations that a whole training may take: an hour and a half at 2·10¹¹ a second, two cores' worth.
_AFFORDABLE = 10**15

# An adaptive softmax with cutoffs at a twentieth, a quarter and all of the classes, vectors shortened by
# 4 and by 16: entries of its tables, as a share of C · D.
_ADAPTIVE_SHARE = 1 / 20 + (1 / 5) / 4 + (3 / 4) / 16


class Recommendation(NamedTuple):
    """An output layer, and what one training step of it is predicted to take.

    Attributes:
        variant: "exact" (`full_softmax_loss`), "blockwise" (`blockwise_softmax_update`), "sampled"
            (`sampled_softmax_loss_from_rows` with 2,048 candidates) or "adaptive" (`adaptive_softmax`).
        predicted_bytes: memory at the peak of a step of gradient descent in float32: table, gradient and
            logits. An optimizer's slots come on top: one number a row for row-wise Adagrad, as much as the
            table for Adagrad, twice that for Adam.
        predicted_operations: floating-point operations of the matrix products of a step.
        reason: why, in a sentence with the figures that decided it.
    """

    variant: Variant
    predicted_bytes: int
    predicted_operations: int
    reason: str


def recommend(
    num_classes: int,
    dim: int,
    batch_size: int,
    *,
    memory_bytes: int,
    num_steps: int | None = None,
) -> Recommendation:
    """Picks an output layer: the most exact one that fits the memory and is worth its operations.

    - *exact*, if all of [B, C] fits: with up to 8,192 classes always, with more only if `num_steps` says
      that 6 B C D operations a step, three products, are affordable: 10¹⁵ in all.
    - *blockwise*, where [B, C] does not fit, but its 8 B C D operations are affordable in the same sense.
    - *sampled*, where neither holds: 6 B S D operations, S = 2,048, whatever the number of classes.
    - *adaptive*, if not even the table [C, D] fits, but one with shortened vectors does.

    Args:
        num_classes: C, at least 1.
        dim: D, at least 1.
        batch_size: B, at least 1.
        memory_bytes: what the layer may take, table included.
        num_steps: training steps in all; None if not known, and then sampling is preferred to an exact
            softmax of more than 8,192 classes.

    Returns:
        A `Recommendation`.

    Raises:
        ValueError: for a number below 1, and where no variant fits in `memory_bytes`.

    >>> recommend(1_000_000, 128, 512, memory_bytes=16 * 10**9).variant
    'sampled'
    >>> recommend(1_000, 128, 512, memory_bytes=16 * 10**9).variant
    'exact'
    """
    sizes = {"num_classes": num_classes, "dim": dim, "batch_size": batch_size}
    sizes["memory_bytes"] = memory_bytes
    if num_steps is not None:
        sizes["num_steps"] = num_steps
    for name, value in sizes.items():
        if operator.index(value) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    costs = {variant: predict(variant, num_classes, dim, batch_size) for variant in VARIANTS}
    fits = {variant: needed <= memory_bytes for variant, (needed, _) in costs.items()}

    def choose(variant: Variant, reason: str) -> Recommendation:
        return Recommendation(variant, *costs[variant], reason)

    def total(variant: Variant) -> float:
        return costs[variant][1] * num_steps if num_steps is not None else float("inf")

    available = f"{memory_bytes / 1e9:.3g} GB"
    if num_classes <= _WORTH_SAMPLING * NUM_SAMPLED:
        why = f"{num_classes:,} classes are no more than {_WORTH_SAMPLING} times a sample"
        for variant in EXACT:
            if fits[variant]:
                return choose(variant, f"{why}: there is little to save")
    for variant in EXACT:
        if fits[variant] and total(variant) <= _AFFORDABLE:
            lead = "all logits fit" if variant == "exact" else "all logits do not fit, a block does"
            return choose(
                variant,
                f"{lead} in {available}, and {total(variant):.2g} operations are affordable",
            )
    if fits["sampled"]:
        return choose(
            "sampled",
            f"an exact step takes {costs['exact'][1] / costs['sampled'][1]:.3g} times the operations",
        )
    if fits["adaptive"]:
        return choose(
            "adaptive",
            f"a table of {4 * num_classes * dim / 1e9:.3g} GB does not fit in {available}, one with "
            "shortened vectors does",
        )
    least = min(needed for needed, _ in costs.values())
    raise ValueError(
        f"memory_bytes must be at least {least} for {num_classes} classes of dimension {dim} with "
        f"batches of {batch_size}, got {memory_bytes}"
    )


def predict(
    variant: Variant,
    num_classes: int,
    dim: int,
    batch_size: int,
    *,
    num_sampled: int = NUM_SAMPLED,
) -> tuple[int, int]:
    """Bytes at the peak of a step of gradient descent in float32, and operations of its products.

    Args:
        variant: as in `Recommendation`.
        num_classes: C.
        dim: D.
        batch_size: B.
        num_sampled: S, candidates of the sampled softmax.

    Returns:
        `(bytes, operations)`. The table is updated in place, the inputs and their gradient are counted.

    >>> predict("exact", 1000, 10, 1)[1]  # 3 products of 2 · 1 · 1000 · 10
    60000
    """
    table, vectors = num_classes * dim, 2 * batch_size * dim
    if variant == "exact":
        entries = 2 * table + vectors + 2 * batch_size * num_classes
        return 4 * entries, 6 * batch_size * table
    if variant == "blockwise":
        block = min(max(_BLOCK_LOGITS // batch_size, 256), num_classes)
        entries = table + 2 * vectors + 2 * block * (batch_size + dim)
        return 4 * entries, 8 * batch_size * table
    if variant == "sampled":
        rows = batch_size + min(num_sampled, num_classes)
        entries = table + vectors + 2 * batch_size * rows + 4 * rows * dim
        return 4 * entries, 6 * batch_size * rows * dim
    small = round(_ADAPTIVE_SHARE * table)
    entries = 2 * small + vectors + 2 * batch_size * num_classes
    return 4 * entries, 6 * batch_size * small
