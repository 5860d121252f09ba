"""The battery of all transforms: laws that each of them obeys."""

import pickle

import numpy as np
import pytest

from jaxml import features
from jaxml.features import FeaturePipeline
from jaxml.features.counts import Counts
from jaxml.features.transform import REGISTRY, Transform

rng = np.random.default_rng(0)
X = rng.lognormal(2, 1, 501)
TEXTS = rng.choice(["UA", "B6", "AA", "DL"], 501)
IDS = rng.integers(0, 9, 501)

# A transform, values to fit on, and values of another kind that it refuses.
CASES = {
    "z_score": (features.z_score(), X, ["UA"]),
    "linear_scaling": (features.linear_scaling(-2, 2), X, ["UA"]),
    "log_scaling": (features.log_scaling(), X, ["UA"]),
    "interpolated_buckets": (features.interpolated_buckets(10), X, ["UA"]),
    "clipping": (features.clipping(quantiles=(0.05, 0.95)), X, ["UA"]),
    "clipping by value": (features.clipping(1, 20), X, ["UA"]),
    "bucketize": (features.bucketize([1, 5, 20]), X, ["UA"]),
    "quantile_buckets": (features.quantile_buckets(7), X, ["UA"]),
    "uniform_buckets": (features.uniform_buckets(7), X, ["UA"]),
    "imputation": (features.imputation(), X, ["UA"]),
    "missing_indicator": (features.missing_indicator(), X, None),
    "vocabulary": (features.vocabulary(3, 2), TEXTS, [1]),
    "vocabulary of numbers": (features.vocabulary(5), IDS, ["UA"]),
    "hash_buckets": (features.hash_buckets(50), TEXTS, None),
    "character_ngrams": (features.character_ngrams(50, 6), TEXTS, [1]),
    "characters": (features.characters("ABDLU6", 3), TEXTS, [1]),
    "one_hot": (features.one_hot(), IDS, ["UA"]),
    "cross": (features.cross(["a", "b"], 50), {"a": TEXTS, "b": IDS}, None),
}
each = pytest.mark.parametrize("name", CASES)


def take(values, at):
    return {k: v[at] for k, v in values.items()} if isinstance(values, dict) else values[at]


def test_every_transform_is_in_the_battery():
    assert {name.split()[0] for name in CASES} == set(REGISTRY)
    assert all(getattr(features, name) is kind for name, kind in REGISTRY.items())


@each
def test_a_value_gets_the_same_bits_alone_and_in_any_shape(name):
    transform, values, _ = CASES[name]
    state = transform.fit(values)
    whole = transform.apply(state, values)
    assert whole.dtype == (np.int32 if transform.gives in ("id", "ids") else np.float32)
    for i in (0, 7, 500):
        np.testing.assert_array_equal(transform.apply(state, take(values, i)), whole[i])
    np.testing.assert_array_equal(transform.apply(state, take(values, slice(3, 9))), whole[3:9])
    square = {k: v[:500].reshape(5, 100) for k, v in values.items()} if isinstance(
        values, dict
    ) else values[:500].reshape(5, 100)  # fmt: skip
    made = transform.apply(state, square)
    np.testing.assert_array_equal(made.reshape(500, *whole.shape[1:]), whole[:500])
    assert transform.apply(state, take(values, slice(0, 0))).shape[0] == 0


@each
def test_files_and_pickles_give_back_every_bit(name):
    transform, values, _ = CASES[name]
    state = transform.fit(values)
    back, its_state = Transform.from_json(transform.to_json(state))
    twin = pickle.loads(pickle.dumps(transform))
    assert repr(back) == repr(twin) == repr(transform) and back == twin == transform
    wanted = transform.apply(state, values)
    np.testing.assert_array_equal(back.apply(its_state, values), wanted)
    np.testing.assert_array_equal(twin.apply(state, values), wanted)


@each
def test_empty_columns_and_other_types_are_refused(name):
    transform, values, other = CASES[name]
    with pytest.raises(ValueError, match="values must hold at least one row, got none"):
        transform.fit(take(values, slice(0, 0)))
    if other is not None:
        with pytest.raises(ValueError, match=r"must (hold|be) (numbers|text|ids).*got"):
            transform.apply(transform.fit(values), other)


@each
def test_outputs_stay_within_what_is_stated(name):
    transform, values, _ = CASES[name]
    state = transform.fit(values)
    output, made = transform.output(state), transform.apply(state, values)
    if transform.gives in ("id", "ids"):
        assert made.shape == (501,) + (output.length,) * (transform.gives == "ids")
        assert made.min() >= 0 and made.max() < output.width == len(
            transform.labels(state, output.width)
        )
    else:
        assert made.min() >= np.float32(output.low) and made.max() <= np.float32(output.high)


@pytest.mark.parametrize("name", [n for n, (t, v, _) in CASES.items() if v is X and t.reads])
def test_missing_values_and_infinities_are_left_out_of_the_fit(name):
    transform = CASES[name][0]
    holes = np.concatenate([X, [np.nan, np.inf, np.nan, -np.inf]])
    for one, other in zip(transform.fit(holes), transform.fit(X), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="must hold a finite number, got none in 2 rows"):
        transform.fit([np.nan, np.inf])
    with pytest.raises(ValueError, match="must hold numbers, got texts such as 'B6'"):
        transform.fit(["UA", "B6"])


@each
def test_counts_of_chunks_fit_the_same_state(name):
    transform, values, _ = CASES[name]
    if transform.sources or not transform.reads:
        return
    parts = [Counts().update(values[i::3]) for i in (2, 0, 1)]
    state = transform.finish(parts[0].merge(parts[1].merge(parts[2])))
    wanted = transform.apply(transform.fit(values), values)
    np.testing.assert_array_equal(transform.apply(state, values), wanted)


def test_options_from_numpy_are_those_from_python():
    quantiles = features.clipping(quantiles=np.array([0.1, 0.9]))
    for from_numpy, plain in [
        (features.clipping(np.float32(0), np.inf), features.clipping(0)),
        (quantiles, features.clipping(quantiles=(0.1, 0.9))),
        (features.uniform_buckets(np.float64(3)), features.uniform_buckets(3)),
        (features.bucketize(np.arange(1, 3)), features.bucketize([1, 2])),
        (features.cross(np.array(["id", "x"]), 9), features.cross(("id", "x"), 9)),
    ]:
        assert repr(from_numpy) == repr(plain) and from_numpy == plain
    assert repr(quantiles) == "clipping(quantiles=(0.1, 0.9))"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: features.linear_scaling(1, 1), "high must be a finite number above 1.0, got 1"),
        (lambda: features.log_scaling(-1), "shift must be a finite number of at least 0, got -1"),
        (lambda: features.clipping(), "low, high or quantiles must be given"),
        (lambda: features.clipping(2, 1), "low must be at most high, got 2.0 and 1.0"),
        (lambda: features.clipping(2, quantiles=(0, 1)), "quantiles must be given without low"),
        (lambda: features.clipping(quantiles=(0.5, 1.5)), "quantiles must be two numbers"),
        (lambda: features.interpolated_buckets(0), "num_buckets must be an integer of at least 1"),
        (lambda: features.uniform_buckets(np.inf), "num_buckets must be an integer"),
        (lambda: features.bucketize([]), "boundaries must be one or more finite numbers"),
        (lambda: features.bucketize([1, 1]), "boundaries must be"),
        (lambda: features.imputation("mode"), "strategy must be one of 'mean'"),
        (lambda: features.imputation("constant"), "value must be given with strategy 'constant'"),
        (lambda: features.vocabulary(0), "max_size must be an integer of at least 1, got 0"),
        (lambda: features.vocabulary(3, 0), "num_oov must be an integer"),
        (lambda: features.vocabulary(min_count=0), "min_count must be an integer"),
        (lambda: features.hash_buckets(0), "num_buckets must be an integer in"),
        (lambda: features.hash_buckets(5, seed=-1), "seed must be an integer"),
        (lambda: features.character_ngrams(0, 5), "num_buckets must be an integer in"),
        (lambda: features.character_ngrams(5, 0), "max_ngrams must be an integer of at least 1"),
        (lambda: features.characters("", 5), "alphabet must be a text of characters, got ''"),
        (lambda: features.characters("aba", 5), "alphabet must have each character once"),
        (lambda: features.characters("ab", 0), "max_length must be an integer of at least 1"),
        (lambda: features.cross("ab", 5), "columns must be two names or more, got 'ab'"),
        (lambda: features.cross(["a", "b"], 0), "num_buckets must be an integer"),
        (lambda: features.one_hot(0), "depth must be an integer of at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "abc"], r"values\[1\] must be a text of 1 to 2 characters, got 'abc'"),
        (["a", None], r"values\[1\] must be a text of 1 to 2 characters, got "),
        (["a", "ac"], r"values\[1\] must be of the characters 'ab', got 'c' in 'ac'"),
    ],
)
def test_texts_of_other_characters_are_refused(values, message):
    transform = features.characters("ab", 2)
    with pytest.raises(ValueError, match=message):
        transform.apply(transform.fit(["a"]), values)


def test_a_transform_of_ones_own_is_found_by_name(tmp_path):
    class square(Transform):
        gives = "number"

        def _options(self):
            return {}

        def run(self, state, column):
            return column.numbers() ** 2

    try:
        fitted = FeaturePipeline({"x": [square(), features.z_score()]}).fit({"x": X})
        fitted.save(tmp_path / "features.json")
        np.testing.assert_allclose(
            FeaturePipeline.load(tmp_path / "features.json")({"x": X})["x"],
            (X**2 - (X**2).mean()) / (X**2).std(), rtol=1e-5, atol=1e-6,
        )  # fmt: skip
    finally:
        del REGISTRY["square"]
