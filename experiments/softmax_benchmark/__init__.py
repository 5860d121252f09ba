"""Many classes, one device: which output layer, at what cost, and how far from the exact softmax?

    python -m experiments.softmax_benchmark                             cost at 2²⁰ classes, minutes
    python -m experiments.softmax_benchmark --num-classes 50000 --dim 64 --batch 256     your own problem
    python -m experiments.softmax_benchmark --parts cost quality bias   everything: hours

- **cost** times every layer forward, with gradients, and in a step of training, in turn, after holding it
  against a float64 reference; reads the temporary memory off the compiled program; recommends a layer.
  `--peers` puts other libraries' layers beside them.
- **quality** trains every layer on real data (234,908 places of GeoNames; 4,043 aircraft) for equally
  many steps and for equally long, and judges it by the exact loss on held-out examples.
- **bias** holds sampled gradients against the exact one.

Rows go to `runs/softmax_benchmark/…` as JSON, with pictures. `--resume` goes on with a run: what is there
is not measured again.
"""
