"""What a loss curve says by itself; NumPy alone."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.monitor.findings import Finding

__all__ = ["diagnose_loss_curve"]

# Below so many points nothing but non-finite values can be told.
_FEWEST = 12


def diagnose_loss_curve(
    losses: ArrayLike, validation_losses: ArrayLike | None = None
) -> list[Finding]:
    """Reads a loss curve.

    | symptom | what is seen |
    |---|---|
    | `non_finite` | NaN or infinity, alone or at the end of a rise |
    | `loss_divergence` | the smoothed curve ends far above where it began or was, having risen over many
    steps |
    | `loss_jump` | a sudden rise beyond all noise: a burst that passes, or a level that stays |
    | `repetitive_data` | after its first fall it repeats itself, with the period |
    | `loss_oscillation` | the smoothed curve swings, or the raw one alternates, by much of its level |
    | `loss_stuck` | it never falls |
    | `learning_rate_too_low` | it falls in a straight line, by little, to the end |
    | `overfitting` | the validation loss rises from its lowest point while the training falls |

    Swings are judged on the smoothed curve: the differences of raw mini-batch losses change sign at two
    steps of three in every healthy run.

    Args:
        losses: [S], one a step or an epoch, of any length.
        validation_losses: [V], taken at even distances over the same run.

    Returns:
        Findings in the order of their steps; none for a healthy curve, nor for one of fewer than twelve
        points that are finite.

    Raises:
        ValueError: if a curve is not one-dimensional or empty.

    Example:
        >>> steps = np.arange(400)
        >>> diagnose_loss_curve(np.exp(-steps / 80) + 0.1)
        []
        >>> [finding.symptom for finding in diagnose_loss_curve(0.1 * 1.05**steps)]
        ['loss_divergence']
    """
    curve = _curve("losses", losses)
    validation = (
        None if validation_losses is None else _curve("validation_losses", validation_losses)
    )
    found = _non_finite(curve)
    first = next((f.step for f in found if f.evidence.get("to_the_end")), len(curve))
    shape = _shape(curve[:first])
    if shape is not None:
        repeated = _repetition(shape)
        # A pattern that comes again may end high, and be full of jumps.
        seen = ([] if repeated and not _grows(shape, repeated[0]) else _divergence(shape)) or (
            repeated or _jumps(shape) or _oscillation(shape, curve[:first])
        )
        found += seen or ([] if found else _slow(shape))
    if validation is not None and not any(f.symptom == "loss_divergence" for f in found):
        found += _overfitting(curve, validation)
    order = {"loss_divergence": 0, "loss_jump": 1}
    return sorted(found, key=lambda f: (f.step, order.get(f.symptom, 2)))


def _curve(name: str, values: ArrayLike) -> NDArray[np.float64]:
    curve = np.asarray(values, np.float64)
    if curve.ndim != 1 or not curve.size:
        raise ValueError(
            f"{name} must be a curve of one dimension and one point at least, got {curve.shape}"
        )
    return curve


class _Shape(NamedTuple):
    """A curve of finite losses, its noise and what is left when that is smoothed away."""

    raw: NDArray[np.float64]
    steps: NDArray[np.int64]
    smooth: NDArray[np.float64]
    noise: float
    width: int


def _smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Running median, which a spike does not move, then a running mean."""
    half = width // 2
    padded = np.pad(values, half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    medians = np.median(windows, axis=1)
    padded = np.pad(medians, half, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1).mean(1)


def _noise(values: NDArray[np.float64]) -> float:
    """Robust deviation of one point to the next, a trend taken off."""
    steps = np.diff(values)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2))


def _shape(curve: NDArray[np.float64]) -> _Shape | None:
    steps = np.flatnonzero(np.isfinite(curve))
    raw = curve[steps]
    if len(raw) < _FEWEST:
        return None
    # Long curves are read at some two thousand points.
    fold = len(raw) // 2000
    if fold > 1:
        whole = len(raw) // fold * fold
        raw = raw[:whole].reshape(-1, fold).mean(1)
        steps = steps[:whole:fold]
    width = max(3, len(raw) // 40) | 1
    return _Shape(raw, steps, _smoothed(raw, width), _noise(raw), width)


def _parts(values: NDArray[np.float64], share: float = 0.1) -> tuple[float, float]:
    """Medians of the first and of the last part."""
    number = max(3, round(share * len(values)))
    return float(np.median(values[:number])), float(np.median(values[-number:]))


def _scale(shape: _Shape) -> float:
    """What a change is large against: how far the curve has come, or its level if it went nowhere."""
    fallen = float(np.max(shape.smooth) - np.min(shape.smooth))
    return max(fallen, 0.1 * float(np.median(np.abs(shape.raw))), 1e-300)


def _non_finite(curve: NDArray[np.float64]) -> list[Finding]:
    bad = ~np.isfinite(curve)
    if not bad.any():
        return []
    step = int(np.argmax(bad))
    before = curve[:step]
    to_the_end = bool(bad[step:].all())
    grew = False
    if len(before) >= 2:
        level = np.median(before[: max(1, len(before) // 2)])
        grew = bool(before[-1] > 10 * max(abs(level), 1e-30) or np.all(np.diff(before[-4:]) > 0))
        grew &= bool(before[-1] > 2 * abs(np.min(before)))
    found = []
    if grew and to_the_end and len(before) < _FEWEST:
        found.append(
            Finding(
                "loss_divergence",
                int(np.argmin(before)),
                "loss",
                "error",
                {"from": float(np.min(before)), "to": float(before[-1])},
                "the steps are too long: the loss grows until it overflows",
                "lower the learning rate",
            )
        )
    cause = (
        "the loss had grown until it overflowed"
        if grew
        else "a value that is not finite in the input, or an operation such as log 0 or 0 / 0"
    )
    found.append(
        Finding(
            "non_finite",
            step,
            "loss",
            "error" if to_the_end else "warning",
            {"points": int(bad.sum()), "to_the_end": to_the_end, "grew": grew},
            cause,
            "lower the learning rate" if grew else "look for NaN and infinity in the data",
        )
    )
    return found


def _divergence(shape: _Shape) -> list[Finding]:
    smooth = shape.smooth
    start, end = _parts(shape.raw, 0.05)
    lowest = int(np.argmin(smooth))
    low = float(smooth[lowest])
    risen = end - low
    noise = shape.noise / math.sqrt(shape.width)
    # To more than it ever fell, and by much of what it is; beyond what noise explains.
    if risen < 8 * noise or end < start + 0.25 * max(start - low, 0) or risen < 0.5 * abs(low):
        return []
    if end <= start * (1.2 if start > 0 else 1.0) and risen < 1.0 * max(start - low, 1e-300):
        return []
    rise = smooth[lowest:]
    if len(rise) < 3:
        return []
    # Over many steps: no single stretch of three windows makes up most of the rise, unless it goes on
    # after it.
    stretch = min(3 * shape.width, len(rise) - 1)
    steps = rise[stretch:] - rise[:-stretch]
    at, steepest = int(np.argmax(steps)), float(np.max(steps))
    after = rise[at + stretch :]
    # At a level that was jumped to, the noise is another than before.
    there = _noise(shape.raw[-len(after) :]) / math.sqrt(shape.width) if len(after) > 3 else 0.0
    # What rose before is much of what rose, or far more than the loss had ever been.
    before = float(rise[at]) - low
    going_on = before > 8 * noise and before > min(0.05 * risen, 3 * max(abs(low), start - low))
    going_on |= bool(after[-1] > after[0] + max(4 * noise, 4 * there, 0.1 * risen))
    if steepest > 0.7 * risen and not going_on:
        return []
    return [
        Finding(
            "loss_divergence",
            int(shape.steps[lowest]),
            "loss",
            "error",
            {"from": low, "to": end},
            "the steps are too long, or the objective has no minimum",
            "lower the learning rate, or clip the gradient",
        )
    ]


def _jumps(shape: _Shape) -> list[Finding]:
    raw, number = shape.raw, len(shape.raw)
    before_width = max(5, min(shape.width, 25))
    found: list[Finding] = []
    # Local noise: early in a run it is larger than later.
    away = np.abs(np.diff(raw, prepend=raw[0]))
    residual = raw - shape.smooth
    step = before_width
    while step < number - 1:
        past = raw[max(0, step - before_width) : step]
        level = float(np.median(past))
        local = 1.4826 * float(np.median(np.abs(past - level)))
        usual = max(local, shape.noise, 0.02 * float(np.median(away)), 1e-12 * abs(level), 1e-300)
        rise = raw[step] - level
        usual_rise = float(np.max(residual[max(0, step - 4 * before_width) : step], initial=0.0))
        fallen = float(np.max(shape.smooth[:step])) - level
        sudden = (
            rise > 12 * usual
            and rise
            > min(1.6 * max(abs(level), 0.1 * _scale(shape)), max(1.2 * fallen, 0.8 * abs(level)))
            and rise > 2.5 * usual_rise
        )
        if not sudden:
            step += 1
            continue
        above = raw[step:] > level + 0.4 * rise
        lasted = int(np.argmin(above)) if not above.all() else len(above)
        rest = raw[step + lasted :]
        # A single point is a burst only if nothing in the rest of the curve is like it.
        others = np.append(residual[:step], residual[step + lasted + 1 :])
        alone = rise > 3 * float(np.max(others, initial=0.0))
        if lasted <= 2 and (rise < 30 * usual or not alone):
            step += 1
            continue
        recovered = lasted < max(5, 0.1 * number) or (
            len(rest) > 5 and float(np.median(rest)) < level + 0.2 * rise and lasted < 0.3 * number
        )
        found.append(
            Finding(
                "loss_jump",
                int(shape.steps[step]),
                "loss",
                "warning" if recovered else "error",
                {
                    "kind": "burst" if recovered else "lasting",
                    "from": level,
                    "to": float(np.max(raw[step : step + lasted])),
                    "steps": int(lasted),
                },
                "a burst of outliers in the data"
                if recovered
                else "a step, or a learning rate, that was far too large",
                "look at the examples of these steps, or clip the gradient"
                if recovered
                else "go back to before the jump, and lower the learning rate",
            )
        )
        step += max(lasted, 1) + before_width
    return found[:1] if len(found) < 4 else []


def _detrended(shape: _Shape) -> tuple[NDArray[np.float64], int]:
    """What remains of the later part of a curve, after its first fall, when a line is taken off."""
    start, end = _parts(shape.raw)
    settled = end + 0.25 * max(start - end, 0)
    below = np.flatnonzero(shape.smooth <= settled)
    begin = int(below[0]) if len(below) else 0
    begin = min(begin, len(shape.raw) // 2)
    rest = shape.raw[begin:]
    steps = np.arange(len(rest))
    slope, offset = np.polyfit(steps, rest, 1)
    return rest - slope * steps - offset, begin


def _repetition(shape: _Shape) -> list[Finding]:
    rest, begin = _detrended(shape)
    number = len(rest)
    if number < 24:
        return []
    # Spikes count as what they are at most, or one of them would be all of the variance.
    limit = 6 * 1.4826 * np.median(np.abs(rest - np.median(rest)))
    held = rest if limit == 0 else np.clip(rest, -limit, limit)
    held = held - held.mean()
    variance = float(np.mean(np.square(held)))
    level = float(np.median(np.abs(shape.raw[begin:])))
    if variance <= 0 or math.sqrt(variance) < 0.05 * level:
        return []
    size = 2 ** math.ceil(math.log2(2 * number))
    spectrum = np.fft.rfft(held, size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, size)[: number // 3 + 1]
    correlation /= variance * (number - np.arange(len(correlation)))
    peaks = [
        lag
        for lag in range(4, len(correlation) - 1)
        if correlation[lag] >= correlation[lag - 1] and correlation[lag] >= correlation[lag + 1]
    ]
    if not peaks:
        return []
    best = max(correlation[lag] for lag in peaks)
    # What alternates at every step is the optimizer.
    if best < 0.6 or (correlation[2] > 0.9 * best and correlation[1] < 0.3):
        return []
    # The shortest that is as good: its multiples are periods as well.
    period = next(lag for lag in peaks if correlation[lag] > 0.9 * best)
    if np.min(correlation[: period + 1]) > 0.3:
        return []
    cycles = number // period
    if cycles < 3:
        return []
    shown = rest[: cycles * period].reshape(cycles, period).mean(0)
    share = float(np.var(shown) / np.var(rest))
    harmonics = np.abs(np.fft.rfft(shown - shown.mean())) ** 2
    # A pure tone is a swing of the optimizer; data that come again leave a pattern with edges.
    pure = float(harmonics[1:2].sum() / max(harmonics.sum(), 1e-300))
    if share < 0.5 or (pure > 0.9 and period < 0.2 * number):
        return []
    real = period * round(float(np.median(np.diff(shape.steps))))
    return [
        Finding(
            "repetitive_data",
            int(shape.steps[begin]),
            "loss",
            "warning",
            {"period": real, "correlation": float(best), "amplitude": float(np.ptp(shown))},
            f"the loss repeats itself every {real} steps: so do the examples",
            "shuffle the examples",
        )
    ]


def _grows(shape: _Shape, repeated: Finding) -> bool:
    """Whether a curve that repeats itself is higher by half each time, at last, than it was at best."""
    period = repeated.evidence["period"]
    cycles = (shape.steps - shape.steps[0]) // period
    levels = [float(np.median(shape.raw[cycles == i])) for i in range(int(cycles[-1]))]
    return len(levels) > 1 and levels[-1] - min(levels) > 0.5 * abs(min(levels))


def _oscillation(shape: _Shape, curve: NDArray[np.float64]) -> list[Finding]:
    _, begin = _detrended(shape)
    # In logarithms a swing is one by a share of the level; far below where the curve began shares mean
    # nothing.
    fallen = max(_parts(shape.raw)[0] - _parts(shape.raw)[1], 0.0)
    floor = float(np.min(shape.raw))
    number = len(shape.raw) - begin
    if number < _FEWEST:
        return []

    def detrended(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
        offset = share * fallen + max(-floor, 0.0) + 1e-12 * float(np.ptp(values)) + 1e-300
        logs, steps = np.log(values + offset), np.linspace(-1, 1, len(values))
        return logs - np.polyval(np.polyfit(steps, logs, 2), steps)

    # Steps are as they came here: a mean of two would hide what alternates.
    each = curve[np.isfinite(curve) & (np.arange(len(curve)) >= shape.steps[begin])]
    floor = min(floor, float(np.min(each)))
    rest = detrended(each, 0.05)
    evidence: dict[str, Any] = {}
    # Alternation: the raw curve goes up and down at nearly every step, by much of its level.
    steps = np.diff(rest)
    turns = float(np.mean(steps[1:] * steps[:-1] < 0))
    swing = float(np.median(np.abs(steps)))
    lagged = float(np.sum(rest[1:] * rest[:-1]) / max(np.sum(np.square(rest)), 1e-300))
    if turns > 0.9 and lagged < -0.5 and swing > 0.15:
        evidence = {"turns": turns, "swing": swing}
    # Slow swings count against all that the loss has fallen: mini-batches swing a small loss by its own
    # size.
    rest = detrended(shape.raw[begin:], 0.25)
    noise = _noise(rest)
    width = max(3, number // 60) | 1
    smooth = _smoothed(rest, width) if number > 3 * width else rest
    pivots = _pivots(smooth, max(0.25, 5 * noise / math.sqrt(width)))
    if not evidence and len(pivots) >= 7 and np.ptp(smooth) > 0.4:
        sizes = np.abs(np.diff(smooth[pivots]))
        # Swings all over the curve, and not one stretch of it.
        spread = (pivots[-1] - pivots[1]) > 0.4 * number
        if spread:
            evidence = {"swings": len(pivots) - 1, "swing": float(np.median(sizes))}
    if not evidence:
        return []
    return [
        Finding(
            "loss_oscillation",
            int(shape.steps[begin]),
            "loss",
            "warning",
            evidence,
            "the steps are too long for the curvature, or examples disagree",
            "lower the learning rate, or take larger batches",
        )
    ]


def _pivots(values: NDArray[np.float64], least: float) -> list[int]:
    """Turning points between swings of at least this size."""
    pivots, low, high, direction = [0], 0, 0, 0
    for i, value in enumerate(values):
        if value > values[high]:
            high = i
        if value < values[low]:
            low = i
        if direction >= 0 and values[high] - value > least:
            pivots.append(high)
            direction, low, high = -1, i, i
        elif direction <= 0 and value - values[low] > least:
            pivots.append(low)
            direction, low, high = 1, i, i
    return pivots


def _slow(shape: _Shape) -> list[Finding]:
    """A curve that never falls, or that falls in a line to the end, by little."""
    raw, number = shape.raw, len(shape.raw)
    if number < 20:
        return []
    start, end = _parts(raw)
    level = max(abs(start), 1e-300)
    steps = np.linspace(-1, 1, number)
    slope, offset = np.polyfit(steps, raw, 1)
    residual = raw - slope * steps - offset
    error = float(np.std(residual)) / math.sqrt(number / 3) + 1e-12 * level
    lowest, highest = float(np.min(shape.smooth)), float(np.max(shape.smooth))
    falling = slope < -6 * error
    fallen = (start - end) / level
    halves = [np.polyfit(np.arange(len(h)), h, 1)[0] for h in np.array_split(raw, 2)]
    straight = halves[0] < 0 and 0.6 < halves[1] / halves[0] < 1.7
    if falling and straight and fallen < 0.3 and -slope * 2 > 0.7 * (highest - lowest):
        return [
            Finding(
                "learning_rate_too_low",
                0,
                "loss",
                "warning",
                {"fallen": fallen, "learning_rate_factor": 10.0},
                "the loss falls in a straight line: each step could go much further",
                "raise the learning rate, or train for longer",
            )
        ]
    moved = (float(np.max(shape.smooth[: max(3, number // 10)])) - lowest) / level
    noise = shape.noise / level
    # Extremes of some eighty smoothed points are five of their deviations apart.
    still = 0.03 + 6 * noise / math.sqrt(shape.width)
    if moved < still and abs(fallen) < still and not (start - end > 6 * error and falling):
        return [
            Finding(
                "loss_stuck",
                0,
                "loss",
                "error",
                {"from": start, "to": end},
                "nothing is learned: gradients that vanish, dead units, or labels without a pattern",
                "look at the gradients of the layers; try a tiny set of trusted examples",
            )
        ]
    return []


def _overfitting(losses: NDArray[np.float64], validation: NDArray[np.float64]) -> list[Finding]:
    known = np.flatnonzero(np.isfinite(validation))
    finite = losses[np.isfinite(losses)]
    if len(known) < 5 or len(finite) < 5:
        return []
    values = validation[known]
    width = max(1, len(values) // 20) | 1
    smooth = _smoothed(values, width) if width > 1 else values
    # The last point of a smoothed curve stands for the end, its lowest for the best.
    best = int(np.argmin(smooth))
    low, end = float(smooth[best]), float(np.median(values[-max(2, len(values) // 10) :]))
    noise = _noise(values)
    at = round(float(known[best] * (len(losses) - 1) / max(len(validation) - 1, 1)))
    around = max(2, len(finite) // 20)
    there = float(np.nanmedian(losses[max(0, at - around) : at + around + 1]))
    trained = float(np.median(finite[-around:]))
    range_ = max(float(values[0]) - low, abs(low), 1e-300)
    rising = end - low > max(0.1 * range_, 4 * noise, 0.05 * abs(low))
    tail = smooth[best:]
    # A rise that goes on, or one to a level that stays.
    late = values[best:][-max(3, len(tail) // 3) :]
    going = len(tail) > 3 and (
        float(np.mean(np.diff(tail) > 0)) > 0.55
        or (len(tail) > 8 and float(np.mean(late > low + 0.5 * (end - low))) > 0.9)
    )
    if not (rising and going and trained < there - 0.02 * abs(there) and trained < end):
        return []
    return [
        Finding(
            "overfitting",
            at,
            "loss",
            "warning",
            {"lowest": low, "last": end, "training": trained, "ratio": end / max(abs(low), 1e-300)},
            "what is learned from here on holds for the training examples alone",
            "stop here, regularise more, take a smaller model or more data",
        )
    ]
