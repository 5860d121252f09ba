"""The training step: updates of dense parameters and tables, rejected steps, and its compiled program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import models, monitor, softmax, tables
from jaxml.train import Bags, Task, Whole, create_state, make_step, recorded, repeat

CLASSES, DIM, BATCH, SAMPLED = 500, 8, 16, 32


def sampled_task(num_classes=CLASSES, num_sampled=SAMPLED):
    """A softmax over a table, a dense projection before it, and statistics that the model keeps."""
    sampler = softmax.log_uniform(num_classes)

    def lookup(batch, sampler_state, key):
        drawn = sampler.sample(sampler_state, key, batch["labels"], num_sampled)
        return {"classes": jnp.concatenate([batch["labels"], drawn.ids])}, drawn

    def loss(params, model_state, rows, batch, drawn, key):
        inputs = batch["x"] @ params["w"]
        size = batch["labels"].shape[0]
        losses = softmax.sampled_softmax_loss_from_rows(
            inputs, rows["classes"][:size], rows["classes"][size:], batch["labels"], drawn
        )
        return losses.mean(), (
            {"mean": 0.9 * model_state["mean"] + 0.1 * inputs.mean()},
            {"size": jnp.abs(inputs).mean()},
        )

    def observe(sampler_state, batch, accepted):
        return {"seen": sampler_state["seen"] + jnp.where(accepted, batch["labels"].shape[0], 0)}

    return Task(loss=loss, lookup=lookup, observe=observe)


def rows_of(optimizer):
    return {"classes": lambda step: optimizer}


def step_of(optimizer, row_optimizer, task=None, **options):
    rows = rows_of(row_optimizer)
    return make_step(task or sampled_task(), optimizer=optimizer, row_optimizers=rows, **options)


def fresh_state(key, optimizer, row_optimizer, num_classes=CLASSES):
    return create_state(
        key,
        params={"w": jnp.eye(DIM)},
        model_state={"mean": jnp.zeros(())},
        optimizer=optimizer,
        tables={"classes": tables.init_table(key, num_classes, DIM)},
        row_optimizers=rows_of(row_optimizer),
        sampler_state={"seen": jnp.zeros((), jnp.int32)},
    )


def batch_of(key, num_classes=CLASSES):
    return {
        "x": jax.random.normal(key, (BATCH, DIM)),
        "labels": jax.random.randint(key, (BATCH,), 0, num_classes),
    }


ROW_OPTIMIZERS = {
    "sgd": tables.sgd(0.1),
    "adagrad": tables.adagrad(0.1),
    "rowwise_adagrad": tables.rowwise_adagrad(0.1),
    "adam": tables.adam(0.01),
}


@pytest.fixture(params=ROW_OPTIMIZERS, ids=str)
def row_optimizer(request):
    return ROW_OPTIMIZERS[request.param]


def bits(tree):
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
            for x in jax.tree.leaves(tree)]  # fmt: skip


def test_a_step_learns(key):
    optimizer, rows = optax.adam(1e-2), tables.rowwise_adagrad(0.1)
    step = jax.jit(step_of(optimizer, rows))
    state, losses = fresh_state(key, optimizer, rows), []
    for _ in range(60):
        state, report = step(state, batch_of(key))
        losses.append(float(report.loss))
        assert bool(report.accepted)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert int(state.step) == int(state.position) == 60
    assert int(state.sampler_state["seen"]) == 60 * BATCH
    assert float(state.model_state["mean"]) != 0.0


def test_a_step_changes_the_rows_of_its_lookup_and_a_rejected_step_its_count(key, row_optimizer):
    """It is rejected after some steps, so that the optimizer state is not zero."""
    optimizer, task = optax.adam(1e-2), sampled_task()
    step = jax.jit(step_of(optimizer, row_optimizer, task))
    before = state = fresh_state(key, optimizer, row_optimizer)
    for i in range(3):
        state, _ = step(state, batch_of(jax.random.key(i)))
        if i == 0:
            lookup_key = jax.random.split(jax.random.fold_in(before.key, 0), 3)[0]
            touched = task.lookup(batch_of(jax.random.key(0)), {}, lookup_key)[0]["classes"]
            changed = (state.tables["classes"] != before.tables["classes"]).any(axis=1)
            np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(touched))
    for poison in (jnp.nan, jnp.inf):
        bad = batch_of(key)
        bad["x"] = bad["x"].at[3, 2].set(poison)
        after, report = step(state, bad)
        assert not bool(report.accepted)
        assert int(after.step) == int(after.position) == 4
        kept = dataclasses.replace(after, step=state.step, position=state.position)
        for old, new in zip(bits(state), bits(kept), strict=True):
            np.testing.assert_array_equal(old, new)


def test_bags_equal_rows_that_are_summed(key):
    """Padding (-1) adds nothing and takes no update."""
    ids = jnp.array([[1, 2, 2, -1], [7, 1, -1, -1]])

    def summed(params, model_state, rows, batch, context, key):
        sums = rows["t"].sum(-2) if rows["t"].ndim == 3 else rows["t"]
        return jnp.sum(jnp.sin(sums) * batch), (model_state, {})

    results = []
    for asked in (ids, Bags(ids)):
        task = Task(loss=summed, lookup=lambda batch, state, key, asked=asked: ({"t": asked}, None))
        schedules = {"t": lambda step: tables.adagrad(0.1)}
        state = create_state(
            key, tables={"t": jax.random.normal(key, (9, 3))}, row_optimizers=schedules
        )
        results.append(jax.jit(make_step(task, row_optimizers=schedules))(state, jnp.ones((2, 3))))
    (one, report), (other, other_report) = results
    np.testing.assert_allclose(report.loss, other_report.loss, rtol=1e-6)
    np.testing.assert_allclose(one.tables["t"], other.tables["t"], rtol=1e-5, atol=1e-7)


def test_a_whole_table_is_all_of_its_rows(key, row_optimizer):
    """The result is that of looking up every id; the second batch is rejected and changes nothing."""

    def over_all(params, model_state, rows, batch, context, key):
        losses = softmax.full_softmax_loss(batch["x"], batch["labels"], rows["classes"])
        return losses.mean(), (model_state, {})

    good = batch_of(key)
    bad = {**good, "x": good["x"].at[0, 0].set(jnp.nan)}
    schedules = rows_of(row_optimizer)
    table = tables.init_table(key, CLASSES, DIM)
    results = []
    for asked in (jnp.arange(CLASSES), Whole()):
        task = Task(over_all, lambda batch, state, key, asked=asked: ({"classes": asked}, None))
        step = jax.jit(make_step(task, row_optimizers=schedules))
        state = create_state(key, tables={"classes": table}, row_optimizers=schedules)
        before, report = step(state, good)
        assert bool(report.accepted)
        after, report = step(before, bad)
        assert not bool(report.accepted)
        results.append((after.tables, after.table_states))
        jax.tree.map(
            np.testing.assert_array_equal, results[-1], (before.tables, before.table_states)
        )
    for by_ids, whole in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(by_ids, whole, rtol=1e-5, atol=1e-6)


def test_a_draw_sees_the_rows_of_the_lookup(key):
    """The draw requests the class with the highest score, which is then updated."""

    def lookup(batch, sampler_state, key):
        return {"words": batch["words"]}, "unused"

    def draw(params, model_state, rows, batch, context, sampler_state, key):
        assert context == "unused"
        best = jnp.argmax(sampler_state["vectors"] @ rows["words"].sum(0))
        return {"classes": best[None]}, best

    def loss(params, model_state, rows, batch, best, key):
        return (rows["words"].sum(0) * rows["classes"][0]).sum(), (model_state, {"best": best})

    schedules = {"words": lambda step: tables.sgd(0.1), "classes": lambda step: tables.sgd(0.1)}
    words, classes = (jax.random.normal(k, (CLASSES, DIM)) for k in jax.random.split(key))
    state = create_state(
        key,
        tables={"words": words, "classes": classes},
        row_optimizers=schedules,
        sampler_state={"vectors": classes},
    )
    batch = {"words": jnp.array([3, 5])}
    step = make_step(Task(loss, lookup, draw=draw), row_optimizers=schedules)
    after, report = jax.jit(step)(state, batch)
    best = int(np.argmax(classes @ words[batch["words"]].sum(0)))
    assert int(report.metrics["best"]) == best
    changed = np.flatnonzero((after.tables["classes"] != classes).any(axis=1))
    assert changed.tolist() == [best]

    twice = Task(loss, lookup, draw=lambda *args: ({"words": jnp.array([0])}, None))
    with pytest.raises(ValueError, match="draw must use other tables than lookup"):
        make_step(twice, row_optimizers=schedules)(state, batch)


def test_the_verdict_is_the_callers(key):
    def small_loss(loss, gradients):
        assert set(gradients) == {"params", "rows"}
        return loss < 1e-3

    optimizer, rows = optax.sgd(0.1), tables.sgd(0.1)
    step = step_of(optimizer, rows, accept=small_loss)
    state = fresh_state(key, optimizer, rows)
    after, report = jax.jit(step)(state, batch_of(key))
    assert not bool(report.accepted)
    np.testing.assert_array_equal(after.tables["classes"], state.tables["classes"])


def test_what_is_kept_is_finite(key):
    """A square, a parameter or a statistic that overflows rejects the step; the gradient is finite."""
    optimizer, rows = optax.sgd(1.0, momentum=0.9), tables.adagrad(0.1)

    def task(where):
        def loss(params, model_state, rows, batch, context, key):
            size = 1e20 if where == "rows" else 1.0
            wide = 6e4 if where == "parameters" else 1.0
            total = size * rows["t"].sum() - jnp.float32(params["w"].sum()) * wide
            lowest = jnp.minimum(model_state["lowest"], 3.0)
            mean = model_state["mean"] + (jnp.inf if where == "statistics" else 1.0)
            return total, ({"lowest": model_state["lowest"], "mean": mean}, {"lowest": lowest})

        return Task(loss, lambda batch, state, key: ({"t": jnp.array([1])}, None))

    for where in ("nowhere", "rows", "parameters", "statistics"):
        step = make_step(task(where), optimizer=optimizer, row_optimizers={"t": lambda step: rows})
        state = create_state(
            key,
            params={"w": jnp.full(2, 1e4, jnp.float16)},
            model_state={"mean": jnp.zeros(()), "lowest": jnp.full((), jnp.inf)},
            optimizer=optimizer,
            tables={"t": jnp.zeros((3, 2))},
            row_optimizers={"t": lambda step: rows},
        )
        after, report = jax.jit(step)(state, ())
        assert bool(report.accepted) == (where == "nowhere"), where
        if where != "nowhere":
            before = dataclasses.replace(state, step=after.step, position=after.position)
            for one, other in zip(bits(after), bits(before), strict=True):
                np.testing.assert_array_equal(one, other)


def test_compiled_equals_eager(key):
    optimizer, rows = optax.adam(1e-2), tables.adagrad(0.1)
    step = step_of(optimizer, rows)
    state = fresh_state(key, optimizer, rows)
    eager, _ = step(state, batch_of(key))
    compiled, _ = jax.jit(step)(state, batch_of(key))
    for one, other in zip(bits(eager), bits(compiled), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


def test_members_under_vmap_are_judged_one_by_one(key):
    optimizer, rows = optax.sgd(0.1), tables.sgd(0.1)
    step = step_of(optimizer, rows)
    states = jax.vmap(lambda k: fresh_state(k, optimizer, rows))(jax.random.split(key, 3))
    batches = jax.vmap(batch_of)(jax.random.split(key, 3))
    batches["x"] = batches["x"].at[1].set(jnp.nan)
    after, report = jax.jit(jax.vmap(step))(states, batches)
    assert report.accepted.tolist() == [True, False, True]
    after = after.tables["classes"]
    np.testing.assert_array_equal(after[1], states.tables["classes"][1])
    third = jax.tree.map(lambda leaf: leaf[2], (states, batches))
    alone = jax.jit(step)(*third)[0].tables["classes"]
    np.testing.assert_allclose(after[2], alone, rtol=1e-5, atol=1e-6)


def test_one_trace_over_many_steps_and_learning_rates(key):
    traces = []

    def schedule(step):
        traces.append(step)
        return tables.rowwise_adagrad(0.1 / (1 + step))

    optimizer = optax.sgd(0.1)
    step = jax.jit(
        make_step(sampled_task(), optimizer=optimizer, row_optimizers={"classes": schedule}),
        donate_argnums=0,
    )
    state = fresh_state(key, optimizer, tables.rowwise_adagrad(0.1))
    for i in range(5):
        state, _ = step(state, batch_of(jax.random.key(i)))
    assert len(traces) == 1


def test_the_compiled_step_holds_no_second_table(key, row_optimizer):
    """At 200,000 classes a copy of the table would take far more memory than a batch."""
    num_classes = 200_000
    step = step_of(optax.sgd(0.1), row_optimizer, sampled_task(num_classes))
    state = jax.eval_shape(lambda: fresh_state(key, optax.sgd(0.1), row_optimizer, num_classes))
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch_of(key)).compile()
    table_bytes = num_classes * DIM * 4
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 0.1 * table_bytes
    assert memory.alias_size_in_bytes >= table_bytes


def test_the_step_lowers_for_accelerators(key):
    optimizer, rows = optax.adam(1e-3), tables.adam(0.01)
    state = jax.eval_shape(lambda: fresh_state(key, optimizer, rows))
    step = jax.jit(step_of(optimizer, rows))
    exported = jax.export.export(step, platforms=["tpu", "cuda"])(state, batch_of(key))
    assert exported.platforms == ("tpu", "cuda")


def test_a_recorded_step_is_compiled_once_and_lowers_for_accelerators(key):
    traces = []
    model = models.MLP((16, 16), 2)
    x = jnp.zeros((10, 32, 6))
    variables = model.init(key, x[0])

    def cross_entropy(outputs, labels):
        traces.append(1)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    def loss(params, model_state, rows, batch, context, key):
        each = cross_entropy(model.apply({"params": params}, batch["x"]), batch["y"])
        return each.mean(), (model_state, {})

    recorder = monitor.Recorder(model, cross_entropy, variables, x[0], every=5)
    optimizer = monitor.guard(optax.adam(1e-3), recorder.layout)
    program = repeat(recorded(make_step(Task(loss), optimizer=optimizer), recorder))
    params = variables["params"]
    state = create_state(jax.random.key(1), params=params, model_state={}, optimizer=optimizer)
    batches = {"x": x, "y": jnp.zeros((10, 32), jnp.int32)}
    export = jax.export.export(program, platforms=["tpu", "cuda"])
    assert "callback" not in export(state, batches, jnp.int32(10)).mlir_module()
    state, _ = program(state, batches, jnp.int32(10))
    number = len(traces)
    for count in (3, 7):
        state, _ = program(state, batches, jnp.int32(count))
    assert len(traces) == number > 0 and int(state.step) == 20


def test_tables_and_their_optimizers_must_match(key):
    with pytest.raises(ValueError, match=r"row_optimizers must name the tables \['t'\], got \[\]"):
        create_state(key, tables={"t": jnp.zeros((2, 2))})


def test_a_donated_state_leaves_the_key_and_arrays_that_occur_twice(key):
    """Tied parameters, and an optimizer that keeps the first ones, each have a buffer to give."""
    tied, kept = jnp.zeros(3), jnp.ones(2)
    optimizer = optax.contrib.dog()  # keeps the first parameters
    state = create_state(
        key,
        params={"one": tied, "other": tied, "own": kept},
        optimizer=optimizer,
        sampler_state=(kept, key),
    )

    def loss(params, model_state, rows, batch, context, key):
        return sum(((leaf - 1) ** 2).sum() for leaf in jax.tree.leaves(params)), (model_state, {})

    # Another key, so that its buffer is not passed on.
    step = make_step(Task(loss), optimizer=optimizer)
    run = jax.jit(
        lambda state: dataclasses.replace(step(state, ())[0], key=jax.random.key(1)),
        donate_argnums=0,
    )
    before = jax.random.key_data(state.key)
    after = run(run(state))
    assert int(after.step) == 2
    np.testing.assert_array_equal(jax.random.key_data(key), before)
