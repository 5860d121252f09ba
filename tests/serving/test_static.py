"""A whole table, answered: the model's answers, chunk by chunk, whatever interrupts it."""

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet
import pytest

from jaxml import features, serving
from jaxml.serving import static
from jaxml.serving.__main__ import main
from jaxml.serving.lookup import Lookup, Writer
from jaxml.serving.manifest import Tensor
from jaxml.validation.readers import BadFile
from jaxml.validation.schema import infer_schema
from jaxml.validation.writers import write_parquet


@pytest.fixture(scope="module")
def table(tmp_path_factory, columns):
    """The raw columns with a key and two rows that are wrong, and its path."""
    given = {"id": np.array([f"flight {i}" for i in range(400)]), **columns}
    given["distance"] = given["distance"].copy()
    given["distance"][[3, 70]] = 99_999
    path = tmp_path_factory.mktemp("static") / "in.parquet"
    write_parquet(path, given)
    return given, path


@pytest.fixture(scope="module")
def answered(tmp_path_factory, bundle, table):
    """A directory of answers to the table, by `id`, in chunks of 60."""
    out = tmp_path_factory.mktemp("static") / "out"
    static.predict(bundle, table[1], out, key="id", chunk_rows=60)
    return out


def read(out):
    """All rows of the parts, in order."""
    parts = sorted(out.glob("part-*.parquet"))
    return pyarrow.concat_tables(map(pyarrow.parquet.read_table, parts)).to_pydict()


def files_of(out):
    """The bytes of the parts, and what the look-ups hold."""
    parts = {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}
    file = sqlite3.connect(out / static.LOOKUP)
    rows = file.execute("SELECT * FROM answers").fetchall()
    file.close()
    return parts, rows


def test_answers_are_those_of_the_bundle(bundle, table, answered):
    given, _ = table
    got = read(answered)
    assert list(got) == ["row", "id", "probability", "anomaly"]
    assert got["row"] == list(range(400)) and got["id"] == given["id"].tolist()
    wanted = bundle.predict(given)["probability"]
    for row in range(400):
        if row in (3, 70):
            assert got["probability"][row] is None
            assert got["anomaly"][row] == "INT_TYPE_BIG_INT in 'distance': 99999"
        else:
            assert abs(got["probability"][row] - wanted[row]) <= 1e-6
            assert got["anomaly"][row] is None
    schemas = {str(pyarrow.parquet.read_schema(p)) for p in answered.glob("part-*.parquet")}
    assert len(schemas) == 1  # Of parts with and without anomalies.


def test_a_csv_file_has_the_same_answers(tmp_path, bundle, table, answered):
    given, _ = table
    path = tmp_path / "in.csv"
    lines = [",".join(given)]
    for row in zip(*(values.tolist() for values in given.values()), strict=True):
        lines.append(",".join("" if value != value else str(value) for value in row))
    path.write_text("\n".join([*lines, ""]))
    report = static.predict(bundle, path, tmp_path / "out", key="id", chunk_rows=60)
    assert files_of(tmp_path / "out")[0] == files_of(answered)[0]
    assert (report.rows, report.anomalies, report.chunks, report.chunks_before) == (400, 2, 7, 0)


def test_a_run_goes_on_with_the_first_part_that_is_missing(tmp_path, bundle, table, monkeypatch):
    asked = []
    predict = type(bundle).predict

    def counted(self, columns):
        asked.append(len(columns["hour"].values))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return predict(self, columns)

    monkeypatch.setattr(type(bundle), "predict", counted)
    options = {"key": "id", "chunk_rows": 100}
    with pytest.raises(KeyboardInterrupt):
        static.predict(bundle, table[1], tmp_path, **options)
    assert not (tmp_path / static.LOOKUP).exists()
    (tmp_path / ".part-00003.parquet.17.tmp").write_text("of a run that was killed")
    report = static.predict(bundle, table[1], tmp_path, **options)
    assert report.chunks_before == 3 and len(asked) == 5
    whole = files_of(tmp_path)
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.partial"))
    (tmp_path / "part-00002.parquet").unlink()
    assert static.predict(bundle, table[1], tmp_path, **options).chunks_before == 2
    assert static.predict(bundle, table[1], tmp_path, **options).chunks_before == 4
    assert files_of(tmp_path) == whole


CHILD = """
import sys
from jaxml import serving
from jaxml.serving import static
static.predict(serving.load(sys.argv[1]), sys.argv[2], sys.argv[3], key="id", chunk_rows=2)
"""


def killed_and_resumed(bundle_path, path, out, delays):
    """Kills a run at each of the delays, seconds after its first new part, and lets the last one end.

    A delay below 0 is in seconds after the start, so that loading is interrupted too.
    """
    command = [sys.executable, "-c", CHILD, str(bundle_path), str(path), str(out)]
    kills = 0
    for delay in delays:
        before = len(list(out.glob("part-*.parquet")))
        process = subprocess.Popen(command)
        while delay >= 0 and process.poll() is None:
            if len(list(out.glob("part-*.parquet"))) > before:
                break
            time.sleep(0.002)
        time.sleep(abs(delay))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)
    return kills


def check_kills(tmp_path, bundle_path, table, delays):
    bundle, (_, path) = serving.load(bundle_path), table
    static.predict(bundle, path, tmp_path / "whole", key="id", chunk_rows=2)
    out = tmp_path / "killed"
    assert killed_and_resumed(bundle_path, path, out, delays) >= 0.7 * len(delays)
    assert read(out)["row"] == list(range(400))
    assert files_of(out) == files_of(tmp_path / "whole")


def test_three_kills_lose_no_row_and_repeat_none(tmp_path, bundle_path, table):
    delays = np.random.default_rng().uniform(0, 0.2, 3)
    check_kills(tmp_path, bundle_path, table, delays)


@pytest.mark.slow
def test_twenty_kills_lose_no_row_and_repeat_none(tmp_path, bundle_path, table):
    rng = np.random.default_rng()
    delays = np.concatenate([rng.uniform(0, 0.02, 16), rng.uniform(-1.5, 0, 4)])
    check_kills(tmp_path, bundle_path, table, rng.permutation(delays))


def test_a_directory_of_other_answers_is_refused(tmp_path, bundle, table, columns, make_bundle):
    given, path = table
    out, other = tmp_path / "out", tmp_path / "other.parquet"
    static.predict(bundle, path, out, chunk_rows=200)
    make_bundle(tmp_path / "bundle", columns, seed=1)
    write_parquet(other, {name: values[::-1] for name, values in given.items()})
    arguments = {"bundle": bundle, "table": path, "directory": out, "chunk_rows": 200}
    for change, what in [
        ({"bundle": serving.load(tmp_path / "bundle")}, "bundle"),
        ({"table": other}, "table"),
        ({"chunk_rows": 100}, "chunk size"),
        ({"key": "id"}, "key"),
        ({"directory": tmp_path}, "holds other files"),
    ]:
        with pytest.raises(ValueError, match=what) as error:
            static.predict(**{**arguments, **change})
        assert "\n" not in str(error.value)
    (out / static.RECORD).write_text("{")
    with pytest.raises(ValueError, match=r"static\.json: is damaged"):
        static.predict(**arguments)


def test_keys_must_be_there_and_differ(tmp_path, bundle, table):
    given, _ = table

    def predicted(name, keys):
        path = tmp_path / f"{name}.parquet"
        write_parquet(path, {**given, "id": keys})
        return static.predict(bundle, path, tmp_path / name, key="id", chunk_rows=60)

    keys = np.arange(400)
    with pytest.raises(BadFile, match=r"column 'id': 17 is the key of rows 17 and 20"):
        predicted("within", np.where(keys == 20, 17, keys))
    with pytest.raises(BadFile, match=r"column 'id': 17 is the key of rows 17 and 333"):
        predicted("across", np.where(keys == 333, 17, keys))
    with pytest.raises(BadFile, match=r"row 100, column 'id': the key is missing"):
        predicted("gap", [None if key == 100 else key for key in keys.tolist()])
    with pytest.raises(BadFile, match="keys must be texts or integers, got FLOAT"):
        predicted("floats", keys + 0.5)
    for name in ("row", "probability"):
        with pytest.raises(ValueError, match=f"named '{name}'|'{name}'"):
            path = tmp_path / f"{name}.parquet"
            write_parquet(path, {**given, name: keys})
            static.predict(bundle, path, tmp_path / name, key=name)


def test_look_ups_that_cannot_be_written_or_read(tmp_path):
    path, outputs = tmp_path / "lookup.sqlite", [Tensor("p", "FP32", (-1,))]
    answer = {"p": np.float32([0.5])}
    with closing(Writer(path, outputs)) as one, closing(Writer(path, outputs)) as two:
        one.add(["a"], [0], answer)
        with pytest.raises(OSError, match="another process writes it"):
            two.add(["b"], [1], answer)
        one.finish()
    assert Lookup(path).get("a") == {"row": 0, "p": 0.5} and Lookup(path).get("b") is None
    with pytest.raises(ValueError, match="64 bits"):
        Lookup(path).get(2**64)
    path.write_bytes(b"no data base" * 1000)
    with pytest.raises(ValueError, match="is damaged"):
        Lookup(path)
    path.rename(tmp_path / "lookup.sqlite.partial")
    with pytest.raises(OSError, match="cannot be written: file is not a database"):
        Writer(path, outputs)
    with pytest.raises(ValueError, match="there are no look-ups"):
        Lookup(path)


def test_a_table_of_no_rows_or_of_wrong_ones_only(tmp_path, bundle, table):
    given, _ = table
    path = tmp_path / "in.parquet"
    write_parquet(path, {name: values[:0] for name, values in given.items()})
    report = static.predict(bundle, path, tmp_path / "none")
    assert report.rows == report.chunks == 0
    write_parquet(path, {name: values[3:4] for name, values in given.items()})
    assert static.predict(bundle, path, tmp_path / "wrong", key="id").anomalies == 1
    assert read(tmp_path / "wrong")["probability"] == [None]


@pytest.fixture(scope="module")
def ranking(tmp_path_factory):
    """A model of texts with outputs of ids that are texts, and of several values."""
    names = [f"name {i % 50}" for i in range(200)]
    pipeline = features.FeaturePipeline({"text": features.vocabulary()}).fit({"text": names})

    def model(params, x):
        scores, ids = jax.lax.top_k(params[x["ids"][:, 0]], 3)
        return {"place": ids, "probability": jax.nn.softmax(scores), "many": ids[:, 0] + 2}

    path = tmp_path_factory.mktemp("ranking") / "bundle"
    serving.save(
        path,
        model=model,
        params=jnp.asarray(np.random.default_rng(0).normal(size=(60, 7)), jnp.float32),
        pipeline=pipeline,
        schema=infer_schema({"text": names}, max_string_domain_size=0),
        training={"text": names},
        labels={"place": [f'Saint-Étienne "{i}"' for i in range(7)]},
    )
    return serving.load(path)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory, ranking):
    """Answers of that model by its only input."""
    names = [f"name {i}" for i in range(40)]
    out = tmp_path_factory.mktemp("ranking") / "out"
    write_parquet(out.parent / "in.parquet", {"text": [*names, None]})
    schema_refuses = static.predict(ranking, out.parent / "in.parquet", out, chunk_rows=16)
    assert schema_refuses.anomalies == 1
    write_parquet(out.parent / "in.parquet", {"text": names})
    by_key = out.with_name("by_key")
    static.predict(ranking, out.parent / "in.parquet", by_key, key="text", chunk_rows=16)
    return names, out, by_key


def test_lists_and_texts_come_back_from_parquet(ranking, ranked):
    names, out, _ = ranked
    got, wanted = read(out), ranking.predict({"text": names})
    for name, values in wanted.items():
        assert got[name] == [*values.tolist(), None]


def test_known_keys_are_answered_from_the_file(ranking, ranked):
    names, _, by_key = ranked
    cached = serving.Cached(ranking, by_key)
    asked = ["name 7", "name 45", "name 7", "name 0", "name 49"]
    wanted = ranking.predict({"text": asked})
    got = cached.predict({"text": asked})
    known = np.array([True, False, True, True, False])
    assert got.known.tolist() == known.tolist()
    assert cached.coverage == 0.6
    for name, values in wanted.items():
        assert got.outputs[name].dtype == values.dtype and got.outputs[name].shape == values.shape
        np.testing.assert_array_equal(got.outputs[name][known], values[known])  # To the last bit.
    assert np.isnan(got.outputs["probability"][~known]).all()
    assert got.outputs["place"][1].tolist() == [None] * 3 and got.outputs["many"][1] == -1
    assert ((got.age >= 0) & (got.age < 600))[known].all() and np.isnan(got.age[~known]).all()
    digest = ranking.manifest.digest
    assert got.bundle.tolist() == [digest if each else None for each in known]
    both = cached.predict({"text": asked}, fallback=True)
    for name, values in wanted.items():
        np.testing.assert_array_equal(both.outputs[name], values)
    assert both.known.tolist() == known.tolist() and both.age[~known].tolist() == [0, 0]
    assert set(both.bundle) == {digest} and cached.coverage == 0.6 and cached.asked == 10
    assert cached.predict({"text": names}).known.all() and cached.coverage == 46 / 50


def test_answers_of_another_version_say_so(tmp_path, answered, columns, make_bundle, table, bundle):
    make_bundle(tmp_path / "bundle", columns, seed=1)
    newer = serving.load(tmp_path / "bundle")
    given = {name: values[:5] for name, values in table[0].items()}
    got = serving.Cached(newer, answered).predict(given, fallback=True)
    assert got.known.tolist() == [True, True, True, False, True]
    digests = [bundle.manifest.digest if known else newer.manifest.digest for known in got.known]
    assert got.bundle.tolist() == digests
    old, new = (each.predict(given)["probability"] for each in (bundle, newer))
    np.testing.assert_allclose(got.outputs["probability"], np.where(got.known, old, new), rtol=1e-6)


def test_what_cannot_be_looked_up_is_refused(tmp_path, bundle, answered, ranking, ranked):
    cached = serving.Cached(bundle, answered)
    with pytest.raises(ValueError, match="'id' must hold BYTES as the table did, got INT"):
        cached.predict({"id": [1, 2]})
    with pytest.raises(ValueError, match="must hold the key 'id'"):
        cached.predict({"hour": [1]})
    with pytest.raises(ValueError, match=r"\['origin', 'distance', 'wind', 'hour'\]"):
        cached.predict({"id": ["new"]}, fallback=True)
    assert cached.predict({"id": [None, ""]}).known.tolist() == [False, False]
    with pytest.raises(ValueError, match="other outputs"):
        serving.Cached(bundle, ranked[2])
    with pytest.raises(ValueError, match="there are no look-ups"):
        serving.Cached(ranking, ranked[1])
    with pytest.raises(ValueError, match="holds no answers"):
        serving.Cached(bundle, tmp_path)


def test_integers_are_keys_too(tmp_path, bundle, table):
    given, _ = table
    keys = np.arange(400) * 10**15
    write_parquet(tmp_path / "in.parquet", {**given, "id": keys})
    static.predict(bundle, tmp_path / "in.parquet", tmp_path / "out", key="id")
    cached = serving.Cached(bundle, tmp_path / "out")
    got = cached.predict({"id": [*keys[10:20].tolist(), 5]})
    assert got.known.tolist() == [True] * 10 + [False]
    wanted = bundle.predict({name: values[10:20] for name, values in given.items()})
    np.testing.assert_allclose(got.outputs["probability"][:10], wanted["probability"], rtol=1e-6)


def test_the_command(tmp_path, bundle_path, table, capsys):
    _, path = table
    store = serving.Store(tmp_path / "store")
    store.switch(store.add(bundle_path))
    out = tmp_path / "out"
    assert main(["predict", str(store.path), str(path), str(out), "--key", "id"]) == 0
    told = capsys.readouterr()
    assert told.out == f"398 of 400 rows answered, 2 with an anomaly (column 'anomaly'): {out}\n"
    assert told.err == "" and static.read_record(out)["key"] == "id"
    for arguments, message in [
        ([bundle_path, path, out], "another key"),
        (
            [bundle_path, path, tmp_path / "new", "--key", "none"],
            "column 'none': the file does not",
        ),
        ([bundle_path, tmp_path / "none.csv", tmp_path / "new"], "none.csv"),
        ([tmp_path / "none", path, tmp_path / "new"], "no such directory"),
        ([bundle_path, bundle_path / "schema.toml", tmp_path / "new"], "not a Parquet file"),
    ]:
        assert main(["predict", *map(str, arguments)]) == 2
        told = capsys.readouterr()
        assert told.err.startswith("error: ") and message in told.err
        assert told.err.count("\n") == 1 and not (tmp_path / "new").exists()
