"""Fitted states to what a file can hold, and back with their types."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.features import binning, categories, crosses, missing, scaling
from jaxml.features.texts import Texts, pack
from jaxml.features.transform import State, Transform

# What a saved pipeline is remade from: constructor and class of the state by a transform's name.
KINDS: dict[str, tuple[Callable[..., Transform], Any]] = {
    "bucketize": (binning.bucketize, binning.Buckets),
    "clipping": (scaling.clipping, scaling.Bounds),
    "cross": (crosses.cross, None),
    "hash_buckets": (categories.hash_buckets, None),
    "imputation": (missing.imputation, missing.Fill),
    "interpolated_buckets": (scaling.interpolated_buckets, scaling.Interpolated),
    "linear_scaling": (scaling.linear_scaling, scaling.Linear),
    "log_scaling": (scaling.log_scaling, scaling.Log),
    "missing_indicator": (missing.missing_indicator, None),
    "one_hot": (categories.one_hot, categories.OneHot),
    "quantile_buckets": (binning.quantile_buckets, binning.Buckets),
    "robust_scaling": (scaling.robust_scaling, scaling.ZScore),
    "uniform_buckets": (binning.uniform_buckets, binning.Buckets),
    "vocabulary": (categories.vocabulary, categories.Vocabulary),
    "z_score": (scaling.z_score, scaling.ZScore),
}


def typed(name: str, transforms: Sequence[Transform], states: Any) -> tuple[State, ...]:
    """The states of a chain, with the types that a checkpoint may have lost."""
    in_order = (
        [states[key] for key in sorted(states, key=int)] if isinstance(states, Mapping) else states
    )
    try:
        return tuple(
            _retyped(KINDS[each.name][1], own) if each.name in KINDS else own
            for each, own in zip(transforms, in_order, strict=True)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"state of feature {name!r} is not that of {list(transforms)}") from error


def _retyped(kind: Any, own: Any) -> State:
    if kind is None:  # nothing is fitted
        return ()
    if isinstance(own, kind):
        return own
    made = kind(**own) if isinstance(own, Mapping) else kind(*own)
    return kind(*(Texts(**each) if isinstance(each, Mapping) else each for each in made))


def written(state: State) -> Any:
    """A state as JSON can hold it: for each field dtype, shape and data; None for an empty one."""
    if not state:
        return None
    return {field: _array(value) for field, value in state._asdict().items()}


def _array(value: Any) -> dict[str, Any]:
    """An array as JSON: Python writes the shortest digits that give back a float64 to the bit."""
    if isinstance(value, Texts):
        texts = value.tolist()
        return {"dtype": "str", "shape": [len(texts)], "data": texts}
    array = np.asarray(value)
    if array.dtype.kind == "f":
        flat = array.astype(np.float64).ravel().tolist()
        data = [each if np.isfinite(each) else str(each) for each in flat]
    else:
        data = array.ravel().tolist()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def read_back(written: Any, kind: Any) -> State:
    """The state of that class which `written` wrote."""
    if written is None:
        return ()
    fields: dict[str, Any] = {}
    for field, given in written.items():
        data = given["data"]
        if given["dtype"] == "str":
            fields[field] = pack([data] if isinstance(data, str) else data)
            continue
        if given["dtype"].startswith("float"):
            data = [float(each) for each in data]
        fields[field] = np.array(data, given["dtype"]).reshape(given["shape"])
    return kind(**fields)
