"""Flax Linen modules as two pure functions; the only room that imports flax."""

from jaxml.models.functional import Model, from_linen, split_variables
from jaxml.models.mlp import ACTIVATIONS, MLP
from jaxml.models.taps import Layer, Listener, Seen, listen
from jaxml.models.text import BagEncoder, unit_norm

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "BagEncoder",
    "Layer",
    "Listener",
    "Model",
    "Seen",
    "from_linen",
    "listen",
    "split_variables",
    "unit_norm",
]
