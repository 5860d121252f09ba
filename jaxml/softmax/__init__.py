"""Output layers for very many classes: samplers, sampled and exact losses, exact search.

```
samplers.py    Sampler (init, sample, update, probability, expected_count), uniform, log_uniform, unigram
learned.py     learned_unigram, streaming_unigram        composed.py    in_batch, queue, mixed
kernels.py     quadratic_kernel, random_fourier, inverted_multi_index: samplers that follow the model
partition.py   neighbourhoods: blocks of similar classes as hard candidates
registry.py    SAMPLERS: all of the above, as tests, benchmark and experiments use them
sampled.py     sampled_softmax_loss, nce_loss, …         per_example.py own candidates for each example
exact.py       full_softmax_loss                         blockwise.py   the same without a [B, C] array
one_vs_all.py  one_vs_all_loss                           adaptive.py    clusters of classes
search.py      top_k                                     gap.py         sampled against exact, measured
planner.py     recommend                                 drawing/       exact random draws from 10⁸ classes
```
"""

from jaxml.softmax.adaptive import AdaptiveSoftmax, adaptive_softmax, two_level_softmax
from jaxml.softmax.blockwise import (
    IMPLEMENTATIONS,
    blockwise_softmax_loss,
    blockwise_softmax_update,
)
from jaxml.softmax.composed import in_batch, mixed, queue
from jaxml.softmax.exact import full_softmax_loss
from jaxml.softmax.gap import Gap, estimate_gap
from jaxml.softmax.kernels import inverted_multi_index, quadratic_kernel, random_fourier
from jaxml.softmax.learned import learned_unigram, streaming_unigram
from jaxml.softmax.one_vs_all import one_vs_all_loss
from jaxml.softmax.partition import Neighbourhoods, neighbourhood_candidates, neighbourhoods
from jaxml.softmax.per_example import per_example_sampled_softmax_loss
from jaxml.softmax.planner import Recommendation, recommend
from jaxml.softmax.registry import SAMPLERS, Setup
from jaxml.softmax.sampled import (
    nce_loss,
    nce_loss_from_rows,
    sampled_logistic_loss,
    sampled_softmax_loss,
    sampled_softmax_loss_from_rows,
)
from jaxml.softmax.samplers import Candidates, Sampler, log_uniform, uniform, unigram
from jaxml.softmax.search import top_k

__all__ = [
    "IMPLEMENTATIONS",
    "SAMPLERS",
    "AdaptiveSoftmax",
    "Candidates",
    "Gap",
    "Neighbourhoods",
    "Recommendation",
    "Sampler",
    "Setup",
    "adaptive_softmax",
    "blockwise_softmax_loss",
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
