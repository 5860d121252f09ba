"""The one trainer of `fit`, `sweep` and `successive_halving`: from trials to results."""

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml import checks, models, monitor, trees
from jaxml.train import fingerprint, inputs
from jaxml.train.checkpoint import Checkpoints
from jaxml.train.loop import run
from jaxml.train.options import EarlyStopping, Monitor, as_monitor
from jaxml.train.program import Data, Program, TrainingSpec, program_for, with_counts
from jaxml.train.progress import Progress
from jaxml.train.results import Fit
from jaxml.train.state import TrainState
from jaxml.types import Key, PyTree

# Steps and bytes of indices in one call of the program, at most; and its seconds, so that progress is seen.
_STEPS_PER_CALL = 1024
_BYTES_PER_CALL = 64 * 2**20
_SECONDS_PER_CALL = 0.5

# Share of the device's memory that trials may take.
_SHARE = 0.8

# On a CPU: bytes that a step of all trials side by side goes through, so that they stay in a core's cache.
_CACHE = 5 * 2**19


@dataclass(frozen=True)
class Settings:
    """Hyperparameters, seed, batch size (None for all examples) and random key of a trial."""

    hyperparameters: dict[str, float]
    seed: int
    batch_size: int | None
    key: Key


@dataclass(frozen=True)
class Progressed:
    """A trial after some of its steps.

    Attributes:
        train_state: the state after the last step.
        report: the reports of all steps, NumPy arrays `[steps, …]`.
        first: parameters and model state before the first step, in host memory; None without monitor.
        order_seed: the seed of the order of examples.
    """

    train_state: TrainState
    report: Any
    first: tuple[PyTree, PyTree] | None
    order_seed: int


class Trainer:
    """Trains trials that share the data, the model and all options.

    Args:
        trials: at least one; their hyperparameters have the same names.

    The other arguments are those of `sweep`.

    Attributes:
        seconds: wall time by `"compile"`, `"run"` and `"diagnose"`.
        width: the largest number of trials that were trained side by side.
    """

    def __init__(
        self,
        model: Any,
        loss: Any,
        optimizer: Any,
        data: tuple[Any, Any],
        trials: Sequence[Settings],
        *,
        num_steps: int,
        penalty: Any = None,
        shuffle: bool = True,
        validation_data: tuple[Any, Any] | None = None,
        early_stopping: EarlyStopping | None = None,
        monitor: bool | Monitor = True,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.num_steps = checks.integer("num_steps", num_steps, at_least=1)
        self.trials, self._shuffle, self._checkpoints = list(trials), shuffle, checkpoints
        spread = inputs.spread((data, validation_data))
        self._data = inputs.pair("data", data)
        self._validation = None
        if validation_data is not None:
            self._validation = inputs.pair("validation_data", validation_data, like=self._data)
        given = (
            ("early_stopping", early_stopping, EarlyStopping),
            ("checkpoints", checkpoints, Checkpoints),
        )
        for name, value, kind in given:
            if not isinstance(value, kind | None):
                raise ValueError(f"{name} must be a train.{kind.__name__} or None, got {value!r}")
        if early_stopping is not None and self._validation is None:
            raise ValueError("early_stopping needs validation_data, got None")
        if not callable(loss):
            raise ValueError(f"loss must be a function of outputs and labels, got {loss!r}")
        self._monitor, self._inspected, self._inspected_validation = as_monitor(monitor), None, None
        if self._monitor is not None:
            bad = self._monitor.on_bad_data
            self._data, self._inspected = inputs.clean("data", self._data, bad)
            if self._validation is not None:
                self._validation, self._inspected_validation = inputs.clean(
                    "validation_data", self._validation, bad
                )
        self._sizes = {
            each.batch_size: inputs.check_batch_size(each.batch_size, len(self._data[1]))
            for each in self.trials
        }
        self._spec = TrainingSpec(
            model,
            loss,
            optimizer,
            penalty,
            tuple(self.trials[0].hyperparameters),
            self._monitor,
            stops=early_stopping is not None,
            width=None,
            spread=spread,
        )
        self._programs: dict[Any, Program] = {}
        self._early_stopping = early_stopping
        self._validate_every = self._between(early_stopping)
        program = self._program(self.trials[0].batch_size, None)
        inputs.check_loss(
            lambda x: program.outputs(*models.split_variables(program.variables), x),
            self._spec.loss,
            self._data,
            self._validation,
        )
        # On the devices; a tree of None has no leaves.
        self._training, self._validating = inputs.put((self._data, self._validation), spread)
        self.seconds = {"compile": 0.0, "run": 0.0, "diagnose": 0.0}
        self.width = 0

    def _between(self, early_stopping: EarlyStopping | None) -> int:
        """Returns the number of steps between two validations."""
        if self._validation is None:
            return 1
        if early_stopping is not None and early_stopping.validate_every is not None:
            return early_stopping.validate_every
        # Validation takes no more examples than training, but there are at least ten validations.
        smallest = min(self._sizes.values())
        fair = min(len(self._validation[1]) // smallest, self.num_steps // 10)
        return max(1, fair, min(50, math.ceil(self.num_steps / 40)))

    def _program(self, batch_size: int | None, width: int | None) -> Program:
        kind = batch_size, width
        if kind not in self._programs:
            spec = dataclasses.replace(self._spec, width=width)
            example = inputs.shapes(self._data, self._sizes[batch_size])
            self._programs[kind] = program_for(spec, example)
        return self._programs[kind]

    # Training

    def train(
        self, until: int, progress: Progress, trained: Mapping[int, Progressed] | None = None
    ) -> dict[int, Progressed]:
        """Returns the trials after `until` steps.

        Args:
            until: the step to train to.
            progress: the progress line.
            trained: the trials to continue, by number, all at the same step; None to start all.
        """
        before = dict(trained or {})
        found = {i: each for i, each in before.items() if _stopped_at(each.train_state) >= 0}
        going_on = [i for i in before or range(len(self.trials)) if i not in found]
        chunks = self._chunks(going_on)
        for chunk, width in chunks:
            self._program(self.trials[chunk[0]].batch_size, width)
            self.width = max(self.width, width or 1)
        started, compiled = time.perf_counter(), self._compile_seconds()

        def train(number: int) -> dict[int, Progressed]:
            return self._train_chunk(number, *chunks[number], before, until, progress)

        spread: Any = self._spec.spread
        if spread is not None:
            # One program at a time, since its devices wait for each other; and no other mesh.
            with jax.set_mesh(spread.mesh):
                for number in range(len(chunks)):
                    found |= train(number)
        elif len(chunks) == 1:
            found |= train(0)
        else:
            # On a CPU the small operations of a chunk keep one core busy: each core takes a chunk.
            workers = os.cpu_count() if jax.default_backend() == "cpu" else 1
            with ThreadPoolExecutor(workers) as pool:
                for each in pool.map(train, range(len(chunks))):
                    found |= each
        compiled = self._compile_seconds() - compiled
        self.seconds["compile"] += compiled
        self.seconds["run"] += time.perf_counter() - started - compiled
        return found

    def _compile_seconds(self) -> float:
        programs = self._programs.values()
        return sum(program.run.seconds + program.start.seconds for program in programs)

    def _chunks(self, numbers: list[int]) -> list[tuple[list[int], int | None]]:
        """Returns groups of trials to train side by side, each with the width of its program."""
        if len(numbers) == 1:
            return [(numbers, None)]
        chunks: list[tuple[list[int], int | None]] = []
        for size in dict.fromkeys(self.trials[i].batch_size for i in numbers):
            group = [i for i in numbers if self.trials[i].batch_size == size]
            most = self._most_at_once(size)
            width = math.ceil(len(group) / math.ceil(len(group) / most))
            for at in range(0, len(group), width):
                chunks.append((group[at : at + width], width if width > 1 else None))
        return chunks

    def _most_at_once(self, batch_size: int | None) -> int:
        """Returns how many trials fit on the device side by side, or on a CPU in a core's cache."""
        program = self._program(batch_size, None)
        params, model_state = models.split_variables(program.variables)
        x, y = inputs.shapes(self._data, self._sizes[batch_size])

        def backward(params: PyTree, model_state: PyTree, x: PyTree, y: Any, key: Key) -> Any:
            """Returns the backward pass, which holds the activations."""
            return jax.vjp(
                lambda p: jnp.mean(program.compute(p, model_state, x, y, key, True)[0]), params
            )[1]

        key = jax.eval_shape(lambda: jax.random.key(0))
        activations = jax.eval_shape(backward, params, model_state, x, y, key)
        # Parameters, their gradient and update, and two moments.
        each = 5 * trees.num_bytes(params) + trees.num_bytes((x, y, activations))
        shared = trees.num_bytes((self._training, self._validating))
        fit_in = (_SHARE * inputs.device_memory() - shared) // each
        if jax.default_backend() == "cpu":
            fit_in = min(fit_in, _CACHE // each)
        return max(1, int(fit_in))

    def _train_chunk(
        self,
        number: int,
        chunk: list[int],
        width: int | None,
        before: Mapping[int, Progressed],
        until: int,
        progress: Progress,
    ) -> dict[int, Progressed]:
        # A chunk repeats its last trial up to the common width; the results leave repetitions out.
        filled = chunk + chunk[-1:] * ((width or 1) - len(chunk))
        trials = [self.trials[i] for i in filled]
        batch_size = trials[0].batch_size
        program = self._program(batch_size, width)
        data = self._program_data(trials, width, until)
        if chunk[0] in before:
            past = [before[i] for i in filled]
            states = [each.train_state for each in past]
            train_state = _stack(states) if width else states[0]
            firsts = [each.first for each in past]
            orders = [each.order_seed for each in past]
        else:
            train_state, firsts, orders = self._start(program, trials, data.hyperparameters)
        if self._spec.spread is not None:
            train_state = inputs.put(train_state, self._spec.spread, whole=True)
        next_batches = self._batches(orders, batch_size, width)
        length = min(
            _STEPS_PER_CALL, max(1, _BYTES_PER_CALL // (4 * self._sizes[batch_size] * len(filled)))
        )
        reports: list[Any] = []
        ends = [until]  # A call of the program ends at a multiple of one of these.
        kept = self._checkpoints
        if kept is not None:
            if len(self.trials) > 1:
                kept = kept.part(f"chunk_{number:03d}")
            arguments = train_state, next_batches(0, length), np.int32(1), data
            train_state, reports = self._restored(kept, program, trials, arguments)
            data = self._continued(data, reports)
            progress.resume(len(chunk) * int(train_state.step))
            ends.append(kept.every)
            if kept.keep_best and self._validation is not None:
                ends.append(int(data.validate_every))
        stopped = _all_stopped(train_state)

        def on_reports(train_state: TrainState, report: Any) -> None:
            nonlocal stopped
            stopped = _all_stopped(train_state)
            reports.append(report)
            metrics = report.metrics
            shown = {"loss": metrics["loss"]}
            if "validated" in metrics:
                shown["validation"] = np.where(metrics["validated"], metrics["validation"], np.nan)
            progress.advance(len(chunk) * len(report.loss), shown)
            if kept is not None:
                step = int(train_state.step)
                metric = _lowest(train_state, report, ended=step == until)
                kept.save(step, train_state, report, metric=metric)

        if not stopped and int(train_state.step) < until:
            train_state = run(
                lambda train_state, rows, count: program.run(train_state, rows, count, data),
                train_state,
                next_batches,
                num_steps=until,
                steps_per_call=length,
                seconds_per_call=_SECONDS_PER_CALL,
                call_ends=lambda step: min((step // each + 1) * each for each in ends),
                on_reports=on_reports,
                should_stop=lambda: stopped,
            )
        if kept is not None:
            kept.finish(int(train_state.step), train_state)
        report = jax.tree.map(lambda *parts: np.concatenate(parts), *reports)
        if self._spec.spread is not None:
            train_state = _on_host(train_state)
        states = _unstack(train_state, len(chunk)) if width else [train_state]
        trained = {}
        for k, i in enumerate(chunk):
            own = jax.tree.map(lambda leaf, k=k: leaf[:, k], report) if width else report
            if i in before:
                own = jax.tree.map(lambda *parts: np.concatenate(parts), before[i].report, own)
            if (stop := _stopped_at(states[k])) >= 0:
                own = trees.take(own, slice(stop))
            trained[i] = Progressed(states[k], own, firsts[k], orders[k])
        return trained

    def _program_data(self, trials: Sequence[Settings], width: int | None, until: int) -> Data:
        """Returns the arguments of the program that do not change during the training."""
        hyperparameters: Any = {
            name: np.array([trial.hyperparameters[name] for trial in trials], np.float32)
            for name in self._spec.names
        }
        if width is None:
            hyperparameters = {name: values[0] for name, values in hyperparameters.items()}
        patience = 0 if self._early_stopping is None else self._early_stopping.patience
        numbers = map(np.int32, (until, self._validate_every, patience))
        return Data(hyperparameters, self._training, self._validating, *numbers)

    def _start(
        self, program: Program, trials: Sequence[Settings], hyperparameters: PyTree
    ) -> tuple[TrainState, list[Any], list[int]]:
        """Returns the first state, and the first parameters and order seed of each trial."""
        width = program.spec.width
        train_state, orders = program.start(*self._first(program, trials, hyperparameters))
        firsts: list[Any] = [None] * len(trials)
        if self._monitor is not None and self._monitor.final_diagnostics:
            # A copy, because the program consumes the state.
            state = train_state.state
            first = jax.tree.map(np.array, (state.params, state.model_state))
            firsts = [first if width is None else trees.take(first, i) for i in range(len(trials))]
        return train_state, firsts, [int(seed) for seed in np.ravel(orders)]

    def _first(self, program: Program, trials: Sequence[Settings], hyperparameters: PyTree) -> Any:
        """Returns the arguments of `program.start`."""
        keys = inputs.put([trial.key for trial in trials], self._spec.spread, whole=True)
        key = keys[0] if program.spec.width is None else jnp.stack(keys)
        return key, trees.take(self._data[0], slice(2)), hyperparameters

    def _restored(
        self, kept: Checkpoints, program: Program, trials: Sequence[Settings], arguments: Any
    ) -> tuple[TrainState, list[Any]]:
        """Returns the state and reports of the newest checkpoint; the given state if there is none."""
        train_state, *_, data = arguments
        traced = program.run.trace(*arguments)
        start = program.start.trace(*self._first(program, trials, data.hyperparameters))
        identity = self._identity(trials, traced.jaxpr, start.jaxpr)
        found = kept.restore(identity, train_state, traced.out_info[1])
        if found is None:
            return train_state, []
        if int(found[0].step) > data.num_steps:
            raise ValueError(
                f"num_steps must be at least the {int(found[0].step)} steps that are in "
                f"{kept.directory}, got {data.num_steps}"
            )
        return found[0], [found[1]]

    def _batches(self, orders: list[int], batch_size: int | None, width: int | None) -> Any:
        """Returns `batches(position, count)`, which draws the indices of the batches for the program."""
        size, number = self._sizes[batch_size], len(self._data[1])

        def batches(position: int, count: int) -> NDArray[np.int32]:
            drawn = {}
            for seed in dict.fromkeys(orders):
                drawn[seed] = (
                    np.zeros((count, 0), np.int32)  # All examples.
                    if batch_size is None
                    else inputs.examples(number, size, self._shuffle, seed, position, count)
                )
            if width is None:
                return drawn[orders[0]]
            return np.stack([drawn[seed] for seed in orders], axis=1)

        return batches

    def _continued(self, data: Data, reports: Sequence[Any]) -> Data:
        """Returns data with the distance of the validations in the reports, unless one was asked for.

        The default depends on the number of steps.
        """
        asked = self._early_stopping is not None and self._early_stopping.validate_every
        if asked or self._validation is None or not reports:
            return data
        validated = reports[0].metrics["validated"]
        at = np.flatnonzero(validated.reshape(len(validated), -1).any(1))
        return data._replace(validate_every=np.int32(at[0] + 1)) if len(at) else data

    def _identity(self, trials: Sequence[Settings], run: Any, start: Any) -> dict[str, Any]:
        """Returns what must be equal for a training to continue from a checkpoint.

        What is computed comes last, so that an error names the argument that changed it.
        """
        watch = self._monitor
        return {
            "batch_size": trials[0].batch_size,
            "data": inputs.checksums(self._data),
            "validation_data": self._validation and inputs.checksums(self._validation),
            "key": [np.asarray(jax.random.key_data(trial.key)).tolist() for trial in trials],
            "shuffle": bool(self._shuffle),
            "early_stopping": self._early_stopping and dataclasses.asdict(self._early_stopping),
            "monitor": watch and {"every": watch.every, "preserve": watch.preserve},
            **{
                f"hyperparameter {name}": [trial.hyperparameters[name] for trial in trials]
                for name in self._spec.names
            },
            **fingerprint.of_parts(run),
            "initialization": fingerprint.fingerprint(start),
            "program": fingerprint.fingerprint(run),
        }

    # The end

    def result(self, number: int, trained: Progressed) -> Fit:
        """Returns a trial's result, without findings."""
        train_state, report = trained.train_state, trained.report
        stopped, best = _stopped_at(train_state), train_state.best
        state: Any = train_state.state
        last = float(train_state.last_validation)
        if best is not None and np.isfinite(best.loss) and not last < best.loss:
            state = best
        steps, losses = np.zeros(0, np.int64), np.zeros(0)
        if self._validation is not None:
            at = np.flatnonzero(report.metrics["validated"])
            steps = np.append(0, at + 1)
            losses = np.append(train_state.first_validation, report.metrics["validation"][at])
            if steps[-1] < len(report.loss):
                steps, losses = np.append(steps, len(report.loss)), np.append(losses, last)
        program = self._program(self.trials[number].batch_size, None)
        return Fit(
            params=state.params,
            model_state=state.model_state,
            loss_curve=report.metrics["loss"].astype(np.float64),
            validation_curve=losses.astype(np.float64),
            validation_steps=steps,
            findings=[],
            history=None,
            opt_state=train_state.state.opt_state,
            stopped_at=None if stopped < 0 else stopped,
            seconds=dict(self.seconds),
            _outputs=program.outputs,
            _loss=self._spec.loss,
        )

    def finished(self, trained: Mapping[int, Progressed]) -> list[Fit]:
        """Returns the results of all trials, and gives one short warning of their findings."""
        fits = [self._diagnosed(i, trained[i]) for i in range(len(self.trials))]
        found = [each.findings for each in fits if each.findings]
        if found:
            first, *more = found[0]
            message = f"{first} · and {len(more)} more in `findings`" if more else str(first)
            if len(fits) > 1:
                symptom = first.symptom.replace("_", " ")
                message = f"{len(found):,} of {len(fits):,} trials have findings, such as {symptom}"
            warnings.warn(message, monitor.FindingsWarning, stacklevel=3)
        return fits

    def _diagnosed(self, number: int, trained: Progressed) -> Fit:
        """Returns a trial's result with its history and findings, or without them if diagnosis fails."""
        fitted = self.result(number, trained)
        if self._monitor is None:
            return fitted
        started = time.perf_counter()
        try:
            with jax.debug_nans(False):  # Some measurements are of losses that overflow.
                history = self._history(number, trained, fitted)
            findings = monitor.diagnose(history)
            fitted = dataclasses.replace(fitted, history=history, findings=findings)
        except Exception as error:
            warnings.warn(
                f"training has ended, but its diagnosis failed: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=4,
            )
        self.seconds["diagnose"] += time.perf_counter() - started
        return fitted

    def _history(self, number: int, trained: Progressed, fitted: Fit) -> monitor.History:
        assert self._monitor is not None and self._inspected is not None
        trial = self.trials[number]
        program = self._program(trial.batch_size, None)
        metrics = trained.report.metrics
        history = program.recorder.history(
            metrics,
            self._inspected,
            len(self._data[1]) / self._sizes[trial.batch_size],
            fitted.validation_curve,
            self._shuffle,
            self._inspected_validation,
        )
        if self._monitor.final_diagnostics:
            state = trained.train_state.state
            after = program.final.measure(
                self._data,
                first=trained.first,
                last=(state.params, state.model_state),
                opt_state=state.opt_state,
                seed=trained.order_seed,
                curved=monitor.is_suspicious(history),
                hyperparameters={
                    name: np.float32(value) for name, value in trial.hyperparameters.items()
                },
            )
            history = dataclasses.replace(history, after=after)
            symptoms = {finding.symptom for finding in monitor.diagnose(history)}
            # Held-out rows decide whether the data or a penalty are at fault.
            if symptoms & {"no_learnable_signal", "excessive_regularization"}:
                held_out = program.final.held_out(
                    self._data, trained.first, seed=trained.order_seed
                )
                after = dataclasses.replace(after, **held_out)
                history = dataclasses.replace(history, after=after)
        return history


def _stopped_at(train_state: TrainState) -> int:
    return -1 if train_state.best is None else int(train_state.best.stopped_at)


def _lowest(train_state: TrainState, report: Any, ended: bool) -> float | None:
    """Returns the lowest validation loss of trials in this state; None if none is validated here."""
    if "validated" not in report.metrics:
        return None
    here = np.ravel(report.metrics["validated"][-1]) | ended
    losses = np.ravel(train_state.last_validation)[here]
    return float(np.fmin.reduce(losses)) if len(losses) else None


def _all_stopped(train_state: TrainState) -> bool:
    best = train_state.best
    return best is not None and bool((np.asarray(best.stopped_at) >= 0).all())


def _stack(states: Sequence[TrainState]) -> TrainState:
    """Returns a population of trials."""
    first = states[0]
    return with_counts(trees.stack(states), np.array(first.step), np.array(first.position))


def _on_host(train_state: TrainState) -> TrainState:
    """Returns the state in host memory, but for its keys."""
    keys = jax.dtypes.prng_key
    return jax.tree.map(
        lambda leaf: leaf if jnp.issubdtype(leaf.dtype, keys) else np.asarray(leaf), train_state
    )


def _unstack(train_state: TrainState, number: int) -> list[TrainState]:
    """Returns the first trials of a population, in host memory."""
    host = _on_host(train_state)
    apart = with_counts(host, None, None)
    return [with_counts(trees.take(apart, i), host.step, host.position) for i in range(number)]
