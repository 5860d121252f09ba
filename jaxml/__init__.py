"""Training classifiers and small sequence models in JAX; README.md lists the packages.

Importing `jaxml` imports nothing heavy and initialises no device: import the package you need, as in
`from jaxml import softmax, tables`.
"""

__version__ = "0.1.0"
