"""Checkpoints: the same bits come back, no damaged byte becomes a number, and a kill changes nothing."""

import asyncio
import dataclasses
import os
import resource
import shutil
import signal
import sys
import threading
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import kill_and_resume
from jaxml import models, train
from jaxml.train import checkpoint, trainer
from jaxml.train.checkpoint import CheckpointError


class Slots(NamedTuple):
    accumulator: jax.Array
    count: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    params: dict
    opt_state: tuple
    tables: dict
    sampler: tuple
    key: jax.Array


def a_state(seed=0):
    key = jax.random.key(seed)
    params = {"dense": {"kernel": jax.random.normal(key, (8, 3)), "bias": jnp.zeros(3)}}
    return State(
        params=params,
        opt_state=optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
        tables={
            "classes": (
                jax.random.bits(key, (1000, 4), "uint16"),
                Slots(jnp.ones(100), jnp.int32(1)),
            ),
            "bfloat16": jax.random.normal(key, (5, 2), "bfloat16"),
            "none": jnp.zeros((0, 4)),
        },
        sampler=(),
        key=key,
    )


def words(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same(a, b):
    """Same structure and types, and in every leaf the same dtype, shape and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert words(x).tobytes() == words(y).tobytes()


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 500
    return message


# Round trips


@pytest.mark.parametrize("abstract", [True, False], ids=["abstract", "concrete"])
def test_a_training_state_comes_back_bit_for_bit_with_its_types(tmp_path, abstract):
    state = a_state(3)
    checkpoint.save(tmp_path, state)
    restored = checkpoint.load(tmp_path, jax.eval_shape(a_state) if abstract else a_state(0))
    assert isinstance(restored.opt_state[1][0], optax.ScaleByAdamState)
    assert isinstance(restored.tables["classes"][1], Slots)
    assert_same(restored, state)
    assert (jax.random.bits(restored.key, (9,)) == jax.random.bits(state.key, (9,))).all()


def test_every_kind_of_leaf(tmp_path):
    specials = np.uint32([0x80000000, 0, 1, 0x80000001, 0x007FFFFF, 0x7F800000, 0xFFC00001])
    random = np.random.default_rng(0).integers(0, 2**32, 5000, "u4")
    dtypes = "bool int8 uint8 int16 uint16 int32 uint32 float16 bfloat16 float8_e4m3fn complex64"
    state = {
        "floats": np.concatenate([specials, random]).view(np.float32),
        "dtypes": [jnp.arange(5).astype(dtype) for dtype in dtypes.split()],
        "scalars": [jnp.ones((), dtype) for dtype in dtypes.split()],
        "64 bits": {"cumulative": np.linspace(0, 1, 7), "offset": np.array(2**40)},
        "empty": [jnp.zeros((0, 4), jnp.bfloat16), np.zeros((2, 0))],
        "keys": [jax.random.key(1, impl=impl) for impl in ("threefry2x32", "rbg", "unsafe_rbg")],
        "many keys": jax.random.split(jax.random.key(2), 6).reshape(2, 3),
        "no keys": jax.random.split(jax.random.key(0), 3)[:0],
        **{"a/b": jnp.ones(1), "a.b": jnp.ones(2), "ü '\"\\\n": jnp.ones(3), "": [jnp.ones(4)]},
    }
    checkpoint.save(tmp_path, state)
    restored = checkpoint.load(tmp_path, state)
    assert_same(restored, state)
    assert isinstance(restored["empty"][1], np.ndarray)
    restored["64 bits"]["cumulative"][0] = 5  # It can be written to.


@pytest.mark.parametrize("state", [{}, {"a": jnp.zeros((0,))}, jnp.arange(3.0), 3], ids=str)
def test_trees_without_arrays_an_array_alone_and_a_number(tmp_path, state):
    checkpoint.save(tmp_path, state)
    assert_same(checkpoint.load(tmp_path, state), jax.tree.map(jnp.asarray, state))


def test_leaves_are_placed_where_the_target_has_them(tmp_path):
    mesh = jax.sharding.Mesh(np.array([jax.devices()[0]]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    checkpoint.save(tmp_path, {"w": jnp.arange(4.0)})
    target = {"w": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding)}
    assert checkpoint.load(tmp_path, target)["w"].sharding == sharding


def test_64_bits_are_never_cut_to_32_in_silence(tmp_path):
    with jax.enable_x64(True):
        state = {"x": jnp.arange(3.0) / 3}
        checkpoint.save(tmp_path, state)
        assert_same(checkpoint.load(tmp_path, state), state)
    with pytest.raises(CheckpointError, match="is float64 and would become float32"):
        checkpoint.load(tmp_path, {"x": jax.ShapeDtypeStruct((3,), "float64")})


# Errors


def test_states_that_cannot_be_saved(tmp_path):
    for leaf, kind in (("text", "str"), (np.array([None]), "ndarray")):
        with pytest.raises(ValueError, match=rf"got {kind} as state\['leaf'\]"):
            checkpoint.save(tmp_path, {"leaf": leaf})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"a": jnp.zeros(3), "b": jnp.zeros(2)}, r"state\['a'\] is 'float32\[4\]'.*float32\[3\]"),
        ({"a": jnp.zeros(4)}, r"state\['b'\] is .*this one's is 'missing'"),
        ({"a": jax.random.key(0), "b": jnp.zeros(2)}, r"this one's is 'key<fry>\[\]'"),
    ],
)
def test_a_target_that_does_not_fit(saved, target, message):
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoint.load(saved, target)
    assert str(saved) in one_line(error)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    checkpoint.save(directory, {"a": jnp.ones(4), "b": jnp.ones(2)})
    return directory


def test_what_is_not_there(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            checkpoint.load(directory, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be listed: Not a directory"):
        checkpoint.steps(tmp_path / "file")
    (tmp_path / "9").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(tmp_path, {})


def test_a_directory_that_cannot_be_written(saved, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for directory in (tmp_path / "file" / "below", "/proc/nowhere"):
        with pytest.raises(CheckpointError) as error:
            checkpoint.save(directory, {"x": jnp.ones(3)})
        assert str(directory) in one_line(error)
    with pytest.raises(CheckpointError, match="holds step 1; restore before the first save"):
        checkpoint.save(saved, {"x": jnp.ones(3)})


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, capfd):
    checkpoint.save(tmp_path, {"x": jnp.ones(3)})
    # A limit on the size of files does to this process what a full disk does to all.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(CheckpointError) as error:
            with train.Checkpoints(tmp_path, every=1) as kept:
                kept.restore({}, {"x": jnp.ones(3)})
                kept.save(2, {"x": jnp.ones(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "2: cannot be written" in one_line(error)
    assert checkpoint.steps(tmp_path) == [1]
    assert (checkpoint.load(tmp_path, {"x": jnp.zeros(3)})["x"] == 1).all()


def test_bad_arguments(tmp_path):
    for wrong in ({"every": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            train.Checkpoints(tmp_path, **wrong)


# Damage


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << (position % 8)
    file.write_bytes(content)


@pytest.mark.parametrize("positions", [7, pytest.param(200, marks=pytest.mark.slow)])
def test_damage_is_an_error_or_changes_no_bit(tmp_path, capfd, positions):
    """Every file in turn is removed, cut, and has single bits flipped."""
    state, target = a_state(2), jax.eval_shape(a_state)
    checkpoint.save(tmp_path, state)
    files = [file for file in (tmp_path / "1").rglob("*") if file.is_file()]
    seen = {file: 0 for file in files}
    for file in files:
        content = file.read_bytes()
        size = len(content)
        damages = [file.unlink, lambda file=file, size=size: os.truncate(file, size // 2)]
        for at in {0, size - 1, *range(0, size, max(1, size // positions))}:
            damages.append(lambda file=file, at=at: flip(file, at))
        for damage in damages:
            damage()
            try:
                restored = checkpoint.load(tmp_path, target)
            except CheckpointError as error:
                assert "\n" not in str(error)
                seen[file] += 1
            else:
                assert_same(restored, state)
            file.write_bytes(content)
    # Where the arrays and the manifest are, almost no byte is without meaning.
    for file in (max(files, key=lambda file: file.stat().st_size), *tmp_path.rglob("_CHECK*")):
        assert seen[file] >= 0.5 * positions
    assert_same(checkpoint.load(tmp_path, target), state)
    assert capfd.readouterr().err == ""


# Saving and continuing a training


def state(step):
    return {"w": jnp.arange(3000.0) + step, "key": jax.random.key(step), "step": jnp.int32(step)}


def report(first, last):
    return {"loss": np.arange(first, last, dtype=np.float32)}


LIKE, REPORT = state(0), report(0, 1)


def fill(directory, last, identity=(), **options):
    with train.Checkpoints(directory, every=10, **options) as kept:
        kept.restore(dict(identity), LIKE, REPORT)
        for step in range(0, last, 5):
            kept.save(step + 5, state(step + 5), report(step, step + 5))


def restored(directory, identity=()):
    return train.Checkpoints(directory, every=10).restore(dict(identity), LIKE, REPORT)


def test_the_newest_are_kept_with_all_their_reports(tmp_path):
    assert restored(tmp_path / "relative") is None
    fill(tmp_path, 50, keep=2)
    assert checkpoint.steps(tmp_path) == [40, 50]
    found, reports = restored(tmp_path)
    assert_same(found, state(50))
    np.testing.assert_array_equal(reports["loss"], np.arange(50, dtype=np.float32))


def test_the_best_is_kept_wherever_it_falls(tmp_path):
    losses = {5: 3.0, 10: None, 15: 1.0, 20: 2.0, 25: np.nan, 30: 1.5, 40: None, 50: None}
    for begun in (0, 40):  # The best is known after a restart.
        with train.Checkpoints(tmp_path, every=10, keep=1, keep_best=True) as kept:
            kept.restore({}, LIKE)
            for step, loss in losses.items():
                if begun < step <= begun + 40:
                    kept.save(step, state(step), metric=loss)
    assert checkpoint.steps(tmp_path) == [15, 50]


def test_the_end_is_saved(tmp_path):
    with train.Checkpoints(tmp_path, every=100) as kept:
        kept.save(7, state(7), report(0, 7))
        assert checkpoint.steps(tmp_path) == []
        for _ in range(2):
            kept.finish(7, state(7))
    assert restored(tmp_path)[1]["loss"].shape == (7,)


def test_parts_are_saved_apart(tmp_path):
    with train.Checkpoints(tmp_path, every=10) as kept:
        for name in ("a", "b"):
            kept.part(name).save(10, state(10), report(0, 10))
            assert kept.part(name).every == 10
    assert checkpoint.steps(tmp_path / "a") == checkpoint.steps(tmp_path / "b") == [10]
    assert checkpoint.steps(tmp_path) == []


def test_a_state_may_be_donated_after_the_call(tmp_path):
    with train.Checkpoints(tmp_path, every=10) as kept:
        kept.restore({}, LIKE)
        given = state(10)
        kept.save(10, given, report(0, 10))
        jax.tree.map(lambda leaf: leaf.delete(), given)
    found, _ = restored(tmp_path)
    assert_same(found, state(10))
    jax.jit(lambda state: {"w": state["w"] + 1}, donate_argnums=0)({"w": found["w"]})
    assert found["w"].is_deleted()


@pytest.mark.parametrize("harmed", ["30/**/d/*", "reports/000000020-000000030.npz"])
def test_a_damaged_newest_is_passed_over_with_a_warning(tmp_path, harmed):
    fill(tmp_path, 30)
    file = max(tmp_path.glob(harmed), key=lambda file: file.stat().st_size)
    flip(file, file.stat().st_size // 2)
    with pytest.warns(UserWarning, match="30.*the checkpoint before it is restored"):
        found, reports = restored(tmp_path)
    assert_same(found, state(20))
    assert len(reports["loss"]) == 20
    with pytest.warns(UserWarning), train.Checkpoints(tmp_path, every=5) as kept:
        kept.restore({}, LIKE, REPORT)
        kept.save(25, state(25), report(20, 25))
    assert checkpoint.steps(tmp_path) == [20, 25]
    assert len(restored(tmp_path)[1]["loss"]) == 25


def test_a_process_killed_during_a_save_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    """Before the oldest is removed, before the manifest, and while the arrays are written."""
    fill(tmp_path, 40, keep=2)
    with monkeypatch.context() as patch, pytest.raises(CheckpointError):
        patch.setattr(checkpoint, "_write_manifest", None)
        with train.Checkpoints(tmp_path, every=10, keep=1) as kept:
            kept.restore({}, LIKE, REPORT)
            kept.save(50, state(50), report(40, 50))
    shutil.copytree(tmp_path / "40", tmp_path / "60.orbax-checkpoint-tmp")
    assert (tmp_path / "50").exists() and checkpoint.steps(tmp_path) == [30, 40]
    with train.Checkpoints(tmp_path, every=10, keep=1) as kept:
        assert_same(kept.restore({}, LIKE, REPORT)[0], state(40))
        kept.save(50, state(50), report(40, 50))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["50", "reports"]
    assert_same(restored(tmp_path)[0], state(50))


def test_none_that_is_sound_is_an_error(tmp_path):
    fill(tmp_path, 20)
    for step in ("10", "20"):
        shutil.rmtree(tmp_path / step / "state")
    with pytest.raises(CheckpointError, match=r"none of 2 checkpoints is sound; .*20: damaged"):
        restored(tmp_path)


def test_another_training_is_refused(tmp_path, monkeypatch):
    fill(tmp_path, 10, identity={"learning_rate": 0.1, "data": [1, 2]})
    assert restored(tmp_path, {"learning_rate": 0.1, "data": (1, 2)}) is not None
    with pytest.raises(
        CheckpointError, match=r"learning_rate is 0\.1, this one's is 0\.2"
    ) as error:
        restored(tmp_path, {"learning_rate": 0.2, "data": [1, 2]})
    one_line(error)
    identity = {"learning_rate": 0.1, "data": [1, 2]}
    with pytest.raises(CheckpointError, match=r"this one's is 'int32"):
        train.Checkpoints(tmp_path).restore(identity, LIKE | {"step": jnp.zeros(2, int)})
    with pytest.raises(CheckpointError, match=r"its report\['norm'\] is None"):
        train.Checkpoints(tmp_path).restore(identity, LIKE, {"norm": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"report\['loss'\] is 'float32\[\]'.*\[2\]"):
        train.Checkpoints(tmp_path).restore(identity, LIKE, {"loss": np.zeros((1, 2), "f")})
    monkeypatch.setattr(jax, "__version__", "0.0.1")  # Which may trace another program.
    with pytest.raises(CheckpointError, match=r"written by jax \d.*, and this is 0.0.1"):
        restored(tmp_path, identity | {"learning_rate": np.float64(0.2)})


def test_nothing_is_printed_and_no_thread_stays(tmp_path, capfd):
    before = set(threading.enumerate())
    fill(tmp_path, 30)
    restored(tmp_path)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert capfd.readouterr() == ("", "")


def test_inside_a_running_event_loop_as_in_a_notebook(tmp_path):
    async def cell():
        fill(tmp_path, 20)
        return restored(tmp_path)

    assert_same(asyncio.run(cell())[0], state(20))


# Trainings that are killed

X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int32)
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
ADAM = optax.adam(1e-2)


def adam(hyperparameters):
    return optax.adam(hyperparameters["learning_rate"])


def dense(directory, num_steps=200, **options):
    model = models.MLP((8,), 2, dropout=0.2, normalization="batch")
    with train.Checkpoints(directory, **({"every": 20} | options)) as kept:
        return train.fit(
            model, CROSS_ENTROPY, ADAM, (X, Y), num_steps=num_steps, batch_size=16,
            key=jax.random.key(3), validation_data=(X[:50], Y[:50]), checkpoints=kept,
        )  # fmt: skip


def swept(directory, rates=(1e-3, 1e-2, 1e-1), penalty=None):
    with train.Checkpoints(directory, every=20) as kept:
        return train.sweep(
            models.MLP((8,), 2), CROSS_ENTROPY, adam, (X, Y), num_steps=200, batch_size=16,
            space={"learning_rate": rates}, monitor=False, key=jax.random.key(3),
            penalty=penalty, checkpoints=kept,
        )  # fmt: skip


class _Killed(Exception):
    pass


def interrupted(training, directory, after):
    """As if killed: nothing of it is closed, and what was saved last is all there is."""
    calls, save = [], train.Checkpoints.save

    def save_and_die(*arguments, **options):
        save(*arguments, **options)
        calls.append(arguments)
        if len(calls) == after:
            raise _Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Checkpoints, "save", save_and_die)
        with pytest.raises(_Killed):
            training(directory)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.optimized
@pytest.mark.parametrize("training", [dense, swept])
def test_an_interruption_changes_no_bit(tmp_path, training, monkeypatch):
    """The sweep trains its trials two at a time."""
    monkeypatch.setattr(trainer.Trainer, "_most_at_once", lambda self, size: 2)
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


@pytest.mark.optimized
def test_fit_keeps_the_best_validation(tmp_path, monkeypatch, capsys):
    options = {"every": 150, "keep": 1, "keep_best": True}
    fitted = dense(tmp_path, **options)
    best = int(np.argmin(fitted.validation_curve))
    step = int(fitted.validation_steps[best])
    assert checkpoint.steps(tmp_path) == sorted({step, 200})
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    same(dense(tmp_path, **options).params, fitted.params)
    assert "200 of 200 steps are there already" in capsys.readouterr().err
    with pytest.raises(ValueError, match="num_steps must be at least the 200 steps that are in"):
        dense(tmp_path, num_steps=100, **options)


class Net(nn.Module):
    activation: Any = nn.relu
    initializer: Any = nn.initializers.ones

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(self.activation(nn.Dense(3, kernel_init=self.initializer)(x)))


def weighted(*weights):
    weights = jnp.array(weights)
    return lambda outputs, labels: CROSS_ENTROPY(outputs, labels) * weights[labels]


LOSS, STOPPING = weighted(1.0, 2.0), train.EarlyStopping(50, validate_every=3)
ADAGRAD = optax.adagrad(optax.cosine_decay_schedule(0.1, 8))


def small(directory, **changes):
    arguments = {
        "model": Net(), "loss": LOSS, "optimizer": ADAGRAD, "data": (X, Y), "num_steps": 8,
        "batch_size": 16, "key": jax.random.key(3), "validation_data": (X[:50], Y[:50]),
        "early_stopping": STOPPING, "monitor": False, **changes,
    }  # fmt: skip
    first = [arguments.pop(name) for name in ("model", "loss", "optimizer", "data")]
    with train.Checkpoints(directory) as kept:
        return train.fit(*first, checkpoints=kept, **arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    return directory, small(directory)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": Net(nn.tanh)}, "model"),
        ({"model": Net(lambda x: nn.leaky_relu(x, 0.2))}, "model"),
        ({"model": Net(initializer=nn.initializers.zeros)}, "initialization"),
        ({"loss": lambda outputs, labels: 2 * LOSS(outputs, labels)}, "loss"),
        ({"loss": weighted(1.0, 3.0)}, "constants"),
        (
            {"optimizer": optax.adagrad(optax.cosine_decay_schedule(0.1, 9))},
            "optimizer or schedule",
        ),
        (
            {"optimizer": optax.adagrad(optax.cosine_decay_schedule(0.2, 8))},
            "optimizer or schedule",
        ),
        ({"optimizer": optax.adagrad(optax.cosine_decay_schedule(0.1, 8), 0.2)}, "initialization"),
        ({"optimizer": ADAM}, "optimizer or schedule"),
        ({"data": (X + 1, Y)}, "data"),
        ({"data": (X, 1 - Y)}, "data"),
        ({"validation_data": (X[:40], Y[:40])}, "validation_data"),
        ({"batch_size": 20}, "batch_size"),
        ({"key": jax.random.key(4)}, "key"),
        ({"shuffle": False}, "shuffle"),
        ({"early_stopping": train.EarlyStopping(40, validate_every=3)}, "early_stopping"),
        ({"early_stopping": None}, "early_stopping"),
        ({"monitor": train.Monitor(final_diagnostics=False)}, "monitor"),
    ],
)
def test_fit_refuses_the_checkpoints_of_another_training(finished, changes, named):
    """Whether it is to end where they do or later."""
    for num_steps in (8, 16):
        with pytest.raises(CheckpointError, match=f"another training: its {named} is") as error:
            small(finished[0], num_steps=num_steps, **changes)
        one_line(error)


def test_a_sweep_refuses_the_checkpoints_of_other_hyperparameters(tmp_path):
    swept(tmp_path)
    with pytest.raises(CheckpointError, match="its hyperparameter learning_rate is"):
        swept(tmp_path, rates=[1e-3, 1e-2, 2e-1])
    with pytest.raises(CheckpointError, match="its penalty is"):
        swept(tmp_path, penalty=lambda h, params: jnp.float32(0.0) * h["learning_rate"])


def test_what_is_there_is_said_and_costs_no_second_trace(finished, capsys):
    directory, fitted = finished
    traces = []

    def counted(outputs, labels):
        traces.append(labels)
        return LOSS(outputs, labels)

    again = small(directory, loss=counted)
    assert "8 of 8 steps are there already" in capsys.readouterr().err
    same(again.params, fitted.params)
    once, _ = len(traces), traces.clear()
    small(directory.parent / "new", loss=lambda *arguments: counted(*arguments))
    assert len(traces) == once


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"early_stopping": None},
        {"early_stopping": None, "validation_data": None},
        {"early_stopping": train.EarlyStopping(50)},
    ],
)
def test_a_training_goes_on_as_if_it_had_not_ended(tmp_path, changes, capsys):
    """Validations stay at the distance they had if none is asked for."""
    small(tmp_path / "two", num_steps=20, **changes)
    again = small(tmp_path / "two", num_steps=110, **changes)
    assert "20 of 110 steps are there already" in capsys.readouterr().err
    if changes.get("early_stopping", STOPPING) is not STOPPING and "validation_data" not in changes:
        np.testing.assert_array_equal(np.diff(again.validation_steps), 2)
        return
    whole = small(tmp_path / "one", num_steps=110, **changes)
    same((again.params, again.opt_state), (whole.params, whole.opt_state))
    same((again.loss_curve, again.validation_curve), (whole.loss_curve, whole.validation_curve))
    np.testing.assert_array_equal(again.validation_steps, whole.validation_steps)


def test_a_sweep_keeps_the_best_beside_trials_that_have_stopped(tmp_path):
    with train.Checkpoints(tmp_path, every=100, keep=1, keep_best=True) as kept:
        swept = train.sweep(
            nn.Dense(2), CROSS_ENTROPY, lambda h: optax.sgd(h["learning_rate"]), (X, Y),
            space={"learning_rate": [1e4, 0.01]}, num_steps=50, batch_size=np.int64(16),
            key=jax.random.key(3), validation_data=(X, Y), monitor=False, checkpoints=kept,
            early_stopping=train.EarlyStopping(np.int64(3), validate_every=6),
        )  # fmt: skip
    wild, sound = swept.trials
    assert wild.steps < sound.steps == 50
    lowest = np.nanargmin(np.nanmin(swept.validation_curves[:, 1:], axis=0)) + 1
    best = int(swept.validation_steps[lowest])
    assert best > wild.steps and checkpoint.steps(tmp_path / "chunk_000") == sorted({best, 50})


@pytest.mark.slow
def test_killed_and_resumed():
    """SIGKILL soon after a save, then to the end: the same bits."""
    assert kill_and_resume.main(["--kills", "1", "--trainings", "table"]) == 0
