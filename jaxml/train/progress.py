"""How far a training is."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Progress"]

# Seconds between two lines.
_INTERVAL = 2.0


class Progress(NamedTuple):
    """How far a training is, and when it will be done; `str` of it is a line.

    Attributes:
        step: steps taken; of a sweep those of all its members.
        num_steps: steps to take.
        loss: mean loss of the last step's batch; of a sweep the median over members.
        validation_loss: the last one, likewise; NaN where there is none yet.
        seconds: since the beginning, compiling included.
        remaining: seconds, at the rate so far without compiling; NaN until it is known.
        members: of a sweep, how many have neither ended nor stopped; 1 of a single training.
    """

    step: int
    num_steps: int
    loss: float
    validation_loss: float
    seconds: float
    remaining: float
    members: int = 1

    def __str__(self) -> str:
        parts = [f"step {self.step:,}/{self.num_steps:,}", f"loss {self.loss:.4g}"]
        if np.isfinite(self.validation_loss):
            parts.append(f"validation {self.validation_loss:.4g}")
        parts.append(f"{_clock(self.seconds)} gone")
        if np.isfinite(self.remaining):
            parts.append(f"{_clock(self.remaining)} left")
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Meter:
    """Tells a listener how far a training is; several threads may report to it.

    Args:
        tell: what is called; True for lines on standard error, None or False for nothing.
        num_steps: steps to take, of all members together.
        members: how many there are.
    """

    def __init__(
        self, tell: Callable[[Progress], Any] | bool | None, num_steps: int, members: int = 1
    ) -> None:
        if tell is not None and not isinstance(tell, bool) and not callable(tell):
            raise ValueError(f"progress must be True, False or a function, got {tell!r}")
        self._tell = self._line if tell is True else tell or None
        self._num_steps, self._members = num_steps, members
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self._step, self._validation = 0, float("nan")
        self._first: tuple[float, int] | None = None
        self._printed = -_INTERVAL

    @property
    def listens(self) -> bool:
        """Whether anyone is told."""
        return self._tell is not None

    def steps(
        self,
        count: int,
        losses: NDArray[Any],
        validation: NDArray[Any] | None,
        *,
        ended: int = 0,
        skipped: int = 0,
    ) -> None:
        """Takes note of steps.

        Args:
            count: how many, of all members that took them together.
            losses: of the last one, of any shape.
            validation: [steps, …], NaN where there was none; or None.
            ended: members that have just ended or stopped.
            skipped: steps that will not be taken, as members have stopped.
        """
        if self._tell is None:
            return
        with self._lock:
            self._step += count
            self._num_steps -= skipped
            self._members -= ended
            now = time.perf_counter() - self._started
            # The first call has compiled.
            remaining = float("nan")
            if self._first is None:
                self._first = now, self._step
            elif self._step > self._first[1]:
                rate = (now - self._first[0]) / (self._step - self._first[1])
                remaining = rate * (self._num_steps - self._step)
            if validation is not None and np.isfinite(validation).any():
                rows = validation.reshape(len(validation), -1)
                last = rows[np.isfinite(rows).any(1)][-1]
                self._validation = float(np.median(last[np.isfinite(last)]))
            finite = losses[np.isfinite(losses)]
            loss = float(np.median(finite)) if finite.size else float("nan")
            self._tell(
                Progress(
                    step=self._step,
                    num_steps=self._num_steps,
                    loss=loss,
                    validation_loss=self._validation,
                    seconds=now,
                    remaining=remaining,
                    members=self._members,
                )
            )

    def _line(self, progress: Progress) -> None:
        over = progress.step >= progress.num_steps
        if over or progress.seconds - self._printed >= _INTERVAL:
            self._printed = progress.seconds
            print(progress, file=sys.stderr, flush=True)
