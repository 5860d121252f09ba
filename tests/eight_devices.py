"""Every loss, sampler and row rule on eight devices; `tests/test_meshes.py` runs this file.

The cases are read from the project's own lists. Each gives the results of one device under `jax.shard_map`,
and on meshes of automatic and of explicit axes.
"""

import contextlib
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxml import losses, metrics, models, softmax, tables, train
from jaxml.metrics import streaming
from jaxml.softmax import Candidates, Sampler
from jaxml.tables import RowGradient, RowOptimizer, optimizers

CLASSES, DIM, BATCH, NUM_SAMPLED, PARTS = 24, 6, 16, 12, 4
EXAMPLES, ROWS, WHOLE = P("data"), P("model"), P()
MESHES = {
    kind.name.lower(): jax.make_mesh((PARTS, 2), ("data", "model"), axis_types=(kind, kind))
    for kind in (AxisType.Auto, AxisType.Explicit)
}

EXPLICIT = MESHES["explicit"]
DTYPES = ("float32", "uint16")

rng = np.random.default_rng(0)
X = np.float32(rng.normal(size=(BATCH, DIM)))
Y = rng.integers(0, CLASSES, BATCH).astype(np.int32)
W = np.float32(rng.normal(size=(CLASSES, DIM)))
B = np.float32(rng.normal(size=CLASSES))
KEY = jax.random.key(0)
DRAWN = Candidates(
    rng.permutation(CLASSES)[:NUM_SAMPLED].astype(np.int32),
    np.full(NUM_SAMPLED, 0.5, np.float32),
    np.full(BATCH, 0.5, np.float32),
)
OF_DRAWN = Candidates(WHOLE, WHOLE, EXAMPLES)


class Case(NamedTuple):
    """A function and its arguments.

    Attributes:
        specs: how the arguments are laid out. Under `shard_map` every device has all rows of a table.
        results: how the results are; None where each device has results of its own under `shard_map`.
    """

    function: Callable
    arguments: tuple
    specs: tuple
    results: Any = None


# --- cases --------------------------------------------------------------------------------------


def of_loss(loss, params, specs, *data):
    """Losses, and the gradients of a weighted sum of them; `data` are pairs of an array and its spec."""
    weights = np.linspace(-1, 2, BATCH, dtype=np.float32)

    def function(params, weights, *data):
        def total(params):
            each = loss(*params, *data)
            return (each * weights).sum(), each

        return jax.grad(total, has_aux=True)(params)[::-1]

    arrays, data_specs = zip(*data, strict=True)
    return Case(
        function, (params, weights, *arrays), (specs, EXAMPLES, *data_specs), (EXAMPLES, specs)
    )


def of_layer(loss, *data):
    return of_loss(loss, (X, W, B), (EXAMPLES, ROWS, ROWS), (Y, EXAMPLES), *data)


def of_sampled(loss):
    return of_layer(lambda x, w, b, y, drawn: loss(x, y, w, b, drawn), (DRAWN, OF_DRAWN))


def of_clusters(layer):
    params = layer.init(KEY, DIM)
    return of_loss(
        lambda x, params, y: layer.loss(params, x, y), (X, params), (EXAMPLES, WHOLE), (Y, EXAMPLES)
    )


def of_rows(x, w, b, y, drawn):
    rows = [tables.gather_rows(table, ids) for ids in (y, drawn.ids) for table in (w, b)]
    return softmax.sampled_softmax_loss_from_rows(
        x, rows[0], rows[2], y, drawn, true_biases=rows[1], sampled_biases=rows[3]
    )


def of_teacher(x, w, b, y, drawn):
    ids = (y[:, None] + np.arange(2)[None]) % CLASSES
    rows = [tables.gather_rows(w, each) for each in (ids, drawn.ids)]
    known = 0.25 * (ids >= 0)
    return softmax.sampled_distillation_loss_from_rows(x, *rows, ids, known, drawn) + 0 * b.sum()


def step(x, y, table, b):
    return softmax.blockwise_softmax_update(
        x, y, table, {}, tables.sgd(0.1).rule, biases=b, block_size=5
    )


def gap(x, y, w):
    return softmax.estimate_gap(
        x, y, w, None, softmax.uniform(CLASSES), (), KEY, NUM_SAMPLED, 2, gradients="inputs"
    )


PARTITION = softmax.Neighbourhoods(np.arange(CLASSES).reshape(4, 6), np.arange(CLASSES) // 6)


SOFTMAX = {
    "full_softmax_loss": of_layer(lambda x, w, b, y: softmax.full_softmax_loss(x, y, w, b)),
    "blockwise_softmax_loss": of_layer(
        lambda x, w, b, y: softmax.blockwise_softmax_loss(
            x, y, w, b, block_size=5, label_smoothing=0.1, softcap=30.0
        )
    ),
    "one_vs_all_loss": of_layer(
        lambda x, w, b, y: softmax.one_vs_all_loss(x, y, w, b, block_size=5)
    ),
    "per_example_sampled_softmax_loss": of_layer(
        lambda x, w, b, y, key: softmax.per_example_sampled_softmax_loss(
            x, y, w, b, softmax.uniform(CLASSES), (), key, CLASSES
        ),
        (KEY, WHOLE),
    ),
    "sampled_softmax_loss": of_sampled(softmax.sampled_softmax_loss),
    "nce_loss": of_sampled(softmax.nce_loss),
    "sampled_logistic_loss": of_sampled(softmax.sampled_logistic_loss),
    "sampled_softmax_loss_from_rows": of_layer(of_rows, (DRAWN, OF_DRAWN)),
    "sampled_distillation_loss_from_rows": of_layer(of_teacher, (DRAWN, OF_DRAWN)),
    "adaptive_softmax": of_clusters(softmax.adaptive_softmax([5, 11, CLASSES], div_value=2.0)),
    "two_level_softmax": of_clusters(softmax.two_level_softmax(CLASSES)),
    "blockwise_softmax_update": Case(step, (X, Y, W, B), (EXAMPLES, EXAMPLES, ROWS, ROWS)),
    "top_k": Case(
        lambda x, w, b: softmax.top_k(x, w, b, k=3, block_size=5),
        (X, W, B),
        (EXAMPLES, ROWS, ROWS),
        EXAMPLES,
    ),
    "top_k_probabilities": Case(
        lambda x, w, b: softmax.top_k_probabilities(x, w, b, k=3, block_size=5),
        (X, W, B),
        (EXAMPLES, ROWS, ROWS),
        EXAMPLES,
    ),
    "estimate_gap": Case(gap, (X, Y, W), (EXAMPLES, EXAMPLES, ROWS)),
    "neighbourhoods": Case(
        lambda w: softmax.neighbourhoods(w, KEY, block_size=12), (W,), (ROWS,), WHOLE
    ),
    "neighbourhood_candidates": Case(
        softmax.neighbourhood_candidates,
        (PARTITION, np.array([0, 2]), np.full(4, 0.25, np.float32), Y),
        (WHOLE, WHOLE, WHOLE, EXAMPLES),
        EXAMPLES,
    ),
}


def of_plain_loss(loss):
    """The case of a loss of `jaxml.losses`, by the names of its parameters."""
    names = list(inspect.signature(loss).parameters)
    if names[1].startswith("teacher"):
        third = {"labels": [(Y % DIM, EXAMPLES)], "projection": [(W[:DIM], WHOLE)]}.get(
            names[2], []
        )
        return of_loss(loss, (X,), (EXAMPLES,), (X[::-1].copy(), EXAMPLES), *third)
    more = [0.5] * ("level" in names)  # of a quantile
    outputs, targets = X[:, 0], X[:, 1]
    if names[0] == "logits":
        try:
            loss(X, Y % DIM)
            outputs, targets = X, Y % DIM
        except ValueError:
            targets = np.int32(targets > 0)
    return of_loss(lambda o, t: loss(o, t, *more), (outputs,), (EXAMPLES,), (targets, EXAMPLES))


LOSSES = {
    name: loss
    for name in losses.__all__
    if "where" in inspect.signature(loss := getattr(losses, name)).parameters
}


def of_sampler(name, batch):
    """An update and a draw, in which each of `BATCH // batch` devices has its own labels."""
    setup = softmax.SAMPLERS[name](100 // (1 + np.arange(CLASSES)), batch, NUM_SAMPLED)
    state = setup.sampler.init(W if setup.follows_model else None)

    def function(state, key, x, y):
        state = setup.sampler.update(state, y)
        drawn = setup.sampler.sample(
            state, key, y, setup.num_sampled, unique=setup.unique, inputs=x
        )
        return drawn, state

    rows = jax.tree.map(lambda leaf: ROWS if leaf.shape[:1] == (CLASSES,) else WHOLE, state)
    return Case(function, (state, KEY, X, Y), (rows, WHOLE, EXAMPLES, EXAMPLES))


def of_rule(name, dtype):
    optimizer = getattr(tables, name)(0.1)
    table = tables.to_storage(W, dtype)
    return Case(
        lambda *arguments: optimizer.update(*arguments, key=KEY),
        (RowGradient(Y, X), optimizer.init(table), table),
        (EXAMPLES, ROWS, ROWS),
    )


RULES = {
    name
    for name in tables.__all__
    if inspect.isfunction(rule := getattr(tables, name))
    and typing.get_type_hints(rule).get("return") is RowOptimizer
}
BAGS = Y.reshape(-1, 4)
TABLES = {
    "gather_rows": Case(tables.gather_rows, (W, Y), (ROWS, EXAMPLES), EXAMPLES),
    "gather_bags": Case(tables.gather_bags, (W, BAGS), (ROWS, EXAMPLES), EXAMPLES),
    "coalesce": Case(tables.coalesce, (RowGradient(Y, X),), (EXAMPLES,)),
    "bags": Case(tables.coalesce, (RowGradient(BAGS, X[:4]),), (EXAMPLES,)),
    "init_table": Case(lambda key: tables.init_table(key, 5000, 2), (KEY,), (WHOLE,), WHOLE),
}


def of_metric(name):
    """The value over all examples: of `data` alone under `shard_map`."""
    more = {"confusion_matrix": (CLASSES,), "top_k_accuracy": (2,)}.get(name, ())
    metric = getattr(streaming, name)(*more)
    labels, scores = np.int32(X[:, 1] > 0), 1 / (1 + np.exp(-X[:, 0]))
    if name == "confusion_matrix":
        scores = Y[::-1].copy()
    if more:
        labels = Y
    if name == "top_k_accuracy":
        scores = np.pad(X, ((0, 0), (0, CLASSES - DIM)))

    def function(labels, scores):
        state = metric.update(metric.empty(), labels, scores)
        if jax.sharding.get_abstract_mesh().manual_axes:
            state = metrics.all_reduce(metric, state, "data")
        return metric.compute(state)

    return Case(function, (labels, scores), (EXAMPLES, EXAMPLES), WHOLE)


METRICS = [name for name in streaming.__all__ if inspect.isfunction(getattr(streaming, name))]

# --- tests --------------------------------------------------------------------------------------

CASES = {
    **SOFTMAX,
    **TABLES,
    **{f"metrics.{name}": of_metric(name) for name in METRICS},
    **{f"losses.{name}": of_plain_loss(loss) for name, loss in LOSSES.items()},
    **{f"{name} {dtype}": of_rule(name, dtype) for name in sorted(RULES) for dtype in DTYPES},
}
# The values of these in every run of the tests, and those of the others in `make test-all`.
QUICK = ("sampled_softmax_loss", "blockwise_softmax_loss", "queue", "adagrad float32")
NAMES = (*CASES, *softmax.SAMPLERS)
each_case = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def passes_of_8(monkeypatch):
    """Gradients of a few rows take the way of large ones, in a loop."""
    monkeypatch.setattr(optimizers, "_BLOCK", 8)


def case_of(name, batch=BATCH):
    return of_sampler(name, batch) if name in softmax.SAMPLERS else CASES[name]


def test_every_function_of_classes_has_a_case():
    functions = {
        name
        for name in softmax.__all__
        if inspect.isfunction(function := getattr(softmax, name))
        and typing.get_type_hints(function).get("return") not in (Sampler, softmax.Recommendation)
    }
    assert set(SOFTMAX) == functions


@each_case
def test_under_shard_map_types_fit_whichever_argument_differs_between_devices(name):
    case = case_of(name, BATCH // PARTS)
    arguments = own_part(0, case)
    for varying in range(len(arguments)):

        def traced(*arguments, varying=varying):
            parts = list(arguments)
            parts[varying] = jax.tree.map(
                lambda leaf: jax.lax.pcast(leaf, ("data",), to="varying"), parts[varying]
            )
            return jax.tree.map(lambda leaf: leaf[None], case.function(*parts))

        run = jax.shard_map(traced, mesh=EXPLICIT, in_specs=WHOLE, out_specs=EXAMPLES)
        jax.eval_shape(run, *arguments)


@each_case
def test_results_on_explicit_axes_are_laid_out_as_documented(name):
    case = case_of(name)
    arguments = placed(EXPLICIT, case)
    for context in (contextlib.nullcontext(), jax.set_mesh(EXPLICIT)):
        with context:
            found = jax.eval_shape(case.function, *arguments)
    if case.results is not None:
        jax.tree.map(check_layout, found, per_leaf(case.results, found))


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
@pytest.mark.parametrize("kind", ["shard_map", *MESHES])
def test_values_are_those_of_one_device(name, kind):
    case = case_of(name, BATCH // PARTS if kind == "shard_map" else BATCH)
    if kind == "shard_map":
        found, wanted = under_shard_map(case)
    else:
        found = jax.jit(case.function)(*placed(MESHES[kind], case))
        wanted = jax.jit(case.function)(*case.arguments)
    jax.tree.map(close, found, wanted)


def test_outside_of_jit_on_explicit_axes():
    sampler = softmax.queue(CLASSES, NUM_SAMPLED)
    x, y, w, state = placed(
        EXPLICIT, Case(None, (X, Y, W, sampler.init()), (EXAMPLES, EXAMPLES, ROWS, WHOLE))
    )
    drawn = sampler.sample(sampler.update(state, y), KEY, y, NUM_SAMPLED)
    found = softmax.sampled_softmax_loss(x, y, w, None, drawn)
    close(found, softmax.sampled_softmax_loss(X, Y, W, None, jax.device_get(drawn)))


@pytest.mark.parametrize("kind", MESHES)
def test_a_step_of_a_row_sharded_table(kind):
    sampler = softmax.log_uniform(CLASSES)

    def lookup(batch, state, key):
        drawn = sampler.sample(state, key, batch["y"], NUM_SAMPLED)
        return {"classes": {"true": batch["y"], "sampled": drawn.ids}}, drawn

    def loss(params, model_state, rows, batch, drawn, key):
        rows, inputs = rows["classes"], batch["x"] @ params
        losses = softmax.sampled_softmax_loss_from_rows(
            inputs, rows["true"], rows["sampled"], batch["y"], drawn
        )
        return losses.mean(), (model_state, {})

    rules = {"classes": lambda step: tables.adagrad(0.1)}
    step = train.make_step(train.Task(loss, lookup), optimizer=optax.sgd(0.1), row_optimizers=rules)

    def stepped(table, batch):
        state = train.create_state(
            KEY,
            params=np.eye(DIM, dtype=np.float32),
            optimizer=optax.sgd(0.1),
            tables={"classes": table},
            row_optimizers=rules,
        )
        state, report = jax.jit(step, donate_argnums=0)(state, batch)
        return state.params, state.tables["classes"], report.loss

    wanted = stepped(W.copy(), {"x": X, "y": Y})
    mesh = MESHES[kind]
    with jax.set_mesh(mesh):
        table = jax.device_put(W, NamedSharding(mesh, ROWS))
        batch = jax.device_put({"x": X, "y": Y}, NamedSharding(mesh, EXAMPLES))
        found = stepped(table, batch)
    jax.tree.map(close, found, wanted)
    assert not found[1].is_fully_replicated


MODEL = models.MLP((8,), 2)
DATA = np.repeat(X, 4, 0), np.repeat(np.int32(X[:, 0] > X[:, 1]), 4)
OPTIONS = dict(num_steps=12, key=0, validation_data=(X, np.int32(X[:, 0] > 0)), monitor=False)


def fit(data, batch_size, seen=None):
    def loss(outputs, labels):
        if seen is not None:
            jax.debug.inspect_array_sharding(outputs, callback=seen.append)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    return train.fit(MODEL, loss, optax.adam(0.01), data, batch_size=batch_size, **OPTIONS)


@pytest.mark.parametrize(
    "batch_size", [16, *(pytest.param(n, marks=pytest.mark.slow) for n in (6, None))]
)
def test_fit_trains_on_the_devices_of_its_data(batch_size):
    one = fit(DATA, batch_size)
    seen = []
    with jax.set_mesh(EXPLICIT):
        sharded = jax.device_put(DATA, NamedSharding(EXPLICIT, EXAMPLES))
        many = fit(sharded, batch_size, seen)
    assert all(len(each.device_set) == 8 for each in seen)
    assert any(each.is_fully_replicated for each in seen) == (batch_size == 6)
    last = fit(jax.device_put(DATA, jax.devices()[-1]), batch_size)
    for found in (many, last):
        jax.tree.map(close, found.params, one.params)
        close(found.loss_curve, one.loss_curve)
        close(found.validation_curve, one.validation_curve)


@pytest.mark.slow
@pytest.mark.parametrize("search", [train.sweep, train.successive_halving])
def test_sweep_trains_on_the_devices_of_its_data(search):
    def losses_of(data):
        swept = search(
            MODEL,
            optax.softmax_cross_entropy_with_integer_labels,
            lambda h: optax.adam(h["rate"]),
            data,
            space={"rate": [1e-3, 1e-2, 3e-2]},
            batch_size=[8, 16],
            **OPTIONS | {"num_steps": 40},
        )
        return [trial.fit.loss_curve for trial in swept.trials]

    sharded = jax.device_put(DATA, NamedSharding(EXPLICIT, EXAMPLES))
    jax.tree.map(close, losses_of(sharded), losses_of(DATA))


@pytest.mark.slow
def test_a_training_on_several_devices_goes_on_from_a_checkpoint(tmp_path):
    sharded = jax.device_put(DATA, NamedSharding(EXPLICIT, EXAMPLES))
    loss, optimizer = optax.softmax_cross_entropy_with_integer_labels, optax.adam(0.01)

    def trained(num_steps, checkpoints=None):
        return train.fit(
            MODEL,
            loss,
            optimizer,
            sharded,
            num_steps=num_steps,
            batch_size=16,
            key=0,
            monitor=False,
            checkpoints=checkpoints,
        )

    for num_steps in (6, 12):
        with train.Checkpoints(tmp_path) as checkpoints:
            again = trained(num_steps, checkpoints)
    jax.tree.map(np.testing.assert_array_equal, again.params, trained(12).params)


# --- checks -------------------------------------------------------------------------------------


def under_shard_map(case: Case) -> tuple[Any, Any]:
    """The results, and what they should be."""
    function = case.function
    case = case._replace(
        specs=jax.tree.map(lambda spec: WHOLE if spec == ROWS else spec, case.specs),
        results=jax.tree.map(lambda spec: WHOLE if spec == ROWS else spec, case.results),
    )
    one = jax.jit(function)
    if case.results is not None:
        wanted = one(*case.arguments)
    else:
        parts = [one(*own_part(i, case)) for i in range(PARTS)]
        wanted = jax.tree.map(lambda *each: np.stack(each), *parts)
        case = case._replace(results=EXAMPLES)

        def function(*arguments):
            return jax.tree.map(lambda leaf: leaf[None], one(*arguments))

    run = jax.shard_map(function, mesh=EXPLICIT, in_specs=case.specs, out_specs=case.results)
    return jax.jit(run)(*placed(EXPLICIT, case)), wanted


def own_part(i, case):
    """The arguments of a device that has its own examples."""
    return jax.tree.map(
        lambda leaf, spec: np.split(leaf, PARTS)[i] if spec == EXAMPLES else leaf,
        case.arguments,
        per_leaf(case.specs, case.arguments),
    )


def per_leaf(specs, tree):
    return jax.tree.broadcast(specs, tree, is_leaf=lambda node: isinstance(node, P))


def placed(mesh, case):
    return jax.tree.map(
        lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)),
        case.arguments,
        per_leaf(case.specs, case.arguments),
    )


def check_layout(leaf, spec):
    wanted = NamedSharding(leaf.sharding.mesh, spec)
    assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), leaf.sharding


def close(found, expected):
    found, expected = (np.asarray(each, np.float64) for each in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
