"""Training classifiers and small sequence models in JAX; see README.md for the map of rooms.

Importing `jaxml` imports nothing heavy and initialises no device: import the room you need, as in
`from jaxml import softmax, tables`.
"""

__version__ = "0.1.0"
