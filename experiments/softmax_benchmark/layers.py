"""Output layers behind one interface: the rows of a step, its loss, and the exact scores."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml import checks, softmax, tables, train
from jaxml.types import Array, Key, PyTree


class Layer(NamedTuple):
    """An output layer over inputs [B, D].

    Attributes:
        init: `init(key, means) -> tables` by name, from the mean input [C, D] of each class. A table of all
            classes is called "classes".
        draw: `draw(sampler_state, inputs, labels, key) -> (ids, context)`, the rows of a step.
        loss: `loss(rows, inputs, labels, context) -> float32 [B]`.
        judge: `judge(tables, inputs, labels, k) -> (losses [B], ids [B, k])`, the exact loss and the best
            classes.
        shared: tables whose rows many examples share, such as clusters.
        sampler_state: `sampler_state(tables) -> state` of the sampler.
        observe: `observe(sampler_state, labels, accepted) -> sampler_state`, after a step.
        refresh: whether the sampler follows the tables: its state has to be made again now and then.
    """

    init: Callable[[Key, Array], dict[str, Array]]
    draw: Callable[[PyTree, Array, Array, Key], tuple[dict[str, Any], PyTree]]
    loss: Callable[[dict[str, Array], Array, Array, PyTree], Array]
    judge: Callable[[dict[str, Array], Array, Array, int], tuple[Array, Array]]
    shared: tuple[str, ...] = ()
    sampler_state: Callable[[dict[str, Array]], PyTree] = lambda table: ()
    observe: Callable[[PyTree, Array, Array], PyTree] = lambda state, labels, accepted: state
    refresh: bool = False


OWN = 64
"""Candidates of an example where each has its own."""

ALL_CLASSES = ("exact", "one_vs_all", "adaptive", "two_level")
"""Layers that score all classes, or clusters of them; the other variants are samplers."""

VARIANTS = (*ALL_CLASSES, *softmax.SAMPLERS)


def clustered(variant: str, num_classes: int) -> softmax.AdaptiveSoftmax:
    """Returns the layer of two levels, or the adaptive softmax with the `cutoffs`."""
    if variant == "two_level":
        return softmax.two_level_softmax(num_classes)
    return softmax.adaptive_softmax(cutoffs(num_classes))


def cutoffs(num_classes: int) -> list[int]:
    """Returns cutoffs at a twentieth and a quarter of the classes."""
    return sorted({max(1, num_classes // 20), max(1, num_classes // 4), num_classes})


def layer(
    variant: str,
    counts: NDArray[np.int64],
    *,
    batch_size: int,
    num_sampled: int,
    temperature: float,
) -> Layer:
    """Returns an output layer of `VARIANTS`, for classes that occur `counts` [C] times, falling.

    A step has `num_sampled` candidates, or `OWN` for each example if each has its own.
    """
    checks.choice("variant", variant, VARIANTS)
    size = len(counts)
    if variant in ("adaptive", "two_level"):
        init = _two_level if variant == "two_level" else partial(_adaptive, cutoffs(size))
        return _clustered(clustered(variant, size), init, temperature)
    if variant in ("exact", "one_vs_all"):
        return _over_all(variant, size, temperature)
    if num_sampled > size:
        raise ValueError(f"num_sampled must be at most {size}, the classes, got {num_sampled}")
    return _sampled(sampling(variant, counts, batch_size, num_sampled), len(counts), temperature)


def _means(key: Key, means: Array) -> dict[str, Array]:
    return {"classes": means}


def _judge(temperature: float, table: dict[str, Array], inputs: Array, labels: Array, k: int):
    losses, (_, ids) = softmax.blockwise_softmax_loss(
        inputs, labels, table["classes"], temperature=temperature, top_k=k
    )
    return losses, ids


def _over_all(variant: str, size: int, temperature: float) -> Layer:
    # An independent sigmoid for each of C classes has the right mean at −log C.
    biases = jnp.full(size, -np.log(size)) if variant == "one_vs_all" else None

    def loss(rows: dict[str, Array], inputs: Array, labels: Array, context: PyTree) -> Array:
        if variant == "one_vs_all":
            return softmax.one_vs_all_loss(inputs / temperature, labels, rows["classes"], biases)
        return softmax.blockwise_softmax_loss(
            inputs, labels, rows["classes"], temperature=temperature
        )

    return Layer(
        init=_means,
        draw=lambda state, inputs, labels, key: ({"classes": train.Whole()}, ()),
        loss=loss,
        judge=partial(_judge, temperature),
    )


def _adaptive(bounds: list[int], key: Key, means: Array, params: PyTree) -> PyTree:
    """Frequent classes and clusters start at their means, rare classes at random projections of them."""
    starts, dim = bounds[:-1], means.shape[1]
    members = [means[start:end] for start, end in itertools.pairwise(bounds)]
    tails = [jnp.mean(part, axis=0, keepdims=True) for part in members]
    filled = {"head": {"weights": jnp.concatenate([means[: starts[0]], *tails])}}
    for i, part in enumerate(members):
        hidden = len(params[f"tail_{i}"]["projection"])
        square = jax.random.orthogonal(jax.random.fold_in(key, i), dim)
        projection = square[:hidden] * (dim / hidden) ** 0.5
        filled[f"tail_{i}"] = {"projection": projection, "weights": part @ projection.T}
    return filled


def _two_level(key: Key, means: Array, params: PyTree) -> PyTree:
    """Classes start at their means, clusters at the means of their members."""
    parts = jnp.array_split(means, len(params["clusters"]["weights"]))
    clusters = jnp.stack([part.mean(0) for part in parts])
    return {"clusters": {"weights": clusters}, "classes": {"weights": means}}


def _clustered(
    of: softmax.AdaptiveSoftmax, init: Callable[[Key, Array, PyTree], PyTree], temperature: float
) -> Layer:
    def flat(params: PyTree) -> dict[str, Array]:
        return {
            f"{part}/{name}": a for part, arrays in params.items() for name, a in arrays.items()
        }

    def nested(rows: dict[str, Array]) -> PyTree:
        params: dict[str, dict[str, Array]] = {}
        for path, array in rows.items():
            part, name = path.split("/")
            params.setdefault(part, {})[name] = array
        return params

    names = sorted(flat(jax.eval_shape(lambda: of.init(jax.random.key(0), 8))))

    def judge(table: dict[str, Array], inputs: Array, labels: Array, k: int):
        def of_few(arguments: tuple[Array, Array]):
            inputs, labels = arguments
            scores = of.log_prob(nested(table), inputs / temperature)
            own = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
            return -own, jax.lax.top_k(scores, k)[1]

        few = min(64, len(labels))  # Examples whose log-probabilities of all classes are in memory.
        whole = len(labels) - len(labels) % few
        first, last = (
            jax.tree.map(lambda a: a[:whole].reshape(-1, few, *a.shape[1:]), (inputs, labels)),
            jax.tree.map(lambda a: a[whole:], (inputs, labels)),
        )
        parts = jax.lax.map(of_few, first)
        parts = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), parts)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), parts, of_few(last))

    return Layer(
        init=lambda key, means: flat(init(key, means, of.init(key, means.shape[1]))),
        shared=tuple(n for n in names if n.startswith(("head/", "clusters/")) or "projection" in n),
        draw=lambda state, inputs, labels, key: ({name: train.Whole() for name in names}, ()),
        loss=lambda rows, inputs, labels, context: of.loss(
            nested(rows), inputs / temperature, labels
        ),
        judge=judge,
    )


def sampling(
    name: str, counts: NDArray[np.int64], batch_size: int, num_sampled: int, own: int = OWN
) -> softmax.Setup:
    """Returns a sampler of the registry, with `own` candidates if it draws for each example."""
    setup = softmax.SAMPLERS[name](counts, batch_size, num_sampled)
    return setup._replace(num_sampled=own) if setup.follows_model else setup


def sampler_state(setup: softmax.Setup, table: dict[str, Array], temperature: float) -> PyTree:
    """Returns the state of a sampler for these tables."""
    if setup.follows_model:
        return setup.sampler.init(tables.from_storage(table["classes"]) / temperature)
    return setup.sampler.init()


def _sampled(setup: softmax.Setup, num_classes: int, temperature: float) -> Layer:
    sampler = setup.sampler

    def draw(state: PyTree, inputs: Array, labels: Array, key: Key):
        drawn = sampler.sample(
            state, key, labels, setup.num_sampled, unique=setup.unique, inputs=inputs
        )
        return {"classes": {"true": labels, "candidates": drawn.ids}}, drawn

    def loss(rows: dict[str, Any], inputs: Array, labels: Array, drawn: PyTree) -> Array:
        return softmax.sampled_softmax_loss_from_rows(
            inputs,
            rows["classes"]["true"],
            rows["classes"]["candidates"],
            labels,
            drawn,
            correction="negatives",
            temperature=temperature,
            num_classes=num_classes,
        )

    return Layer(
        init=_means,
        sampler_state=lambda table: sampler_state(setup, table, temperature),
        refresh=setup.follows_model,
        draw=draw,
        observe=lambda state, labels, accepted: sampler.update(
            state, labels, where=jnp.broadcast_to(accepted, labels.shape)
        ),
        loss=loss,
        judge=partial(_judge, temperature),
    )
