"""Own negatives for every example, against the table form of the loss on the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax import (
    per_example,
    per_example_sampled_softmax_loss,
    sampled_softmax_loss,
    uniform,
    unigram,
)

C, D, B, S = 30, 5, 7, 6
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def case(num_true=None):
    return dict(
        inputs=jnp.asarray(RNG.normal(size=(B, D)), jnp.float32),
        labels=jnp.asarray(RNG.integers(0, C, (B,) if num_true is None else (B, num_true))),
        weights=jnp.asarray(RNG.normal(size=(C, D)), jnp.float32),
        biases=jnp.asarray(RNG.normal(size=C), jnp.float32),
    )


def candidates_of(sampler, labels, unique=True):
    """What the docstring says is drawn: example i with `fold_in(key, i)`."""
    drawn = [
        sampler.sample(sampler.init(), jax.random.fold_in(KEY, i), labels[i], S, unique=unique)
        for i in range(len(labels))
    ]
    return jax.tree.map(lambda *parts: np.stack(parts), *drawn)


def test_is_the_loss_of_these_candidates_in_value_and_gradients(monkeypatch):
    monkeypatch.setattr(per_example, "_TILE_NUMBERS", 3 * S * D)
    sampler, data = unigram(np.arange(C) + 1), case(3)
    labels = data["labels"]
    where = np.arange(3)[None] < RNG.integers(0, 4, (B, 1))
    drawn = candidates_of(sampler, labels)
    factor = jnp.asarray(RNG.normal(size=B), jnp.float32)

    def own(x, w, b, temperature):
        return per_example_sampled_softmax_loss(
            x, labels, w, b, sampler, sampler.init(), KEY, S,
            temperature=temperature, where=where, correction="negatives",
        ) @ factor  # fmt: skip

    def stored(x, w, b, temperature):
        return sampled_softmax_loss(
            x, labels, w, b, drawn, temperature=temperature, where=where, correction="negatives"
        ) @ factor  # fmt: skip

    arguments = (data["inputs"], data["weights"], data["biases"], 0.7)
    got = jax.jit(jax.value_and_grad(own, (0, 1, 2, 3)))(*arguments)
    expected = jax.jit(jax.value_and_grad(stored, (0, 1, 2, 3)))(*arguments)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-5), got, expected)


def test_examples_draw_differently_and_the_same_again():
    data = case()
    same = jnp.broadcast_to(data["inputs"][:1], (B, D))
    labels = jnp.full(B, 3)

    @jax.jit
    def losses(key):
        return per_example_sampled_softmax_loss(
            same, labels, data["weights"], None, uniform(C), (), key, S
        )

    assert len(np.unique(losses(KEY))) == B
    np.testing.assert_array_equal(losses(KEY), losses(KEY))
    assert (losses(KEY) != losses(jax.random.key(1))).all()


def test_nothing_of_all_examples_and_candidates_is_kept(monkeypatch, largest_array):
    """Neither ids [B, S] nor rows [B, S, D]: the largest arrays are those of a tile, and the gradient's."""
    batch, num_sampled, dim, num_classes, tile = 512, 64, 8, 1000, 16
    monkeypatch.setattr(per_example, "_TILE_NUMBERS", tile * num_sampled * dim)

    def total(x, w):
        return per_example_sampled_softmax_loss(
            x, jnp.zeros(batch, jnp.int32), w, None, uniform(num_classes), (), KEY, num_sampled
        ).sum()  # fmt: skip

    compiled = (
        jax.jit(jax.grad(total, (0, 1)))
        .lower(jnp.zeros((batch, dim)), jnp.zeros((num_classes, dim)))
        .compile()
    )
    assert largest_array(compiled) <= tile * num_sampled * dim + tile * dim < batch * num_sampled


def test_refuses_more_candidates_than_classes():
    data = case()
    with pytest.raises(ValueError, match="num_sampled must be at most 30"):
        per_example_sampled_softmax_loss(*data.values(), uniform(C), (), KEY, C + 1)
