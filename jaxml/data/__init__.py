"""Data sets with their splits and batches: NumPy in, NumPy out, no JAX.

`geonames` (aliases of 234,908 places), `cmudict` (pronunciations of English words), `flights` (New York
City's flights of 2013), `images` (5,000 of MNIST), `scikit` (small sets of scikit-learn); `batches`,
`grouping` and `sequences` (shuffled batches as functions of their number), `cache`.
"""
