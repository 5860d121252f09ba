"""A small model of flights, a server for it in this process, and all checks of what it serves."""

import asyncio
import contextlib
import dataclasses
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml import features, losses, models, serving, train
from jaxml.data import flights
from jaxml.serving import checking, gate, skew, static, trial
from jaxml.serving.candidate import Gate, Threshold
from jaxml.serving.server import Options, Service
from jaxml.validation import leaks, readers, writers
from jaxml.validation.schema import Schema, infer_schema

Table = dict[str, np.ndarray]
Found = dict[str, str]
"""What a check says, by its name; empty if nothing is wrong."""

TEXTS = ("carrier", "origin", "dest")
WEATHER = {
    "temp": "temperature",
    "humid": "humidity",
    "wind_speed": "wind",
    "visib": "visibility",
    "pressure": "pressure",
}
RANGES = {
    "hour": (0, 23),
    "minute": (0, 59),
    "weekday": (0, 6),
    "distance": (10, 5500),
    "temperature": (-40, 130),
    "humidity": (0, 101),
    "wind": (0, 150),
    "visibility": (0, 10),
    "pressure": (900, 1100),
}
INPUTS = (*TEXTS, *RANGES)
GATE = Gate(
    task="binary",
    label="late",
    output="probability",
    thresholds=(
        Threshold("roc_auc", bound=0.6, change=0.01),
        Threshold("roc_auc", change=0.02, by="origin"),
        Threshold("log_loss", change=0.01),
        Threshold("latency_ms", bound=40.0),
    ),
    baseline="usual",
    group="day",
)


def read_table() -> Table:
    """Returns flights that landed: the inputs, whether they were late, the day, and an id.

    "delay" is the arrival delay, which no model may see, and "usual" how often the hour's flights are late.
    """
    names = (
        *("carrier", "origin", "dest", "hour", "minute", "distance", "arr_delay", "time_hour"),
        *("month", "day"),
    )
    raw = flights.read_flights(names)
    landed = raw["arr_delay"] != ""
    raw = {name: values[landed] for name, values in raw.items()}
    table: Table = {name: raw[name] for name in TEXTS}
    table |= {name: raw[name].astype(np.int64) for name in ("hour", "minute")}
    months, days = raw["month"].astype(np.int64), raw["day"].astype(np.int64)
    dates = np.array([f"2013-{m:02}-{d:02}" for m, d in zip(months, days, strict=True)], "M8[D]")
    table["weekday"] = (dates.astype(np.int64) + 3) % 7
    table["distance"] = raw["distance"].astype(np.float64)
    table |= _weather(raw)
    table["delay"] = raw["arr_delay"].astype(np.float64)
    table["late"] = (table["delay"] > 15).astype(np.int64)
    table["day"] = dates.astype(np.int64)
    rates = np.bincount(table["hour"], table["late"]) / np.maximum(np.bincount(table["hour"]), 1)
    table["usual"] = rates[table["hour"]]
    table["id"] = np.array([f"flight-{i}" for i in range(len(dates))])
    return table


def _weather(raw: Mapping[str, np.ndarray]) -> Table:
    """Returns the weather of each flight's airport and hour, NaN where there is none."""
    found = flights.read_weather((*WEATHER, "origin", "time_hour"))
    place = {key: i for i, key in enumerate(zip(found["origin"], found["time_hour"], strict=True))}
    keys = zip(raw["origin"], raw["time_hour"], strict=True)
    rows = np.array([place.get(key, -1) for key in keys])
    values = {}
    for name, own in WEATHER.items():
        column = np.append(
            np.where(found[name] == "", "nan", found[name]).astype(np.float64), np.nan
        )
        values[own] = column[rows]
    return values


def reviewed(columns: Table) -> Schema:
    """Returns the schema that is inferred, with what a person knows of flights and weather."""
    schema = infer_schema(columns)
    for name in ("carrier", "dest"):  # A sample need not hold the rare ones.
        schema = schema.replace(name, domain=None)
    for name, (low, high) in RANGES.items():
        if name in schema.features:
            schema = schema.replace(name, min=low, max=high)
    return schema


def pipeline_of(columns: Table, **instead: Any) -> features.FeaturePipeline:
    """Returns the fitted features; `instead` replaces some."""
    numbers = [name for name in columns if name not in TEXTS]
    chains: dict[str, Any] = {name: features.vocabulary() for name in TEXTS}
    chains |= {name: [features.imputation("mean"), features.z_score()] for name in numbers}
    return features.FeaturePipeline({**chains, **instead}).fit(columns)


def take(table: Mapping[str, np.ndarray], rows: Any) -> Table:
    """Returns some rows."""
    return {name: values[rows] for name, values in table.items()}


def only(table: Mapping[str, np.ndarray], names: Sequence[str] = INPUTS) -> Table:
    """Returns some columns."""
    return {name: table[name] for name in names}


@dataclasses.dataclass(frozen=True)
class Bed:
    """Flights, split at random, and a bundle of a model.

    Attributes:
        table: all flights.
        training, held_out, pool: rows of it; those of the pool are served.
        bundle: directory of the model in use.
        folder: for stores and tables.
        num_rows: rows served in each run.
    """

    table: Table
    training: np.ndarray
    held_out: np.ndarray
    pool: np.ndarray
    bundle: Path
    folder: Path
    num_rows: int

    def draw(self, rng: np.random.Generator) -> Table:
        """Returns rows to serve."""
        return take(self.table, rng.choice(self.pool, self.num_rows, replace=False))

    def store(self, name: str) -> serving.Store:
        """Returns a new store with the bundle in use."""
        made = serving.Store(self.folder / name)
        made.switch(made.add(self.bundle))
        return made


def make_bed(num_training: int, num_rows: int, folder: Path) -> Bed:
    """Returns a bed with a trained model in use."""
    table = read_table()
    order = np.random.default_rng(0).permutation(len(table["late"]))
    training, held_out, pool = np.split(order, [num_training, num_training + num_training // 5])
    save(folder / "bundle", take(table, training), seed=0)
    return Bed(table, training, held_out, pool, folder / "bundle", folder, num_rows)


def save(
    path: Path,
    training: Table,
    seed: int,
    *,
    inputs: Sequence[str] = INPUTS,
    slow: bool = False,
) -> None:
    """Trains a model and writes its bundle; a slow one gives the same answers after useless work."""
    columns = only(training, inputs)
    pipeline = pipeline_of(columns)
    dense, ids = pipeline.stack(pipeline(columns))
    x = {"dense": dense, "ids": ids}
    module = models.TabularMLP(pipeline.id_sizes, 4, (32,), 1)
    fitted = train.fit(
        module,
        losses.sigmoid_binary_cross_entropy,
        optax.adam(3e-3),
        (x, training["late"][:, None].astype(np.float32)),
        num_steps=max(100, 5 * len(dense) // 512),
        batch_size=512,
        key=jax.random.key(seed),
        monitor=False,
    )

    def predict(params: Any, x: Any) -> dict[str, jax.Array]:
        logits = module.apply({"params": params}, x)[..., 0]
        if slow:
            large = jnp.outer(jnp.arange(256.0), logits[:1] + jnp.arange(256.0))
            work = jax.lax.fori_loop(0, 500, lambda i, a: jnp.tanh(a @ a.T), large)
            logits = logits + 0.0 * jnp.nan_to_num(work[0, 0])
        return {"probability": jax.nn.sigmoid(logits)}

    serving.save(
        path,
        model=predict,
        params=fitted.params,
        pipeline=pipeline,
        schema=reviewed(columns),
        training=columns,
        name="flights",
        max_batch=256,
    )


# --------------------------------------------------------------------------------------- the server


Change = Callable[[serving.Bundle], serving.Bundle]


def ask(
    store: serving.Store,
    columns: Mapping[str, np.ndarray],
    ids: Sequence[str],
    bent: Change | None = None,
) -> tuple[list[tuple[int, Any]], int]:
    """Serves a store in this process and asks it for all rows at once, one in a request.

    Args:
        store: with a version in use.
        columns: what clients send, [N] each.
        ids: of the requests.
        bent: what is wrong in the serving code.

    Returns:
        Status and JSON of each answer, and the number of rows that the log has lost.
    """
    service = Service(store.path, Options(), lambda fault: None)
    if bent is not None:
        version = service.version
        service.version = version._replace(bundle=bent(version.bundle))
    datatypes = {each.name: each.datatype for each in service.version.bundle.manifest.inputs}
    bodies = [_body(name, row, datatypes) for name, row in zip(ids, _rows(columns), strict=True)]

    async def session() -> list[tuple[int, Any]]:
        async with _life(service):
            path = f"/v2/models/{service.version.bundle.manifest.name}/infer"
            return await asyncio.gather(*(_post(service.app, path, each) for each in bodies))

    with contextlib.redirect_stderr(io.StringIO()):  # The access log.
        answers = asyncio.run(session())
    log = service.version.log
    return answers, log.lost if log else 0


def _rows(columns: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    lists = {name: values.tolist() for name, values in columns.items()}
    for row in zip(*lists.values(), strict=True):
        values = dict(zip(lists, row, strict=True))
        yield {name: None if value != value else value for name, value in values.items()}


def _body(name: str, row: Mapping[str, Any], datatypes: Mapping[str, str]) -> bytes:
    inputs = []
    for column, value in row.items():
        datatype = "BYTES" if isinstance(value, str) else datatypes.get(column, "FP64")
        datatype = "FP64" if isinstance(value, float) else datatype
        inputs.append({"name": column, "shape": [1], "datatype": datatype, "data": [value]})
    return json.dumps({"id": name, "inputs": inputs}).encode()


@contextlib.asynccontextmanager
async def _life(service: Service) -> Any:
    """Starts and stops an application as a server does, and waits until it is ready."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    done: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(service.app({"type": "lifespan"}, told.get, done.put))
    for step in ("startup", "shutdown"):
        await told.put({"type": f"lifespan.{step}"})
        await done.get()
        if step == "startup":
            while not service.ready:
                await asyncio.sleep(0.01)
            yield
    await task


async def _post(app: Any, path: str, body: bytes) -> tuple[int, Any]:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "scheme": "http",
        "server": ("127.0.0.1", 0),
        "client": ("127.0.0.1", 0),
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    content = b"".join(each.get("body", b"") for each in sent[1:])
    return sent[0]["status"], json.loads(content)


# --------------------------------------------------------------------------------------- the checks


_numbers = itertools.count()


def served(
    bed: Bed,
    rows: Table,
    sent: Mapping[str, np.ndarray] | None = None,
    bent: Change | None = None,
    keys: np.ndarray | None = None,
) -> Found:
    """Serves rows and returns what requests and `check` find.

    Args:
        rows: as training has them; the table that what was served is compared with.
        sent: what clients send instead of their inputs.
        bent: what is wrong in the serving code.
        keys: of the table, if not the rows' ids.
    """
    store = bed.store(f"store-{next(_numbers)}")
    answers, lost = ask(store, only(rows) if sent is None else sent, rows["id"].tolist(), bent)
    found: Found = {}
    for status, name in ((400, "protocol"), (422, "schema"), (500, "server"), (503, "server")):
        bad = [answer for code, answer in answers if code == status]
        if bad:
            reason = bad[0]["error"].partition(" (")[0]
            found[name] = f"{len(bad)} of {len(answers)} requests: {reason:.100}"
    if lost:
        found["log"] = f"{lost} rows could not be logged"
    if all(status != 200 for status, _ in answers):
        return found
    table = store.path / "table.parquet"
    writers.write_parquet(table, {**only(rows), "id": rows["id"] if keys is None else keys})
    try:
        report = checking.check(store.path, table=table, key="id")
    except ValueError as error:
        return {**found, "check": str(error)}
    return {**found, **reported(report)}


def reported(report: checking.Report) -> Found:
    """Returns what a report finds."""
    found: Found = {}
    far = [each for each in report.columns if each.differs]
    if far:
        more = f" and {len(far) - 1} columns more" if len(far) > 1 else ""
        found["distribution"] = f"{far[0].column}: {far[0].change}{more}"
    for name, rows in (
        ("rows, computed again", report.features),
        ("rows, computed again", report.answers),
        ("rows of the table", report.table),
    ):
        if rows and rows.different:
            worst = rows.different[0]
            _, before, now = worst.samples[0]
            change = " → ".join(
                f"{v:.4g}" if isinstance(v, float) else str(v) for v in (before, now)
            )
            found[name] = f"{worst.feature} in {worst.different} of {rows.rows}: {change}"
        elif rows and rows.ambiguous:
            found[name] = f"{rows.ambiguous} keys are twice in the table"
    return found


def loaded(path: Path) -> Found:
    """Returns why a bundle is refused."""
    try:
        serving.load(path)
    except serving.BundleError as error:
        return {"bundle": str(error).replace(str(path), path.name)}
    return {}


def judged(bed: Bed, path: Path, rows: np.ndarray | None = None) -> Found:
    """Returns what the gate, a trial in a real server and the leaks' check say of a bundle."""
    held_out = take(bed.table, bed.held_out if rows is None else rows)
    candidate, current = serving.load(path), serving.load(bed.bundle)
    found: Found = {}
    verdict = gate.judge(candidate, current, held_out, GATE)
    for name, each in (("gate", verdict), ("trial", trial.try_out(candidate))):
        failed = [check for check in each.checks if check.outcome == "failed"]
        if failed:
            reason = (failed[0].note or failed[0].wanted).partition("; it wrote")[0]
            found[name] = f"{failed[0].name}: {reason}"
    leaking = leaks.label_leaks(only(held_out, (*candidate.columns, "late")), "late")
    if leaking:
        found["leaks"] = f"{leaking[0].column} {leaking[0].description}"
    return found


def answered(bed: Bed, rows: Table) -> Found:
    """Returns what is wrong with the static answers to rows."""
    folder = bed.folder / f"static-{next(_numbers)}"
    writers.write_parquet(folder / "table.parquet", rows)
    bundle = serving.load(bed.bundle)
    try:
        static.predict(bundle, folder / "table.parquet", folder / "out", key="id", chunk_rows=100)
    except ValueError as error:
        return {"static": str(error).replace(str(folder), "")}
    return same_answers(bundle, rows, folder / "out")


def same_answers(bundle: serving.Bundle, rows: Table, out: Path) -> Found:
    """Returns how static answers differ from those of the bundle: one for each row, and the same."""
    parts = [readers.read_parquet(path) for path in sorted(out.glob("part-*.parquet"))]
    ids = np.concatenate([part["id"] for part in parts])
    given = np.concatenate([part["probability"] for part in parts])
    if ids.tolist() != rows["id"].tolist():
        return {"static": f"{len(ids)} answers to {len(rows['id'])} rows"}
    if not np.allclose(given, bundle.predict(rows)["probability"], rtol=1e-6, atol=1e-6):
        return {"static": "answers differ from those of the bundle"}
    return {}


def months(table: Table, num_random: int) -> list[dict[str, Any]]:
    """Returns which columns of each month differ from January to August, and of random halves of these."""
    month = table["day"].astype("M8[D]").astype("M8[M]").astype(int) % 12 + 1
    before = np.flatnonzero(month <= 8)
    training, rest = before[::20], np.delete(before, np.s_[::20])
    names = (
        "January February March April May June July August September October November December"
    ).split()
    parts = {name: np.flatnonzero(month == 1 + i) for i, name in enumerate(names)}
    rng = np.random.default_rng(0)
    for i in range(num_random):
        parts[f"random half {1 + i}"] = rng.permutation(rest)[: len(rest) // 2]
    found = []
    for name, rows in parts.items():
        columns = skew.compare_columns(
            take(only(table), rows), take(only(table), training), Schema({})
        )
        far = [
            f"{each.column} {each.distance:.2f}, {each.change}" for each in columns if each.differs
        ]
        found.append({"rows of": name, "rows": len(rows), "differ": far})
    return found
