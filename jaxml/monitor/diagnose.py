"""The decision table: from what was recorded of a run to what went wrong, first, where and why."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor import curves
from jaxml.monitor.activity import TIMES, units
from jaxml.monitor.findings import Finding
from jaxml.monitor.history import History
from jaxml.monitor.signs import dead_shares, explosions, first_exploding, first_non_finite

__all__ = ["diagnose", "is_suspicious"]

# Of what a constant guess loses, so much is had by looking at the inputs: from here on a model has learned.
_LEARNED = 0.1
_LEARNED_WELL = 0.3

# Standard deviations beyond chance at which what was learned holds for examples that were left out.
_HOLDS = 4.0

# Gradients at the first layer against the last: below, they vanish.
_VANISHED = 1e-3

# Dead units of a layer that are a finding although the model has learned.
_MOST = 0.75


def is_suspicious(history: History) -> bool:
    """Whether a run is worth measuring the curvature for: steps clipped or refused, or no fall."""
    finite = history.losses[np.isfinite(history.losses)]
    if len(finite) < len(history.losses) or not history.accepted.all():
        return True
    if (history.coefficient < 1).any():
        return True
    tenth = max(1, len(finite) // 10)
    if np.median(finite[-tenth:]) > 0.7 * np.median(finite[:tenth]):
        return True
    found = curves.diagnose_loss_curve(finite)
    return any(f.symptom in ("loss_divergence", "loss_jump", "loss_oscillation") for f in found)


def diagnose(history: History) -> list[Finding]:
    """Reads findings off a run, causes before what followed from them.

    | | gradients at the layers | loss | zeros |
    |---|---|---|---|
    | vanishing over depth | fall geometrically to below 1e-3 towards the input | of a constant guess | no |
    | tiny initialisation | level, but activations shrink from layer to layer | of a constant guess | no |
    | converged | as in mid-training | far below a constant guess | no |
    | learning rate too low | level | falls on where the parameters are moved further the same way | no |
    | dead units | exactly 0 below a layer | of a constant guess | whole units |
    | saturated | fall at one layer, whose outputs lie at their bounds | of a constant guess | no |
    | clipped or held by epsilon | level | stalls | no |

    What a constant guess loses is the loss with the labels of other examples: it needs no scale.

    Args:
        history: a run.

    Returns:
        Findings; none for a healthy run.
    """
    return _Case(history).findings()


class _Case:
    """One run, and what is asked of it more than once."""

    def __init__(self, history: History) -> None:
        self.history = h = history
        after = h.after
        self.steps = len(h.losses)
        self.signal, enough = 0.0, _LEARNED_WELL
        if after is not None and np.isfinite(after.loss) and np.isfinite(after.mismatched_loss):
            # What is had without looking at the inputs: the better of two ways.
            blind = after.mismatched_loss
            if np.isfinite(after.constant_loss):
                blind = min(blind, after.constant_loss)
            # Who ends far above where he began has learned nothing, however far apart his answers are.
            if after.loss > 1.5 * abs(after.first_loss):
                blind = min(blind, after.first_loss)
            self.signal = (blind - self._reached()) / max(abs(blind), 1e-300)
            same = after.loss == after.mismatched_loss and not after.output_constant
            if same and after.loss < after.first_loss:
                # The loss does not look at the labels: what it has fallen by is learned.
                self.signal = (after.first_loss - after.loss) / max(abs(after.first_loss), 1e-300)
            # Where losses are negative their level is one of units.
            if blind < 0 or after.loss < 0:
                enough = _LEARNED
        self.has_learned = self.signal > enough
        bad = h.data.bad_rows
        self.bad_data = len(bad) > 0
        self.finite = np.where(np.isfinite(h.losses), h.losses, np.nan)
        self.curve = curves.diagnose_loss_curve(h.losses, self._validation())
        self.symptoms = {finding.symptom for finding in self.curve}
        self.dense = [i for i, layer in enumerate(h.tapped) if layer.kind in ("dense", "cell")]
        self.rate_steps, self.rates = self._learning_rates()
        self.learning_rate = float(self.rates.max()) if len(self.rates) else math.nan
        self.too_long = self._too_long()
        self.explosions = explosions(history)

    def _reached(self) -> float:
        """The loss in the end: on all examples, or on those that came last where these are a stream."""
        h = self.history
        assert h.after is not None
        if h.shuffled or h.data.sorted_by_target:
            return h.after.loss
        last = h.losses[-max(1, self.steps // 10) :]
        return (
            min(h.after.loss, float(np.median(last))) if np.isfinite(last).all() else h.after.loss
        )

    def _validation(self) -> NDArray[np.float64] | None:
        values = self.history.validation_losses
        return values if len(values) > 4 else None

    # What is known of the steps

    def _learning_rates(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps and rates of plain gradient descent: update and gradient in one ratio in all layers."""
        h = self.history
        g, u = h.statistic("gradient_norm"), h.statistic("update_norm")
        at = np.flatnonzero(h.measured & h.accepted & (h.coefficient == 1))
        # A step of rate 0, as a warm-up begins with, tells nothing.
        moved = (g > 0) & np.isfinite(g) & (u > 0)
        ratios = np.where(moved, u / np.where(g > 0, g, 1), np.nan)[at]
        known = np.isfinite(ratios).any(1)
        at, ratios = at[known], ratios[known]
        none = np.zeros(0, np.int64), np.zeros(0)
        if len(ratios) < 2:
            return none
        rates = np.nanmax(ratios, 1)
        several = np.isfinite(ratios).sum(1) > 1
        if several.any():
            apart = rates[several] / np.nanmin(ratios[several], 1)
            is_plain = np.median(apart) < 1.01
        else:
            # One layer is in one ratio with itself: it must then be the same from look to look.
            is_plain = np.median(np.abs(np.diff(np.log(rates)))) < 0.01
        if not is_plain:
            return none
        return at, rates

    def _too_long(self) -> float:
        """Steps against the longest that the curvature allows: above 1, too long; NaN if unknown."""
        after = self.history.after
        if after is None or not np.isfinite(self.learning_rate):
            return math.nan
        known = [s for s in after.sharpness if np.isfinite(s) and s > 0]
        return self.learning_rate * max(known) / 2 if known else math.nan

    def _first_too_long(self) -> int:
        """The first step that is known to be longer than the curvature allows."""
        above = self.rates * self.too_long > 1.05 * self.learning_rate
        return int(self.rate_steps[int(np.argmax(above))])

    def _relative_updates(self) -> NDArray[np.float64]:
        """[measured, layers] updates over parameters; NaN where these are (nearly) zero."""
        h = self.history
        p, u = h.statistic("parameter_norm"), h.statistic("update_norm")
        usable = (p > 1e-8) & np.isfinite(p) & np.isfinite(u)
        return np.where(usable, u / np.where(usable, p, 1), np.nan)[h.measured & h.accepted]

    # The findings

    def findings(self) -> list[Finding]:
        found = self._of_data()
        if silent := self._of_silence():
            return [*found, silent]
        found += self._of_initialization(found)
        found += self._of_output()
        found += self._of_steps(found)
        found += self._of_units(found)
        found += self._of_depth(found)
        found += self._of_time(found)
        found += self._of_optimizer(found)
        found += self._of_curve(found)
        found += self._of_nothing(found)
        return _chained(found)

    def _failed(self) -> bool:
        return not self.has_learned

    def _of_data(self) -> list[Finding]:
        data, found = self.history.data, []
        if self.bad_data:
            name, row, column = data.bad_cells[0]
            evidence = {"rows": len(data.bad_rows), "row": row, "column": column, "array": name}
            found.append(
                Finding(
                    "non_finite",
                    0,
                    "input",
                    "error",
                    evidence,
                    f"{name}[{row}], column {column}, is not finite",
                    "drop these rows, or fill them in where they come from",
                )
            )
        trouble = (
            self._failed()
            or len(self.explosions) > 2
            or bool(self.symptoms & {"loss_divergence", "loss_jump", "loss_oscillation"})
            or not np.isfinite(self.history.losses).all()
        )
        if data.unscaled and trouble:
            evidence = {
                "input_scale": data.input_scale,
                "input_spread": data.input_spread,
                "target_scale": data.target_scale,
                "column": data.worst_column,
            }
            found.append(
                Finding(
                    "unscaled_input",
                    0,
                    "input",
                    "error",
                    evidence,
                    "inputs or targets are far from the scale that initialisers and learning rates assume",
                    "bring each column to mean 0 and deviation 1",
                )
            )
        if self._in_order() and (not self.signal > 0.8 or self.curve):
            found.append(
                Finding(
                    "repetitive_data",
                    0,
                    "input",
                    "error" if self._failed() else "warning",
                    {"steps_per_epoch": self.history.steps_per_epoch},
                    "examples come class by class: each step unlearns what the steps before learned",
                    "shuffle the examples",
                )
            )
        return found

    def _of_silence(self) -> Finding | None:
        """No gradient at all, from the first step on: what comes out does not depend on the parameters."""
        h = self.history
        gradient = h.statistic("gradient_norm")[h.measured]
        if self._failed() and len(gradient) and not np.any(gradient != 0):
            return Finding(
                "no_learnable_signal",
                0,
                "output",
                "error",
                {"largest_gradient": 0.0},
                "the loss does not depend on the parameters: a softmax over one unit is always 1",
                "no activation after the last layer, or one that fits the loss",
            )
        return None

    def _of_initialization(self, found: list[Finding]) -> list[Finding]:
        h, after = self.history, self.history.after
        if after is not None and after.equal_units and self._failed():
            name = after.equal_units[0]
            return [
                _initial(
                    name,
                    {"layers": len(after.equal_units), "kind": "equal"},
                    "all units of a layer start alike, and stay so",
                )
            ]
        if not len(h.looks) or not self.dense:
            return []
        if self._failed() and (name := self._still_zero()):
            return [
                _initial(
                    name,
                    {"kind": "zero"},
                    "weights that start at zero, before and behind a layer, get no gradient",
                )
            ]
        rms = h.look("rms")[0, self.dense]
        names = [h.tapped[i].name for i in self.dense]
        entering = max(h.data.input_scale, 1e-30)
        known = rms > 0
        if not np.isfinite(rms).all():
            worst = int(np.argmin(np.isfinite(rms)))
            return [
                _initial(
                    names[worst],
                    {"kind": "large"},
                    "activations overflow before the first step",
                )
            ]
        if known.any() and len(rms) > 1:
            gain = rms / entering
            grown = np.flatnonzero(gain > 100)
            if len(grown) and rms[grown[0]] > 30 and self._failed():
                return [
                    _initial(
                        names[int(np.argmax(gain > 10))],
                        {"kind": "large", "gain": float(gain.max())},
                        "activations grow from layer to layer: the initial weights are too large",
                    )
                ]
            spread = h.look("spread")[0, self.dense]
            if self._failed() and len(rms) > 2 and not found:
                last = self._last_hidden()
                shrunk = spread[last] / max(spread[0], 1e-30)
                small = spread[0] / entering
                delta = h.look("gradient_norm")[0, self.dense]
                falls = delta[0] < 0.1 * delta[last] if delta[last] > 0 else False
                born_dead = h.look("dead")[0, self.dense].max() >= 0.5
                # Where activations keep their size and only differ less and less, the layers squash.
                faint = rms[last] < 0.1 * max(rms[0], min(entering, 1.0))
                if min(shrunk, small) < 0.02 and falls and faint and not born_dead:
                    return [
                        _initial(
                            names[0],
                            {"kind": "small", "gain": float(min(shrunk, small))},
                            "activations fade from layer to layer: the initial weights are too small",
                        )
                    ]
        return []

    def _last_hidden(self) -> int:
        return max(len(self.dense) - 2, 0)

    def _still_zero(self) -> str:
        """A hidden layer whose kernel is zero from the first step to the last, or nothing."""
        held = self.history.statistic("parameter_norm")[self.history.measured]
        if not len(held):
            return ""
        hidden = {self.history.tapped[i].name for i in self.dense[:-1]}
        for i, name in enumerate(self.history.layers):
            if name in hidden and held[0, i] == 0 and held[-1, i] == 0:
                return name
        return ""

    def _of_steps(self, found: list[Finding]) -> list[Finding]:
        h = self.history
        out: list[Finding] = []
        unexplained = ~h.accepted
        if self.bad_data:
            unexplained = np.zeros_like(unexplained)
        curve = {f.symptom: f for f in self.curve}
        # Now and then an odd batch, in a run that learns all the same, is what clipping is for.
        few = max(3, 0.02 * self.steps) if self.has_learned else 3
        grows = len(self.explosions) >= few and not self._in_order()
        data_burst = "loss_jump" in curve and self._outliers() > 0
        diverges = "loss_divergence" in curve
        too_long = np.isfinite(self.too_long) and self.too_long > 1.05
        relative = self._relative_updates()
        share = 0.0
        if relative.size:
            early = relative[: max(2, len(relative) // 4)]
            early = early[np.isfinite(early).any(1)]
            sizes = np.nanmedian(early, 1) if len(early) else np.zeros(1)
            share = float(np.median(sizes))
            # One step that throws the initial parameters away is enough, if nothing is learned after it.
            if self._failed() and sizes.max() > 1:
                share = float(sizes.max())
        large = not np.isfinite(self.learning_rate) and share > 0.1
        rate = 1 / self.too_long * self.learning_rate if too_long else None
        factor = 0.5 / self.too_long if too_long else min(0.1, 0.01 / share if share else 0.1)
        evidence: dict[str, Any] = {"learning_rate_factor": float(factor)}
        # Of a schedule, and with momentum, the rate of a step is not the one that was set: a factor then.
        is_set = len(self.rates) > 0 and self.rates.max() < 1.05 * np.median(self.rates)
        if rate is not None and is_set:
            evidence |= {
                "learning_rate": self.learning_rate,
                "learning_rate_to_try": float(rate / 2),
            }
        unhealthy = self._failed() or diverges or bool(self.symptoms & {"loss_oscillation"})
        explained = self._from_birth(found) or self._in_order()
        if (too_long or large) and (unhealthy or grows) and not explained:
            words = (
                f"learning rate {self.learning_rate:.3g} above 2/λ ≈ {rate:.3g}"
                if rate is not None
                else f"a step changes parameters by {share:.0%} of their size"
            )
            out.append(
                Finding(
                    "learning_rate_too_high",
                    self._first_too_long() if too_long else 0,
                    "all layers",
                    "error" if self._failed() else "warning",
                    evidence,
                    words,
                    f"multiply the learning rate by {factor:.2g}",
                )
            )
        if grows and not data_burst:
            step = int(self.explosions[0])
            layer, norm, times = first_exploding(h, step)
            clip = float(np.median(h.norm[:step][np.isfinite(h.norm[:step])]))
            out.append(
                Finding(
                    "exploding_gradient",
                    step,
                    layer,
                    "error" if self._failed() or diverges else "warning",
                    {**evidence, "norm": norm, "times_its_median": times, "clip_to_try": clip},
                    out[0].cause if out else "the gradient grows faster than its running median",
                    f"lower the learning rate, or clip at {clip:.3g}",
                )
            )
        refused = float(unexplained.mean())
        if refused > 0 and (not out or refused > 0.5):
            step, layer = first_non_finite(h)
            out.append(
                Finding(
                    "non_finite",
                    step,
                    layer,
                    "error" if refused > 0.5 else "warning",
                    {"steps_refused": int(unexplained.sum())},
                    out[0].cause
                    if out
                    else "an operation without a finite result: an overflow, log 0, 0 / 0 or a square root "
                    "at 0",
                    "lower the learning rate, or guard the operation",
                )
            )
        return out

    def _outliers(self) -> int:
        data = self.history.data
        return len(np.union1d(data.outlier_rows, data.outlier_targets))

    def _in_order(self) -> bool:
        """Whether examples come class by class, epoch after epoch."""
        return not self.history.shuffled and self.history.data.sorted_by_target

    def _from_birth(self, found: list[Finding]) -> bool:
        return any(f.symptom == "poor_initialization" for f in found)

    def _of_output(self) -> list[Finding]:
        """Outputs that end in a ReLU: an example that comes out 0 has no gradient to leave it by."""
        h = self.history
        if not len(h.looks) or not self._failed() or not h.tapped:
            return []
        name, first, last = dead_shares(h)[-1]
        # All outputs may be positive, and are then their own ReLU: what is cut off tells.
        cut = h.look("cut")[:, -1]
        if h.look("relu")[-1, -1] <= 0.9 or not cut.max() > 0.2:
            return []
        return [
            Finding(
                "dead_relu",
                int(h.looks[0]),
                "output",
                "error",
                {"dead": last, "dead_at_first": first, "cut": float(cut[-1])},
                f"outputs of `{name}` end in a ReLU: what is 0 stays so",
                "no activation after the last layer",
            )
        ]

    def _of_units(self, found: list[Finding]) -> list[Finding]:
        h = self.history
        # What is shown a class at a time says nothing of units that wait for another.
        if not len(h.looks) or self._in_order():
            return []
        # Behind weights of zero everything is zero.
        if any(f.evidence.get("kind") == "zero" for f in found):
            return []
        out = []
        shares = dead_shares(h)
        hidden = [
            (name, a, b)
            for (name, a, b), layer in zip(shares, h.tapped, strict=True)
            if layer.kind in ("dense", "normalization")
        ]
        least = 0.5 if self._failed() else _MOST
        dead = [(name, a, b) for name, a, b in hidden if b >= least]
        killed = [(name, a, b) for name, a, b in dead if b == 1 or self._failed() or b - a > 0.3]
        if killed and (self._failed() or any(b - a > 0.3 for _, a, b in killed)):
            name, a, b = max(killed, key=lambda each: each[2])
            bounds = np.cumsum((0, *units(h.tapped)))
            i = next(i for i, layer in enumerate(h.tapped) if layer.name == name)
            per_look = 1 - h.alive[:, bounds[i] : bounds[i + 1]].mean(1)
            step = int(h.looks[int(np.argmax(per_look >= min(b, 0.5)))])
            reached = int(h.looks[int(np.argmax(per_look >= min(b, per_look.max())))])
            birth = a >= 0.5
            out.append(
                Finding(
                    "dead_relu",
                    step,
                    name,
                    "error" if self._failed() else "warning",
                    {
                        "dead": b,
                        "dead_at_first": a,
                        "units": int(bounds[i + 1] - bounds[i]),
                        "by_step": reached,
                        "from_birth": birth,
                        "layers": len(killed),
                    },
                    found[-1].cause
                    if found and not birth
                    else "units whose inputs never exceed 0 get no gradient, and stay so",
                    "leaky ReLU, He initialisation" + ("" if birth else ", a lower learning rate"),
                )
            )
        blown = any(f.symptom in ("exploding_gradient", "learning_rate_too_high") for f in found)
        if self._failed() and not blown:
            # A ReLU of huge numbers is a sigmoid of them, too.
            saturated = np.where(h.look("relu") > 0.9, 0.0, h.look("saturated"))
            late = np.median(saturated[-max(1, len(saturated) // 3) :], axis=0)
            for i, layer in enumerate(h.tapped):
                if late[i] > 0.6:
                    where = "output" if i == len(h.tapped) - 1 else layer.name
                    out.append(
                        Finding(
                            "saturated_activation",
                            int(h.looks[int(np.argmax(saturated[:, i] > 0.6))]),
                            where,
                            "error",
                            {"saturated": float(late[i])},
                            "inputs of the activation lie far beyond its slope",
                            "scale inputs and targets, smaller initial weights, normalisation",
                        )
                    )
                    break
        return out

    def _of_depth(self, found: list[Finding]) -> list[Finding]:
        h = self.history
        if len(self.dense) < 3 or not len(h.looks) or not self._failed():
            return []
        if any(
            f.symptom
            in ("dead_relu", "saturated_activation", "poor_initialization", "exploding_gradient")
            for f in found
        ):
            return []
        delta = h.look("gradient_norm")[:, self.dense]
        ratio, straight = [], []
        for row in delta:
            known = np.isfinite(row) & (row > 0)
            if known.sum() < 3 or not known[-1]:
                continue
            logs = np.log(row[known])
            place = np.flatnonzero(known)
            line = np.polyfit(place, logs, 1)
            explained = 1 - np.var(logs - np.polyval(line, place)) / max(np.var(logs), 1e-300)
            ratio.append(math.exp(logs[0] - logs.max()))
            straight.append(explained if line[0] > 0 else 0.0)
        if len(ratio) < max(1, len(delta) // 2):
            return []
        # Through one half of the run: a network that flattens late has lost the time until then.
        middle = len(ratio) // 2
        for part in (slice(middle, None), slice(0, max(middle, 1))):
            small, straightness = np.median(ratio[part]), np.median(straight[part])
            if small >= _VANISHED or straightness <= 0.6:
                continue
            first = h.tapped[self.dense[0]].name
            kinds = {
                name: float(np.median(h.look(name)[0, self.dense[:-1]]))
                for name in ("sigmoid", "tanh", "relu")
            }
            activation = (
                max(kinds, key=lambda k: kinds[k]) if max(kinds.values()) > 0.9 else "unknown"
            )
            return [
                Finding(
                    "vanishing_gradient",
                    int(h.looks[int(np.argmax(np.array(ratio) < _VANISHED))]),
                    first,
                    "error",
                    {
                        "ratio": float(small),
                        "layers": len(self.dense),
                        "straightness": float(straightness),
                        "activation": activation,
                    },
                    "each layer passes back a fraction of the gradient it gets",
                    "ReLU with He initialisation, normalisation or residual connections",
                )
            ]
        return []

    def _of_time(self, found: list[Finding]) -> list[Finding]:
        h = self.history
        if not h.times or not len(h.looks):
            return []
        out = []
        cells = [layer.name for layer in h.tapped if layer.kind == "cell"]
        if h.by_input:
            cells = ["input"]
        for i, (name, length) in enumerate(zip(cells, h.times, strict=True)):
            gain = h.gain[len(h.gain) // 2 :, i]
            transport = float(np.median(gain)) * (length - 1)
            fall = float(
                np.median(
                    h.over_time[len(h.gain) // 2 :, i, 0]
                    - h.over_time[len(h.gain) // 2 :, i, TIMES - 1]
                )
            )
            if transport < math.log(_VANISHED) and self._failed() and length > 3:
                out.append(
                    Finding(
                        "vanishing_through_time",
                        int(h.looks[len(h.gain) // 2]),
                        name,
                        "error",
                        {
                            "factor_a_step": math.exp(float(np.median(gain))),
                            "steps": length,
                            "first_against_last": math.exp(max(fall, -80.0)),
                            "measured_on": "∂E/∂x_t" if h.by_input else "∂E/∂h_t",
                        },
                        "the recurrence shrinks the gradient at every step back in time",
                        "a GRU or LSTM, an orthogonal recurrent matrix, or a penalty that keeps the norm",
                    )
                )
        return out

    def _of_optimizer(self, found: list[Finding]) -> list[Finding]:
        h, after = self.history, self.history.after
        out: list[Finding] = []
        if after is None:
            return out
        norms = h.norm[np.isfinite(h.norm)]
        guarded = float(np.mean((h.coefficient < 1) & h.accepted))
        if guarded > 0.5:
            out.append(
                Finding(
                    "clip_saturation",
                    int(np.argmax(h.coefficient < 1)),
                    "all layers",
                    "error" if self._failed() else "warning",
                    {"clipped": guarded, "clips_at": float(np.median(h.bound)), "by": "guard"},
                    "more than half of all steps were scaled down to the guard's bound",
                    "a lower learning rate",
                )
            )
        if np.isfinite(after.clips_at) and len(norms):
            share = float(np.mean(norms > 2 * after.clips_at))
            if share > 0.5 and not any(f.symptom in ("exploding_gradient",) for f in found):
                typical = float(np.median(norms))
                out.append(
                    Finding(
                        "clip_saturation",
                        int(np.argmax(h.norm > 2 * after.clips_at)),
                        "all layers",
                        "error" if self._failed() else "warning",
                        {
                            "clipped": share,
                            "clips_at": after.clips_at,
                            "median_norm": typical,
                            "clip_to_try": float(np.percentile(norms, 90)),
                        },
                        "more than half of all steps are clipped: the direction alone is left",
                        "clip at the 90th percentile of the norms, or lower the learning rate",
                    )
                )
        if (
            np.isfinite(after.epsilon_share)
            and after.epsilon_share > 0.25
            and (self._failed() or (self._could_go_further() > 0.2 and self._is_unlearned()))
        ):
            out.append(
                Finding(
                    "update_floor",
                    0,
                    "all layers",
                    "error" if self._failed() else "warning",
                    {"epsilon_share": 2 * after.epsilon_share},
                    "gradients are below the optimizer's epsilon: the update shrinks with them",
                    "a smaller epsilon, or a larger loss",
                )
            )
        return out

    def _is_unlearned(self) -> bool:
        """Whether much of the loss is left."""
        after = self.history.after
        return after is not None and after.loss > 0.3 * after.mismatched_loss

    def _could_go_further(self) -> float:
        """By how much of itself the loss falls where the parameters are moved ten times as far."""
        after = self.history.after
        if after is None or not after.further or not np.isfinite(after.loss):
            return 0.0
        best = (
            min(value for value in after.further.values() if np.isfinite(value))
            if any(np.isfinite(v) for v in after.further.values())
            else after.loss
        )
        return (after.loss - best) / max(abs(after.loss), 1e-300)

    def _of_curve(self, found: list[Finding]) -> list[Finding]:
        known = {f.symptom for f in found}
        out = []
        for finding in self.curve:
            symptom = finding.symptom
            if symptom in known or symptom in ("loss_stuck", "learning_rate_too_low"):
                continue
            # Of what is learned in turns the loss goes up and down.
            if self._in_order() and symptom not in ("overfitting", "non_finite"):
                continue
            if symptom == "non_finite" and (known or self.bad_data):
                continue
            if symptom == "loss_jump":
                finding = self._told_apart(finding)
            if symptom == "repetitive_data" and self.history.data.period == 0 and known:
                continue
            out.append(finding)
        return out

    def _told_apart(self, jump: Finding) -> Finding:
        """A jump, which is the data's where that holds outliers, and the optimizer's where it does not."""
        outliers = self._outliers()
        evidence = {**jump.evidence, "outliers": outliers}
        if outliers:
            cause = f"{outliers} examples lie far outside of the others"
            return jump._replace(
                evidence=evidence, cause=cause, remedy="drop them, or clip the loss"
            )
        cause = (
            "no example lies outside of the others: a step, or a learning rate, was far too large"
        )
        remedy = "a lower learning rate, or clip the gradient"
        return jump._replace(evidence=evidence, cause=cause, remedy=remedy)

    def _of_nothing(self, found: list[Finding]) -> list[Finding]:
        after = self.history.after
        if found or after is None:
            return []
        known = sorted((k, v) for k, v in after.further.items() if np.isfinite(v))
        ten = {k: v for k, v in known if k >= 10}
        # Downhill all the way to ten times as far, and by what counts: much of it, or at all where nothing
        # is learned.
        # Where nothing is learned, three times as far is far enough.
        downhill = len(known) > 1 and after.loss > known[0][1] > known[1][1]
        if self._failed() and known and known[0][1] < 0.99 * after.loss:
            downhill, ten = True, dict(known)
        enough = 0.99 if self._failed() else 0.8
        if ten and downhill and self._is_unlearned() and min(ten.values()) < enough * after.loss:
            factor = min(ten, key=lambda k: ten[k])
            return [
                Finding(
                    "learning_rate_too_low",
                    0,
                    "all layers",
                    "error" if self._failed() else "warning",
                    {"learning_rate_factor": factor, "loss_there": ten[factor], "loss": after.loss},
                    "the loss goes on falling where the parameters are moved "
                    f"{factor:.0f} times as far",
                    f"multiply the learning rate by {factor:.0f}, or train for longer",
                )
            ]
        # Little of the loss may be all that can be known: what holds for examples that were left out is
        # learned.
        if self.signal < _LEARNED and not after.held_out > _HOLDS:
            return [
                Finding(
                    "no_learnable_signal",
                    0,
                    "input",
                    "error",
                    {
                        "signal": self.signal,
                        "loss": after.loss,
                        "loss_of_other_labels": after.mismatched_loss,
                        "held_out": after.held_out,
                    },
                    "gradients are healthy, and yet labels do not follow from the inputs",
                    "check how labels are joined to inputs; overfit ten trusted examples first",
                )
            ]
        return []


def _chained(found: list[Finding]) -> list[Finding]:
    """Findings, of which the one that began it tells what units died of it."""
    killed = next((f for f in found if f.symptom == "dead_relu" and "by_step" in f.evidence), None)
    if killed is None or killed.evidence["from_birth"]:
        return found
    began = [
        i
        for i, finding in enumerate(found)
        if finding.symptom in ("exploding_gradient", "learning_rate_too_high", "non_finite")
        and finding.where != "input"
        and finding.step <= killed.step
    ]
    if not began:
        return found
    share, units = killed.evidence["dead"], killed.evidence["units"]
    many = f"all {units}" if share == 1 else f"{share:.0%} of the {units}"
    told = f"by step {killed.evidence['by_step']:,} {many} units of `{killed.where}` are dead"
    out = list(found)
    out[began[-1]] = out[began[-1]]._replace(cause=f"{out[began[-1]].cause} · {told}")
    return out


def _initial(where: str, evidence: dict[str, Any], cause: str) -> Finding:
    return Finding(
        "poor_initialization", 0, where, "error", evidence, cause, "He or Glorot initialisation"
    )
