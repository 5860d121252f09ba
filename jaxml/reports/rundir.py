"""The directory of a run, with one record that every experiment writes alike.

    run.json       name, configuration, environment, status, times, process, findings, figures of the end
    metrics.jsonl  losses by step, written by `JsonlWriter` or by `record`

and beside them what the experiment leaves: pictures, checkpoints, results. `run.json` is replaced as a
whole at every change; a directory that holds something is never used for another run.
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

from jaxml.files import write_json, write_text
from jaxml.reports import jsonl
from jaxml.reports.versions import environment

RECORD = "run.json"
METRICS = "metrics.jsonl"

# Names of the losses in metrics.jsonl; the first is ours.
_TRAINING = ("loss", "training_loss", "train_loss")
_VALIDATION = ("validation_loss", "val_loss", "eval_loss", "test_loss")
_OBJECTS = ("config", "environment", "summary")


class RunDirectoryError(OSError):
    """A run directory cannot be made, written or read. The message is one line."""


@contextlib.contextmanager
def running(
    name: str, config: Any, *, path: str | os.PathLike | None = None, resume: bool = False
) -> Iterator[Path]:
    """Yields the directory of a run; its status is "running" in the block, then "finished" or "failed".

    Args:
        name: the experiment's name, one path component.
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
        first = str(error).strip().splitlines() or [""]
        with contextlib.suppress(OSError):
            _change(run, status="failed", error=f"{type(error).__name__}: {first[0][:200]}")
        raise
    _change(run, status="finished")


def create(
    name: str,
    config: Any,
    *,
    root: str | os.PathLike = "runs",
    path: str | os.PathLike | None = None,
) -> Path:
    """Makes the directory of a new run, of status "running", and returns its absolute path.

    Args:
        name: the experiment's name, one path component.
        config: a mapping or a dataclass of JSON values; paths are written as text.
        root: the new directory is `root/name/<date>-<time>`, with a number behind it if that is taken.
        path: the directory to use instead; it must be empty or missing.

    Raises:
        ValueError: if the configuration is not a JSON object or the name not a path component.
        RunDirectoryError: if the directory exists with something in it, or cannot be written.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"name must be one path component, got {name!r}")
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    content = {
        "name": name,
        "status": "running",
        "started": datetime.now().isoformat(),
        "ended": None,
        "error": None,
        **_process(),
        "config": _json("config", config),
        "environment": environment(),
        "findings": [],
        "summary": {},
    }
    with _writing(path or root):
        if path is None:
            run = _new_directory(Path(os.path.abspath(root), name))
        else:
            run = Path(os.path.abspath(path))
            run.mkdir(parents=True, exist_ok=True)
            if any(run.iterdir()):
                raise RunDirectoryError(f"{run}: is not empty: a new run needs a new directory")
        try:
            write_json(run / RECORD, content)
        except OSError:
            run.rmdir()
            raise
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
    findings: Sequence[Any] = (),
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Writes the outcome of a training; the run is finished then.

    Args:
        run: a directory made by `create`.
        loss_curve: `[S]`, the loss of each step; NaN and infinities are kept. If the run has written
            `metrics.jsonl` itself, that stays.
        validation_steps: `[V]`, integers of at least 0: the steps taken before each validation.
        validation_curve: `[V]`, the losses on held-out data; of two at one step the later is kept.
        findings: named tuples or mappings, such as the monitor's.
        summary: figures of the end, by name; `num_steps` is added where there is a curve.

    Raises:
        ValueError: if a curve has another shape or a value is not JSON; nothing is written then.
        RunDirectoryError: if it is not a run or cannot be written.
    """
    run = Path(run)
    losses, held = np.asarray(loss_curve, float), np.asarray(validation_curve, float)
    at = np.asarray(validation_steps)
    if losses.ndim != 1:
        raise ValueError(f"loss_curve must have shape [S], got {losses.shape}")
    if held.ndim != 1 or at.shape != held.shape:
        raise ValueError(
            "validation_steps and validation_curve must have one shape [V], "
            f"got {at.shape} and {held.shape}"
        )
    if at.size and (at.dtype.kind not in "iu" or at.min() < 0):
        raise ValueError(f"validation_steps must be integers of at least 0, got {at}")
    counted = {"num_steps": losses.size} if losses.size else {}
    figures = _json("summary", counted | dict(summary or {}))
    mappings = [each._asdict() if hasattr(each, "_asdict") else each for each in findings]
    found = [_json("findings", each) for each in mappings]
    values: dict[int, dict[str, float]] = {
        step: {"loss": loss} for step, loss in enumerate(losses.tolist())
    }
    for step, loss in zip(at.tolist(), held.tolist(), strict=True):
        values.setdefault(step, {})["validation_loss"] = loss
    _read(run)
    if values and not (run / METRICS).exists():
        with _writing(run):
            write_text(
                run / METRICS, "".join(jsonl.line(step, values[step]) for step in sorted(values))
            )
    _change(run, status="finished", findings=found, summary=figures)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run, as far as its directory can be read.

    The status is "running", "finished" or "failed"; "interrupted" if its process was killed (on another
    machine that cannot be seen, and it stays "running"); "damaged" if a file cannot be read. `problems` has
    a line for each of those. `started` is local time. Losses are those of metrics.jsonl, NaN and infinities
    included; `num_steps` is None if unknown.
    """

    path: Path
    name: str
    status: str
    started: datetime
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    findings: tuple[dict[str, Any], ...]
    error: str | None
    steps: NDArray[np.int64]
    losses: NDArray[np.float64]
    validation_steps: NDArray[np.int64]
    validations: NDArray[np.float64]
    num_steps: int | None
    problems: tuple[str, ...] = ()


def read(run: str | os.PathLike) -> Run:
    """Returns a run; damage is named in its `problems` and hides nothing else.

    Losses are found in metrics.jsonl under `loss` (also `training_loss`, `train_loss`) and
    `validation_loss` (also `val_loss`, `eval_loss`, `test_loss`).

    Raises:
        RunDirectoryError: if there is no such directory, or no run in it.
    """
    path = Path(os.path.abspath(run))
    if not (path / RECORD).is_file():
        raise RunDirectoryError(f"{run}: {_missing(path)}")
    problems: list[str] = []
    content: dict[str, Any] = {}
    try:
        content = _read(path)
    except RunDirectoryError as error:
        problems.append(str(error).removeprefix(f"{path}: "))
    rows: list[dict[str, int | float]] = []
    try:
        rows = jsonl.read(path / METRICS)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        problems.append(str(error).removeprefix(f"{path}{os.sep}"))
    curves: list[Any] = []
    for names in (_TRAINING, _VALIDATION):
        name = next((name for name in names if any(name in row for row in rows)), names[0])
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
        findings=tuple(_unplain(content.get("findings", []))),
        error=content.get("error"),
        steps=curves[0],
        losses=curves[1],
        validation_steps=curves[2],
        validations=curves[3],
        num_steps=summary.get("num_steps", max((int(row["step"]) for row in rows), default=None)),
        problems=tuple(problems),
    )


def read_config(run: str | os.PathLike) -> dict[str, Any]:
    """Returns the configuration of a run, as JSON gives it: tuples have become lists.

    >>> read_config("no/such/run")
    Traceback (most recent call last):
    jaxml.reports.rundir.RunDirectoryError: no/such/run: no such directory
    """
    return _read(Path(run))["config"]


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
    try:
        content = json.loads((run / RECORD).read_text(encoding="utf-8"))
        _status(content)
        datetime.fromisoformat(content["started"])
        if not all(isinstance(content[name], dict) for name in _OBJECTS):
            raise ValueError("an entry is no object")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunDirectoryError(f"{run}: {_missing(run)}") from error
    except OSError as error:
        raise RunDirectoryError(f"{run}: {RECORD} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunDirectoryError(f"{run}: {RECORD} is damaged: {error}") from error
    return content


def _change(run: Path, **changes: Any) -> None:
    ended = None if changes["status"] == "running" else datetime.now().isoformat()
    with _writing(run):
        write_json(run / RECORD, _read(run) | changes | {"ended": ended})


@contextlib.contextmanager
def _writing(path: Any) -> Iterator[None]:
    try:
        yield
    except RunDirectoryError:
        raise
    except OSError as error:
        where = error.filename or path
        raise RunDirectoryError(f"{where}: cannot be written: {error.strerror}") from error


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _status(content: Mapping[str, Any]) -> str:
    if content["status"] == "running" and content["host"] == socket.gethostname():
        try:
            os.kill(content["pid"], 0)
        except PermissionError:
            pass
        except (OSError, OverflowError):
            return "interrupted"
    return content["status"]


def _plain(value: Any) -> Any:
    """The value with Python's numbers for NumPy's, and text where JSON has no number."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return jsonl.encode(value)
    return value


def _unplain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unplain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unplain(each) for each in value]
    return float(value) if isinstance(value, str) and value in jsonl.NOT_FINITE else value


def _json(argument: str, value: Any) -> dict[str, Any]:
    """The value as JSON gives it back, with text for NaN and infinities."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{argument} must be a mapping or a dataclass, got {type(value).__name__}")

    def text(value: Any) -> str:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise TypeError(f"{value!r} is not JSON")

    try:
        return json.loads(json.dumps(_plain(value), allow_nan=False, default=text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} must be a JSON object: {error}") from error


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
