"""Many trainings of one shape at once: members in chunks that fit, each chunk under `vmap`."""

import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import models, trees
from jaxml.train import inputs
from jaxml.train.checkpoint import Checkpoints
from jaxml.train.loop import run
from jaxml.train.program import Course, Data, Program, Recipe, held_out_blocks, population_axes
from jaxml.train.progress import Meter
from jaxml.train.state import Report
from jaxml.types import Array, Key, PyTree

__all__ = ["Setting", "Study"]

# On a CPU: bytes of all that a step of a chunk goes through, so that they stay in a core's cache.
_CACHE = 5 * 2**19

# Share of the device's memory that a chunk may take.
_SHARE = 0.8

_STEPS_PER_CALL = 1024
_BYTES_PER_CALL = 64 * 2**20
_SECONDS_PER_CALL = 1.0

OnChunk = Callable[[int, Course, Report], Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What tells a member from the others.

    Attributes:
        hyperparameters: by name.
        seed: of initialisation, order and dropout.
        batch_size: examples in a step; None for all.
    """

    hyperparameters: dict[str, float]
    seed: int
    batch_size: int | None


class Study:
    """Members, and what they have in common.

    Args:
        model, loss, optimizer, penalty: as `sweep` takes them.
        data: `(x, y)`, checked.
        held_out: likewise, or None.
        settings: of the members; their hyperparameters have the same names.
        key: of which each seed's key is made.
        num_steps: of the whole training.
        validate_every, patience, shuffle, chunk, max_bytes, stream: as `sweep` takes them.
        options: of `Recipe`.

    Attributes:
        workers: chunks that are trained side by side.
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Array], Array],
        optimizer: Callable[[Any], optax.GradientTransformation],
        data: inputs.Arrays,
        held_out: inputs.Arrays | None,
        settings: Sequence[Setting],
        *,
        key: Key,
        num_steps: int,
        validate_every: int,
        patience: int | None,
        shuffle: bool,
        chunk: int | None,
        max_bytes: int | None,
        stream: bool,
        **options: Any,
    ) -> None:
        self._given: dict[str, Any] = {
            "model": model,
            "loss": loss,
            "optimizer": optimizer,
            "key": key,
            "num_steps": num_steps,
            "validate_every": validate_every,
            "shuffle": shuffle,
            "chunk": chunk,
            "max_bytes": max_bytes,
            "stream": stream,
            **options,
        }
        self.data, self.settings, self.num_steps = data, list(settings), num_steps
        self.validate_every, self._patience, self.shuffle = validate_every, patience, shuffle
        self._stream, self._chunk = stream, chunk
        x, y = data
        functional = models.from_linen(model)
        init = jax.jit(functional.init)
        self.keys: dict[int, Key] = {}
        self.order_seeds: dict[int, int] = {}
        self._run_keys: dict[int, Key] = {}
        self._variables: dict[int, PyTree] = {}
        for seed in dict.fromkeys(each.seed for each in settings):
            self.keys[seed] = jax.random.fold_in(key, seed)
            init_key, self._run_keys[seed], order_key = jax.random.split(self.keys[seed], 3)
            self.order_seeds[seed] = int(jax.random.bits(order_key, dtype=jnp.uint32))
            self._variables[seed] = init(
                init_key, jax.tree.map(jnp.asarray, inputs.take(x, slice(2)))
            )
        self.names = list(self.settings[0].hyperparameters)
        inputs.check_updates(
            optimizer,
            self._hyperparameters(range(len(self.settings))),
            self.initial(self.settings[0].seed)[0],
            num_steps,
        )
        few = inputs.take(x, slice(min(self.batch(each.batch_size) for each in settings)))
        variables = self._variables[self.settings[0].seed]
        self.recipe = Recipe(model, loss, optimizer, variables, few, **options)

        def start(hyperparameters: PyTree, params: PyTree, model_state: PyTree, key: Key) -> Course:
            return self.recipe.start(
                hyperparameters, params, model_state, key, patience is not None
            )

        self._start, self._start_one = jax.jit(jax.vmap(start)), jax.jit(start)
        self._resident = None if stream else jax.device_put((x, y))
        self._held_out_pair = held_out
        self._held_out = None if held_out is None else held_out_blocks(*held_out)
        # Two cores do little more with a chunk's small operations than one: each takes a chunk.
        self.workers = inputs.cores() if jax.default_backend() == "cpu" else 1
        self._programs: dict[Any, Program] = {}
        self._orders: dict[Any, Callable[[int, int], Any]] = {}
        self._lock = threading.Lock()
        self.seconds = {"compile": 0.0, "run": 0.0}
        budget = _SHARE * inputs.device_memory() if max_bytes is None else max_bytes
        in_common = trees.num_bytes((self._resident, self._held_out))
        self._at_once: dict[int | None, int] = {}
        for size in dict.fromkeys(each.batch_size for each in settings):
            self._at_once[size] = self._members_at_once(size, budget, in_common)

    def initial(self, seed: int) -> tuple[PyTree, PyTree]:
        """Parameters and model state before the first step."""
        return models.split_variables(self._variables[seed])

    def batch(self, batch_size: int | None) -> int:
        """Examples in a step."""
        return len(self.data[1]) if batch_size is None else batch_size

    @property
    def programs(self) -> int:
        """How many have been compiled."""
        return len(self._programs)

    @property
    def widest(self) -> int:
        """Members that were trained at once, at most."""
        return max((width for _, width, _ in self._programs), default=0)

    def hyperparameters_of(self, member: int) -> dict[str, np.float32]:
        """As they are traced."""
        return {name: values[0] for name, values in self._hyperparameters([member]).items()}

    def _hyperparameters(self, members: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        return {
            name: np.array([self.settings[i].hyperparameters[name] for i in members], np.float32)
            for name in self.names
        }

    # How many at once

    def bytes_of_member(self, batch_size: int | None) -> int:
        """Bytes that a member takes while it is trained, roughly: state, gradient, update, activations."""
        x, y = self.data
        size = self.batch(batch_size)
        params, model_state = self.initial(self.settings[0].seed)
        key = self._run_keys[self.settings[0].seed]
        hyperparameters = {name: jnp.float32(1) for name in self.names}
        course = jax.eval_shape(self._start_one, hyperparameters, params, model_state, key)
        batch = jax.tree.map(
            lambda values: jax.ShapeDtypeStruct((size, *values.shape[1:]), values.dtype),
            {"x": x, "y": y},
        )
        return (
            trees.num_bytes(course)
            + 2 * trees.num_bytes(params)
            + trees.num_bytes(batch)
            + self.recipe.activation_bytes(params, model_state, batch, key)
        )

    def _members_at_once(self, batch_size: int | None, budget: float, in_common: int) -> int:
        each = self.bytes_of_member(batch_size)
        fit_in = int((budget - in_common) // each)
        if fit_in < 1:
            raise ValueError(
                f"max_bytes must hold at least one member: it needs about {each + in_common:,} bytes "
                f"({each:,} of its own, {in_common:,} of data), got {int(budget):,}"
            )
        if self._chunk is not None:
            return min(self._chunk, fit_in)
        if jax.default_backend() == "cpu":
            return max(1, min(fit_in, _CACHE // each))
        return fit_in

    def chunks(self, members: Sequence[int]) -> list[tuple[list[int], bool]]:
        """Members that are trained together, and whether they share their batches.

        All chunks of a batch size have the same number of members, up to one that is filled up.
        """
        found: list[tuple[list[int], bool]] = []
        for size in dict.fromkeys(self.settings[i].batch_size for i in members):
            group = [i for i in members if self.settings[i].batch_size == size]
            by_seed: dict[int, list[int]] = {}
            for i in group:
                by_seed.setdefault(self.settings[i].seed, []).append(i)
            largest = max(map(len, by_seed.values()))
            most = self._at_once[size]
            # Alone with their seed, members read each batch but once; unless the chunks become too small.
            shared = len(by_seed) == 1 or 2 * largest > most
            parts = list(by_seed.values()) if shared else [group]
            width = max(_even(len(part), most) for part in parts)
            for part in parts:
                found += [(part[at : at + width], shared) for at in range(0, len(part), width)]
        return found

    # Training

    def train(
        self,
        members: Sequence[int],
        courses: Mapping[int, Course],
        until: int,
        meter: Meter,
        on_chunk: OnChunk | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> dict[int, tuple[Course, Report]]:
        """Trains members until a step.

        Args:
            members: which.
            courses: where they are, of those that are no more at their start; all at the same step.
            until: the step.
            meter: is told.
            on_chunk: as `sweep` takes it.
            checkpoints: as `sweep` takes it.

        Returns:
            For each member where it is now and what its steps since reported [steps], in NumPy arrays.
        """
        parts = self.chunks(members)
        widths: dict[tuple[int | None, bool], int] = {}
        for part, shared in parts:
            kind = self.settings[part[0]].batch_size, shared
            widths[kind] = max(widths.get(kind, 0), len(part))
        started = time.perf_counter()
        compiled = sum(program.compile_seconds for program in self._programs.values())

        def one(number: int) -> dict[int, tuple[Course, Report]]:
            part, shared = parts[number]
            width = widths[self.settings[part[0]].batch_size, shared]
            # Filled up to the common width with what is trained anyway and then left out.
            filled = part + [part[-1]] * (width - len(part))
            return self._train_chunk(
                number, part, filled, shared, courses, until, meter, on_chunk, checkpoints
            )

        found: dict[int, tuple[Course, Report]] = {}
        with ThreadPoolExecutor(min(self.workers, len(parts))) as pool:
            for each in pool.map(one, range(len(parts))):
                found |= each
        took = time.perf_counter() - started
        compiled = sum(p.compile_seconds for p in self._programs.values()) - compiled
        self.seconds["compile"] += compiled
        self.seconds["run"] += took - compiled
        return found

    def _train_chunk(
        self,
        number: int,
        part: list[int],
        filled: list[int],
        shared: bool,
        courses: Mapping[int, Course],
        until: int,
        meter: Meter,
        on_chunk: OnChunk | None,
        checkpoints: Checkpoints | None,
    ) -> dict[int, tuple[Course, Report]]:
        alone = len(filled) == 1
        batch_size = self.settings[part[0]].batch_size
        hyperparameters = self._hyperparameters(filled)
        course = self._begin(filled, courses)
        if alone:
            hyperparameters = {name: values[0] for name, values in hyperparameters.items()}
        given = Data(
            hyperparameters=jax.tree.map(jnp.asarray, hyperparameters),
            training=self._resident,
            held_out=self._held_out,
            num_steps=jnp.int32(until),
        )
        mode: Any = "stream" if self._stream else "full" if batch_size is None else "indices"
        shape = batch_size, len(filled), shared
        with self._lock:
            if shape not in self._programs:
                self._programs[shape] = Program(
                    self.recipe,
                    given,
                    validate_every=self.validate_every,
                    patience=self._patience,
                    members=None if alone else len(filled),
                    shared=shared,
                    mode=mode,
                )
            program = self._programs[shape]
        reports: list[Report] = []
        batch = self.batch(batch_size)
        next_batches = self._batches(filled, batch, mode, shared)
        folder = f"chunk_{number:03d}"
        if checkpoints is not None:
            shapes = program.reports(course, next_batches(0, 1), given)
            what = self._identity(filled)
            checkpoints = checkpoints.part(folder)
            if (found := checkpoints.restore(what, course, shapes)) is not None:
                course, reports = found[0], [found[1]]
        stopped = self._stopped(course, len(filled))

        def on_reports(course: Any, report: Any) -> None:
            nonlocal stopped
            before, stopped = stopped, self._stopped(course, len(filled))
            reports.append(report)
            mine = slice(0, len(part))
            if meter.listens:
                gone_on = int((before[mine] < 0).sum())
                has_stopped = int((stopped[mine] >= 0).sum()) - (len(part) - gone_on)
                over = int(course.step) >= until
                meter.steps(
                    gone_on * len(report.loss),
                    report.metrics["loss"][-1:],
                    report.metrics.get("validation"),
                    ended=has_stopped + (gone_on - has_stopped if over else 0),
                    skipped=has_stopped * (until - int(course.step)),
                )
            if checkpoints is not None:
                checkpoints.save(int(course.step), course, report)
            if on_chunk is not None:
                with self._lock:
                    on_chunk(number, course, report)

        row = inputs.num_bytes(self.data) // len(self.data[1]) if self._stream else 4
        per_step = batch * row * (1 if shared else len(filled))
        # Where nobody asks how far it is, calls are as long as they can be.
        listens = meter.listens or on_chunk is not None or self._patience is not None
        longest = min(_STEPS_PER_CALL, until, max(1, _BYTES_PER_CALL // max(per_step, 1)))
        if checkpoints is not None:
            longest = min(longest, checkpoints.every)
        if (stopped < 0).any():
            course = run(
                lambda course, batches, count: program(course, batches, count, given),
                course,
                next_batches,
                num_steps=until,
                steps_per_call=longest,
                seconds_per_call=_SECONDS_PER_CALL if listens else None,
                on_reports=on_reports,
                should_stop=lambda: bool((stopped >= 0).all()),
            )
        if checkpoints is not None:
            checkpoints.finish(int(course.step), course)
        course = jax.tree.map(_to_host, course)
        if alone:
            return {part[0]: (course, _joined(reports))}
        joined = _joined(reports)
        axes = population_axes(course)
        return {
            member: (
                _member(course, axes, i),
                jax.tree.map(lambda leaf, i=i: leaf[:, i], joined),
            )
            for i, member in enumerate(part)
        }

    def _identity(self, members: list[int]) -> dict[str, Any]:
        """What a chunk is, for its checkpoints."""
        given = self._given
        return inputs.identity(
            self.data,
            self._held_out_pair,
            given["key"],
            members=[dataclasses.asdict(self.settings[i]) for i in members],
            validate_every=self.validate_every,
            patience=self._patience,
            monitor=given["monitor"],
            every=given["every"],
        )

    def _begin(self, members: list[int], courses: Mapping[int, Course]) -> Course:
        """A chunk's course, in buffers of its own."""
        if members[0] in courses:
            found = [courses[i] for i in members]
            if len(members) == 1:
                return jax.tree.map(_to_device, found[0])
            axes = jax.tree.leaves(population_axes(found[0]))
            structure = jax.tree.structure(found[0])
            columns = zip(*map(jax.tree.leaves, found), strict=True)
            stacked = [
                _stack(column) if axis == 0 else _to_device(column[0])
                for axis, column in zip(axes, columns, strict=True)
            ]
            return jax.tree.unflatten(structure, stacked)
        pairs = [self.initial(self.settings[i].seed) for i in members]
        keys = [self._run_keys[self.settings[i].seed] for i in members]
        hyperparameters = self._hyperparameters(members)
        if len(members) == 1:
            given = {name: values[0] for name, values in hyperparameters.items()}
            course = self._start_one(given, *pairs[0], keys[0])
            return jax.tree.map(jnp.copy, course)
        params, model_state = (trees.stack(each) for each in zip(*pairs, strict=True))
        course = self._start(hyperparameters, params, model_state, jnp.stack(keys))
        axes = jax.tree.leaves(population_axes(course))
        leaves, structure = jax.tree.flatten(course)
        # What is common to all is there once.
        leaves = [
            jnp.copy(leaf if axis == 0 else leaf[0])
            for axis, leaf in zip(axes, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)

    def _batches(
        self,
        members: list[int],
        batch: int,
        mode: Literal["indices", "stream", "full"],
        shared: bool,
    ) -> Callable[[int, int], PyTree]:
        x, y = self.data
        seeds = [self.settings[i].seed for i in members]
        # The order of a full batch is the rows' own.
        shuffles = self.shuffle and self.settings[members[0]].batch_size is not None
        orders = {seed: self._order(batch, shuffles, seed) for seed in dict.fromkeys(seeds)}
        own = not shared and len(members) > 1

        def batches(position: int, count: int) -> PyTree:
            if mode == "full":
                return np.zeros((count, len(members), 0) if own else (count, 0), np.int32)
            drawn = {seed: order(position, count) for seed, order in orders.items()}
            chosen: Any = drawn[seeds[0]]
            if own:
                chosen = np.stack([drawn[seed] for seed in seeds], axis=1)
            return inputs.take({"x": x, "y": y}, chosen) if mode == "stream" else chosen

        return batches

    def _order(self, batch: int, shuffles: bool, seed: int) -> Callable[[int, int], Any]:
        """The examples of batches; chunks of one seed ask for the same ones."""
        kind = batch, shuffles, seed
        with self._lock:
            if kind not in self._orders:
                made = inputs.examples(len(self.data[1]), batch, shuffles, self.order_seeds[seed])
                self._orders[kind] = functools.lru_cache(maxsize=4)(made)
            return self._orders[kind]

    @staticmethod
    def _stopped(course: Course, number: int) -> NDArray[np.int64]:
        """[members] steps at which each has stopped early, −1 of those that go on."""
        if course.stopping is None:
            return np.full(number, -1)
        return np.atleast_1d(np.asarray(course.stopping.stopped_at)).astype(np.int64)


def _even(number: int, most: int) -> int:
    """The width at which as few chunks as are needed are as even as they can be."""
    return math.ceil(number / math.ceil(number / most))


def _joined(reports: Sequence[Report]) -> Any:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *reports)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf: Any) -> Any:
    return leaf if _is_key(leaf) else np.asarray(leaf)


def _to_device(leaf: Any) -> Array:
    return jnp.copy(leaf) if _is_key(leaf) else jnp.array(leaf)


def _stack(column: Sequence[Any]) -> Array:
    return jnp.stack(column) if _is_key(column[0]) else jnp.asarray(np.stack(column))


def _member(course: Course, axes: Course, i: int) -> Course:
    """One member of a population's course."""
    leaves, structure = jax.tree.flatten(course)
    along = jax.tree.leaves(axes)
    return jax.tree.unflatten(
        structure,
        [leaf[i] if axis == 0 else leaf for axis, leaf in zip(along, leaves, strict=True)],
    )
