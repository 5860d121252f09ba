"""Checkpoints: bit-exact, typed, atomic under SIGKILL, and never a damaged byte taken for data."""

import asyncio
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from jaxml import trees
from jaxml.train import checkpoint
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
    step: jax.Array
    key: jax.Array


def a_state(seed=0):
    key = jax.random.key(seed)
    params = {"dense": {"kernel": jax.random.normal(key, (8, 3)), "bias": jnp.zeros(3)}}
    return State(
        params=params,
        opt_state=optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
        tables={
            "classes": (
                jax.random.bits(key, (100, 4), "uint16"),
                Slots(jnp.ones(100), jnp.int32(1)),
            ),
            "bfloat16": jax.random.normal(key, (5, 2), "bfloat16"),
        },
        sampler=(),
        step=jnp.int32(seed),
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
    """The message, after a check that it is one line a person can read."""
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def leftovers(directory):
    return [path.name for path in Path(directory).iterdir() if path.name.startswith(".")]


# What is saved comes back


@pytest.mark.parametrize("abstract", [True, False], ids=["abstract", "concrete"])
def test_a_training_state_comes_back_bit_for_bit_with_its_types(tmp_path, abstract):
    state = a_state(3)
    target = jax.eval_shape(a_state) if abstract else a_state(0)
    checkpoint.save(tmp_path, 3, state)
    restored = checkpoint.restore(tmp_path, target)
    assert isinstance(restored, State)
    assert isinstance(restored.opt_state[1][0], optax.ScaleByAdamState)
    assert isinstance(restored.tables["classes"][1], Slots)
    assert_same(restored, state)
    # The key is a key: it makes the same numbers.
    assert (jax.random.bits(restored.key, (9,)) == jax.random.bits(state.key, (9,))).all()


def test_every_bit_pattern_of_a_float_survives(tmp_path):
    specials = np.uint32([0x80000000, 0, 1, 0x80000001, 0x007FFFFF, 0x7F800000, 0xFF800000])
    patterns = np.concatenate([specials, np.random.default_rng(0).integers(0, 2**32, 5000, "u4")])
    floats = patterns.view(np.float32)
    floats = floats[~np.isnan(floats)]
    nan = np.float32([np.nan])
    state = {"jax": jnp.asarray(floats), "numpy": floats, "nan": jnp.asarray(nan)}
    checkpoint.save(tmp_path, 0, state)
    restored = checkpoint.restore(tmp_path, state)
    for name in ["jax", "numpy"]:
        assert np.asarray(restored[name]).tobytes() == floats.tobytes()
    assert np.isnan(restored["nan"]).all()


@pytest.mark.parametrize(
    "dtype",
    "bool int8 uint8 int16 uint16 int32 uint32 float16 bfloat16 float8_e4m3fn complex64".split(),
)
def test_dtypes(tmp_path, dtype):
    state = [jnp.arange(5).astype(dtype), jnp.ones((), dtype)]
    checkpoint.save(tmp_path, 0, state)
    assert_same(checkpoint.restore(tmp_path, jax.eval_shape(lambda: state)), state)


def test_arrays_without_elements_are_kept(tmp_path):
    state = {
        "rows": jnp.zeros((0, 4), jnp.bfloat16),
        "numpy": np.zeros((2, 0)),
        "keys": jax.random.split(jax.random.key(0), 3)[:0],
        "w": jnp.ones(2),
    }
    checkpoint.save(tmp_path, 0, state)
    restored = checkpoint.restore(tmp_path, state)
    assert_same(restored, state)
    assert isinstance(restored["numpy"], np.ndarray)


@pytest.mark.parametrize("state", [{}, (), {"a": jnp.zeros((0,))}, jnp.arange(3.0)], ids=str)
def test_small_trees(tmp_path, state):
    checkpoint.save(tmp_path, 0, state)
    assert_same(checkpoint.restore(tmp_path, state), state)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_every_kind_and_shape(tmp_path, impl):
    state = {"one": jax.random.key(1, impl=impl), "many": jax.random.split(jax.random.key(2), 6)}
    state["many"] = state["many"].reshape(2, 3)
    checkpoint.save(tmp_path, 0, state)
    assert_same(checkpoint.restore(tmp_path, jax.eval_shape(lambda: state)), state)


def test_numpy_leaves_stay_numpy_and_keep_64_bits(tmp_path):
    state = {"cumulative": np.linspace(0, 1, 7), "offset": np.int64(2**40), "jax": jnp.ones(2)}
    checkpoint.save(tmp_path, 0, state)
    restored = checkpoint.restore(tmp_path, state)
    assert restored["cumulative"].dtype == np.float64
    np.testing.assert_array_equal(restored["cumulative"], state["cumulative"])
    assert restored["offset"] == 2**40
    restored["cumulative"][0] = 5  # it is the caller's to change


def test_python_numbers_come_back_as_arrays(tmp_path):
    checkpoint.save(tmp_path, 0, {"count": 3, "rate": 0.5, "flag": True})
    restored = checkpoint.restore(tmp_path, {"count": 0, "rate": 0.0, "flag": False})
    assert restored == {"count": 3, "rate": 0.5, "flag": True}
    assert {leaf.dtype.name for leaf in restored.values()} == {"int32", "float32", "bool"}


def test_any_name_can_be_a_leaf(tmp_path):
    state = {"a/b": jnp.ones(1), "a.b": jnp.ones(2), "ü '\"\\\n": jnp.ones(3), "": [jnp.ones(4)]}
    state |= {"a": {"b": jnp.ones(5)}}
    checkpoint.save(tmp_path, 0, state)
    assert_same(checkpoint.restore(tmp_path, state), state)


def test_a_restored_state_trains_on_as_the_original_does(tmp_path):
    optimizer = optax.adam(0.1)

    @jax.jit
    def step(state):
        params, opt_state, key = state
        noise = jax.random.normal(jax.random.fold_in(key, opt_state[0].count), params.shape)
        updates, opt_state = optimizer.update(params - noise, opt_state)
        return optax.apply_updates(params, updates), opt_state, key

    state = (jnp.ones(5), optimizer.init(jnp.ones(5)), jax.random.key(0))
    for _ in range(3):
        state = step(state)
    checkpoint.save(tmp_path, 3, state)
    resumed = checkpoint.restore(tmp_path, jax.eval_shape(lambda: state))
    for _ in range(3):
        state, resumed = step(state), step(resumed)
    assert_same(resumed, state)


def test_a_target_says_where_its_leaves_go(tmp_path):
    device = jax.devices()[0]
    mesh = jax.sharding.Mesh(np.array([device]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    checkpoint.save(tmp_path, 0, {"w": jnp.arange(4.0)})
    target = {"w": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding)}
    assert checkpoint.restore(tmp_path, target)["w"].sharding == sharding


# Steps, metadata, directories


def test_the_newest_are_kept(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for step in [0, 5, 10, 1_234_567_890]:
        path = checkpoint.save(tmp_path, np.int64(step), {"step": jnp.int32(step % 1000)}, keep=2)
        assert path.is_dir()
        assert checkpoint.latest(tmp_path) == step
    assert len(list(tmp_path.iterdir())) == 2
    target = {"step": jnp.int32(0)}
    assert checkpoint.restore(tmp_path, target)["step"] == 890
    assert checkpoint.restore(tmp_path, target, step=10)["step"] == 10
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5; there are \[10, 1234"):
        checkpoint.restore(tmp_path, target, step=5)


def test_a_run_that_went_back_replaces_its_later_checkpoints(tmp_path):
    for step in [10, 20, 30]:
        checkpoint.save(tmp_path, step, {"x": jnp.float32(step)}, keep=3)
    checkpoint.save(tmp_path, 20, {"x": jnp.float32(-1)}, keep=3)
    assert checkpoint.latest(tmp_path) == 20
    assert checkpoint.restore(tmp_path, {"x": jnp.float32(0)})["x"] == -1
    assert checkpoint.restore(tmp_path, {"x": jnp.float32(0)}, step=10)["x"] == 10


def test_metadata_is_read_without_arrays(tmp_path):
    config = {"dim": 128, "rate": 0.4, "names": ["a", "ü"], "none": None, "tuple": (1, 2)}
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)}, metadata=config)
    checkpoint.save(tmp_path, 2, {"x": jnp.ones(3)})
    shutil.rmtree(tmp_path / "step_000000001" / "arrays")
    assert checkpoint.metadata(tmp_path, 1) == config | {"tuple": [1, 2]}
    assert checkpoint.metadata(tmp_path) == {}


def test_a_relative_directory_starts_at_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = checkpoint.save("runs/one", 1, {"x": jnp.ones(3)})
    assert path == tmp_path / "runs" / "one" / "step_000000001"
    assert checkpoint.latest("runs/one") == 1
    assert checkpoint.restore(Path("runs/one"), {"x": jnp.zeros(3)})["x"].sum() == 3


# What cannot be right is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": -1}, "step must be an integer of at least 0; got -1"),
        ({"step": 1.5}, "step must be an integer"),
        ({"step": True}, "step must be an integer"),
        ({"keep": 0}, "keep must be an integer of at least 1; got 0"),
        ({"metadata": {"x": jnp.ones(2)}}, "metadata must be a JSON object"),
        ({"metadata": {"x": float("nan")}}, "metadata must be a JSON object"),
        ({"metadata": [1]}, "metadata must be a mapping; got list"),
        ({"state": {"name": "text"}}, r"state\['name'\] is str"),
        ({"state": {"f": np.array([None])}}, r"state\['f'\]"),
        ({"state": {"f": np.array("text")}}, r"state\['f'\]"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    arguments = {"step": 1, "state": {"x": jnp.ones(2)}} | arguments
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_donated_array_is_named(tmp_path):
    state = {"table": jnp.ones(3)}
    state["table"].delete()
    with pytest.raises(ValueError, match=r"state\['table'\] was donated"):
        checkpoint.save(tmp_path, 1, state)


def test_a_dtype_that_cannot_be_stored_leaves_nothing(tmp_path, capfd):
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)})
    with pytest.raises(CheckpointError) as error:
        checkpoint.save(tmp_path, 2, {"x": jnp.ones(3, "uint4")})
    assert "step_000000002: cannot be written" in one_line(error)
    assert not leftovers(tmp_path)
    assert checkpoint.latest(tmp_path) == 1
    assert capfd.readouterr().err == ""


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for directory in [tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere"]:
        with pytest.raises(CheckpointError) as error:
            checkpoint.save(directory, 1, {"x": jnp.ones(3)})
        assert str(directory) in one_line(error)


def test_nothing_there(tmp_path):
    for directory in [tmp_path, tmp_path / "missing"]:
        for read in [checkpoint.metadata, lambda path: checkpoint.restore(path, {})]:
            with pytest.raises(CheckpointError, match="no checkpoint here"):
                read(directory)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be listed: Not a directory"):
        checkpoint.latest(tmp_path / "file")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"a": jnp.zeros(3), "b": jnp.zeros(2)}, r"state\['a'\] is float32\[4\].*float32\[3\]"),
        ({"a": jnp.zeros(4, "int32"), "b": jnp.zeros(2)}, r"float32\[4\].*wants int32\[4\]"),
        ({"a": jnp.zeros(4)}, r"holds state\['b'\], which the target lacks"),
        ({"a": jnp.zeros(4), "b": jnp.zeros(2), "c": jnp.zeros(1)}, r"has no state\['c'\]"),
        ({"a": jnp.zeros(4), "b": [jnp.zeros(2)]}, r"has no state\['b'\]\[0\]"),
        ({"a": jax.random.key(0), "b": jnp.zeros(2)}, r"wants key<fry>\[\]"),
    ],
)
def test_a_target_that_does_not_fit(tmp_path, target, message):
    checkpoint.save(tmp_path, 1, {"a": jnp.ones(4), "b": jnp.ones(2)})
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoint.restore(tmp_path, target)
    assert str(tmp_path) in one_line(error)


def test_64_bits_are_never_cut_to_32_in_silence(tmp_path):
    with jax.enable_x64(True):
        state = {"x": jnp.arange(3.0) / 3}
        assert state["x"].dtype == "float64"
        checkpoint.save(tmp_path, 1, state)
        with pytest.raises(CheckpointError, match="is float64 and came back as float32"):
            checkpoint.restore(tmp_path, state)
    jax.config.update("jax_enable_x64", True)
    try:
        assert_same(checkpoint.restore(tmp_path, state), state)
    finally:
        jax.config.update("jax_enable_x64", False)


def test_keys_of_another_kind_do_not_fit(tmp_path):
    checkpoint.save(tmp_path, 1, jax.random.key(0))
    with pytest.raises(CheckpointError, match=r"key<fry>.*key<rbg>"):
        checkpoint.restore(tmp_path, jax.random.key(0, impl="rbg"))


# Damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sound")
    checkpoint.save(directory, 1, a_state(1))
    checkpoint.save(directory, 2, a_state(2))
    return directory


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << (position % 8)
    file.write_bytes(content)


def test_a_changed_cut_or_missing_file_is_always_seen(sound, tmp_path, capfd):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "step_000000002"
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 5
    largest = max(files, key=lambda file: file.stat().st_size)
    for file in files:
        content, size = file.read_bytes(), file.stat().st_size
        positions = {0, size // 3, size // 2, size - 1} if size else set()
        if file == largest:
            positions |= set(range(0, size, max(1, size // 50)))
        damages = [lambda file: file.unlink()]
        damages += [lambda file, size=size: os.truncate(file, size // 2)] if size else []
        damages += [lambda file, at=at: flip(file, at) for at in positions]
        for damage in damages:
            damage(file)
            with pytest.raises(CheckpointError) as error:
                checkpoint.restore(tmp_path, jax.eval_shape(a_state))
            assert str(folder) in one_line(error)
            file.write_bytes(content)
    for step in [1, 2]:  # whole again, and the earlier one was never touched
        assert_same(checkpoint.restore(tmp_path, a_state(), step=step), a_state(step))
    assert capfd.readouterr().err == ""


def test_any_flipped_bit_of_the_manifest_is_seen_or_means_nothing(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    manifest = tmp_path / "step_000000002" / "manifest.json"
    content = manifest.read_bytes()
    seen = 0
    for position in range(0, len(content), 7):
        flip(manifest, position)
        try:
            assert checkpoint.metadata(tmp_path) == {}
        except CheckpointError as error:
            assert "\n" not in str(error)
            seen += 1
        manifest.write_bytes(content)
    assert seen > 0.9 * len(content) / 7


def test_a_damaged_checkpoint_says_which_other_there_is(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "step_000000002" / "arrays")
    with pytest.raises(CheckpointError, match=r"is missing \(step 1 is there too\)"):
        checkpoint.restore(tmp_path, a_state())


def test_foreign_folders(tmp_path):
    folder = tmp_path / "step_000000004"
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"has no manifest.json.*not written by jaxml"):
        checkpoint.restore(tmp_path, {})
    for text, message in [
        ("[]", "not written by jaxml"),
        ('{"format": "other"}', "not written by jaxml"),
        ("{", "no JSON"),
        ('{"format": "jaxml.checkpoint", "version": 99}', "of format version 99, this reads 1"),
        ('{"format": "jaxml.checkpoint", "version": 1}', "changed"),
    ]:
        (folder / "manifest.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            checkpoint.metadata(tmp_path)
    # Names that are not ours are not looked at.
    for name in ["4", "step_x", "step_5", "step_000000009.orbax-checkpoint-tmp"]:
        (tmp_path / name).mkdir()
    (tmp_path / "step_000000008").write_text("a file")
    assert checkpoint.latest(tmp_path) == 4


# Killed at the worst moments


VICTIM = """
import os, pathlib, signal, sys, threading, time
import jax.numpy as jnp
from jaxml.train import checkpoint

directory, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
checkpoint.save(directory, 1, {"x": jnp.full((1000,), 1.0)})
checkpoint.save(directory, 2, {"x": jnp.full((1000,), 2.0)})

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def die_while_arrays_are_written():
    while not any(file.stat().st_size for file in directory.glob(".tmp-*/**/d/*")):
        time.sleep(0.0005)
    die()

if moment == "arrays":
    threading.Thread(target=die_while_arrays_are_written, daemon=True).start()
elif moment == "commit":
    pathlib.Path.rename = die
elif moment == "removal":
    checkpoint.shutil.rmtree = die
checkpoint.save(directory, 3, {"x": jnp.full((10_000_000,), 3.0)})
"""


def test_a_process_killed_during_a_save_leaves_the_earlier_checkpoint(tmp_path):
    newest = {"arrays": 2, "commit": 2, "removal": 3}
    environment = os.environ | {"PYTHONPATH": str(Path(checkpoint.__file__).parents[2])}
    victims = [
        subprocess.Popen([sys.executable, "-c", VICTIM, tmp_path / moment, moment], env=environment)
        for moment in newest
    ]
    for victim, (moment, step) in zip(victims, newest.items(), strict=True):
        assert victim.wait(timeout=120) == -signal.SIGKILL, moment
        directory = tmp_path / moment
        assert checkpoint.latest(directory) == step
        if moment != "removal":
            target = {"x": jax.ShapeDtypeStruct((1000,), jnp.float32)}
            assert (checkpoint.restore(directory, target)["x"] == 2.0).all()
        assert leftovers(directory), "killed too late to show anything"
        checkpoint.save(directory, 4, {"x": jnp.zeros(2)})
        assert not leftovers(directory)


def test_an_error_during_a_save_leaves_nothing_behind(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)})

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, {"x": jnp.ones(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000001"]


def test_a_full_disk(tmp_path, capfd):
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)})
    # A limit on the size of files does what a full disk does, to this process alone.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(CheckpointError) as error:
            checkpoint.save(tmp_path, 2, {"x": jnp.ones(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "step_000000002: cannot be written" in one_line(error)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000001"]
    assert capfd.readouterr().err == ""


# Manners


def test_nothing_is_printed_and_no_thread_stays(tmp_path, capfd):
    before = set(threading.enumerate())
    checkpoint.save(tmp_path, 1, a_state())
    checkpoint.restore(tmp_path, a_state())
    with pytest.raises(CheckpointError):
        checkpoint.save(tmp_path, 2, {"x": jnp.ones(3, "uint4")})
    assert set(threading.enumerate()) <= before
    assert capfd.readouterr() == ("", "")


def test_inside_a_running_event_loop_as_in_a_notebook(tmp_path):
    async def cell():
        checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)})
        return checkpoint.restore(tmp_path, {"x": jnp.zeros(3)})

    assert asyncio.run(cell())["x"].sum() == 3


def test_the_arrays_are_a_plain_orbax_checkpoint(tmp_path):
    weights = jnp.arange(3.0)
    path = checkpoint.save(tmp_path, 1, {"w": weights})
    wanted = {"state['w']": jax.ShapeDtypeStruct((3,), "float32", sharding=weights.sharding)}
    np.testing.assert_array_equal(ocp.load(path / "arrays", wanted)["state['w']"], [0, 1, 2])
    assert json.loads((path / "manifest.json").read_text())["leaves"] == {
        "state['w']": {"shape": [3], "dtype": "float32"}
    }


def test_a_state_larger_than_a_read_of_the_checksum(tmp_path):
    state = {"table": jax.random.normal(jax.random.key(0), (3000, 300)), "row": jnp.ones(3)}
    path = checkpoint.save(tmp_path, 1, state)
    assert_same(checkpoint.restore(tmp_path, jax.eval_shape(lambda: state)), state)
    file = max((path / "arrays").rglob("*"), key=lambda file: file.stat().st_size)
    assert file.stat().st_size >= trees.num_bytes(state["table"])
    flip(file, file.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="has changed since it was written"):
        checkpoint.restore(tmp_path, state)
