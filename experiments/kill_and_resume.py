"""Is a run that was killed the run that it would have been?

    python -m experiments.kill_and_resume                  50 kills of each of three trainings
    python -m experiments.kill_and_resume --kills 5 --trainings dense

Each training (a dense network through `fit`, a table of class rows under a sampled softmax through the
one loop, a sweep of a population) is run once to its end. Then it is begun anew and killed (SIGKILL) at
random moments, wherever it happens to be: importing, compiling, training, writing. Every next process goes
on from the checkpoints of the one before. What it ends with, parameters, optimizer and the whole history,
must be the same bits. Ten seconds or so a kill, most of it importing and tracing.
"""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from jaxml import bench, losses, models, reports, softmax, tables, train
from jaxml.data import scikit
from jaxml.train import checkpoint


@dataclasses.dataclass(frozen=True)
class Config:
    """Kills trainings at random moments, and compares bits."""

    trainings: tuple[str, ...] = ("dense", "table", "sweep")
    """Which of them."""
    kills: int = 50
    """Of each training."""
    seed: int = 0
    """Of the moments."""
    json: Path | None = None
    """Where to write the rows."""
    run: str | None = None
    """Train this one in `directory`, and print what it ended with: what the killed processes do."""
    directory: Path | None = None
    """For `run`."""


def _digits() -> tuple[Any, Any]:
    x, y = scikit.digits()
    return scikit.scaled(x), y


def dense(directory: Path) -> Any:
    """A network with batch statistics, dropout, a guard and early stopping."""
    x, y = _digits()
    with train.Checkpoints(directory, every=25) as kept:
        fitted = train.fit(
            models.MLP((64,), 10, dropout=0.2, normalization="batch"),
            losses.softmax_cross_entropy,
            optax.adamw(1e-3),
            (x[:1400], y[:1400]),
            num_steps=600,
            batch_size=128,
            key=jax.random.key(0),
            validation_data=(x[1400:], y[1400:]),
            early_stopping=train.EarlyStopping(patience=1000),
            checkpoints=kept,
        )
    history = fitted.history
    assert history is not None
    record = (history.statistics, history.activity, history.norm, history.bound)
    curves = fitted.loss_curve, fitted.validation_curve
    return fitted.params, fitted.model_state, fitted.opt_state, curves, record


def table(directory: Path) -> Any:
    """A table of 100,000 rows under a sampled softmax, with row-wise Adagrad and a learnt sampler."""
    num_classes, dim = 100_000, 32
    sampler = softmax.learned_unigram(num_classes)
    schedule = {"classes": lambda step: tables.rowwise_adagrad(0.05)}

    def lookup(batch: Any, sampler_state: Any, key: Any) -> Any:
        drawn = sampler.sample(sampler_state, key, batch["labels"], 512)
        return {"classes": jnp.concatenate([batch["labels"], drawn.ids])}, drawn

    def loss(params: Any, model_state: Any, rows: Any, batch: Any, drawn: Any, key: Any) -> Any:
        inputs, labels = batch["x"] @ params["w"], batch["labels"]
        true_rows, sampled_rows = jax.lax.split(rows["classes"], (labels.size, drawn.ids.size))
        each = softmax.sampled_softmax_loss_from_rows(
            inputs, true_rows, sampled_rows, labels, drawn
        )
        return each.mean(), (model_state, {})

    def observe(sampler_state: Any, batch: Any, accepted: Any) -> Any:
        taken = jnp.broadcast_to(accepted, batch["labels"].shape)
        return sampler.update(sampler_state, batch["labels"], where=taken)

    optimizer = optax.adam(1e-3)
    step = train.make_step(
        train.Task(loss, lookup, observe), optimizer=optimizer, row_optimizers=schedule
    )
    state = train.create_state(
        jax.random.key(1),
        params={"w": jnp.eye(dim)},
        optimizer=optimizer,
        row_optimizers=schedule,
        tables={"classes": tables.init_table(jax.random.key(2), num_classes, dim)},
        sampler_state=sampler.init(),
    )

    def batches(position: int, count: int) -> Any:
        drawn = [np.random.default_rng((7, at)) for at in range(position, position + count)]
        return {
            "x": np.stack([each.normal(size=(256, dim)).astype(np.float32) for each in drawn]),
            "labels": np.stack(
                [
                    np.minimum(each.zipf(1.3, 256), num_classes - 1).astype(np.int32)
                    for each in drawn
                ]
            ),
        }

    program = train.repeat(step)
    kept_reports: list[Any] = []
    with train.Checkpoints(directory, every=50) as kept:
        shapes = jax.eval_shape(program, state, batches(0, 1), jnp.int32(1))[1]
        if (found := kept.restore({}, state, shapes)) is not None:
            state, kept_reports = found[0], [found[1]]

        def on_reports(state: train.State, report: train.Report) -> None:
            kept_reports.append(report)
            kept.save(int(state.step), state, report)

        state = train.run(
            program, state, batches, num_steps=1500, steps_per_call=10, on_reports=on_reports
        )
        kept.finish(int(state.step), state)
    return state, jax.tree.map(lambda *parts: np.concatenate(parts), *kept_reports)


def sweep(directory: Path) -> Any:
    """A population in chunks."""
    x, y = _digits()
    with train.Checkpoints(directory, every=40) as kept:
        swept = train.sweep(
            models.MLP((32,), 10),
            losses.softmax_cross_entropy,
            lambda h: optax.adam(h["learning_rate"]),
            (x[:1400], y[:1400]),
            space={"learning_rate": [1e-4, 1e-3, 1e-2, 1e-1]},
            penalty=lambda h, params: losses.l2(params, 1e-4, mask=losses.kernels_only),
            seeds=2,
            num_steps=400,
            batch_size=64,
            key=jax.random.key(0),
            validation_data=(x[1400:], y[1400:]),
            monitor=train.Monitor(final_diagnostics=False),
            checkpoints=kept,
        )
    return swept.params, swept.model_state, swept.loss_curves, swept.validation_curves


TRAININGS = {"dense": dense, "table": table, "sweep": sweep}


def digest(tree: Any) -> str:
    """Of every bit of a tree."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        values = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        found.update(values.tobytes())
    return found.hexdigest()


def _start(name: str, directory: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "experiments.kill_and_resume", "--run", name]
    # What has been compiled once is read: less waiting between two kills.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(directory.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [*command, "--directory", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **cache},
    )


def _ended(process: "subprocess.Popen[str]") -> str:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a training ended with exit code {process.returncode}")
    return out.split()[-1]


def kill_and_resume(name: str, kills: int, seed: int) -> dict[str, Any]:
    """One training to its end, and again with interruptions."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = _ended(_start(name, Path(folder, "whole")))
        started = time.perf_counter()
        again = _ended(_start(name, Path(folder, "again")))
        seconds = time.perf_counter() - started
        steps: list[int] = []
        killed, rounds, directory = 0, 0, Path(folder, "round0")
        ends = {again}
        while killed < kills:
            process = _start(name, directory)
            try:
                # Later than a run takes to its end as seldom as before it begins.
                process.wait(float(random.uniform(0.3, 1.1)) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed += 1
                places = [directory, *directory.glob("chunk_*")] if directory.exists() else []
                steps.append(max((s for at in places for s in checkpoint.steps(at)), default=0))
                continue
            # It has ended: what it is is noted, and the next is begun from its start.
            ends.add(_ended(process))
            rounds += 1
            directory = Path(folder, f"round{rounds}")
        ends.add(_ended(_start(name, directory)))
    return {
        "training": name,
        "kills": killed,
        "runs": rounds + 1,
        "checkpoint_at_kill": steps,
        "seconds_whole": seconds,
        "identical": ends == {whole},
    }


def main(arguments: Sequence[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.kill_and_resume")
    unknown = [name for name in (*config.trainings, config.run) if name and name not in TRAININGS]
    if unknown or (config.run and config.directory is None):
        print(f"error: choose among {', '.join(TRAININGS)}, and a directory", file=sys.stderr)
        return 2
    if config.run and config.directory is not None:
        print(digest(TRAININGS[config.run](config.directory)))
        return 0
    rows = []
    for name in config.trainings:
        row = kill_and_resume(name, config.kills, config.seed)
        rows.append({**row, "environment": reports.environment()})
        print(json.dumps(row), flush=True)
        if config.json is not None:
            bench.write_rows(config.json, rows)
    reports.table(
        "killed and gone on",
        ["training", "kills", "runs", "bits"],
        [
            [r["training"], r["kills"], r["runs"], "same" if r["identical"] else "DIFFERENT"]
            for r in rows
        ],
    )
    return 0 if all(row["identical"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
