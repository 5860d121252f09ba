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
        self._loss = self._validation = float("nan")
        self._write = _writer()
        self._wrote = False

    def resume(self, steps: int) -> None:
        """Counts steps that a checkpoint holds, and shows how many."""
        with self._lock:
            self._step += steps
            if self._write is not None:
                there = f"{self._step:,} of {self._num_steps:,} steps are there already"
                self._write(there, end=True)

    def advance(
        self, steps: int, losses: NDArray[Any], validation: NDArray[Any] | None = None
    ) -> None:
        """Counts steps.

        Args:
            steps: how many, of all trials that took them together.
            losses: of the last step; the median is shown.
            validation: losses, NaN where there was no validation.
        """
        with self._lock:
            self._step += steps
            now = time.perf_counter()
            # The first call compiles.
            self._first = self._first or (now, self._step)
            self._loss = _median(losses, self._loss)
            if validation is not None:
                rows = validation.reshape(len(validation), -1)
                measured = rows[np.isfinite(rows).any(1)]
                if len(measured):
                    self._validation = _median(measured[-1], self._validation)
            due = now - self._started >= _FIRST and now - self._shown >= _BETWEEN
            if due and self._write is not None:
                self._shown, self._wrote = now, True
                self._write(self.line(now))

    def line(self, now: float) -> str:
        parts = [f"step {self._step:,}/{self._num_steps:,}", f"loss {self._loss:.4g}"]
        if np.isfinite(self._validation):
            parts.append(f"validation {self._validation:.4g}")
        parts.append(_clock(now - self._started))
        if self._first is not None and self._step > self._first[1]:
            seconds = (now - self._first[0]) / (self._step - self._first[1])
            parts.append(f"{_clock(seconds * (self._num_steps - self._step))} left")
        return ", ".join(parts)

    def close(self) -> None:
        """Shows the last line, if there has been one."""
        if self._write is not None and self._wrote:
            self._write(self.line(time.perf_counter()), end=True)


def _median(values: Any, otherwise: float) -> float:
    finite = np.asarray(values)[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else otherwise


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
        width = len(line)

    return write


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
