"""Flax Linen modules as two pure functions; the only room that imports flax."""

from jaxml.models.activations import ACTIVATIONS, activate
from jaxml.models.functional import Model, from_linen, split_variables
from jaxml.models.initializers import INITIALIZERS, initializer
from jaxml.models.linear import (
    Linear,
    LinearRegression,
    LogisticRegression,
    OneVsAllClassifier,
    SoftmaxClassifier,
)
from jaxml.models.mlp import MLP
from jaxml.models.tabular import Embedding, TabularMLP
from jaxml.models.taps import Layer, Listener, Seen, listen
from jaxml.models.text import BagEncoder, unit_norm

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "MLP",
    "BagEncoder",
    "Embedding",
    "Layer",
    "Linear",
    "LinearRegression",
    "Listener",
    "LogisticRegression",
    "Model",
    "OneVsAllClassifier",
    "Seen",
    "SoftmaxClassifier",
    "TabularMLP",
    "activate",
    "from_linen",
    "initializer",
    "listen",
    "split_variables",
    "unit_norm",
]
