"""A loss curve, smoothed, with its noise: the quantities that several symptoms read. NumPy alone."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["FEWEST", "Curve", "noise_of", "smoothed"]

# With fewer points only non-finite values and divergence can be seen.
FEWEST = 12

# Longer curves are averaged to about so many points.
_POINTS = 2000


def smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Returns a running median, which ignores single spikes, followed by a running mean."""
    half = width // 2
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(values, half, mode="edge"), 2 * half + 1
    )
    padded = np.pad(np.median(windows, axis=1), half, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1).mean(1)


def noise_of(values: NDArray[np.float64]) -> float:
    """Returns the robust standard deviation of the noise, from the differences of neighbours."""
    steps = np.diff(values)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2))


class Curve:
    """A loss curve and, if there is one, the validation curve of the same run.

    Args:
        losses: [S], one a step or an epoch.
        validation_losses: [V], measured at even distances over the same run; None for none.

    Attributes:
        losses: all of them.
        validation: likewise, or None.
        first_bad: index of the first loss that is not finite; S if all are finite.
        bad_to_the_end: whether none is finite from there on.
        finite: losses until `first_bad` if `bad_to_the_end`, else all.
        raw: the finite losses, neighbours averaged if there are many.
        steps: step of each point of `raw`.
        smooth: `raw`, smoothed over `width` points.
        noise: standard deviation of the noise of `raw`.
        readable: whether there are enough points; if not, `raw` and all after it are missing.

    Raises:
        ValueError: if a curve is not one-dimensional or is empty.
    """

    def __init__(self, losses: ArrayLike, validation_losses: ArrayLike | None = None) -> None:
        self.losses = _checked("losses", losses)
        self.validation = (
            None if validation_losses is None else _checked("validation_losses", validation_losses)
        )
        bad = ~np.isfinite(self.losses)
        self.first_bad = int(np.argmax(bad)) if bad.any() else len(bad)
        self.bad_to_the_end = bool(bad.any() and bad[self.first_bad :].all())
        self.finite = self.losses[: self.first_bad] if self.bad_to_the_end else self.losses
        steps = np.flatnonzero(np.isfinite(self.finite))
        self.readable = len(steps) >= FEWEST
        if not self.readable:
            return
        raw = self.finite[steps]
        fold = len(raw) // _POINTS
        if fold > 1:
            whole = len(raw) // fold * fold
            raw, steps = raw[:whole].reshape(-1, fold).mean(1), steps[:whole:fold]
        self.raw, self.steps = raw, steps
        self.width = max(3, len(raw) // 40) | 1
        self.smooth, self.noise = smoothed(raw, self.width), noise_of(raw)

    def ends(self, share: float = 0.1) -> tuple[float, float]:
        """Returns the medians of the first and of the last part."""
        number = max(3, round(share * len(self.raw)))
        return float(np.median(self.raw[:number])), float(np.median(self.raw[-number:]))

    def settled(self) -> int:
        """Returns the index of the point where three quarters of the first fall are over."""
        start, end = self.ends()
        below = np.flatnonzero(self.smooth <= end + 0.25 * max(start - end, 0))
        return min(int(below[0]) if len(below) else 0, len(self.raw) // 2)


def _checked(name: str, values: ArrayLike) -> NDArray[np.float64]:
    curve = np.asarray(values, np.float64)
    if curve.ndim != 1 or not curve.size:
        raise ValueError(f"{name} must be one-dimensional and not empty, got shape {curve.shape}")
    return curve
