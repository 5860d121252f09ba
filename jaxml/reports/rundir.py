"""The directory of a run, with one record that every experiment writes alike.

    run.json       name, configuration, environment, status, times, process, findings, final figures
    metrics.jsonl  losses by step, written by `JsonlWriter` or by `record`

Pictures, checkpoints and results of the experiment are beside them. `run.json` is replaced as a whole at
every change, and no run is written into a directory that holds something.
"""

import contextlib
import dataclasses
import json
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import text
from jaxml.files import write_json, write_text
from jaxml.reports import jsonl
from jaxml.reports.versions import environment

RECORD = "run.json"
METRICS = "metrics.jsonl"


class RunDirectoryError(OSError):
    """A directory is not a run, holds another run, or is damaged. The message is one line."""


@contextlib.contextmanager
def running(
    name: str, config: Any, *, path: str | os.PathLike | None = None, resume: bool = False
) -> Iterator[Path]:
    """Yields the directory of a run; its status is "running" in the block, then "finished" or "failed".

    Args:
        name: the experiment's name.
        config: as in `create`.
        path: the directory, empty or missing; None for `runs/name/<date>-<time>`.
        resume: go on with the run in `path` instead of making a new one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with running("digits", {"learning_rate": 0.1}, path=root) as run:
    ...         record(run, loss_curve=[2.0, 0.5])
    ...     read(run).status, read(run).losses
    ('finished', array([2. , 0.5]))
    """
    if resume and path is not None:
        run = Path(os.path.abspath(path))
        claim(run)
    else:
        run = create(name, config, path=path)
    try:
        yield run
    except BaseException as error:
        with contextlib.suppress(OSError):
            _change(run, status="failed", error=text.one_line(error))
        raise
    _change(run, status="finished")


def create(name: str, config: Any, *, path: str | os.PathLike | None = None) -> Path:
    """Makes the directory of a new run, of status "running", and returns its absolute path.

    Args:
        name: the experiment's name.
        config: a mapping or a dataclass of JSON values; paths are written as text.
        path: the directory, empty or missing; None for `runs/name/<date>-<time>`, with a number behind it
            if that exists.

    Raises:
        RunDirectoryError: if the directory holds something.
        TypeError: if the configuration holds a value that is not JSON.
    """
    content = {
        "name": name,
        "status": "running",
        "started": datetime.now().isoformat(),
        "ended": None,
        "error": None,
        **_process(),
        "config": plain(config),
        "environment": environment(),
        "findings": None,
        "summary": {},
    }
    if path is None:
        run = _new_directory(Path(os.path.abspath("runs"), name))
    else:
        run = Path(os.path.abspath(path))
        run.mkdir(parents=True, exist_ok=True)
        if any(run.iterdir()):
            raise RunDirectoryError(f"{run}: is not empty: a new run needs a new directory")
    write_json(run / RECORD, content)
    return run


def claim(run: str | os.PathLike) -> None:
    """Makes this process the writer of a run that is resumed.

    Raises:
        RunDirectoryError: if it is not a run, or another process of this machine is writing it.
    """
    content = _read(Path(run))
    if _status(content) == "running" and content["pid"] != os.getpid():
        raise RunDirectoryError(f"{run}: is being written by process {content['pid']}")
    _change(Path(run), status="running", error=None, **_process())


def record(
    run: str | os.PathLike,
    *,
    loss_curve: Any = (),
    validation_steps: Any = (),
    validation_curve: Any = (),
    findings: Sequence[Any] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Writes the outcome of a training and sets the status "finished".

    Args:
        run: a directory made by `create`.
        loss_curve: `[S]`, the loss of each step; NaN and infinities are kept. If the run has written
            `metrics.jsonl` itself, that stays.
        validation_steps: `[V]`, integers of at least 0: the steps taken before each validation.
        validation_curve: `[V]`, the losses on held-out data; of two at one step the later is kept.
        findings: named tuples or mappings, such as the monitor's; None if nothing was looked for.
        summary: final figures by name; `num_steps` is added where there is a curve.

    Raises:
        ValueError: if a step or a loss is not a number; nothing is written then.
        RunDirectoryError: if it is not a run.
    """
    run = Path(run)
    losses = np.asarray(loss_curve, float).tolist()
    values: dict[int, dict[str, float]] = {step: {"loss": loss} for step, loss in enumerate(losses)}
    for step, loss in zip(validation_steps, validation_curve, strict=True):
        values.setdefault(step, {})["validation_loss"] = loss
    lines = "".join(jsonl.line(step, values[step]) for step in sorted(values))
    counted = {"num_steps": len(losses)} if losses else {}
    _change(
        run,
        status="finished",
        findings=None
        if findings is None
        else [plain(each._asdict() if hasattr(each, "_asdict") else each) for each in findings],
        summary=plain(counted | dict(summary or {})),
    )
    if lines and not (run / METRICS).exists():
        write_text(run / METRICS, lines)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run, as far as its directory can be read.

    The status is "running", "finished" or "failed"; "interrupted" if its process was killed (on another
    machine that cannot be seen, and it stays "running"); "damaged" if a file cannot be read. `problems` has
    a line for each of those. `started` is local time. Losses are those of metrics.jsonl, NaN and infinities
    included; `num_steps` is None if unknown, and so are `findings` if nothing was looked for.
    """

    path: Path
    name: str
    status: str
    started: datetime
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    findings: tuple[dict[str, Any], ...] | None
    error: str | None
    steps: NDArray[np.int64]
    losses: NDArray[np.float64]
    validation_steps: NDArray[np.int64]
    validations: NDArray[np.float64]
    num_steps: int | None
    problems: tuple[str, ...] = ()


def read(run: str | os.PathLike) -> Run:
    """Returns a run; damage is named in its `problems` and hides nothing else.

    Losses are those named `loss` and `validation_loss` in metrics.jsonl. Tuples of the configuration have
    become lists, as JSON has them.

    Raises:
        RunDirectoryError: if there is no such directory, or no run in it.

    >>> read("no/such/run")
    Traceback (most recent call last):
    jaxml.reports.rundir.RunDirectoryError: no/such/run: no such directory
    """
    path = Path(os.path.abspath(run))
    if not (path / RECORD).is_file():
        raise RunDirectoryError(f"{run}: {_missing(path)}")
    problems: list[str] = []
    content: dict[str, Any] = {}
    rows: list[dict[str, int | float]] = []
    try:
        content = _read(path)
    except RunDirectoryError as error:
        problems.append(str(error).removeprefix(f"{path}: "))
    try:
        rows = jsonl.read(path / METRICS) if (path / METRICS).exists() else []
    except (OSError, ValueError) as error:
        problems.append(str(error).removeprefix(f"{path}{os.sep}"))
    curves: list[Any] = []
    for name in ("loss", "validation_loss"):
        chosen = [row for row in rows if name in row]
        curves.append(np.array([row["step"] for row in chosen], np.int64))
        curves.append(np.array([row[name] for row in chosen], np.float64))
    summary = _unplain(content.get("summary", {}))
    modified = datetime.fromtimestamp((path / RECORD).stat().st_mtime)
    return Run(
        path,
        name=content.get("name", path.parent.name),
        status="damaged" if problems else _status(content),
        started=datetime.fromisoformat(content["started"]) if content else modified,
        config=_unplain(content.get("config", {})),
        environment=content.get("environment", {}),
        summary=summary,
        findings=None if (found := content.get("findings")) is None else tuple(_unplain(found)),
        error=content.get("error"),
        steps=curves[0],
        losses=curves[1],
        validation_steps=curves[2],
        validations=curves[3],
        num_steps=summary.get("num_steps", max((int(row["step"]) for row in rows), default=None)),
        problems=tuple(problems),
    )


def find(root: str | os.PathLike) -> list[Run]:
    """Returns all runs in a directory and below it, the newest last. Links are not followed.

    Raises:
        RunDirectoryError: if there is no such directory.
    """
    home = Path(os.path.abspath(root))
    if not home.is_dir():
        raise RunDirectoryError(f"{root}: {_missing(home)}")
    found = [read(folder) for folder, _, files in os.walk(home) if RECORD in files]
    return sorted(found, key=lambda run: (run.started, str(run.path)))


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"is no run: it has no {RECORD}"
    return "is no directory" if path.exists() else "no such directory"


def _read(run: Path) -> dict[str, Any]:
    if not (run / RECORD).is_file():
        raise RunDirectoryError(f"{run}: {_missing(run)}")
    try:
        content = json.loads((run / RECORD).read_text(encoding="utf-8"))
        _status(content)
        datetime.fromisoformat(content["started"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{run}: {RECORD} is damaged: {error}") from error
    return content


def _change(run: Path, **changes: Any) -> None:
    ended = None if changes["status"] == "running" else datetime.now().isoformat()
    write_json(run / RECORD, _read(run) | changes | {"ended": ended})


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _status(content: Mapping[str, Any]) -> str:
    if content["status"] == "running" and content["host"] == socket.gethostname():
        try:
            os.kill(content["pid"], 0)
        except PermissionError:
            pass
        except OSError:
            return "interrupted"
    return content["status"]


def plain(value: Any) -> Any:
    """Returns the value as JSON has it: numbers and lists for NumPy's, text for paths and NaN."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return jsonl.encode(value)
    return value


def _unplain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unplain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unplain(each) for each in value]
    return float(value) if isinstance(value, str) and value in jsonl.NOT_FINITE else value


def _new_directory(parent: Path) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    parent.mkdir(parents=True, exist_ok=True)
    suffix = 1
    while True:
        run = parent / (stamp if suffix == 1 else f"{stamp}-{suffix}")
        try:
            run.mkdir()  # Two runs that start in one second get a directory each.
            return run
        except FileExistsError:
            suffix += 1
