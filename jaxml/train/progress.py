"""The progress line of a training."""

import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Seconds before the first line, and between two.
_FIRST, _BETWEEN = 1.0, 0.5


class Progress:
    """Shows steps, loss and time left in one line of a terminal or a notebook; nothing where piped.

    Args:
        num_steps: steps to take, of all trials together.
    """

    def __init__(self, num_steps: int) -> None:
        self._num_steps, self._step = num_steps, 0
        self._lock = threading.Lock()
        self._started = self._shown = time.perf_counter()
        self._first: tuple[float, int] | None = None
        self._values: dict[str, float] = {}
        self._write = _writer()
        self._wrote = False
        self._there = 0  # Steps that checkpoints hold, until they are shown.

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        """Shows the last line, if there has been one."""
        self._show_there()
        if self._write is not None and self._wrote:
            self._write(self.line(time.perf_counter()), end=True)

    def resume(self, steps: int) -> None:
        """Counts steps that a checkpoint holds. They are shown before other steps, even where piped."""
        with self._lock:
            self._step += steps
            self._there += steps

    def _show_there(self) -> None:
        there, self._there = self._there, 0
        if there:
            write = self._write or _print
            write(f"{there:,} of {self._num_steps:,} steps are there already", end=True)

    def advance(self, steps: int, metrics: dict[str, NDArray[Any]]) -> None:
        """Counts steps, of all trials that took them together, and takes their losses for the line."""
        with self._lock:
            self._show_there()
            self._step += steps
            now = time.perf_counter()
            # The first call compiles.
            self._first = self._first or (now, self._step)
            for name, values in metrics.items():
                rows = values.reshape(len(values), -1)
                measured = rows[np.isfinite(rows).any(1)]
                if len(measured):
                    # The median of the trials.
                    last = measured[-1]
                    self._values[name] = float(np.median(last[np.isfinite(last)]))
            due = now - self._started >= _FIRST and now - self._shown >= _BETWEEN
            if due and self._write is not None:
                self._shown, self._wrote = now, True
                self._write(self.line(now))

    def line(self, now: float) -> str:
        parts = [f"step {self._step:,}/{self._num_steps:,}"]
        parts += [f"{name} {value:.4g}" for name, value in self._values.items()]
        parts.append(_clock(now - self._started))
        if self._first is not None and self._step > self._first[1]:
            seconds = (now - self._first[0]) / (self._step - self._first[1])
            parts.append(f"{_clock(seconds * (self._num_steps - self._step))} left")
        return ", ".join(parts)


def _writer() -> Any:
    """A function that shows a line in place of the one before; None where nobody would see it."""
    if "ipykernel" in sys.modules:
        from IPython.display import display

        handle: Any = None

        def show(line: str, end: bool = False) -> None:
            nonlocal handle
            content = {"text/plain": line}
            if handle is None:
                handle = display(content, raw=True, display_id=True)
            else:
                handle.update(content, raw=True)

        return show
    if not sys.stderr.isatty():
        return None
    width = 0

    def write(line: str, end: bool = False) -> None:
        nonlocal width
        # Spaces hide the rest of a longer line.
        print(f"\r{line:{width}}", end="\n" if end else "", file=sys.stderr, flush=True)
        width = 0 if end else len(line)

    return write


def _print(line: str, end: bool) -> None:
    print(line, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
