"""The sampled losses: one battery for all, then TensorFlow's figures and each loss by itself."""

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
    temperature: float
    where: np.ndarray | None


def make_case(form="one", per_example=False, batch=(3,), temperature=1.0, seed=0):
    """`form` is "one" label, "several", or "masked": several, some masked, in one row all."""
    rng = np.random.default_rng(seed)
    several = form != "one"
    labels = np.stack([rng.permutation(CLASSES)[:3] for _ in range(np.prod(batch, dtype=int))])
    labels = labels.reshape(*batch, 3) if several else labels[:, 0].reshape(batch)
    where = None
    if form == "masked":
        where = rng.random(labels.shape) < 0.7
        where.reshape(-1, 3)[0] = False
        labels = np.where(where, labels, rng.choice([-1, 0, CLASSES, 2**30], labels.shape))
    shape = (*batch, 6) if per_example else (6,)
    ids = rng.integers(0, CLASSES, shape)
    ids[..., 2] = CLASSES  # an empty slot
    ids[..., 4] = ids[..., 5]  # a duplicate
    return Case(
        inputs=rng.normal(size=(*batch, DIM)).astype(np.float32),
        labels=labels.astype(np.int32),
        weights=rng.normal(size=(CLASSES, DIM)).astype(np.float32),
        biases=rng.normal(size=CLASSES).astype(np.float32),
        candidates=Candidates(
            ids.astype(np.int32),
            rng.uniform(0.05, 1.0, shape).astype(np.float32),
            rng.uniform(0.05, 1.0, labels.shape).astype(np.float32),
        ),
        temperature=temperature,
        where=where,
    )


def reference(kind, case, correction="both", remove=True):
    """The published formulas, one example and one class at a time, in float64."""
    case = case._replace(
        **{name: np.float64(getattr(case, name)) for name in ("inputs", "weights", "biases")}
    )
    num_classes = len(case.weights)
    losses = []
    batch = case.inputs.shape[:-1]
    shared = case.candidates.ids.ndim == 1
    for at in np.ndindex(*batch):
        x = case.inputs[at]
        labels = np.atleast_1d(case.labels[at])
        true_counts = np.atleast_1d(np.float64(case.candidates.true_expected_count[at]))
        present = np.ones(labels.shape, bool) if case.where is None else case.where[at]
        present = np.atleast_1d(present)
        ids = case.candidates.ids if shared else case.candidates.ids[at]
        counts = np.float64(
            case.candidates.expected_count if shared else case.candidates.expected_count[at]
        )
        labels, true_counts = labels[present], true_counts[present]
        if not len(labels):
            losses.append(0.0)
            continue

        def logit(c, x=x):
            return (x @ case.weights[c] + case.biases[c]) / case.temperature

        true = np.array([logit(c) for c in labels])
        if kind == "full":
            everything = np.array([logit(c) for c in range(num_classes)])
            top = everything.max()
            losses.append(np.log(np.exp(everything - top).sum()) + (top - true).mean())
            continue
        if correction == "both":
            true = true - np.log(true_counts)
        sampled = np.array(
            [
                logit(c) - (np.log(n) if correction != "none" else 0.0)
                for c, n in zip(ids, counts, strict=True)
                if 0 <= c < num_classes and not (remove and c in labels)
            ]
        )
        if kind == "softmax":
            every = np.concatenate([true, sampled])
            top = every.max()
            losses.append(np.log(np.exp(every - top).sum()) + (top - true).mean())
        else:
            terms = np.logaddexp(0, true) - true / len(true)
            losses.append(terms.sum() + np.logaddexp(0, sampled).sum())
    return np.reshape(losses, batch)


class Variant(NamedTuple):
    kind: str
    correction: str = "both"
    remove: bool = True

    def __call__(self, case):
        """The loss of a case, whatever options this kind of loss has."""
        arguments = (case.inputs, case.labels, case.weights, case.biases)
        if self.kind == "full":
            return softmax.full_softmax_loss(
                *arguments, temperature=case.temperature, where=case.where
            )
        options = dict(correction=self.correction, where=case.where)
        if self.kind == "softmax":
            return softmax.sampled_softmax_loss(
                *arguments,
                case.candidates,
                remove_accidental_hits=self.remove,
                temperature=case.temperature,
                **options,
            )
        if self.kind == "logistic":
            return softmax.sampled_logistic_loss(*arguments, case.candidates, **options)
        return softmax.nce_loss(
            *arguments, case.candidates, remove_accidental_hits=self.remove, **options
        )

    def expected(self, case):
        return reference(self.kind, case, self.correction, self.remove)

    @property
    def has_temperature(self):
        return self.kind in ("full", "softmax")


VARIANTS = [
    Variant("full"),
    Variant("softmax"),
    Variant("softmax", "negatives"),
    Variant("softmax", "none"),
    Variant("softmax", remove=False),
    Variant("nce", remove=False),
    Variant("nce", "negatives"),
    Variant("logistic"),
]
ONE_OF_A_KIND = [Variant("softmax"), Variant("nce", remove=False)]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
every_kind = pytest.mark.parametrize("variant", ONE_OF_A_KIND, ids=lambda v: v.kind)
PARAMETERS = ("inputs", "weights", "biases", "temperature")


def parameters(case):
    return {name: jnp.asarray(getattr(case, name), jnp.float32) for name in PARAMETERS}


def loss_of(variant, case):
    """The losses, compiled; the labels stay values, and are checked."""
    return jax.jit(lambda p: variant(case._replace(**p)))(parameters(case))


def loss_and_gradients(variant, case, given=None):
    """The same, and the gradients of their sum; at the parameters given, or at the case's own."""

    def total(parameters):
        loss = variant(case._replace(**parameters))
        return loss.sum(), loss

    gradient = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, loss), gradients = gradient(parameters(case) if given is None else given)
    return loss, gradients


def reference_gradients(variant, case, step=1e-5, names=PARAMETERS):
    """Central differences of the float64 reference: good to about 1e-9."""
    gradients = {}
    for name in names:
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


# The battery.


@functools.cache
def battery(form):
    """A case of this form, and the losses and gradients of all variants, compiled as one."""
    case = make_case(
        form,
        per_example=form == "several",
        batch=(2, 2) if form == "one" else (3,),
        temperature=0.7,
    )

    @jax.jit
    def run(parameters):
        return [loss_and_gradients(variant, case, parameters) for variant in VARIANTS]

    return case, dict(zip(VARIANTS, run(parameters(case)), strict=True))


@every_variant
@pytest.mark.parametrize("form", ["one", "several", "masked"])
def test_value_and_gradients_agree_with_the_reference(variant, form):
    case, results = battery(form)
    if not variant.has_temperature:
        case = case._replace(temperature=1.0)
    loss, gradients = results[variant]
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, variant.expected(case), rtol=2e-6, atol=2e-6)
    expected = reference_gradients(variant, case)
    for name in PARAMETERS[: 4 if variant.has_temperature else 3]:
        np.testing.assert_allclose(
            gradients[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize(
    "variant, per_example",
    [*((variant, False) for variant in ONE_OF_A_KIND), (Variant("softmax"), True)],
    ids=str,
)
def test_jit_equals_eager_and_vmap_equals_a_loop(variant, per_example):
    case = make_case("masked", per_example)
    candidates = case.candidates
    eager = variant(case)

    @jax.jit
    def jitted(inputs, labels, where, true_expected_count, ids, expected_count):
        candidates = Candidates(ids, expected_count, true_expected_count)
        return variant(
            case._replace(inputs=inputs, labels=labels, where=where, candidates=candidates)
        )

    each = (case.inputs, case.labels, case.where, candidates.true_expected_count)
    drawn = (candidates.ids, candidates.expected_count)
    np.testing.assert_allclose(jitted(*each, *drawn), eager, rtol=1e-6, atol=1e-6)

    axis = 0 if per_example else None
    mapped = jax.vmap(jitted, in_axes=(0, 0, 0, 0, axis, axis))(*each, *drawn)
    np.testing.assert_allclose(mapped, eager, rtol=1e-6, atol=1e-6)
    looped = [
        jitted(*(value[i] for value in each), *(v[i] if per_example else v for v in drawn))
        for i in range(3)
    ]
    np.testing.assert_allclose(looped, eager, rtol=1e-6, atol=1e-6)


@every_kind
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_logits_around_ten_thousand(variant, scale):
    case = make_case()
    # Whole logits, exact in float32: what is left to err is the loss.
    case = case._replace(
        candidates=Candidates(case.candidates.ids, np.ones(6), np.ones(3)),
        inputs=np.full((3, DIM), scale / DIM, np.float32),
        weights=np.float32([[1.0] * DIM] * 4 + [[-1.0] * DIM] * 3),
        biases=np.arange(CLASSES, dtype=np.float32),
    )
    loss, gradients = loss_and_gradients(variant, case)
    np.testing.assert_allclose(loss, variant.expected(case), rtol=2e-6, atol=2e-6)
    expected = reference_gradients(variant, case, step=1e-4)
    np.testing.assert_allclose(gradients["biases"], expected["biases"], atol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@every_kind
def test_a_bias_of_minus_infinity_takes_a_class_out(variant):
    case = make_case()
    candidates = Candidates(np.array([0, 1, 2]), np.float32([0.5, 0.2, 0.9]), np.ones(3))
    case = case._replace(labels=np.array([3, 4, 5]), candidates=candidates)
    biases = case.biases.copy()
    biases[1] = -np.inf
    loss, gradients = loss_and_gradients(variant, case._replace(biases=biases))
    kept = np.array([0, 2, 3, 4, 5, 6])
    without = Candidates(np.array([0, 1]), np.float32([0.5, 0.9]), np.ones(3))
    expected = variant.expected(
        case._replace(
            labels=np.array([2, 3, 4]),
            weights=case.weights[kept],
            biases=case.biases[kept],
            candidates=without,
        )
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert not gradients["weights"][1].any()

    biases[3] = -np.inf  # the true class of the first example
    loss, gradients = loss_and_gradients(variant, case._replace(biases=biases))
    assert loss[0] == np.inf and np.isfinite(loss[1:]).all()
    assert not any(np.isnan(gradient).any() for gradient in gradients.values())


@every_kind
def test_an_example_without_labels_has_loss_and_gradient_zero_whatever_it_holds(variant):
    case = make_case("several")
    clean_loss, clean = loss_and_gradients(variant, case._replace(where=np.ones((3, 3), bool)))
    inputs = np.concatenate([case.inputs, [[np.nan, np.inf, -np.inf, 1.0]]]).astype(np.float32)
    counts = np.concatenate([case.candidates.true_expected_count, [[0.0, np.nan, 1.0]]])
    case = case._replace(
        inputs=inputs,
        labels=np.concatenate([case.labels, [[-1, 10**9, 2]]]),
        candidates=case.candidates.__class__(
            case.candidates.ids, case.candidates.expected_count, counts.astype(np.float32)
        ),
        where=np.array([[True] * 3] * 3 + [[False] * 3]),
    )
    loss, gradients = loss_and_gradients(variant, case)
    assert loss[3] == 0.0
    np.testing.assert_array_equal(gradients["inputs"][3], 0.0)
    np.testing.assert_allclose(loss[:3], clean_loss, rtol=1e-6)
    for name in ("weights", "biases", "temperature"):
        np.testing.assert_allclose(gradients[name], clean[name], rtol=1e-5, atol=1e-6)

    nothing, gradients = loss_and_gradients(variant, case._replace(where=np.zeros((4, 3), bool)))
    np.testing.assert_array_equal(nothing, 0.0)
    assert not any(np.any(gradient) for gradient in gradients.values())


@every_kind
def test_derivatives_of_second_order(variant):
    """The Hessian times a direction, in forward and in reverse mode over the gradient."""
    case = make_case("several")
    direction = np.random.default_rng(1).normal(size=case.inputs.shape).astype(np.float32)

    @jax.jit
    def both_modes(inputs):
        gradient = jax.grad(lambda inputs: variant(case._replace(inputs=inputs)).sum())
        forward = jax.jvp(gradient, (inputs,), (direction,))[1]
        return forward, jax.grad(lambda inputs: (gradient(inputs) * direction).sum())(inputs)

    def reference_gradient(move):
        inputs = case.inputs.astype(np.float64) + move * direction
        return reference_gradients(variant, case._replace(inputs=inputs), names=("inputs",))

    sides = [reference_gradient(move)["inputs"] for move in (1e-3, -1e-3)]
    expected = (sides[0] - sides[1]) / 2e-3
    assert np.abs(expected).max() > 0.1
    for product in both_modes(case.inputs):
        np.testing.assert_allclose(product, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_gradients_lower_for_accelerators(platform):
    case = make_case("masked")
    given = {name: jnp.asarray(getattr(case, name), jnp.bfloat16) for name in PARAMETERS[:3]}

    def total(parameters):
        return sum(variant(case._replace(**parameters)).sum() for variant in VARIANTS)

    exported = jax.export.export(jax.jit(jax.grad(total)), platforms=[platform])(given)
    assert exported.platforms == (platform,)


# Published semantics.

# tf.nn.sampled_softmax_loss and tf.nn.nce_loss of TensorFlow 2.21.0 (float32, CPU), given the
# inputs of `tensorflow_case` as `sampled_values`: the losses, and the Euclidean norms of the
# gradients of their sum with respect to inputs, weights and biases.
TENSORFLOW = [
    ("softmax", 1, True, [7.7877274, 0.9960283, 3.1817343], [3.3165425, 6.7845771, 1.1307161]),
    ("softmax", 1, False, [7.788142, 1.3103597, 3.1817343], [3.1468162, 6.5617637, 1.1042667]),
    ("softmax", 2, True, [9.064412, 2.440812, 5.202553], [3.6824253, 5.9218872, 1.5325557]),
    ("softmax", 2, False, [9.064827, 2.770029, 5.203282], [3.5115481, 5.7308024, 1.5057264]),
    ("nce", 1, True, [16.895847, 5.190702, 6.407481], [5.1057518, 7.7953154, 2.9641789]),
    ("nce", 1, False, [17.191147, 8.474787, 6.407481], [5.0005230, 8.4216572, 3.6142809]),
    ("nce", 2, True, [18.198883, 6.635485, 8.4283], [5.2980069, 7.9128024, 3.1127385]),
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
        temperature=1.0,
        where=None,
    )


@pytest.mark.parametrize("kind, num_true, remove, losses, norms", TENSORFLOW)
def test_numbers_that_tensorflow_gave(kind, num_true, remove, losses, norms):
    case = tensorflow_case(num_true)
    loss, gradients = loss_and_gradients(Variant(kind, "both", remove), case)
    np.testing.assert_allclose(loss, losses, rtol=2e-6)
    np.testing.assert_allclose(
        [np.linalg.norm(gradients[name]) for name in PARAMETERS[:3]], norms, rtol=2e-6
    )


@pytest.mark.parametrize("correction", ["both", "negatives", "none"])
@pytest.mark.parametrize("form", ["one", "masked"])
def test_all_classes_as_candidates_are_the_full_softmax(correction, form):
    case = make_case(form, temperature=0.6)
    order = np.random.default_rng(1).permutation(CLASSES).astype(np.int32)
    candidates = Candidates(order, np.ones(CLASSES), np.ones(case.labels.shape))
    case = case._replace(candidates=candidates)
    loss, gradients = loss_and_gradients(Variant("softmax", correction), case)
    full_loss, full_gradients = loss_and_gradients(Variant("full"), case)
    np.testing.assert_allclose(loss, full_loss, rtol=2e-6, atol=2e-6)
    for name in PARAMETERS:
        np.testing.assert_allclose(gradients[name], full_gradients[name], rtol=1e-5, atol=2e-6)


def test_duplicates_count_as_often_as_they_occur():
    case = make_case()

    def loss(ids, counts):
        candidates = Candidates(np.array(ids), np.float32(counts), np.ones(3, np.float32))
        labels = np.array([1, 2, 3])
        return loss_of(Variant("softmax"), case._replace(labels=labels, candidates=candidates))

    twice = loss([5, 6, 5], [0.4, 0.3, 0.4])
    np.testing.assert_allclose(twice, loss([5, 6], [0.2, 0.3]), rtol=1e-6)
    assert (twice > loss([5, 6], [0.4, 0.3])).all()


@pytest.mark.parametrize("correction", ["both", "negatives"])
def test_the_corrected_logq_of_2025_has_the_gradient_of_negatives(correction):
    """Khrylchenko et al., arXiv 2507.09331, with p from the same N as the logarithm."""
    case = make_case(seed=3)
    case = case._replace(
        labels=np.array([0, 4, 6]),
        candidates=Candidates(
            np.array([4, 1, 2, 2, 0]), np.float32([0.3, 0.7, 0.2, 0.2, 0.9]), np.float32([0.5] * 3)
        ),
    )
    ids, counts = case.candidates.ids, case.candidates.expected_count

    def corrected(p):
        true = (p["inputs"] * p["weights"][case.labels]).sum(-1) + p["biases"][case.labels]
        sampled = p["inputs"] @ p["weights"][ids].T + p["biases"][ids][None]
        sampled = jnp.where(ids[None] == case.labels[:, None], -jnp.inf, sampled)
        log_estimate = jax.nn.logsumexp(sampled - jnp.log(counts)[None], axis=-1)
        probability = jax.nn.sigmoid(true - log_estimate)
        return (jax.lax.stop_gradient(1 - probability) * (log_estimate - true)).sum()

    expected = jax.jit(jax.grad(corrected))(parameters(case))
    _, gradients = loss_and_gradients(Variant("softmax", correction), case)
    agree = [
        np.allclose(gradients[name], expected[name], rtol=1e-5, atol=1e-6)
        for name in ("inputs", "weights", "biases")
    ]
    # "both" is there to show that the comparison can tell.
    assert agree == [correction == "negatives"] * 3


@pytest.mark.parametrize("unique", [True, False])
def test_negatives_estimate_the_partition_function_without_bias(unique):
    """exp(loss) · exp(z_i) − exp(z_i) is N, whose mean is the sum over the other classes."""
    logits = np.random.default_rng(0).normal(size=40).astype(np.float32)
    label, sampler = np.array([3]), softmax.log_uniform(40)

    @jax.jit
    @jax.vmap
    def estimate(key):
        candidates = sampler.sample((), key, label, 12, unique=unique)
        loss = softmax.sampled_softmax_loss(
            np.ones((1, 1)), label, logits[:, None], None, candidates, correction="negatives"
        )
        return jnp.expm1(loss[0]) * jnp.exp(logits[3])

    estimates = np.float64(estimate(jax.random.split(jax.random.key(0), 4000)))
    expected = np.exp(np.float64(np.delete(logits, 3))).sum()
    standard_error = estimates.std() / np.sqrt(len(estimates))
    assert standard_error < 0.02 * expected
    assert abs(estimates.mean() - expected) < 4 * standard_error


# What never enters a loss.


def in_rows(case):
    """The row form's positional arguments, gathered from a case."""
    rows = case.weights[np.clip(case.candidates.ids, 0, CLASSES - 1)]
    labels = np.clip(case.labels, 0, CLASSES - 1)
    return case.inputs, case.weights[labels], rows, case.labels, case.candidates


ROW_FORMS = pytest.mark.parametrize(
    "table_form, row_form",
    [
        (softmax.sampled_softmax_loss, softmax.sampled_softmax_loss_from_rows),
        (softmax.nce_loss, softmax.nce_loss_from_rows),
    ],
)


@ROW_FORMS
@pytest.mark.parametrize("form, per_example", [("one", False), ("masked", True)])
def test_the_row_form_is_the_table_form(table_form, row_form, form, per_example):
    case = make_case(form, per_example)
    labels, candidates = case.labels, case.candidates

    @jax.jit
    def both(inputs, weights, biases):
        of_rows = row_form(
            *in_rows(case._replace(inputs=inputs, weights=weights)),
            true_biases=biases[np.clip(labels, 0, CLASSES - 1)],
            sampled_biases=biases[np.clip(candidates.ids, 0, CLASSES - 1)],
            where=case.where,
            num_classes=CLASSES,
        )
        return of_rows, table_form(inputs, labels, weights, biases, candidates, where=case.where)

    given = map(jnp.asarray, (case.inputs, case.weights, case.biases))
    np.testing.assert_allclose(*both(*given), rtol=1e-6)


@ROW_FORMS
@pytest.mark.parametrize("num_classes", [None, CLASSES])
def test_nan_rows_in_empty_slots_leak_nowhere(table_form, row_form, num_classes):
    case = make_case()
    ids = np.array([2, CLASSES, 3, -1, CLASSES, 5])
    counts = np.float32([0.3, 0.0, 0.0, np.nan, 0.0 if num_classes is None else 0.5, 0.6])
    kept = np.array([0, 5])
    empty = np.array([1, 2, 3, 4])
    biases = np.where(np.isin(np.arange(6), kept), 0.2, np.nan).astype(np.float32)
    case = case._replace(candidates=Candidates(ids, counts, np.ones(3, np.float32)))
    inputs, true_rows, sampled_rows, labels, candidates = in_rows(case)
    sampled_rows = np.where(np.isin(np.arange(6), kept)[:, None], sampled_rows, np.nan)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2, 3), has_aux=True)
    def gradient(inputs, true_rows, sampled_rows, biases, candidates):
        options = dict(sampled_biases=biases, num_classes=num_classes)
        loss = row_form(inputs, true_rows, sampled_rows, labels, candidates, **options)
        return loss.sum(), loss

    (_, loss), gradients = gradient(inputs, true_rows, sampled_rows, biases, candidates)
    fewer = Candidates(ids[kept], counts[kept], candidates.true_expected_count)
    (_, expected_loss), expected = gradient(
        inputs, true_rows, sampled_rows[kept], biases[kept], fewer
    )
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for ours, theirs in zip(gradients[:2], expected[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradients[2:], expected[2:], strict=True):
        np.testing.assert_allclose(ours[kept], theirs, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ours[empty], 0.0)


@pytest.mark.parametrize("num_sampled", [0, 4])
@pytest.mark.parametrize("variant", ONE_OF_A_KIND, ids=lambda v: v.kind)
def test_without_any_candidate_the_true_classes_are_left(variant, num_sampled):
    case = make_case("several")
    nothing = Candidates(np.full(num_sampled, CLASSES), np.zeros(num_sampled), np.ones((3, 3)))
    case = case._replace(candidates=nothing, where=np.array([[True] * 3, [True] * 3, [False] * 3]))
    loss, gradients = loss_and_gradients(variant, case)
    np.testing.assert_allclose(loss, variant.expected(case), rtol=2e-6)
    assert loss[2] == 0.0
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@ROW_FORMS
def test_nan_rows_of_masked_labels_leak_nowhere(table_form, row_form):
    case = make_case("masked")
    inputs, true_rows, sampled_rows, labels, candidates = in_rows(case)
    true_rows = np.where(case.where[..., None], true_rows, np.nan)
    biases = np.where(case.where, 0.0, np.nan)

    def total(inputs, true_rows, sampled_rows):
        loss = row_form(
            inputs, true_rows, sampled_rows, labels, candidates,
            true_biases=biases, where=case.where, num_classes=CLASSES,
        )  # fmt: skip
        return loss.sum(), loss

    gradients, loss = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(
        inputs, true_rows, sampled_rows
    )
    expected = jax.jit(
        lambda inputs: table_form(inputs, labels, case.weights, None, candidates, where=case.where)
    )(inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[1][~case.where], 0.0)


def test_rows_that_were_not_gathered_have_no_gradient():
    case = make_case()
    _, gradients = loss_and_gradients(Variant("softmax"), case)
    touched = np.union1d(case.labels, case.candidates.ids[case.candidates.ids < CLASSES])
    untouched = np.setdiff1d(np.arange(CLASSES), touched)
    assert untouched.size
    np.testing.assert_array_equal(gradients["weights"][untouched], 0.0)
    assert np.all(np.any(gradients["weights"][touched] != 0, axis=-1))


def test_a_masked_label_is_no_accidental_hit():
    case = make_case("several", batch=(1,))
    candidates = Candidates(np.array([4, 5]), np.ones(2), np.ones((1, 3)))
    case = case._replace(
        labels=np.array([[0, 4, 1]]), where=np.array([[True, False, True]]), candidates=candidates
    )
    loss = loss_of(Variant("softmax"), case)
    np.testing.assert_allclose(loss, loss_of(Variant("softmax", remove=False), case), rtol=1e-6)
    everything = case._replace(where=None)
    assert loss_of(Variant("softmax"), everything) != loss_of(
        Variant("softmax", remove=False), everything
    )


@ROW_FORMS
def test_shared_rows_may_have_ids_and_counts_of_each_example(table_form, row_form):
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
        loss = row_form(inputs, true_rows, rows, labels, candidates, sampled_biases=biases)
        return loss.sum(), loss

    (_, loss), gradients = gradient(inputs, rows, biases)
    (_, expected), expected_gradients = gradient(
        inputs, np.tile(rows, (3, 1, 1)), np.tile(biases, (3, 1))
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradients, expected_gradients, rtol=1e-5, atol=1e-6)
    assert np.isfinite(loss).all() and np.isfinite(gradients).all()


@every_kind
def test_a_label_that_the_sampler_thinks_impossible_has_a_finite_loss(variant):
    case = make_case()
    candidates = Candidates(
        case.candidates.ids, case.candidates.expected_count, np.zeros(3, np.float32)
    )
    loss, gradients = loss_and_gradients(variant, case._replace(candidates=candidates))
    assert np.isfinite(loss).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_no_gradient_flows_into_expected_counts():
    case = make_case()

    def total(expected_count, true_expected_count):
        candidates = Candidates(case.candidates.ids, expected_count, true_expected_count)
        return loss_of(Variant("softmax"), case._replace(candidates=candidates)).sum()

    gradients = jax.grad(total, argnums=(0, 1))(
        case.candidates.expected_count, case.candidates.true_expected_count
    )
    assert not any(np.any(gradient) for gradient in gradients)


# Labels out of range, and other input that is refused.


@every_kind
@pytest.mark.parametrize("label", [-1, CLASSES, 2**32 + 1])
def test_a_label_out_of_range_is_refused_with_its_value_and_bound(variant, label):
    case = make_case()._replace(labels=np.array([0, label, 1]))
    with pytest.raises(ValueError, match=rf"labels must be in \[0, 7\), got {label} at \(1,\)"):
        variant(case)
    with pytest.raises(ValueError, match="labels"):  # differentiating does not hide the labels
        loss_and_gradients(variant, case)
    masked = case._replace(where=np.array([True, False, True]))
    assert loss_of(variant, masked)[1] == 0.0


@every_kind
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_out_of_range_is_nan_where_it_cannot_be_refused(variant, label):
    case = make_case()
    expected = loss_of(variant, case)
    loss = jax.jit(lambda labels: variant(case._replace(labels=labels)))(
        np.array([case.labels[0], label, case.labels[2]])
    )
    assert np.isnan(loss[1])
    np.testing.assert_allclose(loss[np.array([0, 2])], expected[np.array([0, 2])], rtol=1e-6)


def test_the_row_form_refuses_labels_only_as_far_as_it_knows_the_bound():
    case = make_case()._replace(labels=np.array([0, 10**6, 1]))
    assert np.isfinite(softmax.sampled_softmax_loss_from_rows(*in_rows(case))).all()
    with pytest.raises(ValueError, match=r"labels must be in \[0, 7\), got 1000000"):
        softmax.sampled_softmax_loss_from_rows(*in_rows(case), num_classes=CLASSES)
    negative = case._replace(labels=np.array([0, -3, 1]))
    with pytest.raises(ValueError, match="labels must be at least 0, got -3"):
        softmax.sampled_softmax_loss_from_rows(*in_rows(negative))


GOOD = make_case("several")


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(inputs=np.ones((3, 5))), r"weights must be \[num_classes, 5\]"),
        (dict(inputs=np.float32(1)), "inputs must be"),
        (dict(labels=np.ones((3, 3))), "labels must be integers, got dtype float64"),
        (dict(labels=np.ones((2, 3), int)), r"labels must be \(3,\) or \(3, 'T'\)"),
        (dict(labels=np.ones((3, 3, 1), int)), "labels must be"),
        (dict(weights=np.ones((0, DIM))), "at least one class"),
        (dict(weights=np.ones(DIM)), "weights must be"),
        (dict(biases=np.ones(CLASSES + 1)), r"biases must be \(7,\) or None, got \(8,\)"),
        (dict(where=np.ones(3, bool)), r"where must have the labels' shape \(3, 3\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@every_kind
def test_arguments_that_do_not_fit_are_refused(variant, change, match):
    with pytest.raises(ValueError, match=match):
        variant(GOOD._replace(**change))


@pytest.mark.parametrize(
    "temperature, match",
    [
        (0.0, "temperature must be .* above 0, got 0.0"),
        (-1, "above 0, got -1"),
        (np.nan, "above 0, got nan"),
        (np.ones(3), "temperature must be a scalar"),
    ],
)
def test_a_temperature_that_is_not_positive_is_refused(temperature, match):
    for variant in (Variant("full"), Variant("softmax")):
        with pytest.raises(ValueError, match=match):
            variant(GOOD._replace(temperature=temperature))


@pytest.mark.parametrize(
    "field, value, match",
    [
        ("ids", np.zeros((2, 6), int), r"candidates.ids must be \[S\] or \(3, 'S'\)"),
        ("ids", np.zeros(6), "candidates.ids must be integers"),
        ("expected_count", np.ones(5), r"candidates.expected_count must be \(6,\), got \(5,\)"),
        ("true_expected_count", np.ones(3), r"candidates.true_expected_count must be \(3, 3\)"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(field, value, match):
    fields = {name: getattr(GOOD.candidates, name) for name in Candidates.__dataclass_fields__}
    case = GOOD._replace(candidates=Candidates(**{**fields, field: value}))
    for variant in ONE_OF_A_KIND:
        with pytest.raises(ValueError, match=match):
            variant(case)


@ROW_FORMS
@pytest.mark.parametrize(
    "position, options, match",
    [
        (1, {}, r"true_rows must be \(3, 3, 4\), got \(3, 3, 3\)"),
        (2, {}, r"sampled_rows must be \(6, 4\), got \(6, 3\)"),
        (None, dict(true_biases=np.ones(3)), r"true_biases must be \(3, 3\)"),
        (None, dict(sampled_biases=np.ones(3)), r"sampled_biases must be \(6,\)"),
        (None, dict(num_classes=0), "num_classes must be .* at least 1, got 0"),
        (None, dict(correction="logq"), r"correction must be one of .*'both'.*, got 'logq'"),
    ],
)
def test_rows_that_do_not_fit_are_refused(table_form, row_form, position, options, match):
    arguments = list(in_rows(GOOD))
    if position:
        arguments[position] = arguments[position][..., :3]
    with pytest.raises(ValueError, match=match):
        row_form(*arguments, **options)


# What the compiled program stores.


@pytest.mark.parametrize("num_true", [1, 3, 40])
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


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("num_hard", [1, 4, 9])
def test_mining_keeps_the_candidates_with_the_highest_logits(shape, num_hard):
    """After correction and removal of hits: a hit is not what an example finds hard."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(*shape, 5)).astype(np.float32)
    weights = rng.normal(size=(20, 5)).astype(np.float32)
    labels = rng.integers(0, 3, shape)
    counts = rng.uniform(0.1, 1, 9).astype(np.float32)
    drawn = softmax.Candidates(np.arange(9), counts, np.ones(shape, np.float32))

    def loss(inputs, weights):
        return softmax.sampled_softmax_loss(
            inputs, labels, weights, None, drawn, correction="negatives", num_hard=num_hard
        ).sum()

    def expected(inputs, weights):
        flat, of = inputs.reshape(-1, 5), labels.reshape(-1)
        logits = flat @ weights[:9].T - jnp.log(counts)[None]
        logits = jnp.where(of[:, None] == np.arange(9)[None], -jnp.inf, logits)
        hardest = jnp.sort(logits, axis=-1)[:, 9 - num_hard :]
        true = (flat * weights[of]).sum(-1)
        every = jnp.concatenate([true[:, None], hardest], axis=-1)
        return (jax.nn.logsumexp(every, axis=-1) - true).sum()

    got = jax.value_and_grad(loss, (0, 1))(inputs, weights)
    wanted = jax.value_and_grad(expected, (0, 1))(inputs, jnp.asarray(weights))
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6), got, wanted)
    with pytest.raises(ValueError, match=r"num_hard must be .* \[1, 9\], got 10"):
        softmax.sampled_softmax_loss(inputs, labels, weights, None, drawn, num_hard=10)
