"""Does a training that is killed and resumed end with the same bits as one that is not?

    python -m experiments.kill_and_resume                            50 kills, about ten minutes
    python -m experiments.kill_and_resume --kills 5 --trainings dense

Three trainings: a network through `fit` (batch statistics, dropout, monitor, early stopping), a table of
class rows under a sampled softmax through the loop, and a sweep. Each runs once to its end. Then it is
started again and killed (SIGKILL) at random moments: importing, compiling, training, writing. Every next
process resumes from the checkpoints of the one before. Parameters, optimizer and history must have
the same bits at the end. Expect that all are identical.
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
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments import command
from jaxml import bench, losses, models, monitor, reports, softmax, tables, train
from jaxml.data import scikit
from jaxml.train import checkpoint

Training = Literal["dense", "table", "sweep"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Kills trainings at random moments and compares bits."""

    trainings: tuple[Training, ...] = ("dense", "table", "sweep")
    """Trainings to kill."""
    kills: int = 50
    """The number of kills, shared among the trainings."""
    seed: int = 0
    """Seed of the moments."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""
    run: Training | None = None
    """Run this training and print the digest of its end, as the killed processes do."""
    directory: Path = Path("runs/kill_and_resume")
    """Directory of the checkpoints of `run`."""


def _digits() -> tuple[Any, Any]:
    x, y = scikit.digits()
    return scikit.scaled(x), y


def dense(directory: Path) -> Any:
    """Returns the end of a network with batch statistics, dropout, the monitor and early stopping."""
    x, y = _digits()
    with train.Checkpoints(directory, every=20) as kept:
        fitted = train.fit(
            models.MLP((64,), 10, dropout=0.2, normalization="batch"),
            losses.softmax_cross_entropy,
            optax.adamw(1e-3),
            (x[:1400], y[:1400]),
            num_steps=2000,
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
    """Returns the end of a table of 100,000 rows under a sampled softmax with a learned sampler."""
    num_classes, dim = 100_000, 32
    sampler = softmax.learned_unigram(num_classes)
    schedule = {"classes": lambda step: tables.rowwise_adagrad(0.05)}

    def lookup(batch: Any, sampler_state: Any, key: Any) -> Any:
        drawn = sampler.sample(sampler_state, key, batch["labels"], 512)
        return {"classes": jnp.concatenate([batch["labels"], drawn.ids])}, drawn

    def loss(params: Any, model_state: Any, rows: Any, batch: Any, drawn: Any, key: Any) -> Any:
        inputs, labels = batch["x"] @ params["w"], batch["labels"]
        true_rows, sampled_rows = jax.lax.split(rows["classes"], (labels.size, drawn.ids.size))
        loss = softmax.sampled_softmax_loss_from_rows
        each = loss(inputs, true_rows, sampled_rows, labels, drawn)
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

    def batch(position: int) -> Any:
        random = np.random.default_rng((7, position))
        x = random.normal(size=(256, dim)).astype(np.float32)
        labels = np.minimum(random.zipf(1.3, 256), num_classes - 1).astype(np.int32)
        return {"x": x, "labels": labels}

    def batches(position: int, count: int) -> Any:
        each = [batch(at) for at in range(position, position + count)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *each)

    program = train.repeat(step)
    kept_reports: list[Any] = []
    with train.Checkpoints(directory, every=20) as kept:
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
    """Returns the end of a sweep of eight trials."""
    x, y = _digits()
    with train.Checkpoints(directory, every=20) as kept:
        swept = train.sweep(
            models.MLP((32,), 10),
            losses.softmax_cross_entropy,
            lambda h: optax.adam(h["learning_rate"]),
            (x[:1400], y[:1400]),
            space={"learning_rate": [1e-4, 1e-3, 1e-2, 1e-1]},
            penalty=lambda h, params: losses.l2(params, 1e-4, mask=losses.kernels_only),
            seeds=2,
            num_steps=1000,
            batch_size=64,
            key=jax.random.key(0),
            validation_data=(x[1400:], y[1400:]),
            monitor=train.Monitor(final_diagnostics=False),
            checkpoints=kept,
        )
    return swept.params, swept.model_state, swept.loss_curves, swept.validation_curves


TRAININGS = {"dense": dense, "table": table, "sweep": sweep}


def digest(tree: Any) -> str:
    """Returns a hash of every bit of a tree."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        values = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        found.update(values.tobytes())
    return found.hexdigest()


def _start(name: str, directory: Path) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-m", "experiments.kill_and_resume", "--run", name]
    # The processes share what they compile, which leaves less time without training between two kills.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(directory.parent / "compiled")}
    return subprocess.Popen(
        [*arguments, "--directory", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **cache},
    )


def _ended(process: "subprocess.Popen[str]") -> str:
    """Returns the digest that a process prints at its end."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a training ended with exit code {process.returncode}")
    return out.split()[-1]


def _newest(directory: Path) -> int:
    """Returns the step of the newest checkpoint of any part of a training, 0 if there is none."""
    places = [directory, *directory.glob("chunk_*")]
    return max((step for place in places for step in checkpoint.steps(place)), default=0)


def kill_and_resume(name: str, kills: int, seed: int) -> dict[str, Any]:
    """Returns the row of one training: run to its end, and again with kills."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = _ended(_start(name, Path(folder, "whole")))
        started = time.perf_counter()
        ends = {_ended(_start(name, Path(folder, "again")))}
        seconds = time.perf_counter() - started
        patience = seconds
        steps: list[int] = []  # Of the newest checkpoint at each kill.
        rounds, directory = 0, Path(folder, "round0")
        while len(steps) < kills:
            before = _newest(directory)
            process = _start(name, directory)
            try:
                # Every other kill falls among the saves, where little of a process's time is spent.
                if len(steps) % 2 == 0:
                    while process.poll() is None and _newest(directory) <= before:
                        time.sleep(0.02)
                    process.wait(float(random.uniform(0, 0.5)))
                else:
                    process.wait(float(random.uniform(0.3, 1.1)) * patience)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                steps.append(_newest(directory))
                continue
            # It has ended; another run starts from nothing, and is killed sooner.
            ends.add(_ended(process))
            rounds, patience = rounds + 1, 0.8 * patience
            directory = Path(folder, f"round{rounds}")
        ends.add(_ended(_start(name, directory)))
    return {
        "training": name,
        "kills": len(steps),
        "runs": rounds + 1,
        "checkpoint_at_kill": steps,
        "seconds_whole": seconds,
        "identical": ends == {whole},
    }


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    rows = []
    for i, name in enumerate(config.trainings):
        kills = len(range(i, config.kills, len(config.trainings)))
        row = kill_and_resume(name, kills, config.seed)
        rows.append(row)
        print(json.dumps(row), flush=True)
        command.write(run_dir, rows)
    reports.table(
        "killed and resumed",
        ["training", "kills", "runs", "bits"],
        [
            [r["training"], r["kills"], r["runs"], "same" if r["identical"] else "DIFFERENT"]
            for r in rows
        ],
    )
    if not all(row["identical"] for row in rows):
        raise command.Failed("a resumed training has other bits")
    return rows


def main(arguments: Sequence[str]) -> int:
    if "--run" not in arguments:
        return command.run("kill_and_resume", Config, experiment, arguments)
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.kill_and_resume")
    bench.compilation_cache()
    warnings.filterwarnings("ignore", category=monitor.FindingsWarning)
    print(digest(TRAININGS[config.run or "dense"](config.directory)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
