"""Metrics: exact figures in one call, mergeable ones in `streaming`, thresholds, slices, intervals.

`metrics.roc_auc(labels, scores)` is exact, in float64 on the host, and refuses bad rows by their number.
`metrics.streaming.roc_auc()` is `(empty, update, merge, compute)` over a small state, under `jit`, `vmap`,
`scan` and sharding. Where the two have a name in common they agree.

Labels and scores may have any shape [...]. Further arguments of all of them, by keyword, are

    weights: of the labels' shape, finite and at least 0; None counts each row once. A weight of 2 is the
        row twice, 0 the row left out.
    mask: of that shape, booleans (or zeros and ones). A row with False does not count, whatever it holds,
        NaN included, so that batches can be padded.

An undefined value (one class only, no rows) is NaN, without a warning. A ValueError names the argument and
the row of a label, score or weight that is out of range.
"""

# ruff: noqa: F403

from jaxml.metrics import (
    calibration,
    confusion,
    curves,
    metric,
    regression,
    resampling,
    slices,
    streaming,
    thresholds,
)
from jaxml.metrics.calibration import *
from jaxml.metrics.confusion import *
from jaxml.metrics.curves import *
from jaxml.metrics.metric import *
from jaxml.metrics.regression import *
from jaxml.metrics.resampling import *
from jaxml.metrics.slices import *
from jaxml.metrics.thresholds import *

__all__ = [
    "streaming",
    *calibration.__all__,
    *confusion.__all__,
    *curves.__all__,
    *metric.__all__,
    *regression.__all__,
    *resampling.__all__,
    *slices.__all__,
    *thresholds.__all__,
]
