"""Samplers that follow the model: classes that score high for an input are drawn for it more often.

The best proposal is the softmax itself, q(c|h) ∝ exp(h · w_c): then every candidate estimates the
partition function without error. It costs as much as the softmax. The samplers here draw from
something like it in much less than C steps, by going down a tree of two levels: a group of classes by
the mass of the whole group, then a class by its mass in the group.

- `quadratic_kernel`: q ∝ α (h · w)² + 1, since (h · w)² summed over a group is hᵀ (Σ w wᵀ) h.
- `random_fourier`: q ∝ φ(h) · φ(w) ≈ exp(h · w), with positive random features φ.
- `inverted_multi_index`: q ∝ exp(h · ŵ), where ŵ is w rounded to one of K² points.

**How to use them.** `state = sampler.init(weights)` builds the tree from the class table [C, D]; call it
again with the current table every so often (each docstring gives its cost). A stale tree makes
candidates less good, never wrong. `sample(state, key, labels, num_sampled, inputs=h)` draws ids
[*batch, S], each example's own, for inputs [*batch, D]. For biases append them to the table as
a column, and a 1 to the inputs.

**Counts are exact.** What is reported is the distribution that is drawn from, by construction: masses
are rounded to integers ("ticks", of 2⁻³⁰ of the whole) before the draw, points are drawn among
ticks in integers, and the probability of a draw is read off the same ticks. Every class has one
tick at least, so none is impossible, whatever underflows: the partition estimate Σ exp(z_c) /
expected count stays unbiased. Rounding moves q itself by 2⁻³⁰ in each of the two steps.

**What they cost.** A draw of 64 for each of 128 inputs, from 10⁵ classes of dim 64, took so many times
what scoring all classes takes (two CPU cores; in brackets `init`): `inverted_multi_index` 0.13 (16),
`quadratic_kernel` with `projection_dim=16` 0.4 (0.5), `random_fourier` 1.1 (1.5), `quadratic_kernel` in all
64 dimensions 1.9 (0.4). The first two save time at this size; the others grow with √C, the scores with C.

**Draws are independent.** Only `unique=False`, which is also their default, is offered: `expected_count`
is `num_sampled · q(id | h)`. True classes are not kept out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxml.softmax import checks, words
from jaxml.softmax.candidates import Candidates, Sampler
from jaxml.softmax.logits import check_temperature, true_classes
from jaxml.softmax.words import Words
from jaxml.types import Array, Key, PyTree

_TICKS = 2.0**30

# Groups are weighed by matrix products, leaves are gathered first. On a CPU a gathered number costs
# about as much as 20 multiplications, and 64 draws are usual: this is their product.
_GATHER = 64 * 20


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KernelState:
    """The tree of a kernel sampler; groups are blocks of consecutive ids.

    Attributes:
        vectors: float32 [groups, block_size, F], of the classes; zeros where the last group is not
            full.
        sums: float32 [groups, G], what gives a group's mass in one inner product.
        basis: float32 [D, F], what inputs are multiplied with.
        peaks: float32 [F], the logarithms of what the features were divided by; random features only.
    """

    vectors: Array
    sums: Array
    basis: Array
    peaks: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MultiIndexState:
    """The cells of an inverted multi-index: class c is in cell (first_code[c], second_code[c]).

    Attributes:
        first: float32 [K, D // 2], codewords of the vectors' first half.
        second: float32 [K, D − D // 2], of the second half.
        first_code: int32 [C].
        second_code: int32 [C].
        sizes: int32 [K, K], how many classes are in each cell.
        starts: int32 [K, K], where they begin in `order`.
        order: int32 [C], the ids by cell.
    """

    first: Array
    second: Array
    first_code: Array
    second_code: Array
    sizes: Array
    starts: Array
    order: Array


class _Tree(NamedTuple):
    """What tells one sampler from another; N examples, G groups, L leaves in each.

    Attributes:
        init: `init(weights [C, D] float32) -> state`.
        dim: `dim(state) -> D`.
        query: `query(state, inputs [N, D] float32)`, what the masses need of the inputs.
        groups: `groups(state, query) -> uint32 ticks [N, G]`.
        leaves: `leaves(state, query, group [N]) -> uint32 ticks [N, L]` of that group's leaves.
        place: `place(state, ids) -> (group, leaf)`.
        size: `size(state, group, leaf)`, int32, the number of classes in the leaf.
        pick: `pick(state, group, leaf, number)`, the id of one of them.
    """

    init: Callable[[Array], PyTree]
    dim: Callable[[PyTree], int]
    query: Callable[[PyTree, Array], PyTree]
    groups: Callable[[PyTree, PyTree], Array]
    leaves: Callable[[PyTree, PyTree, Array], Array]
    place: Callable[[PyTree, Array], tuple[Array, Array]]
    size: Callable[[PyTree, Array, Array], Array]
    pick: Callable[[PyTree, Array, Array, Array], Array]


def quadratic_kernel(
    num_classes: int,
    *,
    alpha: float = 100.0,
    projection_dim: int | None = None,
    block_size: int | None = None,
) -> Sampler:
    """Classes are drawn by the square of their score.

        q(c|h) = (α (h · w_c)² + 1) / Σ_j (α (h · w_j)² + 1)

    It is largest for high scores, but for very negative ones as well.

    With P the number of dimensions and m = block_size, a draw of S for one example costs
    P² C/m + S m P multiplications; the state has C P + P² C/m numbers; a refresh takes 2 C P²
    multiplications, and C D (D + P) more for a projection. S m P of these
    numbers are gathered, which is the larger part of the time.

    Args:
        num_classes: int in [1, 2³¹ − 2].
        alpha: finite, at least 0; 0 is the uniform distribution.
        projection_dim: None, or how many of the table's leading principal directions are kept (found
            anew at each `init`). Scores h · w are then those of the projected vectors, and q is exactly
            the kernel of these.
        block_size: classes in a group, at least 1. None: √(P C / 1280), about the fastest for S = 64
            on a CPU (else about √(P C / 20 S)).

    Returns:
        A Sampler of independent draws for each example, see the module's docstring. `probability(state,
        ids, inputs=h)` takes ids [*batch] or [*batch, n].

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> sampler = quadratic_kernel(3, alpha=1.0)
        >>> state = sampler.init(jnp.array([[0.0], [1.0], [2.0]]))
        >>> sampler.probability(state, jnp.arange(3), inputs=jnp.ones(1))
        Array([0.125, 0.25 , 0.625], dtype=float32)

    References:
        Blanc & Rendle 2018, "Adaptive sampled softmax with kernel based sampling".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha must be finite and at least 0, got {alpha}")
    if projection_dim is not None:
        projection_dim = checks.integer("projection_dim", projection_dim, 1, checks.MAX_CLASSES)
    if block_size is not None:
        block_size = checks.integer("block_size", block_size, 1, checks.MAX_CLASSES)

    def init(weights: Array) -> KernelState:
        dim = weights.shape[1]
        basis = jnp.eye(dim)
        if projection_dim is not None and projection_dim < dim:
            # In ascending order of what they explain.
            _, directions = jnp.linalg.eigh(_product("cd,ce->de", weights, weights))
            basis = directions[:, dim - projection_dim :]
            weights = _product("cd,de->ce", weights, basis)
        vectors = _grouped(
            weights, block_size or math.isqrt(num_classes * weights.shape[1] // _GATHER)
        )
        sums = _product("gsd,gse->gde", vectors, vectors).reshape(len(vectors), -1)
        return KernelState(vectors, sums, basis, jnp.zeros(0))

    def query(state: KernelState, inputs: Array) -> Array:
        return _product("nd,de->ne", inputs, state.basis)

    def groups(state: KernelState, query: Array) -> Array:
        squares = (query[:, :, None] * query[:, None, :]).reshape(len(query), query.shape[1] ** 2)
        mass = _product("nd,gd->ng", squares, state.sums)
        sizes = _present(num_classes, state).sum(1)[None]
        # The state may round a sum of squares to a little below 0.
        return _ticks(alpha * jnp.maximum(mass, 0) + sizes, sizes > 0)

    def leaves(state: KernelState, query: Array, group: Array) -> Array:
        scores = _product("nd,nsd->ns", query, state.vectors[group])
        return _ticks(alpha * scores**2 + 1, _present(num_classes, state)[group])

    return _sampler(num_classes, _blocks(init, query, groups, leaves))


def random_fourier(
    num_classes: int,
    *,
    num_features: int = 128,
    temperature: float = 1.0,
    block_size: int | None = None,
    seed: int = 0,
) -> Sampler:
    """Classes are drawn by an estimate of exp(score) that is an inner product.

        φ_f(x) = exp(ω_f · x / √τ − |x|² / 2τ),  ω_f ~ N(0, I):   E[φ(h) · φ(w)] / F = exp(h · w / τ)
        q(c|h) = φ(h) · φ(w_c) / Σ_j φ(h) · φ(w_j)

    The sines and cosines of the paper estimate the same kernel, and may come out negative, which is no
    probability; these features are positive (the half of them that repeats the others with −ω lowers
    their variance). The features are drawn once: q is one fixed distribution for each input, whose
    mean over seeds is near the softmax, and which is exactly what is drawn from and reported. It is
    near the softmax when (|h|² + |w|²) / τ is a few units and F some hundreds; far
    beyond, a few features decide.

    With F = num_features and m = block_size, a draw of S for one example costs F C/m + S m F + F D
    multiplications; the state has C F (1 + 1/m) numbers; a refresh takes C D F multiplications and C F
    exponentials.

    Args:
        num_classes: int in [1, 2³¹ − 2].
        num_features: int, at least 1.
        temperature: scalar τ > 0; that of the loss.
        block_size: classes in a group, at least 1. None: √(C / 1280), about the fastest for S = 64 on
            a CPU (else about √(C / 20 S)).
        seed: int; another seed gives other features.

    Returns:
        A Sampler of independent draws for each example, see the module's docstring.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> sampler = random_fourier(2, num_features=10_000)
        >>> state = sampler.init(jnp.array([[0.0], [1.0]]))
        >>> odds = sampler.probability(state, jnp.arange(2), inputs=jnp.ones(1))
        >>> abs(float(odds[1] / odds[0]) - np.e) < 0.2
        True

    References:
        Rawat et al. 2019, "Sampled softmax with random Fourier features"; positive features:
        Choromanski et al. 2021, "Rethinking attention with Performers".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    num_features = checks.integer("num_features", num_features, 1, checks.MAX_CLASSES)
    seed = checks.integer("seed", seed, 0, 2**31 - 1)
    check_temperature(temperature)
    if block_size is not None:
        block_size = checks.integer("block_size", block_size, 1, checks.MAX_CLASSES)

    def init(weights: Array) -> KernelState:
        half = -(-num_features // 2)
        omega = jax.random.normal(jax.random.key(seed), (weights.shape[1], half))
        basis = jnp.concatenate([omega, -omega], axis=1)[:, :num_features] / temperature**0.5
        exponents = _product("cd,df->cf", weights, basis)
        exponents -= (weights**2).sum(1, keepdims=True) / (2 * temperature)
        # Divided by the largest over the classes, no feature overflows or vanishes for all.
        peaks = exponents.max(0)
        vectors = _grouped(
            jnp.exp(exponents - peaks[None]), block_size or math.isqrt(num_classes // _GATHER)
        )
        return KernelState(vectors, vectors.sum(1), basis, peaks)

    def query(state: KernelState, inputs: Array) -> Array:
        # |h|² is the same for all classes, as is the largest exponent.
        exponents = _product("nd,df->nf", inputs, state.basis) + state.peaks[None]
        return jnp.exp(exponents - exponents.max(1, keepdims=True))

    def groups(state: KernelState, query: Array) -> Array:
        used = _present(num_classes, state).any(1)[None]
        return _ticks(_product("nf,gf->ng", query, state.sums), used)

    def leaves(state: KernelState, query: Array, group: Array) -> Array:
        mass = _product("nf,nsf->ns", query, state.vectors[group])
        return _ticks(mass, _present(num_classes, state)[group])

    return _sampler(num_classes, _blocks(init, query, groups, leaves))


def inverted_multi_index(
    num_classes: int,
    *,
    codebook_size: int | None = None,
    num_iterations: int = 10,
    seed: int = 0,
) -> Sampler:
    """Classes are drawn by the score of their vector rounded to a grid of K · K points.

        q(c|h) = exp(h · ŵ_c) / Σ_j exp(h · ŵ_j),   ŵ_c = (codeword of w_c's first half, of its second)

    The codebooks of the two halves come from k-means. A cell (k, l) holds the classes that share both
    codewords; its mass is its size times exp(h · codewords). One of the K rows of cells is drawn, then
    a cell of the row, then one of its classes, all alike. ("MIDX-uni" in the paper.)

    A draw of S for one example costs K D multiplications, K² + S K exponentials; the state 3 C + 2 K² + K D
    numbers; a refresh takes
    num_iterations · C K D multiplications.

    Args:
        num_classes: int in [1, 2³¹ − 2].
        codebook_size: K, int in [1, num_classes] and at most 2¹⁵. None: √num_classes, at most 64.
        num_iterations: of k-means, at least 0.
        seed: int; picks the classes that k-means starts from.

    Returns:
        A Sampler of independent draws for each example, see the module's docstring.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> sampler = inverted_multi_index(4, codebook_size=4)  # fine enough to round nothing
        >>> state = sampler.init(jnp.log(jnp.array([[1.0, 1.0], [1.0, 2.0], [3.0, 1.0], [2.0, 2.0]])))
        >>> q = sampler.probability(state, jnp.arange(4), inputs=jnp.ones(2))
        >>> [round(float(probability), 5) for probability in q]
        [0.1, 0.2, 0.3, 0.4]

    References:
        Chen et al. 2025, "Efficient sampled softmax with the inverted multi-index" (arXiv 2501.08563).
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    if codebook_size is None:
        codebook_size = min(64, math.isqrt(num_classes))
    codes = checks.integer("codebook_size", codebook_size, 1, min(num_classes, 2**15))
    num_iterations = checks.integer("num_iterations", num_iterations, 0, 2**31 - 1)
    seed = checks.integer("seed", seed, 0, 2**31 - 1)

    def init(weights: Array) -> MultiIndexState:
        half = weights.shape[1] // 2
        keys = jax.random.split(jax.random.key(seed))
        first, first_code = _k_means(keys[0], weights[:, :half], codes, num_iterations)
        second, second_code = _k_means(keys[1], weights[:, half:], codes, num_iterations)
        cell = first_code * codes + second_code
        sizes = jnp.zeros(codes * codes, jnp.int32).at[cell].add(1)
        starts = jnp.cumsum(sizes) - sizes
        return MultiIndexState(
            first,
            second,
            first_code,
            second_code,
            sizes.reshape(codes, codes),
            starts.reshape(codes, codes),
            jnp.argsort(cell).astype(jnp.int32),
        )

    def query(state: MultiIndexState, inputs: Array) -> tuple[Array, Array]:
        half = state.first.shape[1]
        return (
            _product("nd,kd->nk", inputs[:, :half], state.first),
            _product("nd,kd->nk", inputs[:, half:], state.second),
        )

    def groups(state: MultiIndexState, query: tuple[Array, Array]) -> Array:
        # Not exp(first) · (sizes @ exp(second)): the best of each may share no cell, and all underflow.
        cells = query[1][:, None] + _log(state.sizes)[None]
        mass = query[0] + jax.nn.logsumexp(cells, axis=-1)
        return _ticks(_exp_shifted(mass), state.sizes.sum(1)[None] > 0)

    def leaves(state: MultiIndexState, query: tuple[Array, Array], group: Array) -> Array:
        sizes = state.sizes[group]
        return _ticks(_exp_shifted(query[1] + _log(sizes)), sizes > 0)

    def pick(state: MultiIndexState, group: Array, leaf: Array, number: Array) -> Array:
        return jnp.take(state.order, state.starts[group, leaf] + number, mode="clip")

    return _sampler(
        num_classes,
        _Tree(
            init=init,
            dim=lambda state: state.first.shape[1] + state.second.shape[1],
            query=query,
            groups=groups,
            leaves=leaves,
            place=lambda state, ids: (state.first_code[ids], state.second_code[ids]),
            size=lambda state, group, leaf: state.sizes[group, leaf],
            pick=pick,
        ),
    )


# --- the sampler of a tree ----------------------------------------------------------------------


def _sampler(num_classes: int, tree: _Tree) -> Sampler:
    def init(weights: Any = None) -> PyTree:
        if weights is None or jnp.ndim(weights) != 2 or jnp.shape(weights)[0] != num_classes:
            got = "None" if weights is None else jnp.shape(weights)
            raise ValueError(f"weights must be [{num_classes}, dim], the class table, got {got}")
        if not jnp.shape(weights)[1]:
            raise ValueError(f"weights must have at least one dimension, got {jnp.shape(weights)}")
        return build(lax.stop_gradient(jnp.asarray(weights)))

    @jax.jit
    def build(weights: Array) -> PyTree:
        return tree.init(weights.astype(jnp.float32))

    @partial(jax.jit, static_argnames="num_sampled")
    def draw(state: PyTree, key: Key, inputs: Array, labels: Array, *, num_sampled: int):
        """Ids and their q [N, S], and the labels' q."""
        query = tree.query(state, inputs)
        ticks = tree.groups(state, query)
        bits = jax.random.bits(key, (6, len(inputs), num_sampled), jnp.uint32)
        group = _find(ticks, bits[0], bits[1])

        def descend(arguments):
            group, high, low = arguments
            ticks = tree.leaves(state, query, group)
            leaf = _find(ticks, high[:, None], low[:, None])
            return leaf[:, 0], _share(ticks, leaf)[:, 0]

        leaf, share = _columns(tree, state, query, descend, group, bits[2], bits[3])
        size = tree.size(state, group, leaf)
        ids = tree.pick(state, group, leaf, _point(size.astype(jnp.uint32), bits[4], bits[5]))
        q = _share(ticks, group) * share / size.astype(jnp.float32)
        return ids, q, look_up(state, query, ticks, labels)

    def look_up(state: PyTree, query: PyTree, ticks: Array, ids: Array) -> Array:
        """q [N, n] of ids [N, n]; 0 where they are out of range."""
        inside = (ids >= 0) & (ids < num_classes)
        group, leaf = tree.place(state, jnp.where(inside, ids, 0))

        def share_of(arguments):
            group, leaf = arguments
            return _share(tree.leaves(state, query, group), leaf[:, None])[:, 0]

        share = _columns(tree, state, query, share_of, group, leaf)
        size = tree.size(state, group, leaf).astype(jnp.float32)
        return jnp.where(inside, _share(ticks, group) * share / size, 0)

    @jax.jit
    def probabilities(state: PyTree, inputs: Array, ids: Array) -> Array:
        query = tree.query(state, inputs)
        return look_up(state, query, tree.groups(state, query), ids)

    def checked(state: PyTree, inputs: Any) -> Array:
        if inputs is None:
            raise ValueError("inputs must be given: this sampler draws for each input, got None")
        inputs = lax.stop_gradient(jnp.asarray(inputs))
        if not inputs.ndim or inputs.shape[-1] != tree.dim(state):
            raise ValueError(f"inputs must be [*batch, {tree.dim(state)}], got {inputs.shape}")
        return inputs

    def sample(
        state: PyTree,
        key: Key,
        labels: Any,
        num_sampled: int,
        *,
        unique: bool = False,
        where: Any = None,
        inputs: Any = None,
    ) -> Candidates:
        if unique:
            raise ValueError("unique must be False: only independent draws are offered, got True")
        num_sampled = checks.integer("num_sampled", num_sampled, 1, checks.MAX_CLASSES)
        inputs = checked(state, inputs)
        true = true_classes(labels, where, inputs, num_classes)
        batch, number = inputs.shape[:-1], math.prod(inputs.shape[:-1])
        ids, q, true_q = draw(
            state,
            key,
            _rows(inputs),
            true.ids.reshape(number, true.ids.shape[-1]),
            num_sampled=num_sampled,
        )
        return Candidates(
            ids=ids.reshape(*batch, num_sampled),
            expected_count=(num_sampled * q).reshape(*batch, num_sampled),
            true_expected_count=(num_sampled * true_q).reshape(jnp.shape(labels)),
        )

    def update(state: PyTree, labels: Any, *, where: Any = None, weights: Any = None) -> PyTree:
        return state

    def probability(state: PyTree, ids: Any, *, inputs: Any = None) -> Array:
        inputs = checked(state, inputs)
        ids = ids if isinstance(ids, jax.Array) else np.asarray(ids)
        shape, batch = ids.shape, inputs.shape[:-1]
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"ids must be integers, have dtype {ids.dtype}")
        if shape != batch and (ids.ndim != inputs.ndim or shape[:-1] != batch):
            raise ValueError(
                f"ids must be {batch} or {(*batch, 'n')} for inputs {inputs.shape}, got {shape}"
            )
        if isinstance(ids, np.ndarray):
            ids = np.clip(ids.astype(np.int64), -1, num_classes)
        ids = jnp.asarray(ids, jnp.int32)
        width = 1 if shape == batch else shape[-1]
        return probabilities(state, _rows(inputs), ids.reshape(math.prod(batch), width)).reshape(
            shape
        )

    return Sampler(init, sample, update, probability)


def _blocks(init, query, groups, leaves) -> _Tree:
    """The tree of a KernelState, whose groups are blocks of consecutive ids and leaves classes."""

    def place(state: KernelState, ids: Array) -> tuple[Array, Array]:
        return ids // state.vectors.shape[1], ids % state.vectors.shape[1]

    return _Tree(
        init=init,
        dim=lambda state: state.basis.shape[0],
        query=query,
        groups=groups,
        leaves=leaves,
        place=place,
        size=lambda state, group, leaf: jnp.ones(leaf.shape, jnp.int32),
        pick=lambda state, group, leaf, number: group * state.vectors.shape[1] + leaf,
    )


def _columns(tree: _Tree, state: PyTree, query: PyTree, function: Callable, *arguments: Array):
    """`function` of each column [N] of the arguments [N, S], stacked to [N, S].

    A few columns at once, so that what is gathered for them stays within a few dozen megabytes.
    """
    column = jax.ShapeDtypeStruct(arguments[0].shape[:1], jnp.int32)
    size = jax.eval_shape(tree.leaves, state, query, column).size
    # Asked for one by one where there are none: batches of nothing cannot be formed.
    at_once = max(1, 2**17 // size) if size else None
    found = lax.map(function, tuple(argument.T for argument in arguments), batch_size=at_once)
    return jax.tree.map(jnp.transpose, found)


# --- ticks --------------------------------------------------------------------------------------


def _ticks(mass: Array, present: Array) -> Array:
    """Masses [N, L] as integers that sum to about 2³⁰ a row, at least one for what is present."""
    mass = jnp.where(present, mass, 0)
    share = mass / mass.sum(-1, keepdims=True)
    # NaN from broken inputs: all alike, and the loss will show it.
    ticks = jnp.rint(jnp.where(share >= 0, share, 0) * _TICKS).astype(jnp.uint32)
    return jnp.where(present, jnp.maximum(ticks, 1), 0)


def _find(ticks: Array, high: Array, low: Array) -> Array:
    """Places [N, S] in the rows of ticks [N, L], each as likely as it has ticks."""
    edges = jnp.cumsum(ticks, axis=-1, dtype=jnp.uint32)
    point = _point(jnp.broadcast_to(edges[:, -1:], low.shape), high, low)
    method = "compare_all" if low.shape[1] == 1 else "scan"
    search = partial(jnp.searchsorted, side="right", method=method)
    return jax.vmap(search)(edges, point.astype(jnp.uint32)).astype(jnp.int32)


def _point(length: Array, high: Array, low: Array) -> Array:
    """Integers in [0, length), from 64 random bits each."""
    return words.fraction(Words(jnp.zeros_like(length), length), Words(high, low)).low.astype(
        jnp.int32
    )


def _share(ticks: Array, places: Array) -> Array:
    """The probability [N, n] of places [N, n] in the rows of ticks [N, L]."""
    total = ticks.sum(-1, keepdims=True, dtype=jnp.uint32).astype(jnp.float32)
    return jnp.take_along_axis(ticks, places, axis=-1).astype(jnp.float32) / total


# --- arrays -------------------------------------------------------------------------------------


# Masses and sums must agree to float32, on matrix units too.
_product = partial(jnp.einsum, precision="highest", preferred_element_type=jnp.float32)


def _rows(inputs: Array) -> Array:
    rows = inputs.reshape(math.prod(inputs.shape[:-1]), inputs.shape[-1])
    return rows.astype(jnp.float32)


def _present(num_classes: int, state: KernelState) -> Array:
    """Which slots [groups, block_size] hold a class."""
    groups, size = state.vectors.shape[:2]
    return jnp.arange(groups * size).reshape(groups, size) < num_classes


def _grouped(vectors: Array, size: int) -> Array:
    """[C, F] as [groups, size, F], with zeros at the end."""
    size = min(max(size, 1), len(vectors))
    groups = -(-len(vectors) // size)
    padded = jnp.pad(vectors, ((0, groups * size - len(vectors)), (0, 0)))
    return padded.reshape(groups, size, vectors.shape[1])


def _log(sizes: Array) -> Array:
    return jnp.log(sizes.astype(jnp.float32))


def _exp_shifted(exponents: Array) -> Array:
    return jnp.exp(exponents - exponents.max(-1, keepdims=True))


def _k_means(key: Key, vectors: Array, count: int, iterations: int) -> tuple[Array, Array]:
    """Lloyd's algorithm from random rows: codewords [count, d], and each row's, int32 [C]."""

    def nearest(codewords: Array) -> Array:
        lengths = (codewords**2).sum(1)

        def of_one(vector: Array) -> Array:
            # |v|² is the same for all.
            distances = lengths - 2 * _product("kd,d->k", codewords, vector)
            return jnp.argmin(distances).astype(jnp.int32)

        return lax.map(of_one, vectors, batch_size=min(len(vectors), 2**14))

    def improve(_, codewords: Array) -> Array:
        code = nearest(codewords)
        members = jnp.zeros(count).at[code].add(1.0)[:, None]
        sums = jnp.zeros_like(codewords).at[code].add(vectors)
        # A codeword that no row is near to stays where it is.
        return jnp.where(members > 0, sums / jnp.maximum(members, 1), codewords)

    start = vectors[jax.random.choice(key, len(vectors), (count,), replace=False)]
    codewords = lax.fori_loop(0, iterations, improve, start)
    return codewords, nearest(codewords)
