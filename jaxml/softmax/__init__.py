"""Output layers for very many classes: samplers, sampled and exact losses, exact search."""

from jaxml.softmax.blockwise import (
    blockwise_softmax_loss,
    blockwise_softmax_mean_loss,
    blockwise_softmax_update,
)
from jaxml.softmax.candidates import Candidates, Sampler, log_uniform, uniform, unigram
from jaxml.softmax.exact import full_softmax_loss
from jaxml.softmax.gap import Gap, estimate_gap
from jaxml.softmax.neighbourhoods import (
    Neighbourhoods,
    neighbourhood_candidates,
    neighbourhoods,
)
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
    "Candidates",
    "Gap",
    "Neighbourhoods",
    "Recommendation",
    "Sampler",
    "blockwise_softmax_loss",
    "blockwise_softmax_mean_loss",
    "blockwise_softmax_update",
    "estimate_gap",
    "full_softmax_loss",
    "log_uniform",
    "nce_loss",
    "nce_loss_from_rows",
    "neighbourhood_candidates",
    "neighbourhoods",
    "per_example_sampled_softmax_loss",
    "recommend",
    "sampled_logistic_loss",
    "sampled_softmax_loss",
    "sampled_softmax_loss_from_rows",
    "top_k",
    "uniform",
    "unigram",
]
