"""Progress and results on a console."""

import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar

from jaxml import text
from jaxml.reports.writer import numbers, step_number

T = TypeVar("T")

_INTERVAL = 10.0  # seconds between lines where there is no terminal


class ConsoleWriter:
    """Shows steps, loss, examples a second and time left.

    On a terminal this is one line that is replaced at each report. A file or a pipe gets a line every
    ten seconds, without control characters.

    Args:
        total_steps: the step at which the run ends.
        batch_size: examples a step, for the rate.
        stream: where to write; None for standard error, so that results can be piped.
        clock: returns seconds; for tests.

    >>> clock = iter([0, 0, 5]).__next__
    >>> writer = ConsoleWriter(100, batch_size=10, stream=sys.stdout, clock=clock)
    >>> writer.scalars(10, {"loss": 2.5})
    step 10/100, 10 %, loss 2.5
    >>> writer.scalars(60, {"loss": 1.25})
    >>> writer.close()
    step 60/100, 60 %, loss 1.25, 100 examples/s, 0:04 left
    """

    def __init__(
        self,
        total_steps: int,
        *,
        batch_size: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total = total_steps
        self._batch_size = batch_size
        self._stream = sys.stderr if stream is None else stream
        self._on_terminal = _is_terminal(self._stream)
        self._clock = clock
        self._loss: int | float | None = None
        # Times and steps of the last reports: a rate over these soon forgets the compilation, and does not
        # jump when one report was late.
        self._recent: deque[tuple[float, int]] = deque(maxlen=20)
        self._started = clock()
        self._printed: tuple[float, int] | None = None

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Shows the step and, if it is among the values, the loss."""
        step = step_number(step)
        self._loss = numbers(values).get("loss", self._loss)
        now = self._clock()
        if not self._recent or step > self._recent[-1][1]:
            self._recent.append((now, step))
        if self._on_terminal or self._printed is None:
            self._print(now)
        elif step > self._printed[1] and now - self._printed[0] >= _INTERVAL:
            self._print(now)

    def close(self) -> None:
        """Leaves the last state on the screen."""
        if self._recent and (self._printed is None or self._printed[1] < self._recent[-1][1]):
            self._print(self._recent[-1][0])
        if self._on_terminal and self._printed is not None:
            self._printed = None
            self._recent.clear()
            print(file=self._stream, flush=True)

    def _print(self, now: float) -> None:
        self._printed = (now, self._recent[-1][1])
        if self._on_terminal:
            # To the start of the line; the last characters delete what is left of a longer one.
            print(f"\r{self._status()}\x1b[K", end="", file=self._stream, flush=True)
        else:
            print(self._status(), file=self._stream, flush=True)

    def _status(self) -> str:
        time_now, step = self._recent[-1]
        parts = [f"step {step:,}/{self._total:,}", f"{100 * step // self._total} %"]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.4g}")
        first_time, first_step = self._recent[0]
        if time_now > first_time:
            steps_per_second = (step - first_step) / (time_now - first_time)
            parts.append(f"{steps_per_second * self._batch_size:,.0f} examples/s")
            if step < self._total:
                parts.append(f"{_duration((self._total - step) / steps_per_second)} left")
        if step >= self._total:
            parts.append(f"done in {_duration(time_now - self._started)}")
        return ", ".join(parts)


def progress(items: Iterable[T], what: str, *, stream: TextIO | None = None) -> Iterator[T]:
    """Yields the items; on a terminal a line shows how many are done and how long the others may take.

    Args:
        items: what is worked through.
        what: what an item is, such as `"round"`.
        stream: where to write; None for standard error.
    """
    stream = sys.stderr if stream is None else stream
    items = list(items)
    started = time.monotonic()
    for number, item in enumerate(items):
        if _is_terminal(stream):
            line = f"{what} {number + 1} of {len(items)}"
            if number:
                left = (time.monotonic() - started) / number * (len(items) - number)
                line += f", {_duration(left)} left"
            print(f"\r{line}\x1b[K", end="", file=stream, flush=True)
        yield item
    if items and _is_terminal(stream):
        print("\r\x1b[K", end="", file=stream, flush=True)


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    stream: TextIO | None = None,
) -> None:
    """Prints a title and a table, as `jaxml.text.table` makes it, on a terminal of the terminal's width.

    Args:
        title: the line above it.
        columns: one heading a column.
        rows: one cell a column.
        stream: where to write; None for standard output.

    Raises:
        ValueError: if a row has more or fewer cells than there are columns.

    >>> table("Held out", ["method", "P@1"], [["TF-IDF", 0.23], ["jaxml", 0.4251]])
    Held out
    <BLANKLINE>
    method     P@1
    TF-IDF    0.23
    jaxml   0.4251
    <BLANKLINE>
    """
    stream = sys.stdout if stream is None else stream
    width = shutil.get_terminal_size().columns if _is_terminal(stream) else None
    print(f"{title}\n\n{text.table(columns, rows, width)}\n", file=stream, flush=True)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
