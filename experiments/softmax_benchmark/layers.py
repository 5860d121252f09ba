"""Output layers trained and judged alike: which rows a step needs, its loss, the exact scores."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml import softmax, tables, train
from jaxml.types import Array, Key, PyTree


class Layer(NamedTuple):
    """An output layer over inputs [B, D].

    Attributes:
        init: `init(key, means) -> tables` by name, from the mean input [C, D] of each class; where there
            is one table of all classes it is called "classes".
        sampler_state: `sampler_state(tables) -> state`, of what the candidates are drawn by.
        refresh: whether that state follows the tables and is to be made anew now and then.
        shared: tables whose rows many examples share, such as clusters; the others' are classes.
        draw: `draw(sampler_state, inputs, labels, key) -> (ids, context)`: the rows for a step.
        observe: `observe(sampler_state, labels, accepted) -> sampler_state`: what is learned of a step.
        loss: `loss(rows, inputs, labels, context) -> float32 [B]`.
        judge: `judge(tables, inputs, labels, k) -> (losses [B], ids [B, k])`: the exact loss, and the
            best classes.
    """

    init: Callable[[Key, Array], dict[str, Array]]
    sampler_state: Callable[[dict[str, Array]], PyTree]
    refresh: bool
    shared: tuple[str, ...]
    draw: Callable[[PyTree, Array, Array, Key], tuple[dict[str, Any], PyTree]]
    observe: Callable[[PyTree, Array, Array], PyTree]
    loss: Callable[[dict[str, Array], Array, Array, PyTree], Array]
    judge: Callable[[dict[str, Array], Array, Array, int], tuple[Array, Array]]


class Sampling(NamedTuple):
    """How candidates are drawn: the sampler, its parameters, and whose they are.

    Attributes:
        sampler: draws them.
        number: of candidates, of the batch, or of each example where it has its own.
        unique: whether without replacement.
        follows: whether the sampler follows the model: its `init` is given the class vectors.
    """

    sampler: softmax.Sampler
    number: int
    unique: bool = True
    follows: bool = False


OWN = 64
"""Candidates of an example where each has its own."""


def samplings(
    counts: NDArray[np.int64], batch_size: int, num_sampled: int, own: int = OWN
) -> dict[str, Sampling]:
    """Samplers by name, for classes that occur so often in training."""
    size = len(counts)
    frequencies = softmax.unigram(np.maximum(counts, 1))
    rest = max(num_sampled - batch_size, 1)
    # The power that word2vec draws its negatives by (Mikolov et al. 2013).
    flattened = softmax.unigram(np.maximum(counts, 1), distortion=0.75)
    return {
        "uniform": Sampling(softmax.uniform(size), num_sampled),
        "uniform_independent": Sampling(softmax.uniform(size), num_sampled, unique=False),
        "log_uniform": Sampling(softmax.log_uniform(size), num_sampled),
        "log_uniform_independent": Sampling(softmax.log_uniform(size), num_sampled, unique=False),
        "unigram": Sampling(frequencies, num_sampled),
        "in_batch": Sampling(softmax.in_batch(size, frequencies=frequencies), batch_size),
        "mixed": Sampling(
            softmax.mixed(
                [softmax.in_batch(size, frequencies=frequencies), flattened],
                [batch_size, rest],
            ),
            batch_size + rest,
        ),
        "streaming_unigram": Sampling(softmax.streaming_unigram(size), num_sampled),
        "quadratic": Sampling(
            softmax.quadratic_kernel(size, projection_dim=16), own, unique=False, follows=True
        ),
        "multi_index": Sampling(
            softmax.inverted_multi_index(size, codebook_size=min(256, size)),
            own,
            unique=False,
            follows=True,
        ),
        "multi_index_512": Sampling(
            softmax.inverted_multi_index(size, codebook_size=min(512, size)),
            own,
            unique=False,
            follows=True,
        ),
    }


SAMPLERS = tuple(samplings(np.ones(4096, np.int64), 1, 1))

ALL_CLASSES = ("exact", "one_vs_all", "adaptive", "two_level")
"""Layers whose step goes over all classes, or over clusters of them."""

VARIANTS = (*ALL_CLASSES, *SAMPLERS)


def layer(
    variant: str,
    counts: NDArray[np.int64],
    *,
    batch_size: int,
    num_sampled: int,
    temperature: float,
) -> Layer:
    """An output layer by its name.

    Args:
        variant: of `VARIANTS`.
        counts: int64 [C], how often each class occurs in training, falling.
        batch_size: B.
        num_sampled: candidates of a step, where there are any; where each example has its own, `OWN`.
        temperature: inner products are divided by it.

    Raises:
        ValueError: for another name, or more candidates than classes.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variants must be among {VARIANTS}, got {variant!r}")
    size = len(counts)
    if variant == "adaptive":
        cutoffs = sorted({max(1, size // 20), max(2, size // 4), size})
        return _clustered(
            softmax.adaptive_softmax(cutoffs), partial(_adaptive, cutoffs), temperature
        )
    if variant == "two_level":
        return _clustered(softmax.two_level_softmax(size), _two_level, temperature)
    if variant in ("exact", "one_vs_all"):
        return _over_all(variant, size, temperature)
    if num_sampled > size:
        raise ValueError(f"num_sampled must be at most {size}, the classes, got {num_sampled}")
    sampling = samplings(counts, batch_size, num_sampled)[variant]
    return _sampled(sampling, counts, temperature)


def _means(key: Key, means: Array) -> dict[str, Array]:
    return {"classes": means}


def _judge(temperature: float, table: dict[str, Array], inputs: Array, labels: Array, k: int):
    losses, found = softmax.blockwise_softmax_loss(
        inputs, labels, table["classes"], temperature=temperature, by_products=("top_k",), k=k
    )
    return losses, found["top_k"][1]


def _nothing(*arguments: Any) -> tuple[()]:
    return ()


def _unchanged(state: PyTree, labels: Array, accepted: Array) -> PyTree:
    return state


def _over_all(variant: str, size: int, temperature: float) -> Layer:
    # A sigmoid of its own for each of C classes is right about most of them at −log C.
    biases = jnp.full(size, -np.log(size)) if variant == "one_vs_all" else None

    def loss(rows: dict[str, Array], inputs: Array, labels: Array, context: PyTree) -> Array:
        if variant == "one_vs_all":
            return softmax.one_vs_all_loss(inputs / temperature, labels, rows["classes"], biases)
        return softmax.blockwise_softmax_loss(
            inputs, labels, rows["classes"], temperature=temperature
        )

    return Layer(
        init=_means,
        sampler_state=_nothing,
        refresh=False,
        shared=(),
        draw=lambda state, inputs, labels, key: ({"classes": train.Whole()}, ()),
        observe=_unchanged,
        loss=loss,
        judge=partial(_judge, temperature),
    )


def _adaptive(cutoffs: list[int], key: Key, means: Array, params: PyTree) -> PyTree:
    """Frequent classes and clusters at their means, rare classes at random projections of theirs."""
    starts, dim = cutoffs[:-1], means.shape[1]
    members = [means[start:end] for start, end in itertools.pairwise(cutoffs)]
    tails = [jnp.mean(part, axis=0, keepdims=True) for part in members]
    filled = {"head": {"weights": jnp.concatenate([means[: starts[0]], *tails])}}
    for i, part in enumerate(members):
        hidden = len(params[f"tail_{i}"]["projection"])
        square = jax.random.orthogonal(jax.random.fold_in(key, i), dim)
        projection = square[:hidden] * (dim / hidden) ** 0.5
        filled[f"tail_{i}"] = {"projection": projection, "weights": part @ projection.T}
    return filled


def _two_level(key: Key, means: Array, params: PyTree) -> PyTree:
    """Classes at their means, clusters at their members'."""
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

        few = min(64, len(labels))  # All log-probabilities of so many examples are held at once.
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
        sampler_state=_nothing,
        refresh=False,
        shared=tuple(n for n in names if n.startswith(("head/", "clusters/")) or "projection" in n),
        draw=lambda state, inputs, labels, key: ({name: train.Whole() for name in names}, ()),
        observe=_unchanged,
        loss=lambda rows, inputs, labels, context: of.loss(
            nested(rows), inputs / temperature, labels
        ),
        judge=judge,
    )


def sampler_state(sampling: Sampling, table: dict[str, Array], temperature: float) -> PyTree:
    """The state that candidates are drawn by, where the class vectors are these."""
    if sampling.follows:
        return sampling.sampler.init(tables.from_storage(table["classes"]) / temperature)
    return sampling.sampler.init()


def _sampled(
    sampling: Sampling,
    counts: NDArray[np.int64],
    temperature: float,
) -> Layer:
    sampler = sampling.sampler

    def draw(state: PyTree, inputs: Array, labels: Array, key: Key):
        drawn = sampler.sample(
            state, key, labels, sampling.number, unique=sampling.unique, inputs=inputs
        )
        return {"classes": jnp.concatenate([labels, drawn.ids.ravel()])}, drawn

    def loss(rows: dict[str, Array], inputs: Array, labels: Array, drawn: PyTree) -> Array:
        # Split, and not sliced twice: the gradient is then one array, and not the sum of two.
        true, candidates = jax.lax.split(rows["classes"], (labels.size, drawn.ids.size))
        return softmax.sampled_softmax_loss_from_rows(
            inputs,
            true,
            candidates.reshape(*drawn.ids.shape, candidates.shape[-1]),
            labels,
            drawn,
            correction="negatives",
            temperature=temperature,
            num_classes=len(counts),
        )

    return Layer(
        init=_means,
        sampler_state=lambda table: sampler_state(sampling, table, temperature),
        refresh=sampling.follows,
        shared=(),
        draw=draw,
        observe=lambda state, labels, accepted: sampler.update(
            state, labels, where=jnp.broadcast_to(accepted, labels.shape)
        ),
        loss=loss,
        judge=partial(_judge, temperature),
    )
