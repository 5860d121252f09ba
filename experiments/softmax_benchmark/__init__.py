"""Which output layer for many classes? What does it cost, and how far is it from the exact softmax?

    python -m experiments.softmax_benchmark                             cost at 2²⁰ classes, minutes
    python -m experiments.softmax_benchmark --num-classes 50000 --dim 64 --batch 256     your own problem
    python -m experiments.softmax_benchmark --parts cost quality bias   everything: hours

- **cost** compares every layer with a float64 reference, and times it forward, with gradients, and in a
  training step, in turn; it reports the temporary memory of the compiled program and recommends a layer.
  `--peers` adds layers of other libraries.
- **quality** trains every layer on real data (234,908 places of GeoNames; 4,043 aircraft; 84,827 words of a
  dictionary) for the same number of steps and for the same time, and reports the exact loss on held-out
  examples.
- **bias** compares sampled gradients with the exact one.

Rows go to `runs/softmax_benchmark/…` as JSON, with pictures. `--resume` continues a run without measuring
its rows again.
"""
