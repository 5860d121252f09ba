"""Cost of the output layers: time forward, with gradients, in a step; memory; compile time.

Every variant is first compared with a float64 reference on a small problem, and not timed if it fails. All
then take turns in one process, so a slow phase of the machine affects all alike.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.softmax_benchmark import layers, peers
from jaxml import reports, softmax, tables
from jaxml.types import Array, Key, PyTree

VARIANTS = (
    "full",
    "blockwise",
    "update",
    "sampled",
    "per_example",
    "adaptive",
    "two_level",
    "one_vs_all",
)
"""Layers of this project; `peers.NAMES` are those of others."""

MODES = ("forward", "gradient", "step")
"""The mean loss; with its gradients by inputs and table; and with a step of descent on the table."""

LEARNING_RATE = 0.01

# Classes of the small problem.
_SMALL = 300

# Of the loss and of the inputs' gradient, relative, on the small problem.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


@dataclasses.dataclass(frozen=True)
class Size:
    """A problem's size.

    Attributes:
        num_classes: C.
        dim: D.
        batch_size: B.
        num_sampled: candidates of the sampled variants; a 32nd if each example has its own.
        dtype: of inputs and table.
        block_size: classes at a time in the blockwise forms; None for their own choice.
    """

    num_classes: int
    dim: int
    batch_size: int
    num_sampled: int = 2_048
    dtype: Literal["float32", "bfloat16"] = "float32"
    block_size: int | None = None


class Case(NamedTuple):
    """A variant at a size: JAX programs by mode.

    Attributes:
        params: "dense", the table in its dtype; "stored", as its row optimizer stores it (uint16 bits for
            bf16 on a CPU); or a function `key -> params`.
        programs: by mode `program(params, inputs, labels, key)`; forward returns `(loss,)`, gradient
            `(loss, d_inputs, d_params)`, step `(loss, d_inputs, params)`, with the params donated.
    """

    params: Literal["dense", "stored"] | Callable[[Key], PyTree]
    programs: dict[str, Callable[..., tuple]]


def case(variant: str, size: Size) -> Case:
    """Returns the programs of one of `VARIANTS` or of `peers.JAX`."""
    blocks: Any = {} if size.block_size is None else {"block_size": size.block_size}

    def per_example(table, x, y, key):
        sampler = softmax.log_uniform(size.num_classes)
        few = max(1, min(size.num_sampled // 32, size.num_classes))
        return softmax.per_example_sampled_softmax_loss(
            x, y, table, None, sampler, (), key, few
        ).mean()

    losses: dict[str, Callable[..., Array]] = {
        "full": lambda table, x, y, key: softmax.full_softmax_loss(x, y, table).mean(),
        "blockwise": lambda table, x, y, key: softmax.blockwise_softmax_loss(
            x, y, table, reduction="mean", **blocks
        ),
        "one_vs_all": lambda table, x, y, key: softmax.one_vs_all_loss(
            x, y, table, **blocks
        ).mean(),
        "per_example": per_example,
        **peers.JAX,
    }
    if variant in losses:
        return Case("dense", _programs(losses[variant]))
    if variant == "update":
        return Case("stored", {"step": _update(blocks)})
    if variant == "sampled":
        return Case("stored", _sampled(size))
    layer = layers.clustered(variant, size.num_classes)

    def params(key: Key) -> PyTree:
        return jax.tree.map(lambda a: a.astype(size.dtype), layer.init(key, size.dim))

    return Case(params, _programs(lambda p, x, y, key: layer.loss(p, x, y).mean()))


def _programs(loss: Callable[..., Array]) -> dict[str, Callable[..., tuple]]:
    def gradient(params, x, y, key):
        value, (d_params, d_x) = jax.value_and_grad(loss, (0, 1))(params, x, y, key)
        return value, d_x, d_params

    def step(params, x, y, key):
        value, d_x, d_params = gradient(params, x, y, key)
        descend = lambda p, g: (p - LEARNING_RATE * g).astype(p.dtype)  # noqa: E731
        return value, d_x, jax.tree.map(descend, params, d_params)

    def forward(params, x, y, key):
        return (loss(params, x, y, key),)

    return {"forward": forward, "gradient": gradient, "step": step}


def _update(blocks: Mapping[str, int]) -> Callable[..., tuple]:
    def step(table, x, y, key):
        losses, d_x, table, _ = softmax.blockwise_softmax_update(
            x, y, table, {}, tables.sgd(LEARNING_RATE).rule, **blocks
        )
        return losses.mean(), d_x, table

    return step


def _sampled(size: Size) -> dict[str, Callable[..., tuple]]:
    sampler, count = softmax.log_uniform(size.num_classes), min(size.num_sampled, size.num_classes)

    def gathered(table, y, key):
        drawn = sampler.sample((), key, y, count)
        ids = jnp.concatenate([y, drawn.ids])
        return ids, tables.gather_rows(table, ids), drawn

    def loss(x, rows, y, drawn):
        true_rows, sampled_rows = jax.lax.split(rows, (y.size, count))
        return softmax.sampled_softmax_loss_from_rows(x, true_rows, sampled_rows, y, drawn).mean()

    def forward(table, x, y, key):
        _, rows, drawn = gathered(table, y, key)
        return (loss(x, rows, y, drawn),)

    def gradient(table, x, y, key):
        ids, rows, drawn = gathered(table, y, key)
        value, (d_x, d_rows) = jax.value_and_grad(loss, (0, 1))(x, rows, y, drawn)
        return value, d_x, tables.RowGradient(ids, d_rows)

    def step(table, x, y, key):
        value, d_x, row_gradient = gradient(table, x, y, key)
        table, _ = tables.sgd(LEARNING_RATE).update(row_gradient, {}, table)
        return value, d_x, table

    return {"forward": forward, "gradient": gradient, "step": step}


# ------------------------------------------------------------------------------------- correctness


def problem(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns table, inputs and labels; labels follow Zipf's law, for which adaptive softmax is made."""
    source = np.random.default_rng(0)
    table = source.standard_normal((size.num_classes, size.dim), np.float32)
    table *= np.float32(size.dim**-0.5)
    inputs = source.standard_normal((size.batch_size, size.dim), np.float32)
    position = (size.num_classes + 1) ** source.random(size.batch_size)
    return table, inputs, np.minimum(position.astype(np.int32), size.num_classes) - 1


def error_of(variant: str, size: Size) -> float:
    """Returns the largest relative error of loss and input gradient on a small problem, against float64.

    The sampled variants draw every class there, and must equal the exact softmax.
    """
    small = Size(_SMALL, 16, 32, num_sampled=32 * _SMALL, dtype=size.dtype, block_size=64)
    table, inputs, labels = problem(small)
    made = case(variant, small)
    params = _params(made.params, table, small)
    x = jnp.asarray(inputs, small.dtype)
    name = "gradient" if "gradient" in made.programs else "step"
    value, d_inputs, _ = jax.jit(made.programs[name])(params, x, labels, jax.random.key(0))
    exact = np.float64(x.astype(jnp.float32))
    if variant in ("adaptive", "two_level"):
        loss, slope = _by_clusters(variant, params, exact, labels)
    else:
        rounded = jnp.asarray(table, small.dtype).astype(jnp.float32)
        loss, slope = _over_all(variant, np.float64(rounded), exact, labels)
    off = np.abs(np.float64(d_inputs.astype(jnp.float32)) - slope).max() / np.abs(slope).max()
    return max(float(abs(value - loss) / abs(loss)), float(off))


def _over_all(variant, table, x, labels) -> tuple[float, np.ndarray]:
    """Returns the mean loss in float64, and its gradient with respect to the inputs."""
    scores, own = x @ table.T, (np.arange(len(x)), labels)
    if variant == "one_vs_all":
        loss = np.logaddexp(0, scores).sum(1) - scores[own]
        slope = 1 / (1 + np.exp(-scores))
    else:
        log_partition = np.log(np.exp(scores).sum(1))
        loss = log_partition - scores[own]
        slope = np.exp(scores - log_partition[:, None])
    slope[own] -= 1
    return loss.mean(), slope @ table / len(x)


def _by_clusters(variant, params, x, labels) -> tuple[float, np.ndarray]:
    """Returns the same as `_over_all`, from the log-probabilities of all classes in float64."""
    layer = layers.clustered(variant, _SMALL)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: np.float64(a.astype(jnp.float32)), params)

        def loss(x):
            return -layer.log_prob(params, x)[np.arange(len(labels)), labels].mean()

        value, slope = jax.value_and_grad(loss)(jnp.asarray(x))
        return float(value), np.asarray(slope)


# -------------------------------------------------------------------------------------- measurement


def _params(kind: Any, table: np.ndarray, size: Size) -> PyTree:
    if kind == "dense":
        return jnp.asarray(table, size.dtype)
    if kind == "stored":
        return tables.to_storage(jnp.asarray(table), tables.storage_dtype(size.dtype))
    return kind(jax.random.key(1))


def available_bytes() -> int | None:
    """Returns the free memory of the default device; None if it is unknown."""
    (device,) = jnp.zeros(()).devices()
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        with open("/proc/meminfo") as lines:
            kilobytes = next(line for line in lines if line.startswith("MemAvailable"))
        return 1024 * int(kilobytes.split()[1])
    except (OSError, StopIteration):
        return None


def measure(
    size: Size,
    variants: Sequence[str],
    *,
    rounds: int,
    modes: Sequence[str] = MODES,
    with_peers: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Times the variants in turn, `rounds` times after one round that is thrown away.

    Peers that are not installed or do not run are skipped, and `say` prints why.

    Returns:
        One row for each variant and mode: its `error` against float64, `lowering_ms`, `compile_ms`,
        `temporary_bytes` of the compiled program and `program_bytes`, which includes arguments and results,
        `samples_ms`, and `failure`: None, or the reason why there are no samples.
    """
    table, inputs, labels = problem(size)
    x, y = jnp.asarray(inputs, size.dtype), jnp.asarray(labels)
    rows: list[dict[str, Any]] = []
    # The programs of a round: a row, and a function of the round's key that waits for the result.
    entries: list[tuple[dict[str, Any], Callable[[Key], Any]]] = []
    held: dict[Any, PyTree] = {}

    def add_row(variant: str, mode: str, error: float | None) -> dict[str, Any]:
        row = dict(variant=variant, mode=mode, **dataclasses.asdict(size), error=error)
        row.update(samples_ms=[], failure=None)
        rows.append(row)
        return row

    there = []
    for name in with_peers:
        if package := peers.missing(name):
            say(f"{name}: {package} is not installed; skipped")
        else:
            there.append(name)
    of_jax = [name for name in there if name in peers.JAX]
    for variant in reports.progress([*variants, *of_jax], "compiling layer"):
        made = case(variant, size)
        # Variants with the same kind of parameters share one table.
        kind = made.params if isinstance(made.params, str) else variant
        if kind == "stored" and tables.storage_dtype(size.dtype) == jnp.dtype(size.dtype):
            kind = "dense"
        try:
            error = error_of(variant, size)
        except Exception as problem_:
            if variant not in peers.JAX:
                raise
            # An installed library may not run with these versions of its dependencies.
            say(f"{variant}: {type(problem_).__name__}: {_one_line(problem_)}; skipped")
            continue
        for mode in (mode for mode in made.programs if mode in modes):
            row = add_row(variant, mode, error)
            if not error <= TOLERANCE[size.dtype]:
                row["failure"] = "not timed: it differs from its float64 reference"
                continue
            try:
                compiled = _compiled(row, made, mode, size, x, y)
                if kind not in held:
                    held[kind] = _params(made.params, table, size)
                _check_memory(row)
            except (jax.errors.JaxRuntimeError, MemoryError) as problem_:
                row["failure"] = _one_line(problem_)
                continue
            entries.append((row, _runner(compiled, held, kind, mode, x, y)))
    others = tuple(name for name in there if name in peers.OTHERS)
    if others and size.dtype != "float32":
        say(f"{', '.join(others)}: compared in float32 only; skipped")
    elif others:
        cutoffs = layers.cutoffs(size.num_classes)
        for name in others:
            timed = peers.OTHERS[name](
                table, inputs, labels, size.num_sampled, LEARNING_RATE, cutoffs
            )
            entries += [(add_row(name, mode, None), run) for mode, run in timed if mode in modes]
    del table
    # The first round touches the memory and is discarded.
    for number in reports.progress(range(rounds + 1), "round"):
        key = jax.random.key(number)
        for row, run in entries:
            if row["failure"]:
                continue
            try:
                started = time.perf_counter()
                loss = run(key)
                seconds = time.perf_counter() - started
            except (jax.errors.JaxRuntimeError, RuntimeError, MemoryError, KeyError) as problem_:
                row["failure"] = _one_line(problem_)
                continue
            if not np.isfinite(loss):
                row["failure"] = f"its loss is {loss}"
            elif number:
                row["samples_ms"].append(1e3 * seconds)
    return rows


def _compiled(row: dict[str, Any], made: Case, mode: str, size: Size, x: Array, y: Array):
    """Lowers and compiles for shapes alone, and records the times."""
    blank = jax.ShapeDtypeStruct((size.num_classes, size.dim), jnp.dtype(size.dtype))
    if made.params == "stored":
        blank = jax.ShapeDtypeStruct(blank.shape, tables.storage_dtype(size.dtype))
    params = jax.eval_shape(made.params, jax.random.key(1)) if callable(made.params) else blank
    donated = (0,) if mode == "step" else ()
    started = time.perf_counter()
    lowered = jax.jit(made.programs[mode], donate_argnums=donated).lower(
        params, x, y, jax.random.key(0)
    )
    row["lowering_ms"] = 1e3 * (time.perf_counter() - started)
    started = time.perf_counter()
    compiled = lowered.compile()
    row["compile_ms"] = 1e3 * (time.perf_counter() - started)
    memory = compiled.memory_analysis()
    if memory is not None:
        row["temporary_bytes"] = memory.temp_size_in_bytes
        row["output_bytes"] = memory.output_size_in_bytes - memory.alias_size_in_bytes
        row["program_bytes"] = (
            memory.argument_size_in_bytes + row["output_bytes"] + row["temporary_bytes"]
        )
    return compiled


def _check_memory(row: dict[str, Any]) -> None:
    """Raises MemoryError if a program would not fit: on a CPU it would be killed instead."""
    room = available_bytes()
    needed = row.get("temporary_bytes", 0) + row.get("output_bytes", 0)
    if room is not None and needed > room:
        raise MemoryError(
            f"out of memory: it needs {needed / 1e9:.1f} GB, {room / 1e9:.1f} GB are available"
        )


def _runner(compiled, held: dict[Any, PyTree], kind: Any, mode: str, x: Array, y: Array):
    def run(key: Key) -> float:
        params = held.pop(kind) if mode == "step" else held[kind]
        loss, *rest = jax.block_until_ready(compiled(params, x, y, key))
        if mode == "step":
            held[kind] = rest[1]
        return float(loss)

    return run


def _one_line(problem_: BaseException) -> str:
    if isinstance(problem_, KeyError):
        return "its table was lost with a step that failed"
    text = str(problem_).splitlines()[0] if str(problem_) else type(problem_).__name__
    exhausted = "RESOURCE_EXHAUSTED" in text and "out of memory" not in text.lower()
    return f"out of memory: {text}" if exhausted else text
