"""The directory of a run: what it was started with, on what, and what it came to.

    config.json       the configuration                                      `create`
    environment.json  device, versions, commit                               `create`
    process.json      who writes it, so that a killed run is known from a running one
    metrics.jsonl     losses by step                                         `JsonlWriter` or `record`
    findings.json     what the monitor found                                 `record`
    summary.json      figures of the end (or results.json, an experiment's own): the run is finished

All but metrics.jsonl are replaced whole. `read` and `find` take what is there, and say what is damaged.
"""

import dataclasses
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaxml.files import replacing
from jaxml.reports import jsonl

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
PROCESS = "process.json"
METRICS = "metrics.jsonl"
FINDINGS = "findings.json"
SUMMARY = "summary.json"
RESULTS = "results.json"

Status = Literal["finished", "running", "interrupted", "damaged"]

# Names that the losses go by in metrics.jsonl; the first is ours.
_TRAINING = ("loss", "training_loss", "train_loss")
_VALIDATION = ("validation_loss", "val_loss", "eval_loss", "test_loss")
_FINDING = ("symptom", "step", "where", "severity", "evidence", "cause", "remedy")
_STAMP = re.compile(r"(\d{8}-\d{6})(-\d+)?")
# Where the writing process cannot be looked for (another machine), a run that has written nothing for so
# long is taken to be over.
_SILENCE = 600.0


class RunDirectoryError(OSError):
    """A run directory cannot be made, written or read, and why, in one line."""


def create(
    name: str,
    config: Any,
    *,
    root: str | os.PathLike = "runs",
    path: str | os.PathLike | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Makes the directory of a new run and writes its `config.json`.

    Beside it stand `environment.json`, if one is given, and `process.json`, which names this process as
    the one that writes (see `claim`).

    Args:
        name: the experiment's name, one path component.
        config: a mapping or a dataclass of what JSON can hold; paths are written as text.
        root: where runs are kept: the new one is `root/name/<date>-<time>`, with a number behind
            it if that is taken.
        path: the directory to use instead; it must be empty or missing.
        environment: where it runs, as a mapping of what JSON can hold: device, versions, commit
            (`bench.environment()`).

    Returns:
        The directory, an absolute path. If anything fails, none is left behind.

    Raises:
        ValueError: if the configuration or the environment is no JSON object or the name no path
            component.
        RunDirectoryError: if the directory exists with something in it, or cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     run = create("geonames", {"dim": 128}, root=root)
    ...     run.parent.name, read_config(run)
    ('geonames', {'dim': 128})
    """
    files = {CONFIG: _to_json("config", config)}
    if environment is not None:
        files[ENVIRONMENT] = _to_json("environment", environment)
    files[PROCESS] = _to_json("process", _this_process())
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"name must be one path component; got {name!r}")
    try:
        if path is None:
            run = _new_directory(Path(os.path.abspath(root), name))
        else:
            run = Path(os.path.abspath(path))
            run.mkdir(parents=True, exist_ok=True)
            if any(run.iterdir()):
                raise RunDirectoryError(f"{run}: is not empty: a new run needs a new directory")
        try:
            for file, text in files.items():
                _write(run / file, text)
        except OSError:
            for file in files:
                (run / file).unlink(missing_ok=True)
            run.rmdir()
            raise
    except RunDirectoryError:
        raise
    except OSError as error:
        where = error.filename or path or root
        raise RunDirectoryError(f"{where}: cannot be written: {error.strerror}") from error
    return run


def read_config(run: str | os.PathLike) -> dict[str, Any]:
    """The configuration of a run, as JSON gives it: tuples have become lists.

    Args:
        run: a directory made by `create`.

    Raises:
        RunDirectoryError: if there is no such directory or its `config.json` is damaged.

    >>> read_config("no/such/run")
    Traceback (most recent call last):
    jaxml.reports.rundir.RunDirectoryError: no/such/run: is no run: it has no config.json
    """
    config = _read_json(Path(run), CONFIG, dict)
    if config is None:
        raise RunDirectoryError(f"{run}: is no run: it has no {CONFIG}")
    return config


def claim(run: str | os.PathLike) -> None:
    """Names this process as the one that writes a run: for a run that is resumed.

    Args:
        run: a directory made by `create`.

    Raises:
        RunDirectoryError: if another process on this machine that still lives writes it, or it cannot be
            written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     run = create("geonames", {"dim": 128}, root=root)
    ...     claim(run)  # by the process that has it
    ...     read(run).status
    'running'
    """
    run = Path(run)
    try:
        owner = _read_json(run, PROCESS, dict)
    except RunDirectoryError:
        owner = None  # Half of it is as good as none.
    if owner is not None and _alive(owner) and owner.get("pid") != os.getpid():
        raise RunDirectoryError(f"{run}: is being written by process {owner['pid']}")
    _store(run, PROCESS, _to_json("process", _this_process()))


def record(
    run: str | os.PathLike,
    *,
    loss_curve: Any,
    validation_steps: Any = (),
    validation_curve: Any = (),
    findings: Sequence[Any] = (),
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Writes what a training came to; from then on the run is finished.

    Args:
        run: a directory made by `create`.
        loss_curve: `[S]`, the loss of each step; NaN and infinities are kept. Empty where there is none.
            Entry i is written as step i. If the run has written `metrics.jsonl` itself, that stays.
        validation_steps: `[V]`, integers of at least 0: the steps taken before each validation.
        validation_curve: `[V]`, the losses on held-out data; of two at one step the later stands.
        findings: what the monitor found: its `Finding`s, or mappings with their fields.
        summary: figures of the end, by name, of what JSON can hold; `num_steps` is added where there is
            a curve. NaN and infinities are written as text, as in metrics.jsonl.

    Raises:
        ValueError: if a curve has another shape or a finding other fields; nothing is written then.
        RunDirectoryError: if the run is no directory or cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     run = create("digits", {"learning_rate": 0.1}, root=root)
    ...     record(run, loss_curve=[2.0, 0.5], validation_steps=[2], validation_curve=[0.75])
    ...     read(run).status, read(run).losses, read(run).validations
    ('finished', array([2. , 0.5]), array([0.75]))
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
    if summary is not None and not isinstance(summary, Mapping):
        raise ValueError(f"summary must be a mapping, got {type(summary).__name__}")
    told = _to_json("findings", [_finding(each) for each in findings])
    counted = {"num_steps": losses.size} if losses.size else {}
    figures = _to_json("summary", counted | _plain(summary or {}))
    if not run.is_dir():
        raise RunDirectoryError(f"{run}: {_missing(run)}")
    values: dict[int, dict[str, float]] = {
        i: {"loss": loss} for i, loss in enumerate(losses.tolist())
    }
    for step, loss in zip(at.tolist(), held.tolist(), strict=True):
        values.setdefault(step, {})["validation_loss"] = loss
    try:
        if values and not (run / METRICS).exists():
            # Whole or not at all: half a file would be taken for what the run has written itself.
            with replacing(run / METRICS) as temporary:
                writer = jsonl.JsonlWriter(temporary)
                try:
                    for step in sorted(values):
                        writer.scalars(step, values[step])
                finally:
                    writer.close()
    except OSError as error:
        raise RunDirectoryError(f"{run}: cannot be written: {error.strerror}") from error
    _store(run, FINDINGS, told)
    _store(run, SUMMARY, figures)  # Last: its presence says that all is there.


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run, as far as its directory tells.

    Attributes:
        path: the directory, absolute.
        config: the configuration it was started with; empty if it cannot be read.
        environment: device, versions, commit; empty where nobody wrote them down.
        started: when, in local time: from the directory's name, or else the age of its oldest file.
        steps: int64 `[S]`, steps at which a training loss was written.
        losses: float64 `[S]`, NaN and infinities included.
        validation_steps: int64 `[V]`.
        validations: float64 `[V]`, losses on held-out data.
        num_steps: how many steps it has taken, as far as is known; None where it has written none.
        findings: each as a mapping of its fields, the first cause first.
        summary: figures of the end; an experiment's `results.json` where there is no `summary.json`.
        status: `"finished"`, if a summary or results are there; `"damaged"`, if a file cannot be read;
            `"running"`, if the process that writes it lives; `"interrupted"` otherwise: it was killed or
            has failed. Of a run from another machine it cannot be known which: it counts as running for
            ten minutes after it has last written.
        problems: what is damaged, a line each.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    started: datetime
    steps: NDArray[np.int64]
    losses: NDArray[np.float64]
    validation_steps: NDArray[np.int64]
    validations: NDArray[np.float64]
    num_steps: int | None
    findings: tuple[dict[str, Any], ...]
    summary: dict[str, Any]
    status: Status
    problems: tuple[str, ...] = ()


def read(run: str | os.PathLike) -> Run:
    """A run, with as much of it as can be read; what cannot be is named in its `problems`.

    Args:
        run: a directory made by `create`, of a run that is finished, or running, or was killed.

    Returns:
        A `Run`. Losses are found in metrics.jsonl under `loss` (also `training_loss`, `train_loss`) and
        `validation_loss` (also `val_loss`, `eval_loss`, `test_loss`).

    Raises:
        RunDirectoryError: if there is no such directory, or no run in it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     run = create("digits", {"learning_rate": 0.1}, root=root, environment={"device": "cpu"})
    ...     read(run).config, read(run).environment, read(run).status
    ({'learning_rate': 0.1}, {'device': 'cpu'}, 'running')
    """
    path = Path(os.path.abspath(run))
    if not path.is_dir():
        raise RunDirectoryError(f"{run}: {_missing(path)}")
    if not _is_run(path):
        raise RunDirectoryError(f"{run}: is no run: it has no {CONFIG}")
    problems: list[str] = []

    def part(file: str, kind: type) -> Any:
        try:
            return _read_json(path, file, kind)
        except RunDirectoryError as error:
            problems.append(str(error).removeprefix(f"{path}: "))
            return None

    config = part(CONFIG, dict)
    if config is None and not problems:
        problems.append(f"has no {CONFIG}")
    environment, process = part(ENVIRONMENT, dict), part(PROCESS, dict)
    findings = []
    for number, each in enumerate(part(FINDINGS, list) or ()):
        try:
            findings.append(_finding(_unplain(each)))
        except ValueError as error:
            problems.append(f"{FINDINGS} is damaged: entry {number}: {error}")
    # Only an experiment knows what its results mean; that they are there says that it is through.
    summary = part(SUMMARY, dict)
    finished = summary is not None
    if summary is None and (path / RESULTS).exists():
        results = part(RESULTS, object)
        finished, summary = True, results if isinstance(results, dict) else {}
    curves, last = _curves(path, problems)
    num_steps = (summary or {}).get("num_steps", last)
    status: Status = "interrupted"
    if problems:
        status = "damaged"
    elif finished:
        status = "finished"
    elif _is_written(path, process):
        status = "running"
    return Run(
        path=path,
        config=config or {},
        environment=environment or {},
        started=_started(path),
        steps=curves[0],
        losses=curves[1],
        validation_steps=curves[2],
        validations=curves[3],
        num_steps=num_steps if isinstance(num_steps, int) else last,
        findings=tuple(findings),
        summary=_unplain(summary or {}),
        status=status,
        problems=tuple(problems),
    )


def find(root: str | os.PathLike) -> list[Run]:
    """All runs in a directory and below it, the newest last.

    Args:
        root: a directory of runs, or of directories of runs, or a run. Links are not followed.

    Returns:
        The runs; empty where there is none. Those that are damaged or half written are among them, with
        what is wrong in their `problems`.

    Raises:
        RunDirectoryError: if there is no such directory.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     _ = create("digits", {"seed": 0}, root=root), create("geonames", {"seed": 1}, root=root)
    ...     [run.config for run in find(root)]
    [{'seed': 0}, {'seed': 1}]
    """
    home = Path(os.path.abspath(root))
    if not home.is_dir():
        raise RunDirectoryError(f"{root}: {_missing(home)}")
    found = []
    for directory in _directories(home):
        try:
            found.append(read(directory))
        except OSError:
            continue  # It was removed meanwhile.
    return sorted(found, key=_order)


def _missing(path: Path) -> str:
    return "is no directory" if path.exists() else "no such directory"


def _directories(home: Path) -> Iterator[Path]:
    for folder, below, _ in os.walk(home):
        below[:] = [name for name in below if not name.startswith(".")]
        if _is_run(Path(folder)):
            yield Path(folder)


def _is_run(path: Path) -> bool:
    """Whether a directory is a run's, were it damaged or hardly begun."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    if {CONFIG, METRICS, PROCESS}.intersection(names):
        return True
    # Killed before its configuration was written: nothing is there but the directory.
    return bool(_STAMP.fullmatch(path.name)) and all(name.startswith(".") for name in names)


def _order(run: Run) -> tuple[datetime, int, str]:
    """By time; of the same second by the number that `create` has put behind it."""
    named = _STAMP.fullmatch(run.path.name)
    return run.started, int(named[2][1:]) if named and named[2] else 1, str(run.path)


def _started(path: Path) -> datetime:
    """From the name that `create` gave, which a copy keeps; else from the oldest of the files."""
    named = _STAMP.fullmatch(path.name)
    if named:
        try:
            return datetime.strptime(named[1], "%Y%m%d-%H%M%S")
        except ValueError:
            pass
    files = [path / name for name in (CONFIG, ENVIRONMENT, PROCESS, METRICS)]
    times = [file.stat().st_mtime for file in files if file.exists()]
    return datetime.fromtimestamp(min(times, default=path.stat().st_mtime))


def _curves(path: Path, problems: list[str]) -> tuple[tuple[Any, Any, Any, Any], int | None]:
    """Steps and losses of training and of validation, and the last step that anything is known of."""
    try:
        rows = jsonl.read(path / METRICS)
        curves: list[Any] = []
        for names in (_TRAINING, _VALIDATION):
            name = next((name for name in names if any(name in row for row in rows)), names[0])
            chosen = [row for row in rows if name in row]
            curves.append(np.array([row["step"] for row in chosen], np.int64))
            curves.append(np.array([row[name] for row in chosen], np.float64))
        steps, losses, held_steps, held = curves
        last = max((int(row["step"]) for row in rows), default=None)
        return (steps, losses, held_steps, held), last
    except FileNotFoundError:
        pass
    except OSError as error:
        problems.append(f"{METRICS}: cannot be read: {error.strerror}")
    except OverflowError as error:
        problems.append(f"{METRICS} holds a number that is too large: {error}")
    except ValueError as error:
        problems.append(str(error).removeprefix(f"{path}{os.sep}"))
    steps, losses = np.zeros(0, np.int64), np.zeros(0, np.float64)
    return (steps, losses, steps, losses), None


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _process_started(pid)}


def _process_started(pid: int) -> int | None:
    """When a process was started, in the kernel's ticks; None where it cannot be told."""
    try:
        # The name, in parentheses, may hold spaces; 19 fields behind it stands the time.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    # A zombie is dead, were it not buried yet.
    return None if state in "ZX" else int(fields[18])


def _alive(process: Mapping[str, Any]) -> bool:
    """Whether a process runs on this machine; a number that was given to another since is not it."""
    pid = process.get("pid")
    if process.get("host") != socket.gethostname() or not isinstance(pid, int) or pid < 1:
        return False
    if process.get("started") is not None:
        return _process_started(pid) == process["started"]
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _is_written(path: Path, process: Mapping[str, Any] | None) -> bool:
    if process is not None and process.get("host") == socket.gethostname():
        return _alive(process)
    newest = max((file.stat().st_mtime for file in path.iterdir() if file.exists()), default=0.0)
    return time.time() - newest < _SILENCE


def _read_json(run: Path, file: str, kind: type) -> Any:
    """A JSON file of a run; None if there is none."""
    try:
        value = json.loads((run / file).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunDirectoryError(f"{run}: {file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{run}: {file} is damaged: {error}") from error
    if not isinstance(value, kind):
        wanted = "object" if kind is dict else "list"
        raise RunDirectoryError(f"{run}: {file} is damaged: it holds no JSON {wanted}")
    return value


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _store(run: Path, file: str, text: str) -> None:
    try:
        _write(run / file, text)
    except OSError as error:
        raise RunDirectoryError(f"{run}: cannot be written: {error.strerror}") from error


def _finding(given: Any) -> dict[str, Any]:
    """The fields of a finding, in their order."""
    fields = given._asdict() if hasattr(given, "_asdict") else given
    if not isinstance(fields, Mapping) or set(fields) != set(_FINDING):
        raise ValueError(f"findings must have the fields {', '.join(_FINDING)}; got {given!r}")
    if not isinstance(fields["evidence"], Mapping):
        raise ValueError(f"findings must have a mapping as evidence; got {fields['evidence']!r}")
    if isinstance(fields["step"], bool) or not isinstance(fields["step"], int | np.integer):
        raise ValueError(f"findings must have an integer as step; got {fields['step']!r}")
    for name in ("symptom", "where", "severity", "cause", "remedy"):
        if not isinstance(fields[name], str):
            raise ValueError(f"findings must have a text as {name}; got {fields[name]!r}")
    return {name: fields[name] for name in _FINDING}


def _plain(value: Any) -> Any:
    """With Python's numbers for NumPy's, and text where JSON has no number."""
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


def _new_directory(parent: Path) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    parent.mkdir(parents=True, exist_ok=True)
    suffix = 1
    while True:
        run = parent / (stamp if suffix == 1 else f"{stamp}-{suffix}")
        try:
            # Not `exist_ok`: of two runs started in one second each gets its own.
            run.mkdir()
            return run
        except FileExistsError:
            suffix += 1


def _to_json(argument: str, value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if argument == "findings":
        value = _plain(value)
    elif not isinstance(value, Mapping):
        raise ValueError(f"{argument} must be a mapping or a dataclass; got {type(value).__name__}")
    else:
        value = dict(value)

    def text(value: Any) -> str:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise TypeError(f"{value!r} is no JSON")

    try:
        return json.dumps(value, indent=2, allow_nan=False, default=text) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} must be a JSON object: {error}") from error
