"""Output layers for very many classes: samplers, sampled and exact losses, exact search."""

from jaxml.softmax.adaptive import AdaptiveSoftmax, adaptive_softmax, two_level_softmax
from jaxml.softmax.blockwise import (
    blockwise_softmax_loss,
    blockwise_softmax_mean_loss,
    blockwise_softmax_update,
)
from jaxml.softmax.candidates import Candidates, Sampler, log_uniform, uniform, unigram
from jaxml.softmax.composed import in_batch, mixed, queue
from jaxml.softmax.exact import full_softmax_loss
from jaxml.softmax.gap import Gap, estimate_gap
from jaxml.softmax.kernels import inverted_multi_index, quadratic_kernel, random_fourier
from jaxml.softmax.learned import learned_unigram, streaming_unigram
from jaxml.softmax.neighbourhoods import (
    Neighbourhoods,
    neighbourhood_candidates,
    neighbourhoods,
)
from jaxml.softmax.one_vs_all import one_vs_all_loss
from jaxml.softmax.per_example import per_example_sampled_softmax_loss
from jaxml.softmax.planner import Recommendation, recommend
from jaxml.softmax.sampled import (
    nce_loss,
    nce_loss_from_rows,
    sampled_logistic_loss,
    sampled_softmax_loss,
    sampled_softmax_loss_from_rows,
)
from jaxml.softmax.search import top_k

__all__ = [
    "AdaptiveSoftmax",
    "Candidates",
    "Gap",
    "Neighbourhoods",
    "Recommendation",
    "Sampler",
    "adaptive_softmax",
    "blockwise_softmax_loss",
    "blockwise_softmax_mean_loss",
    "blockwise_softmax_update",
    "estimate_gap",
    "full_softmax_loss",
    "in_batch",
    "inverted_multi_index",
    "learned_unigram",
    "log_uniform",
    "mixed",
    "nce_loss",
    "nce_loss_from_rows",
    "neighbourhood_candidates",
    "neighbourhoods",
    "one_vs_all_loss",
    "per_example_sampled_softmax_loss",
    "quadratic_kernel",
    "queue",
    "random_fourier",
    "recommend",
    "sampled_logistic_loss",
    "sampled_softmax_loss",
    "sampled_softmax_loss_from_rows",
    "streaming_unigram",
    "top_k",
    "two_level_softmax",
    "uniform",
    "unigram",
]
