"""The sampled losses against the published formulas and TensorFlow's figures."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import softmax
from jaxml.softmax import Candidates

CLASSES, DIM = 7, 4


class Case(NamedTuple):
    """Inputs of a loss, as NumPy arrays; `temperature` is 1 where the loss has none."""

    inputs: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    biases: np.ndarray
    candidates: Candidates
    temperature: float = 1.0
    where: np.ndarray | None = None


def make_case(form="one", per_example=False, temperature=1.0):
    """Three examples; `form` is "one" label, "several", or "masked": several, in one row all masked."""
    rng = np.random.default_rng(0)
    labels = np.stack([rng.permutation(CLASSES)[:3] for _ in range(3)])
    labels = labels[:, 0] if form == "one" else labels
    true_counts = rng.uniform(0.05, 1.0, labels.shape).astype(np.float32)
    where = None
    if form == "masked":
        where = rng.random(labels.shape) < 0.7
        where[0] = False
        labels = np.where(where, labels, rng.choice([-1, 0, CLASSES, 2**30], labels.shape))
        true_counts = np.where(where, true_counts, np.nan)
    shape = (3, 6) if per_example else (6,)
    ids = rng.integers(0, CLASSES, shape)
    ids[..., 2] = CLASSES  # an empty slot
    ids[..., 4] = ids[..., 5]  # a duplicate
    counts = rng.uniform(0.05, 1.0, shape).astype(np.float32)
    return Case(
        inputs=rng.normal(size=(3, DIM)).astype(np.float32),
        labels=labels.astype(np.int32),
        weights=rng.normal(size=(CLASSES, DIM)).astype(np.float32),
        biases=rng.normal(size=CLASSES).astype(np.float32),
        candidates=Candidates(ids.astype(np.int32), counts, true_counts),
        temperature=temperature,
        where=where,
    )


class Variant(NamedTuple):
    kind: str
    correction: str = "both"
    remove: bool = True

    def __call__(self, case):
        arguments = (case.inputs, case.labels, case.weights, case.biases, case.candidates)
        options = dict(
            correction=self.correction, where=case.where, remove_accidental_hits=self.remove
        )
        if self.kind == "softmax":
            return softmax.sampled_softmax_loss(*arguments, temperature=case.temperature, **options)
        return softmax.nce_loss(*arguments, **options)

    def expected(self, case):
        """The published formulas in float64, from the scores of all classes."""
        x, weights, biases = map(np.float64, (case.inputs, case.weights, case.biases))
        scores = (x @ weights.T + biases) / case.temperature
        labels = case.labels.reshape(3, -1)
        present = np.ones(labels.shape, bool) if case.where is None else case.where
        true = np.take_along_axis(scores, labels.clip(0, CLASSES - 1), axis=1)
        true_counts = np.float64(case.candidates.true_expected_count).reshape(labels.shape)
        if self.correction == "both":
            true = true - np.log(np.where(present, true_counts, 1))
        ids = np.broadcast_to(case.candidates.ids, (3, case.candidates.ids.shape[-1]))
        sampled = np.take_along_axis(scores, ids.clip(0, CLASSES - 1), axis=1)
        there = (ids >= 0) & (ids < CLASSES)
        if self.correction != "none":
            counts = np.broadcast_to(case.candidates.expected_count, ids.shape)
            sampled = sampled - np.log(np.where(there, np.float64(counts), 1))
        if self.remove:
            there &= ~((ids[:, :, None] == labels[:, None]) & present[:, None]).any(2)
        sampled, number = np.where(there, sampled, -np.inf), np.maximum(present.sum(1), 1)
        if self.kind == "softmax":
            kept = present | ~present.any(1, keepdims=True)  # something, for the maximum
            every = np.concatenate([np.where(kept, true, -np.inf), sampled], axis=1)
            top = every.max(1, keepdims=True)
            below = np.where(present, top - true, 0).sum(1) / number
            losses = np.log(np.exp(every - top).sum(1)) + below
        else:
            terms = np.logaddexp(0, true) - true / number[:, None]
            losses = np.where(present, terms, 0).sum(1) + np.logaddexp(0, sampled).sum(1)
        return np.where(present.any(1), losses, 0)


VARIANTS = [
    Variant("softmax"),
    Variant("softmax", "negatives"),
    Variant("softmax", "none"),
    Variant("softmax", remove=False),
    Variant("nce", remove=False),
    Variant("nce", "negatives"),
]
ONE_OF_A_KIND = [Variant("softmax"), Variant("nce", remove=False)]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
every_kind = pytest.mark.parametrize("variant", ONE_OF_A_KIND, ids=lambda v: v.kind)
PARAMETERS = ("inputs", "weights", "biases", "temperature")


@functools.cache
def compiled(variant):
    """One program a variant for all cases of one shape."""

    def total(parameters, labels, candidates, where):
        case = Case(**parameters, labels=labels, candidates=candidates, where=where)
        loss = variant(case)
        return loss.sum(), loss

    return jax.jit(jax.value_and_grad(total, argnums=(0, 2), has_aux=True, allow_int=True))


def loss_and_gradients(variant, case):
    """The losses, and the gradients of their sum by parameters and expected counts."""
    parameters = {name: jnp.asarray(getattr(case, name), jnp.float32) for name in PARAMETERS}
    candidates = jax.tree.map(jnp.asarray, case.candidates)
    (_, loss), (gradients, of_candidates) = compiled(variant)(
        parameters, case.labels, candidates, case.where
    )
    counts = of_candidates.expected_count, of_candidates.true_expected_count
    assert not any(np.any(gradient) for gradient in counts)  # No gradient flows into counts.
    return loss, gradients


def all_finite(gradients):
    return all(np.isfinite(gradient).all() for gradient in gradients.values())


def reference_gradients(variant, case, step=1e-5):
    """Central differences of the float64 reference: good to about 1e-9."""
    gradients = {}
    for name in PARAMETERS:
        value = np.array(getattr(case, name), np.float64)
        gradient = np.zeros(value.shape)
        for at in np.ndindex(*value.shape):
            sides = []
            for sign in (1, -1):
                moved = value.copy()
                moved[at] += sign * step
                sides.append(variant.expected(case._replace(**{name: moved})).sum())
            gradient[at] = (sides[0] - sides[1]) / (2 * step)
        gradients[name] = gradient
    return gradients


@every_variant
@pytest.mark.parametrize("form", ["one", "masked"])
def test_value_and_gradients_agree_with_the_reference(variant, form):
    temperature = 0.7 if variant.kind == "softmax" else 1.0
    case = make_case(form, per_example=form == "masked", temperature=temperature)
    loss, gradients = loss_and_gradients(variant, case)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, variant.expected(case), rtol=2e-6, atol=2e-6)
    expected = reference_gradients(variant, case)
    for name in PARAMETERS[: 4 if variant.kind == "softmax" else 3]:
        np.testing.assert_allclose(
            gradients[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name
        )


@every_kind
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_logits_around_ten_thousand(variant, scale):
    case = make_case()
    # Integer logits are exact in float32, so every error is the loss's.
    case = case._replace(
        candidates=Candidates(case.candidates.ids, np.ones(6), np.ones(3)),
        inputs=np.full((3, DIM), scale / DIM, np.float32),
        weights=np.float32([[1.0] * DIM] * 4 + [[-1.0] * DIM] * 3),
        biases=np.arange(CLASSES, dtype=np.float32),
    )
    loss, gradients = loss_and_gradients(variant, case)
    np.testing.assert_allclose(loss, variant.expected(case), rtol=2e-6, atol=2e-6)
    assert all_finite(gradients)


@every_kind
def test_a_bias_of_minus_infinity_removes_a_class(variant):
    ids, counts = np.array([0, 1, 2, 2, 0, 0]), np.float32([0.5, 0.2, 0.9, 0.9, 0.5, 0.5])
    case = make_case()._replace(
        labels=np.array([3, 4, 5]), candidates=Candidates(ids, counts, np.ones(3))
    )
    biases = case.biases.copy()
    biases[1] = -np.inf
    loss, gradients = loss_and_gradients(variant, case._replace(biases=biases))
    without = Candidates(np.where(ids == 1, CLASSES, ids), counts, np.ones(3))
    expected = variant.expected(case._replace(candidates=without))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert all_finite(gradients) and not gradients["weights"][1].any()

    biases[3] = -np.inf  # the true class of the first example
    loss, gradients = loss_and_gradients(variant, case._replace(biases=biases))
    assert loss[0] == np.inf and np.isfinite(loss[1:]).all()
    assert not any(np.isnan(gradient).any() for gradient in gradients.values())


# tf.nn.sampled_softmax_loss and tf.nn.nce_loss of TensorFlow 2.21.0 (float32, CPU), given the
# inputs of `tensorflow_case` as `sampled_values`: the losses, and the Euclidean norms of the
# gradients of their sum with respect to inputs, weights and biases.
TENSORFLOW = [
    ("softmax", 1, False, [7.788142, 1.3103597, 3.1817343], [3.1468162, 6.5617637, 1.1042667]),
    ("softmax", 2, True, [9.064412, 2.440812, 5.202553], [3.6824253, 5.9218872, 1.5325557]),
    ("nce", 1, True, [16.895847, 5.190702, 6.407481], [5.1057518, 7.7953154, 2.9641789]),
    ("nce", 2, False, [18.494183, 10.806666, 8.529681], [5.4605433, 9.2783853, 4.1270189]),
]


def tensorflow_case(num_true):
    def waves(*shape, phase):
        return np.sin(np.arange(np.prod(shape)) * 1.3 + phase).reshape(shape).astype(np.float32)

    labels = [[2, 3], [6, 0], [1, 5]] if num_true == 2 else [[2], [6], [1]]
    true_counts = [[0.5, 0.4], [0.1, 0.9], [0.7, 0.2]] if num_true == 2 else [[0.5], [0.1], [0.7]]
    return Case(
        inputs=2 * waves(3, 4, phase=0.1),
        labels=np.array(labels),
        weights=waves(7, 4, phase=0.5),
        biases=waves(7, phase=0.9),
        candidates=Candidates(
            np.array([4, 0, 6, 2, 5]),
            np.float32([0.3, 0.9, 0.1, 0.5, 0.2]),
            np.float32(true_counts),
        ),
    )


@pytest.mark.parametrize("kind, num_true, remove, losses, norms", TENSORFLOW)
def test_equals_tensorflow(kind, num_true, remove, losses, norms):
    loss, gradients = loss_and_gradients(Variant(kind, "both", remove), tensorflow_case(num_true))
    np.testing.assert_allclose(loss, losses, rtol=2e-6)
    np.testing.assert_allclose(
        [np.linalg.norm(gradients[name]) for name in PARAMETERS[:3]], norms, rtol=2e-6
    )


@every_kind
@pytest.mark.parametrize("num_sampled", [0, 6])
def test_without_candidates_the_true_classes_are_left(variant, num_sampled):
    nothing = Candidates(np.full(num_sampled, CLASSES), np.zeros(num_sampled), np.ones((3, 3)))
    case = make_case("several")._replace(candidates=nothing, where=np.arange(9).reshape(3, 3) < 6)
    loss, gradients = loss_and_gradients(variant, case)
    np.testing.assert_allclose(loss, variant.expected(case), rtol=2e-6)
    assert loss[2] == 0.0 and all_finite(gradients)


@every_kind
def test_a_label_with_an_expected_count_of_zero_has_a_finite_loss(variant):
    case = make_case()
    impossible = Candidates(case.candidates.ids, case.candidates.expected_count, np.zeros(3))
    loss, gradients = loss_and_gradients(variant, case._replace(candidates=impossible))
    assert np.isfinite(loss).all() and all_finite(gradients)


# The row form.


def in_rows(case):
    """The row form's positional arguments, gathered from a case."""
    rows = case.weights[np.clip(case.candidates.ids, 0, CLASSES - 1)]
    labels = np.clip(case.labels, 0, CLASSES - 1)
    return case.inputs, case.weights[labels], rows, case.labels, case.candidates


def test_the_row_form_is_the_table_form():
    case = make_case("masked", per_example=True)
    ids = np.clip(case.candidates.ids, 0, CLASSES - 1)
    inputs, true_rows, sampled_rows, labels, candidates = in_rows(case)
    # Masked labels and empty slots may hold anything.
    true_rows = np.where(case.where[..., None], true_rows, np.nan)
    true_biases = np.where(case.where, case.biases[np.clip(labels, 0, CLASSES - 1)], np.nan)
    filled = candidates.ids < CLASSES
    sampled_rows = np.where(filled[..., None], sampled_rows, np.nan)
    biases = np.where(filled, case.biases[ids], np.nan)

    def total(inputs, true_rows, sampled_rows, biases):
        loss = softmax.sampled_softmax_loss_from_rows(
            inputs, true_rows, sampled_rows, labels, candidates, true_biases=true_biases,
            sampled_biases=biases, where=case.where, num_classes=CLASSES,
        )  # fmt: skip
        return loss.sum(), loss

    gradients, loss = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True))(
        inputs, true_rows, sampled_rows, biases
    )
    np.testing.assert_allclose(loss, Variant("softmax").expected(case), rtol=2e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[1][~case.where], 0.0)
    np.testing.assert_array_equal(gradients[2][~filled], 0.0)
    np.testing.assert_array_equal(gradients[3][~filled], 0.0)


def test_shared_rows_may_have_ids_and_counts_of_each_example():
    rng = np.random.default_rng(0)
    inputs, rows = rng.normal(size=(3, DIM)), rng.normal(size=(6, DIM))
    ids = np.tile(np.array([0, 4, 2, 6, 1, 5]), (3, 1))
    counts = rng.uniform(0.1, 1.0, (3, 6))
    counts[0, 3] = counts[:, 5] = 0.0  # empty for one example, and for all of them
    rows[5] = np.nan
    labels, true_rows = np.array([4, 3, 0]), rng.normal(size=(3, DIM))
    biases = np.append(rng.normal(size=5), np.nan)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def gradient(inputs, rows, biases):
        candidates = Candidates(ids, counts, np.ones(3))
        loss = softmax.sampled_softmax_loss_from_rows(
            inputs, true_rows, rows, labels, candidates, sampled_biases=biases
        )
        return loss.sum(), loss

    (_, loss), gradients = gradient(inputs, rows, biases)
    (_, expected), expected_gradients = gradient(
        inputs, np.tile(rows, (3, 1, 1)), np.tile(biases, (3, 1))
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradients, expected_gradients, rtol=1e-5, atol=1e-6)
    assert np.isfinite(loss).all() and np.isfinite(gradients).all()


def test_the_row_form_refuses_labels_only_as_far_as_it_knows_the_bound():
    case = make_case()._replace(labels=np.array([0, 10**6, 1]))
    loss = jax.eval_shape(lambda: softmax.sampled_softmax_loss_from_rows(*in_rows(case)))
    assert loss.shape == (3,)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 7\), got 1000000"):
        softmax.sampled_softmax_loss_from_rows(*in_rows(case), num_classes=CLASSES)
    negative = case._replace(labels=np.array([0, -3, 1]))
    with pytest.raises(ValueError, match="labels must be at least 0, got -3"):
        softmax.sampled_softmax_loss_from_rows(*in_rows(negative))


# Arguments that do not fit.


GOOD = make_case("several")


def drawn(**change):
    fields = {name: getattr(GOOD.candidates, name) for name in Candidates.__dataclass_fields__}
    return dict(candidates=Candidates(**fields | change))


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(biases=np.ones(CLASSES + 1)), r"biases must be \(7,\) or None, got \(8,\)"),
        (dict(temperature=0.0), "temperature must be .* above 0, got 0.0"),
        (dict(temperature=np.ones(3)), "temperature must be a scalar"),
        (drawn(ids=np.zeros((2, 6), int)), r"candidates.ids must be \[S\] or \(3, 'S'\)"),
        (drawn(ids=np.zeros(6)), "candidates.ids must be integers"),
        (drawn(expected_count=np.ones(5)), r"expected_count must be \(6,\), got \(5,\)"),
        (drawn(true_expected_count=np.ones(3)), r"true_expected_count must be \(3, 3\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        Variant("softmax")(GOOD._replace(**change))


@pytest.mark.parametrize(
    "position, options, match",
    [
        (1, {}, r"true_rows must be \(3, 3, 4\), got \(3, 3, 3\)"),
        (2, {}, r"sampled_rows must be \(6, 4\), got \(6, 3\)"),
        (None, dict(true_biases=np.ones(3)), r"true_biases must be \(3, 3\)"),
        (None, dict(sampled_biases=np.ones(3)), r"sampled_biases must be \(6,\)"),
        (None, dict(correction="logq"), r"correction must be one of .*'both'.*, got 'logq'"),
    ],
)
def test_rows_that_do_not_fit_are_refused(position, options, match):
    arguments = list(in_rows(GOOD))
    if position:
        arguments[position] = arguments[position][..., :3]
    with pytest.raises(ValueError, match=match):
        softmax.sampled_softmax_loss_from_rows(*arguments, **options)


@pytest.mark.parametrize("num_true", [1, 40])
def test_the_step_stores_scores_once_and_no_mask_of_hits_per_label(num_true):
    batch, num_sampled = 128, 512
    labels = jnp.zeros((batch, num_true), jnp.int32)
    candidates = Candidates(
        jnp.arange(num_sampled), jnp.ones(num_sampled), jnp.ones((batch, num_true))
    )

    def total(inputs, true_rows, sampled_rows, labels, candidates):
        return softmax.sampled_softmax_loss_from_rows(
            inputs, true_rows, sampled_rows, labels, candidates
        ).sum()

    rows = (jnp.ones((batch, 2)), jnp.ones((batch, num_true, 2)), jnp.ones((num_sampled, 2)))
    compiled = (
        jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
        .lower(*rows, labels, candidates)
        .compile()
    )
    # Scores of 4 bytes; two masks of one byte for the loop over many labels; and small change.
    scores = batch * num_sampled * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 1.75 * scores


def test_mining_keeps_the_candidates_with_the_highest_logits():
    """After correction and removal of hits."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(3, 5)).astype(np.float32)
    weights = rng.normal(size=(20, 5)).astype(np.float32)
    labels, counts = np.array([0, 2, 11]), rng.uniform(0.1, 1, 9).astype(np.float32)
    drawn = Candidates(np.arange(9), counts, np.ones(3, np.float32))

    def loss(inputs, weights, num_hard=4):
        return softmax.sampled_softmax_loss(
            inputs, labels, weights, None, drawn, correction="negatives", num_hard=num_hard
        ).sum()

    def expected(inputs, weights):
        logits = inputs @ weights[:9].T - jnp.log(counts)[None]
        logits = jnp.where(labels[:, None] == np.arange(9)[None], -jnp.inf, logits)
        true = (inputs * weights[labels]).sum(-1)
        every = [true[:, None], jnp.sort(logits, axis=-1)[:, 5:]]
        return (jax.nn.logsumexp(jnp.concatenate(every, axis=-1), axis=-1) - true).sum()

    got = jax.jit(jax.value_and_grad(loss, (0, 1)))(inputs, weights)
    wanted = jax.jit(jax.value_and_grad(expected, (0, 1)))(inputs, weights)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6), got, wanted)
    with pytest.raises(ValueError, match=r"num_hard must be .* \[1, 9\], got 10"):
        loss(inputs, weights, num_hard=10)
