"""The faults: each is done to a bed and returns what the checks find."""

import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experiments.serving_faults import bed as beds
from experiments.serving_faults.bed import Bed, Found, Table
from jaxml import features, serving
from jaxml.serving import manifest
from jaxml.validation import writers
from jaxml.validation.columns import read_column

Fault = Callable[[Bed, np.random.Generator], Found]


# ------------------------------------------------------------------------------- what clients send


def sending(change: Callable[[Table], Table]) -> Fault:
    """Clients send changed columns."""

    def fault(bed: Bed, rng: np.random.Generator) -> Found:
        rows = bed.draw(rng)
        return beds.served(bed, rows, change(beds.only(rows)))

    return fault


def column(name: str, change: Callable[[np.ndarray], Any]) -> Fault:
    """Clients send one changed column."""
    return sending(lambda sent: {**sent, name: np.asarray(change(sent[name]))})


def label_sent(bed: Bed, rng: np.random.Generator) -> Found:
    rows = bed.draw(rng)
    return beds.served(bed, rows, {**beds.only(rows), "late": rows["late"]})


def flooded(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values)) % 5 < 2, np.nan, values)


def other_airport(sent: Table) -> Table:
    """Gives each flight the weather of another: the join went by the wrong key."""
    return sent | {name: np.roll(sent[name], 1) for name in beds.WEATHER.values()}


def duplicate_keys(bed: Bed, rng: np.random.Generator) -> Found:
    """A table holds some ids twice: of the answers to a table, and of the table for `check`."""
    rows = bed.draw(rng)
    twice = rows["id"].copy()
    twice[:5] = twice[5:10]
    return {
        **beds.served(bed, rows, keys=twice),
        **beds.answered(bed, {**rows, "id": twice}),
    }


# ------------------------------------------------------------------------------- the serving code


def serving_by(bent: Callable[[Bed, serving.Bundle], serving.Bundle]) -> Fault:
    """The server's code is wrong."""

    def fault(bed: Bed, rng: np.random.Generator) -> Found:
        return beds.served(bed, bed.draw(rng), bent=lambda bundle: bent(bed, bundle))

    return fault


def rounded(bed: Bed, bundle: serving.Bundle) -> serving.Bundle:
    """Serving has the wind in whole miles an hour."""

    class Rounding(features.FeaturePipeline):
        def encode(self, columns: Any) -> Any:
            return super().encode(
                {**columns, "wind": np.round(read_column("wind", columns["wind"]).numbers())}
            )

    return dataclasses.replace(bundle, pipeline=Rounding.from_dict(bundle.pipeline.to_dict()))


def stale_vocabulary(bed: Bed, bundle: serving.Bundle) -> serving.Bundle:
    """Serving has the vocabulary of destinations of an earlier, smaller table."""
    written = bundle.pipeline.to_dict()
    earlier = beds.pipeline_of(beds.take(beds.only(bed.table), bed.training[:2000])).to_dict()
    place = [each["name"] for each in written["features"]].index("dest")
    written["features"][place] = earlier["features"][place]
    return dataclasses.replace(bundle, pipeline=features.FeaturePipeline.from_dict(written))


def swapped_answers(bed: Bed, bundle: serving.Bundle) -> serving.Bundle:
    """Serving gives the answers of a batch back in another order."""

    class Reversed:
        def __init__(self) -> None:
            self.warm = bundle.program.warm

        def __call__(self, given: Any) -> Any:
            return {name: each[::-1] for name, each in bundle.program(given).items()}

    program: Any = Reversed()
    return dataclasses.replace(bundle, program=program)


def older_answers(bed: Bed, bundle: serving.Bundle) -> serving.Bundle:
    """The server still has another version in its memory than the store says."""
    older = bed.folder / "older"
    if not older.exists():
        beds.save(older, beds.take(bed.table, bed.training), seed=1)
    return serving.load(older)


# ------------------------------------------------------------------------------- files and machines


def file_of_bundle(name: str, change: Callable[[Path], None]) -> Fault:
    """A file of the bundle is damaged."""

    def fault(bed: Bed, rng: np.random.Generator) -> Found:
        path = bed.store(f"damaged-{name}-{rng.integers(1 << 30)}").bundle()
        change(path / name)
        return beds.loaded(path)

    return fault


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def newer(path: Path) -> None:
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))


@contextmanager
def no_space() -> Iterator[None]:
    """Lets no file of this process grow beyond 100 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full_disk(bed: Bed, rng: np.random.Generator) -> Found:
    """The disk is full while requests are served: they are answered, and the lost log is told."""
    rows, store = bed.draw(rng), bed.store(f"full-{rng.integers(1 << 30)}")
    with no_space():
        answers, lost = beds.ask(store, beds.only(rows), rows["id"].tolist())
    if not lost or any(status != 200 for status, _ in answers):
        return {}
    return {"log": f"all answered, {lost} rows could not be logged"}


def full_disk_static(bed: Bed, rng: np.random.Generator) -> Found:
    """The disk is full while a table is answered: an error, and the rest when there is space again."""
    rows, folder = bed.draw(rng), bed.folder / f"full-{rng.integers(1 << 30)}"
    bundle = serving.load(bed.bundle)
    writers.write_parquet(folder / "table.parquet", rows)
    arguments = (bundle, folder / "table.parquet", folder / "out")
    try:
        with no_space():
            beds.static.predict(*arguments, key="id", chunk_rows=100)
    except OSError as error:
        beds.static.predict(*arguments, key="id", chunk_rows=100)
        if not beds.same_answers(bundle, rows, folder / "out"):
            return {"static": f"{error.strerror}; whole when run again"}
    return {}


def killed_worker(bed: Bed, rng: np.random.Generator) -> Found:
    """A process that answers a table is killed; it is run again, and no row is lost or there twice."""
    rows = beds.take(bed.table, bed.pool[:20_000])
    folder = bed.folder / f"killed-{rng.integers(1 << 30)}"
    table, out = folder / "table.parquet", folder / "out"
    writers.write_parquet(table, rows)
    bundle = serving.load(bed.bundle)
    program = (
        "import sys; from jaxml import serving; from jaxml.serving import static; "
        "static.predict(serving.load(sys.argv[1]), sys.argv[2], sys.argv[3], key='id', chunk_rows=500)"
    )
    arguments = [sys.executable, "-c", program, str(bed.bundle), str(table), str(out)]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.glob("part-*.parquet"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list(out.glob("part-*.parquet")))
    report = beds.static.predict(bundle, table, out, key="id", chunk_rows=500)
    if not 0 < there < report.chunks or beds.same_answers(bundle, rows, out):
        return {}
    return {"static": f"{there} of {report.chunks} chunks were there; whole when run again"}


# ------------------------------------------------------------------------------- new versions


def version(**options: Any) -> Fault:
    """A new version is published that should not be."""

    def fault(bed: Bed, rng: np.random.Generator) -> Found:
        path = bed.folder / f"version-{rng.integers(1 << 30)}"
        training = beds.take(bed.table, bed.training)
        if "labels" in options:
            training["late"] = rng.permutation(training["late"])
        given = {name: value for name, value in options.items() if name != "labels"}
        beds.save(path, training, 2, **given)
        return beds.judged(bed, path)

    return fault


def edited(bed: Bed, rng: np.random.Generator) -> Found:
    """Somebody changes a parameter, and the hashes with it."""
    path = bed.folder / f"edited-{rng.integers(1 << 30)}"
    shutil.copytree(bed.bundle, path)
    described, file = manifest.read(path), path / "parameters.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 0x40  # The last float, by up to a half.
    file.write_bytes(content)
    hashes = manifest.hashed(path, described.files)
    manifest.write(path, dataclasses.replace(described, files=hashes))
    return beds.judged(bed, path)


FAULTS: dict[str, tuple[str, Fault]] = {
    "feature computed otherwise": (
        "serving rounds the wind to whole miles an hour", serving_by(rounded)
    ),
    "stale vocabulary": (
        "serving has the destinations of an earlier table", serving_by(stale_vocabulary)
    ),
    "swapped answers": ("a batch comes back in reverse", serving_by(swapped_answers)),
    "older bundle": ("the server answers by another version", serving_by(older_answers)),
    "unit change, distance": ("kilometres for miles", column("distance", lambda v: v * 1.609344)),
    "unit change, temperature": ("°C for °F", column("temperature", lambda v: (v - 32) / 1.8)),
    "clock in another zone": ("hour in UTC", column("hour", lambda v: (v + 5) % 24)),
    "constant column": ("one value of humidity", column("humidity", lambda v: np.full_like(v, 60.0))),
    "NaN flood": ("40 % of the temperatures missing", column("temperature", flooded)),
    "category renamed": ("carriers in lower case", column("carrier", np.char.lower)),
    "wrong dtype": ("distance as text", column("distance", lambda v: v.astype(str))),
    "swapped columns": (
        "origin and dest", sending(lambda t: {**t, "origin": t["dest"], "dest": t["origin"]})
    ),
    "missing column": (
        "no wind", sending(lambda t: {name: v for name, v in t.items() if name != "wind"})
    ),
    "wrong key": ("the weather of another row", sending(other_airport)),
    "label sent": ("requests hold the label", label_sent),
    "duplicate keys": ("five ids are there twice", duplicate_keys),
    "truncated file": (
        "a third of the parameters missing", file_of_bundle("parameters.safetensors", truncate)
    ),
    "flipped bit": ("in the fitted features", file_of_bundle("features.json", flip)),
    "newer format": ("written by a later version", file_of_bundle("manifest.json", newer)),
    "full disk, log": ("no space for what was served", full_disk),
    "full disk, static": ("no space for the answers to a table", full_disk_static),
    "killed worker": ("SIGKILL in the middle of a table", killed_worker),
    "slow model": ("a candidate with useless work", version(slow=True)),
    "worse model": ("a candidate trained on shuffled labels", version(labels="shuffled")),
    "label leak": (
        "a candidate that reads the arrival delay", version(inputs=(*beds.INPUTS, "delay"))
    ),
    "edited parameters": ("one of them, with new hashes", edited),
}  # fmt: skip
