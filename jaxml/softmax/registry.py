"""Every sampler with the arguments that it is usually given. Tests, benchmark and experiments read this."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml.softmax import composed, kernels, learned, samplers
from jaxml.softmax.samplers import Sampler


class Setup(NamedTuple):
    """A sampler and the arguments of its `sample`.

    Attributes:
        sampler: the sampler.
        num_sampled: how many candidates to ask for.
        unique: whether they are distinct.
        follows_model: whether the sampler draws for each input, and `init` takes the class table.
    """

    sampler: Sampler
    num_sampled: int
    unique: bool = True
    follows_model: bool = False


def _shared(make: Callable[[NDArray], Sampler], unique: bool = True) -> Callable[..., Setup]:
    return lambda counts, batch_size, num_sampled: Setup(make(counts), num_sampled, unique)


def _follower(make: Callable[[int], Sampler]) -> Callable[..., Setup]:
    return lambda counts, batch_size, num_sampled: Setup(
        make(len(counts)), num_sampled, unique=False, follows_model=True
    )


def _unigram(counts: NDArray, distortion: float = 1.0) -> Sampler:
    return samplers.unigram(np.maximum(counts, 1), distortion=distortion)


def _in_batch(counts: NDArray, batch_size: int, num_sampled: int) -> Setup:
    return Setup(composed.in_batch(len(counts), frequencies=_unigram(counts)), batch_size)


def _queue(counts: NDArray, batch_size: int, num_sampled: int) -> Setup:
    sampler = composed.queue(len(counts), num_sampled, frequencies=_unigram(counts))
    return Setup(sampler, num_sampled)


def _mixed(counts: NDArray, batch_size: int, num_sampled: int) -> Setup:
    # The power by which word2vec draws its negatives (Mikolov et al. 2013).
    parts = (_in_batch(counts, batch_size, num_sampled).sampler, _unigram(counts, 0.75))
    sizes = (batch_size, max(num_sampled - batch_size, 1))
    return Setup(composed.mixed(parts, sizes), sum(sizes))


SAMPLERS: dict[str, Callable[..., Setup]] = {
    "uniform": _shared(lambda counts: samplers.uniform(len(counts))),
    "uniform_independent": _shared(lambda counts: samplers.uniform(len(counts)), unique=False),
    "log_uniform": _shared(lambda counts: samplers.log_uniform(len(counts))),
    "log_uniform_independent": _shared(
        lambda counts: samplers.log_uniform(len(counts)), unique=False
    ),
    "unigram": _shared(_unigram),
    "learned_unigram": _shared(lambda counts: learned.learned_unigram(len(counts))),
    "streaming_unigram": _shared(lambda counts: learned.streaming_unigram(len(counts))),
    "in_batch": _in_batch,
    "queue": _queue,
    "mixed": _mixed,
    "quadratic_kernel": _follower(lambda size: kernels.quadratic_kernel(size, projection_dim=16)),
    "random_fourier": _follower(kernels.random_fourier),
    "inverted_multi_index": _follower(
        lambda size: kernels.inverted_multi_index(size, codebook_size=min(256, size))
    ),
}
"""By name: `SAMPLERS[name](counts, batch_size, num_sampled) -> Setup`, where `counts` [C] are the
occurrences of the classes in training, in falling order. `in_batch` has `batch_size` candidates, whatever
`num_sampled`.
"""
