"""How many requests a second does a model answer, how fast, and are all answers right?

    python -m experiments.serving_load            eight minutes on two cores
    python -m experiments.serving_load --smoke    half a minute, to see that it runs

The models are the bundles of the newest finished runs of `experiments.flights` and `experiments.geonames`
below runs/, or those that `--flights` and `--geonames` name: a bundle, a store or a run. Where there is no
run yet, a small stand-in is made, in seconds: of fourteen raw columns of the flights, or of the names of
1,458 airports. Its parameters are random: the time of an answer does not depend on them.

Two servers answer each model, in turn, from processes of their own: `python -m jaxml.serving serve`, which
batches the requests that wait, and a plain endpoint that answers each by itself in a pool of threads, as
FastAPI does (`one_by_one.py`). A third process sends the requests, on the same two cores (`client.py`). It
sends rows of the training data, one a request, all of them different, over connections that stay open:

- closed loop: 1, 4, 16 and 64 clients that each send the next request when they have an answer;
- open loop: requests at random moments (Poisson) at shares of the throughput at 64 clients, whose latency
  counts from the moment at which they were due;
- 100,000 requests of 64 clients to the flights model, while the memory of the server is read.

Every answer is compared with that of `bundle.predict` on the same row: the same id, the same texts, and
numbers to 1e-6 (of the resolver, to 1e-5).

Expect more than three times the throughput of the plain endpoint for the flights model, a p99 below five
times the median at half of capacity, no wrong answer, and memory that stays as it is.
"""
