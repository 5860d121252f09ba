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
search.py      top_k, top_k_probabilities                gap.py         sampled against exact, measured
distillation.py  sampled_distillation_loss_from_rows     drawing/       exact random draws from 10⁸ classes
planner.py     recommend
```

**Arguments of all losses.**

- `inputs` [*batch, D] and `weights` [C, D], any float; `biases` [C] or None, −∞ removes a class.
- `labels`: integers in [0, C): [*batch], one class each, or [*batch, T], several true classes.
- `where`: None, or bool of the labels' shape; False masks a label, which may then hold any id, −100 say.
- `temperature`: scalar above 0, may be traced.

A score of +∞ is certainty. Of a softmax the loss of its class is 0 and that of every other infinite, and
several of them share the probability; of a sigmoid it is 0 if the class is true, else infinite. A soft cap
makes it finite. The gradient of an infinite loss means nothing.

An example without labels has loss 0 and gradient 0, whatever its inputs hold. A label out of range raises
ValueError if it is known, and gives NaN if it is traced. Logits, sums and losses are float32. Losses with
their own backward pass (blockwise, one-vs-all, per-example, adaptive) have no forward-mode derivative.

**Samplers** have ids in [0, num_classes), with `num_classes` an int in [1, 2³¹ − 2]. Arguments that do not
fit raise ValueError.
"""

from jaxml.softmax.adaptive import AdaptiveSoftmax, adaptive_softmax, two_level_softmax
from jaxml.softmax.blockwise import blockwise_softmax_loss, blockwise_softmax_update
from jaxml.softmax.composed import in_batch, mixed, queue
from jaxml.softmax.distillation import sampled_distillation_loss_from_rows
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
    sampled_logistic_loss,
    sampled_softmax_loss,
    sampled_softmax_loss_from_rows,
)
from jaxml.softmax.samplers import Candidates, Sampler, log_uniform, uniform, unigram
from jaxml.softmax.search import top_k, top_k_probabilities

__all__ = [
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
    "neighbourhood_candidates",
    "neighbourhoods",
    "one_vs_all_loss",
    "per_example_sampled_softmax_loss",
    "quadratic_kernel",
    "queue",
    "random_fourier",
    "recommend",
    "sampled_distillation_loss_from_rows",
    "sampled_logistic_loss",
    "sampled_softmax_loss",
    "sampled_softmax_loss_from_rows",
    "streaming_unigram",
    "top_k",
    "top_k_probabilities",
    "two_level_softmax",
    "uniform",
    "unigram",
]
