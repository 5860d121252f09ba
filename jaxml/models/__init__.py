"""Flax Linen modules as two pure functions, `Model(init, apply)`. The only package that imports flax."""

from jaxml.models.activations import ACTIVATIONS, activate
from jaxml.models.functional import Model, from_linen, split_variables
from jaxml.models.initializers import INITIALIZERS, initializer
from jaxml.models.linear import Linear
from jaxml.models.mlp import MLP
from jaxml.models.recurrent import Recurrent
from jaxml.models.tabular import Embedding, TabularMLP
from jaxml.models.taps import Layer, Listener, Seen, listen
from jaxml.models.vectors import unit_norm

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "MLP",
    "Embedding",
    "Layer",
    "Linear",
    "Listener",
    "Model",
    "Recurrent",
    "Seen",
    "TabularMLP",
    "activate",
    "from_linen",
    "initializer",
    "listen",
    "split_variables",
    "unit_norm",
]
