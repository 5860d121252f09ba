"""A teacher's outputs, and one program that trains all students on them."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from experiments.distillation.problems import NUM_CLASSES, Images, Problem, jittered
from jaxml import losses, models, train
from jaxml.types import Array, PyTree

__all__ = ["Arm", "Students", "student", "teach", "teacher", "train_students"]

_BATCH = 100
_COPIES = 10
_LEARNING_RATE = 3e-3


class Arm(NamedTuple):
    """How a student is taught; all three are traced, so that new values do not recompile.

    Attributes:
        alpha: the teacher's share of the loss; 0 for a student without a teacher.
        temperature: of the soft targets.
        omitted: a class whose images are left out of the transfer set; −1 for none.
    """

    alpha: float
    temperature: float
    omitted: int = -1


class Students(NamedTuple):
    """Trained students: variables with the leading axes seed and arm, and logits [seed, arm, N, C]."""

    variables: PyTree
    logits: NDArray[np.float32]


def teacher(problem: Problem) -> models.MLP:
    """Returns the network of a member of the teacher."""
    return models.MLP(problem.teacher, NUM_CLASSES, dropout=0.3)


def student(problem: Problem) -> models.MLP:
    """Returns the network of a student."""
    return models.MLP(problem.student, NUM_CLASSES)


def teach(
    problem: Problem, images: Images, members: int, num_steps: int
) -> tuple[list[PyTree], NDArray[np.float32]]:
    """Returns the variables of the teacher's members, and their logits of all images, [M, N, C].

    Wide networks with dropout, trained on moved images.
    """
    rows, schedule = images.train, optax.cosine_decay_schedule(1.0, num_steps)
    swept = train.sweep(
        teacher(problem),
        losses.softmax_cross_entropy,
        lambda h: optax.adam(lambda step: h["learning_rate"] * schedule(step)),
        (
            jittered(images.x[rows], problem.side, problem.shift, _COPIES, seed=0),
            np.tile(images.y[rows], _COPIES),
        ),
        space={"learning_rate": [1e-3]},
        seeds=members,
        num_steps=num_steps,
        batch_size=_BATCH,
        key=jax.random.key(0),
        monitor=False,
    )
    fits = [trial.fit for trial in swept.trials]
    return [{"params": each.params} for each in fits], np.stack(
        [each.predict(images.x) for each in fits]
    )


def train_students(
    problem: Problem,
    images: Images,
    members: NDArray[np.float32],
    arms: Sequence[Arm],
    seeds: int,
    num_steps: int,
) -> Students:
    """Trains a student for each seed and arm in one program.

    Those of one seed start from the same parameters and see the same images in the same order.

    Args:
        problem: sizes.
        images: those of the training part are the transfer set.
        members: logits of the teacher's members, [M, N, C].
        arms: how to teach.
        seeds: their number.
        num_steps: of each training.
    """
    rng = np.random.default_rng(1)
    rows = len(images.train)
    epochs = -(-num_steps * _BATCH // rows)
    orders = [
        np.concatenate([rng.permutation(rows) for _ in range(epochs)])[: num_steps * _BATCH]
        for _ in range(seeds)
    ]
    stacked = np.stack(orders, 1).reshape(num_steps, _BATCH, seeds).swapaxes(1, 2)
    data = {
        "x": images.x[images.train],
        "y": images.y[images.train],
        "members": members[:, images.train].swapaxes(0, 1),
    }
    columns: Any = Arm(*np.asarray(arms, np.float32).T)
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    network = models.from_linen(student(problem))
    variables = _trained(network, num_steps, keys, columns, data, stacked)
    apply = jax.jit(jax.vmap(jax.vmap(lambda v, x: network.apply(v, x)[0], (0, None)), (0, None)))
    return Students(jax.tree.map(np.asarray, variables), np.asarray(apply(variables, images.x)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _trained(
    network: models.Model, num_steps: int, keys: Array, arms: Arm, data: PyTree, orders: Array
) -> PyTree:
    """Returns variables [seed, arm, ...] after steps on the rows `orders` [steps, seed, batch]."""
    optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))

    def loss(
        variables: PyTree, model_state: Any, rows: Any, batch: PyTree, arm: Arm, key: Array
    ) -> Any:
        logits, _ = network.apply(variables, batch["x"])
        teacher_logits = losses.teacher_ensemble(
            jnp.moveaxis(batch["members"], 1, 0), temperature=arm.temperature
        )
        kept = batch["y"] != arm.omitted
        each = losses.distillation(
            logits,
            teacher_logits,
            batch["y"],
            alpha=arm.alpha,
            temperature=arm.temperature,
            where=kept,
        )
        return each.sum() / jnp.maximum(kept.sum(), 1), (model_state, {})

    # The arm is what a sampler's state is elsewhere: a part of the state that the step hands to the loss.
    task = train.Task(loss, lookup=lambda batch, arm, key: ({}, arm))
    step = train.make_step(task, optimizer=optimizer)

    def start(key: Array, arm: Arm) -> train.State:
        variables = network.init(key, data["x"][:1])
        return train.create_state(key, params=variables, optimizer=optimizer, sampler_state=arm)

    of_arms = jax.vmap(step, (0, None))

    def together(states: PyTree, rows: Array) -> tuple[PyTree, None]:
        batches = jax.tree.map(lambda column: column[rows], data)
        return jax.vmap(of_arms)(states, batches)[0], None

    states = jax.vmap(jax.vmap(start, (None, 0)), (0, None))(keys, arms)
    return jax.lax.scan(together, states, orders)[0].params
