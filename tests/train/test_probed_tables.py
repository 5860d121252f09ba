"""Statistics of the rows that a step moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import monitor, tables, train

TABLE = jax.random.normal(jax.random.key(0), (50, 4))


def loss(params, model_state, rows, batch, context, key):
    return jnp.sum(rows["words"] * batch["by"]), (model_state, {})


def run(ids, by, num_rows=50, lookup=None):
    task = train.Task(loss, lookup=lookup or (lambda batch, *_: ({"words": batch["ids"]}, None)))
    rate = {"words": lambda step: tables.sgd(0.5)}
    step = train.make_step(task, row_optimizers=rate, probe_tables=True)
    table = TABLE if num_rows == 50 else jnp.zeros((num_rows, 4))
    state = train.create_state(jax.random.key(0), tables={"words": table}, row_optimizers=rate)
    return jax.jit(step, donate_argnums=0), state, {"ids": ids, "by": by}


def test_duplicates_are_summed_and_empty_slots_are_none():
    ids = jnp.array([3, 7, 3, -1])
    by = jnp.array([[1.0, 0, 0, 0], [0, 2, 0, 0], [1, 0, 0, 3], [9, 9, 9, 9]])
    step, state, batch = run(ids, by)
    # By hand: row 3 gets (2, 0, 0, 3), row 7 gets (0, 2, 0, 0).
    held = np.linalg.norm(np.asarray(TABLE)[[3, 7]])
    _, report = step(jax.tree.map(jnp.copy, state), batch)
    (found,) = np.asarray(report.metrics["tables"])
    known = dict(zip(monitor.STATISTICS, found, strict=True))
    gradient = np.sqrt(2**2 + 3**2 + 2**2)
    assert known["gradient_norm"] == pytest.approx(gradient, rel=1e-6)
    assert known["parameter_norm"] == pytest.approx(held, rel=1e-6)
    assert known["update_norm"] == pytest.approx(0.5 * gradient, rel=1e-5)
    assert (known["largest_gradient"], known["non_finite"], known["zeros"]) == (3, 0, 5)


def test_what_is_refused_moves_nothing():
    step, state, batch = run(jnp.array([3, 7]), jnp.full((2, 4), jnp.nan))
    _, report = step(jax.tree.map(jnp.copy, state), batch)
    known = dict(zip(monitor.STATISTICS, np.asarray(report.metrics["tables"])[0], strict=True))
    assert not report.accepted and known["update_norm"] == 0 and known["non_finite"] == 8


@pytest.mark.parametrize("kind", ["bags", "whole"])
def test_bags_and_whole_tables(kind):
    if kind == "bags":
        ids, by = jnp.array([[1, 2], [2, 2]]), jnp.array([[1.0] * 4, [10.0] * 4])
        gradient = 2 * np.sqrt(1 + 21**2)
    else:
        ids, by = jnp.array([0]), jnp.full((50, 4), 3.0)
        gradient = 3 * np.sqrt(200)

    def lookup(batch, *_):
        return {"words": train.Bags(batch["ids"]) if kind == "bags" else train.Whole()}, None

    step, state, batch = run(ids, by, lookup=lookup)
    _, report = step(jax.tree.map(jnp.copy, state), batch)
    assert float(report.metrics["tables"][0, 0]) == pytest.approx(gradient, rel=1e-5)


def test_the_cost_does_not_grow_with_the_table():
    def temporaries(num_rows):
        step, state, batch = run(jnp.arange(8), jnp.ones((8, 4)), num_rows)
        return step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(1_000_000) == temporaries(10_000)
