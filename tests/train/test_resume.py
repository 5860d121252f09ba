"""Runs that go on: what is saved when, what is kept, and that going on changes no bit."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import models, train
from jaxml.train import checkpoint
from jaxml.train.checkpoint import CheckpointError

X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int32)
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels


def state(step):
    return {"w": jnp.arange(3.0) + step, "key": jax.random.key(step), "step": jnp.int32(step)}


def report(first, last):
    return {"loss": np.arange(first, last, dtype=np.float32)}


LIKE, REPORT = state(0), report(0, 1)


def fill(directory, last, *, piece=10, **options):
    with train.Checkpoints(directory, every=piece, **options) as kept:
        for step in range(0, last, 5):
            kept.save(step + 5, state(step + 5), report(step, step + 5))


def taken_up(directory, **options):
    with train.Checkpoints(directory, every=10, **options) as kept:
        return kept.resume(LIKE, REPORT)


def test_the_newest_are_kept_with_all_their_reports(tmp_path):
    fill(tmp_path, 50, keep=2)
    assert checkpoint.steps(tmp_path) == [40, 50]
    found, reports = taken_up(tmp_path)
    assert int(found["step"]) == 50 and found["key"] == jax.random.key(50)
    joined = np.concatenate([each["loss"] for each in reports])
    np.testing.assert_array_equal(joined, np.arange(50, dtype=np.float32))


def test_the_best_is_kept_besides(tmp_path):
    with train.Checkpoints(tmp_path, every=10, keep=1, keep_best=True) as kept:
        for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, np.nan)):
            metrics = {"validation": np.full(10, loss, np.float32)}
            made = train.Report(np.zeros(10, np.float32), np.ones(10, bool), metrics)
            kept.save(step, state(step), made)
    assert checkpoint.steps(tmp_path) == [20, 40]


def test_what_is_unsaved_is_saved_at_the_end(tmp_path):
    with train.Checkpoints(tmp_path, every=100) as kept:
        kept.save(7, state(7), report(0, 7))
        kept.finish(7, state(7))
    assert int(taken_up(tmp_path)[0]["step"]) == 7


@pytest.mark.parametrize("harm", ["array cut", "array flipped", "reports flipped", "manifest gone"])
def test_a_damaged_newest_is_passed_over_and_said(tmp_path, harm):
    fill(tmp_path, 30)
    newest = tmp_path / "step_000000030"
    if harm == "manifest gone":
        (newest / "manifest.json").unlink()
    else:
        files = [path for path in (newest / "arrays").rglob("*") if path.is_file()]
        path = max(files, key=lambda path: path.stat().st_size)
        if harm == "reports flipped":
            path = tmp_path / "reports" / "000000020-000000030.npz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 2] if harm == "array cut" else content)
    with pytest.warns(UserWarning, match="30.*the checkpoint before it is tried"):
        found, reports = taken_up(tmp_path)
    assert int(found["step"]) == 20 and len(reports) == 2


def test_a_run_that_went_back_writes_its_own_history(tmp_path):
    fill(tmp_path, 30, keep=3)
    (tmp_path / "step_000000030" / "manifest.json").write_text("{}")
    with pytest.warns(UserWarning), train.Checkpoints(tmp_path, every=5, keep=3) as kept:
        found, _ = kept.resume(LIKE, REPORT)
        assert int(found["step"]) == 20
        kept.save(25, state(25), report(20, 25))
    assert checkpoint.steps(tmp_path) == [10, 20, 25]
    names = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert names[-1] == "000000020-000000025.npz" and len(names) == 3


def test_none_that_can_be_used_is_an_error(tmp_path):
    fill(tmp_path, 20)
    for step in (10, 20):
        (tmp_path / f"step_{step:09d}" / "manifest.json").write_text("{}")
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="none of 2 checkpoints"):
        taken_up(tmp_path)


def test_another_training_is_refused(tmp_path):
    fill(tmp_path, 10, identity={"learning_rate": 0.1})
    with pytest.raises(CheckpointError, match=r"learning_rate is 0\.1, this one's 0\.2"):
        taken_up(tmp_path, identity={"learning_rate": 0.2})


def test_two_cannot_write_one_directory(tmp_path):
    with train.Checkpoints(tmp_path), pytest.raises(CheckpointError, match=str(os.getpid())):
        train.Checkpoints(tmp_path).__enter__()
    train.Checkpoints(tmp_path).__enter__().__exit__(None, None, None)


def test_a_disk_that_fills_up_ends_the_run_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    fill(tmp_path, 20)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left on device"):
        with train.Checkpoints(tmp_path, every=10) as kept:
            kept.resume(LIKE, REPORT)
            monkeypatch.setattr(np, "savez", full)
            kept.save(30, state(30), report(20, 30))
    monkeypatch.undo()
    assert int(taken_up(tmp_path)[0]["step"]) == 20
    assert not list((tmp_path / "reports").glob(".tmp*"))


def test_bad_arguments(tmp_path):
    for wrong in ({"every": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            train.Checkpoints(tmp_path, **wrong)
    with pytest.raises(ValueError, match="entered"):
        train.Checkpoints(tmp_path).save(1, LIKE, REPORT)


# Trainings that are killed


def dense(directory, **options):
    with train.Checkpoints(directory, every=20) as kept:
        return train.fit(
            models.MLP((8,), 2, dropout=0.2, normalization="batch"),
            CROSS_ENTROPY,
            optax.adam(1e-2),
            (X, Y),
            num_steps=200,
            batch_size=16,
            key=jax.random.key(3),
            validation_data=(X[:50], Y[:50]),
            checkpoints=kept,
            **options,
        )


def swept(directory, **options):
    with train.Checkpoints(directory, every=20) as kept:
        return train.sweep(
            models.MLP((8,), 2),
            CROSS_ENTROPY,
            lambda h: optax.adam(h["learning_rate"]),
            (X, Y),
            space={"learning_rate": [1e-3, 1e-2, 1e-1]},
            monitor=False,
            num_steps=200,
            batch_size=16,
            key=jax.random.key(3),
            chunk=2,
            explain=False,
            checkpoints=kept,
            **options,
        )


class _Killed(Exception):
    pass


def interrupted(training, directory, after):
    """As if killed: nothing of it is closed, and what was saved last is all there is."""
    calls = []

    def on_chunk(*args):
        calls.append(args)
        if len(calls) == after:
            raise _Killed

    with pytest.raises(_Killed):
        training(directory, on_chunk=on_chunk)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("training", [dense, swept])
def test_an_interruption_changes_no_bit(tmp_path, training):
    whole = training(tmp_path / "whole")
    interrupted(training, tmp_path / "cut", 3)
    again = training(tmp_path / "cut")
    same(again.params, whole.params)
    if training is swept:
        same(again.loss_curves, whole.loss_curves)
        return
    same((again.model_state, again.opt_state), (whole.model_state, whole.opt_state))
    same((again.loss_curve, again.validation_curve), (whole.loss_curve, whole.validation_curve))
    same(again.history.statistics, whole.history.statistics)
    assert again.findings == whole.findings


SCRIPT = """
    import sys, numpy as np, jax
    sys.path.insert(0, sys.argv[1])
    from tests.train import test_resume as these
    fitted = these.dense(sys.argv[2])
    np.savez(sys.argv[3], curve=fitted.loss_curve, *jax.tree.leaves(fitted.params))
"""


def test_killed_at_any_moment(tmp_path, request):
    """SIGKILL, three times at moments that differ, then to the end: the same bits."""
    root = str(request.config.rootpath)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), root]

    def start(name, out):
        return subprocess.Popen([*command, str(tmp_path / name), str(tmp_path / out)], cwd=root)

    assert start("whole", "whole.npz").wait() == 0
    random = np.random.default_rng(0)
    for _ in range(3):
        process = start("cut", "cut.npz")
        # Not before it has begun to train, then at any moment.
        folder, before = tmp_path / "cut", len(checkpoint.steps(tmp_path / "cut"))
        while process.poll() is None and not (folder.exists() and len(os.listdir(folder)) > before):
            time.sleep(0.02)
        time.sleep(float(random.uniform(0, 0.5)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start("cut", "cut.npz").wait() == 0
    whole, cut = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "cut.npz")
    assert set(whole.files) == set(cut.files)
    for name in whole.files:
        assert whole[name].tobytes() == cut[name].tobytes()
