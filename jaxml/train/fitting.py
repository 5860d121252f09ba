"""`fit`: one call from data to a trained model and what went wrong on the way."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml import checks, trees
from jaxml.keys import as_key
from jaxml.reports import rundir
from jaxml.train import inputs
from jaxml.train.checkpoint import Checkpoints
from jaxml.train.options import EarlyStopping, Monitor
from jaxml.train.program import Constant
from jaxml.train.progress import Progress
from jaxml.train.results import Fit
from jaxml.train.trainer import Settings, Trainer
from jaxml.types import Array, Key

# Examples and shifts of their labels that `verify_signal` compares.
_EXAMPLES, _SHIFTS = 4096, 32


def fit(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: optax.GradientTransformation,
    data: tuple[Any, Any],
    *,
    num_steps: int,
    batch_size: int | None,
    key: Key,
    shuffle: bool = True,
    validation_data: tuple[Any, Any] | None = None,
    early_stopping: EarlyStopping | None = None,
    monitor: bool | Monitor = True,
    checkpoints: Checkpoints | None = None,
) -> Fit:
    """Trains a model, and returns it with its curves and findings.

    The monitor guards the optimizer (`monitor.guard`): a step whose loss, gradient or update is not finite
    is rejected, and an exploding gradient is scaled down. Findings are in `Fit.findings`, and give one
    warning (`monitor.FindingsWarning`).

    Args:
        model: a Linen module, called as `model(x)`, with `training`, `train`, `deterministic` or
            `use_running_average` where it has one.
        loss: `loss(outputs, labels)`, the loss of each example; the mean is minimised.
        optimizer: an optax transformation of gradients, parameters and the loss (`value`).
        data: `(x, y)`, arrays `[N, …]`; x may be a pytree of arrays, as the model takes it. On the devices
            that JAX arrays are put on (`jax.device_put`) the model is trained, each with its share of a
            batch if the batch size is a multiple of their number.
        num_steps: steps to take.
        batch_size: examples in a step, 1 … N; None for all, in their own order.
        key: key for initialisation, dropout and order, or an integer as seed.
        shuffle: whether every epoch has its own random order.
        validation_data: `(x, y)` on which the loss is measured at the start, in between, and at the end.
        early_stopping: needs `validation_data`; `params` are then those of the lowest validation loss.
        monitor: True, False, or a `Monitor` with options.
        checkpoints: an entered `Checkpoints`, from which the training continues and where it is saved. The
            result has the same bits as without the interruption (CPU; same number of devices). It may go on
            for more steps. Those of another model, loss, optimizer, data, key or option are refused; a
            schedule that depends on `num_steps` is another optimizer. The directory is also a run, which
            `python -m jaxml.train` lists.

    Raises:
        ValueError: before the first step, if an argument is out of range, `x` and `y` differ in length,
            the loss does not have the shape of the labels, or a label indexes no output.

    Example:
        >>> import flax.linen as nn
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> squared = lambda outputs, labels: jnp.square(outputs - labels)
        >>> fitted = fit(nn.Dense(1), squared, optax.sgd(0.3), (x, 2 * x), num_steps=100, batch_size=32,
        ...              key=jax.random.key(0))
        >>> float(fitted.loss_curve[-1]) < 1e-3, fitted.findings
        (True, [])
    """
    if not hasattr(optimizer, "update"):
        raise ValueError(f"optimizer must be an optax transformation, got {optimizer!r}")
    trainer = Trainer(
        model,
        loss,
        Constant(optimizer),
        data,
        [Settings({}, 0, batch_size, as_key(key))],
        num_steps=num_steps,
        shuffle=shuffle,
        validation_data=validation_data,
        early_stopping=early_stopping,
        monitor=monitor,
        checkpoints=checkpoints,
    )
    settings = {
        "model": " ".join(repr(model).split()),
        "batch_size": batch_size,
        "shuffle": shuffle,
    }
    with _run(checkpoints, settings) as run:
        with Progress(trainer.num_steps) as progress:
            trained = trainer.train(trainer.num_steps, progress)
        (fitted,) = trainer.finished(trained)
        if run is not None:
            (run / rundir.METRICS).unlink(missing_ok=True)
            rundir.record(
                run,
                loss_curve=fitted.loss_curve,
                validation_steps=fitted.validation_steps.tolist(),
                validation_curve=fitted.validation_curve.tolist(),
                findings=fitted.findings if monitor else None,
            )
    return fitted


@contextlib.contextmanager
def _run(checkpoints: Checkpoints | None, settings: dict[str, Any]) -> Iterator[Path | None]:
    """Yields the directory of the checkpoints, which is made a run if nothing is in it yet."""
    if checkpoints is None:
        yield None
        return
    run = checkpoints.directory
    if run.exists() and any(run.iterdir()):
        yield run if (run / rundir.RECORD).exists() else None
    else:
        with rundir.running("fit", settings, path=run):
            yield run


def verify_signal(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: optax.GradientTransformation,
    data: tuple[Any, Any],
    *,
    num_steps: int,
    batch_size: int | None,
    key: Key,
) -> float:
    """Returns how clearly what one half of the data teaches holds for the other half.

    A model is trained on a random half. Its loss on the other half is compared with its loss there when
    the labels are shifted among the examples: the result is the difference in standard deviations of the
    shifted losses. About 0: the inputs do not predict the labels. Above 4: they do.

    Args:
        model, loss, optimizer, data, num_steps, batch_size, key: as `fit` takes them.

    Raises:
        ValueError: as `fit` does, and if there are fewer than four examples.
    """
    pair = inputs.pair("data", data)
    number = checks.integer("the number of examples", len(pair[1]), at_least=4)
    key = as_key(key)
    words = [int(word) for word in np.ravel(jax.random.key_data(key))]
    order = np.random.default_rng(words).permutation(number)
    half, rest = order[: number // 2], order[number // 2 :][:_EXAMPLES]
    size = None if batch_size is None else min(batch_size, len(half))
    fitted = fit(
        model,
        loss,
        optimizer,
        trees.take(pair, np.sort(half)),
        num_steps=num_steps,
        batch_size=size,
        key=key,
        monitor=False,
    )
    x, y = trees.take(pair, rest)
    outputs = jax.tree.map(jnp.asarray, fitted.predict(x))
    shifts = np.unique(np.linspace(1, len(y) - 1, _SHIFTS).round().astype(int))
    own, *shifted = (
        float(jnp.mean(loss(outputs, jnp.asarray(np.roll(y, n, axis=0))))) for n in (0, *shifts)
    )
    spread = np.std(shifted)
    return float((np.mean(shifted) - own) / spread) if spread > 0 else 0.0
