"""Which output layer to train, from its size and the available memory."""

from typing import Literal, NamedTuple, get_args

from jaxml import checks

Variant = Literal["exact", "blockwise", "sampled", "adaptive"]

NUM_SAMPLED = 2048
"""Candidates of a sampled softmax."""

# Logits in a block of the blockwise form.
_BLOCK_LOGITS = 2**20

# Up to this many times the candidates, an exact softmax is cheap enough.
_WORTH_SAMPLING = 4

# Operations that a whole training may take: an hour and a half at 2·10¹¹ a second, on two cores.
_AFFORDABLE = 10**15

# Entries of an adaptive softmax with cutoffs at a twentieth, a quarter and all of the classes, and vectors
# shortened by 4 and by 16, as a share of C · D.
_ADAPTIVE_SHARE = 1 / 20 + (1 / 5) / 4 + (3 / 4) / 16


class Recommendation(NamedTuple):
    """An output layer, and the predicted cost of one training step.

    Attributes:
        variant: "exact" (`full_softmax_loss`), "blockwise" (`blockwise_softmax_update`), "sampled"
            (`sampled_softmax_loss_from_rows` with 2,048 candidates) or "adaptive" (`adaptive_softmax`).
        predicted_bytes: peak memory of a step of gradient descent in float32: table, gradient and logits.
            An optimizer's slots are extra: one number a row for row-wise Adagrad, as much as the table for
            Adagrad, twice that for Adam.
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
    memory_bytes: float,
    num_steps: int | None = None,
) -> Recommendation:
    """Returns the most exact output layer that fits the memory and is worth its operations.

    - *exact*, if all of [B, C] fits: always up to 8,192 classes, above only if the 6 B C D operations of
      `num_steps` steps are affordable: 10¹⁵ in all.
    - *blockwise*, if [B, C] does not fit, but 8 B C D operations a step are affordable.
    - *sampled*, otherwise: 6 B S D operations, S = 2,048, for any number of classes.
    - *adaptive*, if the table [C, D] does not fit, but one with shortened vectors does.

    `memory_bytes` are available to the layer, table included; `num_steps` are the training steps in all. If
    they are not known, sampling is preferred to an exact softmax of more than 8,192 classes.

    Raises:
        ValueError: a number is below 1, or no layer fits in `memory_bytes`.

    >>> recommend(1_000_000, 128, 512, memory_bytes=16e9).variant
    'sampled'
    >>> recommend(1_000, 128, 512, memory_bytes=16e9).variant
    'exact'
    """
    num_classes = checks.integer("num_classes", num_classes, 1)
    dim = checks.integer("dim", dim, 1)
    batch_size = checks.integer("batch_size", batch_size, 1)
    memory = checks.number("memory_bytes", memory_bytes, 1)
    steps = float("inf") if num_steps is None else checks.integer("num_steps", num_steps, 1)
    costs = {name: predict(name, num_classes, dim, batch_size) for name in get_args(Variant)}

    def choice(variant: Variant, reason: str) -> Recommendation:
        return Recommendation(variant, *costs[variant], reason)

    available = f"{memory / 1e9:.3g} GB"
    few = num_classes <= _WORTH_SAMPLING * NUM_SAMPLED
    exact: tuple[tuple[Variant, str], ...] = (
        ("exact", "all logits fit"),
        ("blockwise", "all logits do not fit, a block does"),
    )
    for variant, lead in exact:
        needed, operations = costs[variant]
        if needed <= memory and few:
            return choice(
                variant,
                f"{num_classes:,} classes are no more than {_WORTH_SAMPLING} times a sample: sampling "
                "would save little",
            )
        if needed <= memory and operations * steps <= _AFFORDABLE:
            total = f"{operations * steps:.2g} operations are affordable"
            return choice(variant, f"{lead} in {available}, and {total}")
    if costs["sampled"][0] <= memory:
        times = costs["exact"][1] / costs["sampled"][1]
        return choice("sampled", f"an exact step takes {times:.3g} times the operations")
    if costs["adaptive"][0] <= memory:
        return choice(
            "adaptive",
            f"a table of {4 * num_classes * dim / 1e9:.3g} GB does not fit in {available}, one with "
            "shortened vectors does",
        )
    raise ValueError(
        f"memory_bytes must be at least {min(needed for needed, _ in costs.values())} for {num_classes} "
        f"classes of dimension {dim} with batches of {batch_size}, got {memory_bytes}"
    )


def predict(
    variant: Variant,
    num_classes: int,
    dim: int,
    batch_size: int,
    num_sampled: int = NUM_SAMPLED,
) -> tuple[int, int]:
    """Returns peak bytes of a step of gradient descent in float32, and operations of its products.

    The table is updated in place; the inputs and their gradient are counted.

    >>> predict("exact", 1000, 10, 1)[1]  # 3 products of 2 · 1 · 1000 · 10
    60000
    """
    table, vectors = num_classes * dim, 2 * batch_size * dim
    logits = 2 * batch_size * num_classes
    if variant == "exact":
        return 4 * (2 * table + vectors + logits), 6 * batch_size * table
    if variant == "blockwise":
        block = min(max(_BLOCK_LOGITS // batch_size, 256), num_classes)
        entries = table + 2 * vectors + 2 * block * (batch_size + dim)
        return 4 * entries, 8 * batch_size * table
    if variant == "sampled":
        rows = batch_size + min(num_sampled, num_classes)
        entries = table + vectors + 2 * batch_size * rows + 4 * rows * dim
        return 4 * entries, 6 * batch_size * rows * dim
    small = round(_ADAPTIVE_SHARE * table)
    return 4 * (2 * small + vectors + logits), 6 * batch_size * small
