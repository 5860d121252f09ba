"""Exact random draws from 10⁸ classes, in a program that has only 32-bit numbers.

To draw a class, lay the classes side by side on a line, each as long as it is probable, and take the
class under a random point. A position on that line needs about 60 bits: with fewer, some classes are
never drawn. JAX computes in 32 bits by default, so a position is a `UInt64` made of two words. No position
is ever rounded: the same key draws the same classes on every backend.

```
uint64.py    unsigned 64-bit arithmetic on pairs of uint32
cdfs.py      lines that never change (uniform, logarithmic, given counts) and their inverse
fenwick.py   lines that change with every batch: a Fenwick tree of UInt64 lengths
pivotal.py   draws from a line: independent ones, or a fixed number of distinct ones (pivotal sampling)
```

Lengths on the line are integers, called units. A class is identified by its rank on a fixed line (0 is the
most probable) and by its id on a changing one.
"""
