"""Labels do not follow from the inputs, or the loss does not depend on the parameters.

The rule: every gradient is exactly 0 and nothing was learned (`where` is `"output"`); or nothing else is
found, less than a tenth of the loss of a model that ignores its inputs is saved, and neither of two tests
shows a signal. A step of the initial parameters along one half of the data does not help on the other half
(`held_out_signal`): those were trained on nothing, so neither memory nor a training that a penalty or a
learning rate made impossible can mislead it. And nearest neighbours have no more alike labels than others,
so that it is not the model, such as a linear one for the parity of two signs, that cannot learn them. In
doubt, `train.verify_signal` trains a model on one half and tests it on the other.

Examples: shuffled labels (`data_random_labels`), a softmax over one output, which is always 1
(`data_softmax_of_one`).
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxml import trees
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run
from jaxml.types import Array, PyTree

# Share that is saved of the loss of a model that ignores its inputs. Little may be all that can be known:
# models of the flights' delays save 6 %.
_LITTLE = 0.1

# Standard errors beyond chance: one false acquittal in 30,000.
CHANCE = 4.0

# Examples that are computed at once, at most.
_CHUNK = 512


def held_out_signal(
    losses: Callable[[PyTree, PyTree, Array], Array], params: PyTree, x: PyTree, y: Array
) -> Array:
    """Returns how far beyond chance inputs predict labels, in standard errors; float32 [].

    Two examples exchange their labels: by how much does the sum of their losses grow? A step along the
    gradient of this, on the first half of the examples, makes it grow on the second half too, if labels
    depend on inputs. If they do not, growth and decline are equally likely for each pair.

    Args:
        losses: `losses(params, x, y) -> ` loss of each example.
        params: not trained on these examples.
        x: [N, …] inputs, or a pytree of them, in random order.
        y: [N, …] labels.
    """
    number = max(1, len(y) // (2 * _CHUNK))
    size = len(y) // (4 * number) * 2

    def chunks(leaf: Array) -> Array:
        return leaf[: 2 * number * size].reshape(2, number, size, *leaf.shape[1:])

    first, second = (jax.tree.map(lambda leaf, i=i: chunks(leaf)[i], (x, y)) for i in (0, 1))

    def growth(params: PyTree, chunk: tuple[PyTree, Array]) -> Array:
        x, y = chunk
        own, other = (losses(params, x, labels) for labels in (y, jnp.roll(y, size // 2, axis=0)))
        return (other - own).astype(jnp.float32).reshape(2, size // 2, -1).sum(0).mean(1)

    gradient = jax.grad(lambda params, chunk: growth(params, chunk).mean())
    direction = jax.tree.map(
        lambda leaf: leaf.mean(0), jax.lax.map(lambda chunk: gradient(params, chunk), first)
    )
    length = trees.global_norm(direction)
    direction = jax.tree.map(
        lambda leaf: (leaf / jnp.maximum(length, 1e-30)).astype(leaf.dtype), direction
    )
    further = jax.lax.map(
        lambda chunk: jax.jvp(lambda params: growth(params, chunk), (params,), (direction,))[1],
        second,
    )
    error = jnp.std(further) / math.sqrt(max(further.size, 1))
    return jnp.where(error > 0, jnp.mean(further) / jnp.where(error > 0, error, 1), 0.0)


def _detect(run: Run, found: Found) -> Finding | None:
    after = run.history.after
    if run.failed and run.no_gradient:
        cause = (
            "the loss does not depend on the parameters: every gradient is 0, as with a softmax over one "
            "output, which is always 1"
        )
        evidence = {"largest_gradient": 0.0}
        return Finding("no_learnable_signal", 0, "output", "error", evidence, cause)
    if found or after is None or not run.failed or run.signal >= _LITTLE:
        return None
    if after.held_out > CHANCE or after.neighbours > CHANCE:
        return None
    evidence = {
        "signal": run.signal,
        "loss": after.loss,
        "loss_of_other_labels": after.mismatched_loss,
        "held_out": after.held_out,
    }
    cause = "gradients are healthy, and yet the model does not predict labels from inputs"
    return Finding("no_learnable_signal", 0, "input", "error", evidence, cause)


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    if finding.where == "output":
        return Remedy(output_activation="none")
    return Remedy(data="check_labels")


SYMPTOM = Symptom("no_learnable_signal", _remedy, _detect, after=("*", "learning_rate_too_low"))
