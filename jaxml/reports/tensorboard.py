"""TensorBoard's event files."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from jaxml.reports.writer import numbers, step_number


class TensorBoardWriter:
    """Writes TensorBoard events; needs the package `tensorboardX`, which needs no TensorFlow.

    Args:
        directory: where the event files go; made if missing.
        resume_from_step: the step of the checkpoint that a run continues from; TensorBoard drops
            what came later.

    Raises:
        ImportError: if `tensorboardX` is not installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     writer = TensorBoardWriter(directory)
    ...     writer.scalars(0, {"loss": 1.0})
    ...     writer.close()
    ...     len(os.listdir(directory))
    1
    """

    def __init__(self, directory: str | os.PathLike, *, resume_from_step: int | None = None):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoardWriter needs the package tensorboardX (extra: experiments)"
            ) from error
        # It warns of each NaN, onto the progress bar; TensorBoard itself marks them.
        logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)
        purge = None if resume_from_step is None else step_number(resume_from_step) + 1
        self._writer = SummaryWriter(logdir=os.fspath(directory), purge_step=purge, flush_secs=10)

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a point to the curve of each name."""
        step = step_number(step)
        for name, value in numbers(values).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is pending."""
        self._writer.close()
