"""Samplers that follow the model: classes that score high for an input are drawn for it more often.

The best proposal is the softmax itself, q(c|h) ∝ exp(h · w_c), but it costs as much as the softmax. The
samplers here draw from an approximation of it, down a tree of two levels: first a group of classes by the
mass of the group, then a class by its mass in the group.

- `quadratic_kernel`: q ∝ α (h · w)² + 1; (h · w)² summed over a group is hᵀ (Σ w wᵀ) h.
- `random_fourier`: q ∝ φ(h) · φ(w) ≈ exp(h · w), with positive random features φ.
- `inverted_multi_index`: q ∝ exp(h · ŵ), where ŵ is w rounded to one of K² points.

**Use.** `state = sampler.init(weights)` builds the tree from the class table [C, D]; call it again with the
current table now and then. A stale tree makes candidates less good, never wrong. `sample(state, key,
labels, num_sampled, inputs=h)` draws ids [*batch, S], each example's own, for inputs [*batch, D].
`probability` and `expected_count` take ids [*batch] or [*batch, n] and need `inputs` too. For biases append
them to the table as a column, and a 1 to the inputs. Only independent draws are offered: `unique=False` is
the default.

**Counts are exact.** Masses are rounded to integers (units of 2⁻³⁰ of the whole) before the draw, points
are drawn among these integers, and the reported probability is read off the same integers. Every class has
at least one unit, so the partition estimate Σ exp(z_c) / expected count is unbiased even if masses
underflow.

**Cost.** A draw of 64 for each of 128 inputs, from 10⁵ classes of dim 64, relative to scoring all classes
(two CPU cores; in brackets `init`): `inverted_multi_index` 0.13 (16), `quadratic_kernel` with
`projection_dim=16` 0.4 (0.5), `random_fourier` 1.1 (1.5), `quadratic_kernel` in all 64 dimensions 1.9
(0.4). Except for the first the cost grows with √C, that of scoring with C.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxml import checks, meshes
from jaxml.softmax.drawing import uint64
from jaxml.softmax.drawing.uint64 import UInt64
from jaxml.softmax.logits import MAX_CLASSES, check_scalar
from jaxml.softmax.samplers import Request, Sampler, make_sampler
from jaxml.types import Array, Key, PyTree

_WHOLE = 2.0**30

# Masses of groups are matrix products; leaves are gathered. On a CPU a gathered number costs about as much
# as 20 multiplications, and 64 draws are usual: this is their product.
_GATHER = 64 * 20


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KernelState:
    """The tree of a kernel sampler; groups are blocks of consecutive ids.

    Attributes:
        vectors: float32 [groups, block_size, F], of the classes; zeros where the last group is not full.
        sums: float32 [groups, G], from which a group's mass is one inner product.
        basis: float32 [D, F], with which inputs are multiplied.
        peaks: float32 [F], the logarithms of the divisors of the features; random features only.
    """

    vectors: Array
    sums: Array
    basis: Array
    peaks: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MultiIndexState:
    """The cells of an inverted multi-index: class c is in cell (first_code[c], second_code[c]).

    `first` float32 [K, D // 2] and `second` [K, D − D // 2] are the codewords of the vectors' halves. Cells
    hold `sizes` int32 [K, K] classes, from `starts` [K, K] on in `order` [C], the ids by cell.
    """

    first: Array
    second: Array
    first_code: Array
    second_code: Array
    sizes: Array
    starts: Array
    order: Array


class _Tree(NamedTuple):
    """The functions in which the samplers differ; N examples, G groups, L leaves in each.

    The defaults are those of a `KernelState`, whose groups are blocks of consecutive ids and leaves
    classes.

    Attributes:
        init: `init(weights [C, D] float32) -> state`.
        query: `query(state, inputs [N, D] float32)`, the part of the inputs that the masses need.
        groups: `groups(state, query) -> uint32 masses [N, G]`.
        leaves: `leaves(state, query, group [N]) -> uint32 masses [N, L]` of that group's leaves.
        dim: `dim(state) -> D`.
        place: `place(state, ids) -> (group, leaf)`.
        size: `size(state, group, leaf)`, int32, the number of classes in the leaf.
        pick: `pick(state, group, leaf, number)`, the id of one of them.
    """

    init: Callable[[Array], PyTree]
    query: Callable[[PyTree, Array], PyTree]
    groups: Callable[[PyTree, PyTree], Array]
    leaves: Callable[[PyTree, PyTree, Array], Array]
    dim: Callable[[PyTree], int] = lambda state: state.basis.shape[0]
    place: Callable[[PyTree, Array], tuple[Array, Array]] = lambda state, ids: (
        ids // state.vectors.shape[1],
        ids % state.vectors.shape[1],
    )
    size: Callable[[PyTree, Array, Array], Array] = lambda state, group, leaf: jnp.ones(
        leaf.shape, jnp.int32
    )
    pick: Callable[[PyTree, Array, Array, Array], Array] = lambda state, group, leaf, number: (
        group * state.vectors.shape[1] + leaf
    )


def quadratic_kernel(
    num_classes: int,
    *,
    alpha: float = 100.0,
    projection_dim: int | None = None,
    block_size: int | None = None,
) -> Sampler:
    """Returns a sampler that draws classes by the square of their score.

        q(c|h) = (α (h · w_c)² + 1) / Σ_j (α (h · w_j)² + 1)

    It is large for high scores, and for very negative ones as well. With P dimensions and blocks of m, a
    draw of S for one example takes P² C/m + S m P multiplications; the state has C P + P² C/m numbers.

    Args:
        num_classes: C.
        alpha: finite, at least 0; 0 is the uniform distribution.
        projection_dim: None, or the number of leading principal directions of the table to keep (computed
            at each `init`). Scores are then those of the projected vectors.
        block_size: m, classes in a group. None: √(P C / 1280), about the fastest for S = 64 on a CPU.

    Example:
        >>> sampler = quadratic_kernel(3, alpha=1.0)
        >>> state = sampler.init(jnp.array([[0.0], [1.0], [2.0]]))
        >>> sampler.probability(state, jnp.arange(3), inputs=jnp.ones(1))
        Array([0.125, 0.25 , 0.625], dtype=float32)

    References:
        Blanc & Rendle 2018, "Adaptive sampled softmax with kernel based sampling".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
    alpha = checks.number("alpha", alpha, 0)
    if projection_dim is not None:
        projection_dim = checks.integer("projection_dim", projection_dim, 1)
    block_size = _checked_block_size(block_size)

    def init(weights: Array) -> KernelState:
        dim = weights.shape[1]
        basis = jnp.eye(dim, dtype=jnp.float32)
        if projection_dim is not None and projection_dim < dim:
            # In ascending order of what they explain.
            _, directions = jnp.linalg.eigh(_product("cd,ce->de", weights, weights))
            basis = directions[:, dim - projection_dim :]
            weights = _product("cd,de->ce", weights, basis)
        vectors = _grouped(
            weights, block_size or math.isqrt(num_classes * weights.shape[1] // _GATHER)
        )
        sums = _product("gsd,gse->gde", vectors, vectors).reshape(len(vectors), -1)
        return KernelState(vectors, sums, basis, jnp.zeros(0, jnp.float32))

    def query(state: KernelState, inputs: Array) -> Array:
        return _product("nd,de->ne", inputs, state.basis)

    def groups(state: KernelState, query: Array) -> Array:
        squares = (query[:, :, None] * query[:, None, :]).reshape(len(query), query.shape[1] ** 2)
        mass = _product("nd,gd->ng", squares, state.sums)
        sizes = _present(num_classes, state).sum(1)[None]
        # The state may round a sum of squares to a little below 0.
        return _units(alpha * jnp.maximum(mass, 0) + sizes, sizes > 0)

    def leaves(state: KernelState, query: Array, group: Array) -> Array:
        scores = _product("nd,nsd->ns", query, state.vectors[group])
        return _units(alpha * scores**2 + 1, _present(num_classes, state)[group])

    return _sampler(num_classes, _Tree(init, query, groups, leaves))


def random_fourier(
    num_classes: int,
    *,
    num_features: int = 128,
    temperature: float = 1.0,
    block_size: int | None = None,
    seed: int = 0,
) -> Sampler:
    """Returns a sampler that draws classes by an estimate of exp(score) that is an inner product.

        φ_f(x) = exp(ω_f · x / √τ − |x|² / 2τ),  ω_f ~ N(0, I):   E[φ(h) · φ(w)] / F = exp(h · w / τ)
        q(c|h) = φ(h) · φ(w_c) / Σ_j φ(h) · φ(w_j)

    The sines and cosines of the paper estimate the same kernel, but may be negative; these features are
    positive (the second half repeats the first with −ω, which lowers the variance). The features are drawn
    once, so q is a fixed distribution for each input. It is near the softmax if (|h|² + |w|²) / τ is a few
    units and F some hundreds; far beyond, a few features decide. With blocks of m, a draw of S for one
    example takes F C/m + S m F + F D multiplications; the state has C F (1 + 1/m) numbers.

    Args:
        num_classes: C.
        num_features: F, at least 1.
        temperature: scalar τ > 0; that of the loss.
        block_size: m, classes in a group. None: √(C / 1280), about the fastest for S = 64 on a CPU.
        seed: int; another seed gives other features.

    Example:
        >>> sampler = random_fourier(2, num_features=10_000)
        >>> state = sampler.init(jnp.array([[0.0], [1.0]]))
        >>> odds = sampler.probability(state, jnp.arange(2), inputs=jnp.ones(1))
        >>> abs(float(odds[1] / odds[0]) - math.e) < 0.2
        True

    References:
        Rawat et al. 2019, "Sampled softmax with random Fourier features"; positive features:
        Choromanski et al. 2021, "Rethinking attention with Performers".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
    num_features = checks.integer("num_features", num_features, 1, MAX_CLASSES)
    seed = checks.integer("seed", seed, 0, 2**31 - 1)
    check_scalar("temperature", temperature, above=0)
    block_size = _checked_block_size(block_size)

    def init(weights: Array) -> KernelState:
        half = -(-num_features // 2)
        omega = jax.random.normal(jax.random.key(seed), (weights.shape[1], half), jnp.float32)
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
        return _units(_product("nf,gf->ng", query, state.sums), used)

    def leaves(state: KernelState, query: Array, group: Array) -> Array:
        mass = _product("nf,nsf->ns", query, state.vectors[group])
        return _units(mass, _present(num_classes, state)[group])

    return _sampler(num_classes, _Tree(init, query, groups, leaves))


def inverted_multi_index(
    num_classes: int,
    *,
    codebook_size: int | None = None,
    num_iterations: int = 10,
    seed: int = 0,
) -> Sampler:
    """Returns a sampler that draws classes by the score of their vector, rounded to a grid of K · K points.

        q(c|h) = exp(h · ŵ_c) / Σ_j exp(h · ŵ_j),   ŵ_c = (codeword of w_c's first half, of its second)

    The codebooks of the two halves come from k-means. A cell (k, l) holds the classes that share both
    codewords; its mass is its size times exp(h · codewords). A row of cells is drawn, then a cell of the
    row, then one of its classes, all equally likely ("MIDX-uni" in the paper).

    A draw of S for one example takes K D multiplications and K² + S K exponentials; the state has
    3 C + 2 K² + K D numbers; `init` takes num_iterations · C K D multiplications.

    Args:
        num_classes: C.
        codebook_size: K, int in [1, C] and at most 2¹⁵. None: √C, at most 64.
        num_iterations: of k-means, at least 0.
        seed: int; of the initial codewords.

    Example:
        >>> sampler = inverted_multi_index(4, codebook_size=4)  # fine enough to round nothing
        >>> state = sampler.init(jnp.log(jnp.array([[1.0, 1.0], [1.0, 2.0], [3.0, 1.0], [2.0, 2.0]])))
        >>> q = sampler.probability(state, jnp.arange(4), inputs=jnp.ones(2))
        >>> [round(float(probability), 5) for probability in q]
        [0.1, 0.2, 0.3, 0.4]

    References:
        Chen et al. 2025, "Efficient sampled softmax with the inverted multi-index" (arXiv 2501.08563).
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
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
        starts = jnp.cumsum(sizes, dtype=jnp.int32) - sizes
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
        return _units(_exp_shifted(mass), state.sizes.sum(1)[None] > 0)

    def leaves(state: MultiIndexState, query: tuple[Array, Array], group: Array) -> Array:
        sizes = state.sizes[group]
        return _units(_exp_shifted(query[1] + _log(sizes)), sizes > 0)

    def pick(state: MultiIndexState, group: Array, leaf: Array, number: Array) -> Array:
        return jnp.take(state.order, state.starts[group, leaf] + number, mode="clip")

    return _sampler(
        num_classes,
        _Tree(
            init=init,
            query=query,
            groups=groups,
            leaves=leaves,
            dim=lambda state: state.first.shape[1] + state.second.shape[1],
            place=lambda state, ids: (state.first_code[ids], state.second_code[ids]),
            size=lambda state, group, leaf: state.sizes[group, leaf],
            pick=pick,
        ),
    )


# --- the sampler of a tree ----------------------------------------------------------------------


def _sampler(num_classes: int, tree: _Tree) -> Sampler:
    """Returns the sampler that draws down a tree, for each input."""

    def init(weights: Any) -> PyTree:
        shape = None if weights is None else jnp.shape(weights)
        if shape is None or len(shape) != 2 or shape[0] != num_classes or not shape[1]:
            raise ValueError(
                f"weights must be the class table, [{num_classes}, dim] with dim >= 1, got {shape}"
            )
        return build(lax.stop_gradient(jnp.asarray(weights)))

    @jax.jit
    def build(weights: Array) -> PyTree:
        return tree.init(weights.astype(jnp.float32))

    def check(state: PyTree, request: Request) -> Request:
        if request.unique:
            raise ValueError("unique must be False: only independent draws are offered, got True")
        if request.inputs is None:
            raise ValueError("inputs must be given: this sampler draws for each input, got None")
        inputs = lax.stop_gradient(jnp.asarray(request.inputs))
        if not inputs.ndim or inputs.shape[-1] != tree.dim(state):
            raise ValueError(f"inputs must be [*batch, {tree.dim(state)}], got {inputs.shape}")
        if request.labels is not None:
            _columns_of("labels", request.labels, inputs)
        return Request(request.num_sampled, False, inputs=inputs)

    def prepare(state: PyTree, request: Request):
        inputs = request.inputs
        rows = inputs.reshape(math.prod(inputs.shape[:-1]), inputs.shape[-1]).astype(jnp.float32)
        query = tree.query(state, rows)
        return state, query, tree.groups(state, query)

    def draw(context, key: Key, request: Request) -> tuple[Array, Array]:
        state, query, masses = context
        bits = jax.random.bits(key, (6, len(masses), request.num_sampled), jnp.uint32)
        group = _find(masses, bits[0], bits[1])

        def descend(arguments):
            group, high, low = arguments
            masses = tree.leaves(state, query, group)
            leaf = _find(masses, high[:, None], low[:, None])
            return leaf[:, 0], _share(masses, leaf)[:, 0]

        leaf, share = _by_columns(tree, state, query, descend, group, bits[2], bits[3])
        size = tree.size(state, group, leaf)
        ids = tree.pick(state, group, leaf, _point(size.astype(jnp.uint32), bits[4], bits[5]))
        q = _share(masses, group) * share / size.astype(jnp.float32)
        shape = (*request.inputs.shape[:-1], request.num_sampled)
        return ids.reshape(shape), (request.num_sampled * q).reshape(shape)

    def count(context, ids: Array, request: Request) -> Array:
        state, query, masses = context
        group, leaf = tree.place(state, _columns_of("ids", ids, request.inputs))

        def share_of(arguments):
            group, leaf = arguments
            return _share(tree.leaves(state, query, group), leaf[:, None])[:, 0]

        share = _by_columns(tree, state, query, share_of, group, leaf)
        size = tree.size(state, group, leaf).astype(jnp.float32)
        q = _share(masses, group) * share / size
        return (request.num_sampled * q).reshape(ids.shape)

    return make_sampler(
        num_classes,
        init=init,
        draw=draw,
        count=count,
        check=check,
        prepare=prepare,
        unique_by_default=False,
    )


def _columns_of(name: str, ids: Array, inputs: Array) -> Array:
    """Ids [*batch] or [*batch, n], for inputs [*batch, D], as [N, n]."""
    batch = inputs.shape[:-1]
    if ids.shape != batch and (ids.ndim != inputs.ndim or ids.shape[:-1] != batch):
        raise ValueError(
            f"{name} must be {batch} or {(*batch, 'n')} for inputs {inputs.shape}, got {ids.shape}"
        )
    return ids.reshape(math.prod(batch), 1 if ids.shape == batch else ids.shape[-1])


def _by_columns(tree: _Tree, state: PyTree, query: PyTree, function: Callable, *arguments: Array):
    """`function` of each column [N] of the arguments [N, S], stacked to [N, S].

    A few columns at once, so that the rows gathered for them stay within a few dozen megabytes.
    """
    column = jax.ShapeDtypeStruct(arguments[0].shape[:1], jnp.int32)
    size = jax.eval_shape(tree.leaves, state, query, column).size
    # `lax.map` cannot form batches of size 0.
    at_once = max(1, 2**17 // size) if size else None
    found = lax.map(function, tuple(argument.T for argument in arguments), batch_size=at_once)
    return jax.tree.map(jnp.transpose, found)


# --- units --------------------------------------------------------------------------------------


def _units(mass: Array, present: Array) -> Array:
    """Masses [N, L] as uint32 that sum to about 2³⁰ a row, at least 1 for what is present."""
    mass = jnp.where(present, mass, 0)
    share = mass / mass.sum(-1, keepdims=True)
    # NaN from broken inputs: all classes are alike, and the loss is NaN.
    units = jnp.rint(jnp.where(share >= 0, share, 0) * _WHOLE).astype(jnp.uint32)
    return jnp.where(present, jnp.maximum(units, 1), 0)


def _find(units: Array, high: Array, low: Array) -> Array:
    """Places [N, S] in the rows of units [N, L], each as likely as it has units."""
    edges = jnp.cumsum(units, axis=-1, dtype=jnp.uint32)
    point = _point(jnp.broadcast_to(edges[:, -1:], low.shape), high, low)
    method = "compare_all" if low.shape[1] == 1 else "scan"
    search = partial(jnp.searchsorted, side="right", method=method)
    return jax.vmap(search)(edges, point.astype(jnp.uint32)).astype(jnp.int32)


def _point(length: Array, high: Array, low: Array) -> Array:
    """Integers in [0, length), from 64 random bits each."""
    return uint64.fraction(UInt64(jnp.zeros_like(length), length), UInt64(high, low)).low.astype(
        jnp.int32
    )


def _share(units: Array, places: Array) -> Array:
    """The probability [N, n] of places [N, n] in the rows of units [N, L]."""
    total = units.sum(-1, keepdims=True, dtype=jnp.uint32).astype(jnp.float32)
    return jnp.take_along_axis(units, places, axis=-1).astype(jnp.float32) / total


# --- arrays -------------------------------------------------------------------------------------


# Masses and sums must agree to float32, on matrix units too.
_product = partial(jnp.einsum, precision="highest", preferred_element_type=jnp.float32)


def _present(num_classes: int, state: KernelState) -> Array:
    """Which slots [groups, block_size] hold a class."""
    groups, size = state.vectors.shape[:2]
    return jnp.arange(groups * size).reshape(groups, size) < num_classes


def _checked_block_size(block_size: int | None) -> int | None:
    return None if block_size is None else checks.integer("block_size", block_size, 1)


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
        members = jnp.zeros(count, jnp.float32).at[code].add(1.0)[:, None]
        sums = jnp.zeros_like(codewords).at[code].add(vectors)
        # A codeword that no row is near to stays where it is.
        return jnp.where(members > 0, sums / jnp.maximum(members, 1), codewords)

    start = vectors[jax.random.choice(key, len(vectors), (count,), replace=False)]
    codewords = meshes.fori_loop(0, iterations, improve, start)
    return codewords, nearest(codewords)
