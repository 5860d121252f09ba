"""Training, with checkpoints and validation."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments.geonames import batches, model
from experiments.geonames.config import Config
from experiments.geonames.data import Aliases
from jaxml import reports, softmax, train
from jaxml.types import Array


class Interrupted(Exception):
    """Training was asked to stop, and its checkpoint is on disk."""


def train_model(
    config: Config,
    aliases: Aliases,
    run_dir: Path,
    *,
    writer: reports.Writer,
    resume: bool,
    should_stop: Callable[[], bool],
) -> train.State:
    """Trains to the end, or until asked to stop; saves a checkpoint an epoch and at the end.

    Raises:
        Interrupted: after the checkpoint of a run that was asked to stop.
        checkpoint.CheckpointError: if one cannot be written or read.
    """
    names = aliases.names
    per_epoch = batches.steps_per_epoch(config, names)
    kept = train.Checkpoints(run_dir / "checkpoints", every=1, keep=1)
    target = jax.eval_shape(lambda: model.initial_shapes(config, names))
    found = kept.restore({}, target) if resume else None
    state = model.initial_state(config, aliases) if found is None else found[0]
    task, optimizers = model.make_task(config, names.num_places), model.make_row_optimizers(config)
    program = train.repeat(train.make_step(task, row_optimizers=optimizers))
    validation = aliases.names.validation.pairs[: config.validate_on]
    clock = [time.perf_counter(), int(state.step)]

    def report(state: train.State, happened: train.Report) -> None:
        step, now = int(state.step), time.perf_counter()
        rate = (step - clock[1]) * config.batch_size / (now - clock[0])
        clock[:] = now, step
        writer.scalars(
            step,
            {
                "loss": happened.loss.mean(),
                "examples_per_second": rate,
                "learning_rate": config.learning_rate * (1 - step / config.num_steps),
                "accepted": happened.accepted.mean(),
            },
        )

    with kept:
        while int(state.step) < config.num_steps:
            epoch, within = divmod(int(state.position), per_epoch)
            if not within:  # cut the classes into neighbourhoods by their present vectors
                parts = softmax.neighbourhoods(
                    model.class_vectors(state),
                    jax.random.fold_in(state.key, epoch),
                    block_size=config.block_size,
                )
                sampler_state = {**state.sampler_state, "parts": parts}
                state = dataclasses.replace(state, sampler_state=sampler_state)
            state, next_batches = batches.epoch_batches(config, aliases, state, epoch)
            state = train.run(
                program,
                state,
                next_batches,
                num_steps=min(config.num_steps, (epoch + 1) * per_epoch),
                on_reports=report,
                should_stop=should_stop,
            )
            step = int(state.step)
            kept.save(step, state)
            if should_stop() and step < config.num_steps:
                raise Interrupted
            loss = validation_losses(
                config, state, aliases.ngrams[validation], aliases.names.place[validation]
            )
            writer.scalars(step, {"validation_loss": loss})
            clock[0] = time.perf_counter()
    return state


def validation_losses(
    config: Config, state: train.State, ids: np.ndarray, places: np.ndarray
) -> float:
    """Returns the mean loss of the softmax over all places, which training estimates from candidates."""
    vectors = model.class_vectors(state)

    @jax.jit
    def loss(ids: Array, places: Array) -> Array:
        inputs = model.encode(state.tables["ngrams"], ids)
        return softmax.full_softmax_loss(inputs, places, vectors, temperature=config.temperature)

    size = 125  # The logits of so many aliases are 117 MB.
    parts = range(0, len(ids) - len(ids) % size or len(ids), size)
    return float(np.mean([loss(ids[i : i + size], places[i : i + size]).mean() for i in parts]))
