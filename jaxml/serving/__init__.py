"""From a trained model to answers: bundles, their versions, static and dynamic inference.

    serving.save("bundle", model=predict, params=params, pipeline=fitted, schema=schema, training=columns)
    bundle = serving.load("bundle")
    bundle.predict(columns)["probability"]                 # [B]

    serving.leave(run, held_out=rows, gate=gate, model=predict, …)  # in an experiment, beside its results
    serving.publish(run, "store").passed                   # judged, tried in a server, and in use

Raw columns go through the fitted `FeaturePipeline` and the exported program in the same way everywhere: in
evaluation, in `predict` over a whole table, and in the server.
"""

from jaxml.serving.bundle import Bundle, BundleError, load, save
from jaxml.serving.cached import Cached
from jaxml.serving.candidate import Gate, Threshold, leave
from jaxml.serving.publishing import publish
from jaxml.serving.store import Store, StoreError

__all__ = [
    "Bundle",
    "BundleError",
    "Cached",
    "Gate",
    "Store",
    "StoreError",
    "Threshold",
    "leave",
    "load",
    "publish",
    "save",
]
