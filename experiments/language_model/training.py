"""Training of a recurrent next-word model by truncated backpropagation through time, and its curve."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from experiments.language_model import layers
from jaxml import models, tables, train
from jaxml.data import corpus, sequences
from jaxml.types import Array, PyTree

Point = dict[str, Any]

# Steps in a compiled call: the clock is read in between.
_STEPS_PER_CALL = 10
# Streams and steps of a window where a model is judged.
_JUDGED_AT_ONCE = 32, 32


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a training.

    Attributes:
        dim: length of the vectors of words, and units of the LSTM.
        streams: texts read side by side.
        window: words of each in a step; gradients end at its start, the state does not.
        num_sampled: candidates of a step.
        learning_rate: of Adagrad for the tables.
        dense_learning_rate: of Adam for the LSTM.
        seed: of initialisation and candidates.
    """

    dim: int
    streams: int
    window: int
    num_sampled: int
    learning_rate: float
    dense_learning_rate: float
    seed: int


def windows(tokens: NDArray[np.int32], number: int, length: int) -> dict[str, NDArray[Any]]:
    """Returns a text read in `number` streams side by side, as windows [count, number, length] in order.

    `inputs` are the words before the `labels`. A document's first word is predicted from `END`, where the
    state is set to zero.
    """
    stream = np.concatenate([np.array([corpus.END], np.int32), tokens])
    starts = np.flatnonzero(stream == corpus.END)
    inputs, labels, resets = sequences.windows(stream, starts, number, length)
    return {"inputs": inputs, "labels": labels, "resets": resets}


class Trainer:
    """A next-word model with one of the output layers.

    Attributes:
        layer: the output layer.
        state: of the training.
        seconds: of training so far, without compiling and judging.
    """

    def __init__(self, text: corpus.Corpus, name: str, settings: Settings) -> None:
        size = settings.streams * settings.window
        if len(text.train) < size:
            raise ValueError(
                f"text must have {size} words to learn from, for one step, got {len(text.train)}"
            )
        self.settings = settings
        self.layer = layers.layer(
            name,
            text.counts,
            dim=settings.dim,
            batch_size=size,
            num_sampled=min(settings.num_sampled, text.num_words),
        )
        self.seconds = 0.0
        self.network = models.Recurrent("lstm", settings.dim)
        whole = text.train[: len(text.train) // size * size]
        self._windows = windows(whole, settings.streams, settings.window)
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0), optax.adam(settings.dense_learning_rate)
        )
        self.state, schedules = self._initial(text.num_words, optimizer)
        step = train.make_step(self.task(), optimizer=optimizer, row_optimizers=schedules)
        self.program = train.repeat(step)
        # A call of no steps compiles.
        self.state, _ = self.program(self.state, self._batches(0, _STEPS_PER_CALL), jnp.int32(0))
        self._judge = jax.jit(self._window_losses)

    def _initial(self, num_words: int, optimizer: Any) -> tuple[train.State, dict[str, Any]]:
        s = self.settings
        keys = jax.random.split(jax.random.key(s.seed), 4)
        blank = jnp.zeros((s.streams, 1, s.dim))
        params = self.network.init(keys[0], blank)["params"]
        embedding = tables.init_table(keys[1], num_words, s.dim)
        held = {"embedding": embedding, **self.layer.init(keys[2])}
        schedules: dict[str, Any] = {
            name: lambda step: tables.adagrad(s.learning_rate, initial_accumulator=0.0)
            for name in held
        }
        state = train.create_state(
            keys[3],
            params=params,
            model_state=self.blank_carry(s.streams),
            optimizer=optimizer,
            tables=held,
            row_optimizers=schedules,
            sampler_state=self.layer.sampler_state,
        )
        return state, schedules

    def blank_carry(self, number: int) -> PyTree:
        """Returns the state of the network before the first word of `number` streams."""
        x = jax.ShapeDtypeStruct((number, 1, self.settings.dim), jnp.float32)
        key = jax.random.key(0)
        shapes = jax.eval_shape(lambda x: self.network.init_with_output(key, x)[0][1], x)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def task(self) -> train.Task:
        """Returns the rows of a step, and its loss."""

        def lookup(batch: PyTree, sampler_state: PyTree, key: Array):
            ids, context = self.layer.lookup(sampler_state, batch["labels"], key)
            return {"embedding": batch["inputs"], **ids}, context

        def loss(params, model_state, rows, batch, context, key):
            states, carry = self.network.apply(
                {"params": params},
                rows["embedding"],
                carry=model_state,
                resets=batch["resets"],
            )
            losses = self.layer.losses(rows, states, batch["labels"], context)
            return losses.mean(), (jax.lax.stop_gradient(carry), {})

        def observe(sampler_state: PyTree, batch: PyTree, accepted: Array) -> PyTree:
            return self.layer.observe(sampler_state, batch["labels"], accepted)

        return train.Task(loss, lookup, observe)

    def _batches(self, position: int, count: int) -> dict[str, NDArray[Any]]:
        numbers = np.arange(position, position + count) % len(self._windows["inputs"])
        return {name: part[numbers] for name, part in self._windows.items()}

    def run(self, until: int, max_seconds: float) -> None:
        """Trains until so many steps are done, or so many seconds have been spent in all."""
        started = time.perf_counter()
        deadline = started + max_seconds - self.seconds
        state = train.run(
            self.program,
            self.state,
            self._batches,
            num_steps=until,
            steps_per_call=_STEPS_PER_CALL,
            should_stop=lambda: time.perf_counter() >= deadline,
        )
        self.state = jax.block_until_ready(state)
        self.seconds += time.perf_counter() - started

    def _window_losses(self, params, held, carry, batch) -> tuple[Array, PyTree]:
        rows = tables.gather_rows(held["embedding"], batch["inputs"])
        states, carry = self.network.apply(
            {"params": params}, rows, carry=carry, resets=batch["resets"]
        )
        return self.layer.exact(held, states, batch["labels"]).sum(), carry

    def loss(self, tokens: NDArray[np.int32]) -> float:
        """Returns the mean exact loss per word of this text, in nats; ends of documents count as words."""
        number, length = _JUDGED_AT_ONCE
        read = windows(tokens, number, length)
        carry, total = self.blank_carry(number), 0.0
        for at in range(len(read["inputs"])):
            batch = {name: part[at] for name, part in read.items()}
            part, carry = self._judge(self.state.params, self.state.tables, carry, batch)
            total += float(part)
        return total / len(tokens)


def stops(known: Sequence[int] = ()) -> Iterator[int]:
    """Yields the steps of a curve's points: those that are `known`, then each by a quarter more.

    >>> list(itertools.islice(stops([10, 30]), 6))
    [10, 30, 40, 50, 60, 70]
    """
    yield from known
    stop = max(known, default=0)
    while True:
        stop += max(_STEPS_PER_CALL, stop // (4 * _STEPS_PER_CALL) * _STEPS_PER_CALL)
        yield stop


def curve(
    trainer: Trainer,
    tokens: NDArray[np.int32],
    at: Iterable[int],
    goes_on: Callable[[Sequence[Point]], bool],
    *,
    max_seconds: float,
    say: Callable[[Point], None],
) -> list[Point]:
    """Trains, and returns points with `step`, `seconds` of training, and the exact `loss` of `tokens`.

    The trainer is left with the parameters of its best point.

    Args:
        trainer: what is trained.
        tokens: held-out text.
        at: steps that have a point, ascending.
        goes_on: whether to train on after these points.
        max_seconds: of training; the last point is there at the latest.
        say: is told each point.
    """
    points: list[Point] = []
    best: dict[str, PyTree] = {}
    for stop in itertools.chain([0], at):
        if points and (not goes_on(points) or trainer.seconds >= max_seconds):
            break
        if stop:
            trainer.run(stop, max_seconds)
        step = int(trainer.state.step)
        points.append({"step": step, "seconds": trainer.seconds, "loss": trainer.loss(tokens)})
        say(points[-1])
        if points[-1] is min(points, key=lambda point: point["loss"]):
            held = {"params": trainer.state.params, "tables": trainer.state.tables}
            best = jax.tree.map(jnp.copy, held)  # The next step updates them in place.
    trainer.state = dataclasses.replace(trainer.state, **best)
    return points


def seconds_to(points: Sequence[Point], loss: float) -> float | None:
    """Returns when a curve first reached a loss, by a line between two of its points; None if never."""
    if points[0]["loss"] <= loss:
        return points[0]["seconds"]
    for before, after in itertools.pairwise(points):
        if after["loss"] <= loss:
            share = (before["loss"] - loss) / (before["loss"] - after["loss"])
            return before["seconds"] + share * (after["seconds"] - before["seconds"])
    return None
