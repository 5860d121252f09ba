"""Flax Linen modules as two pure functions; the only room that imports flax."""

from jaxml.models.functional import Model, from_linen, split_variables
from jaxml.models.text import BagEncoder, unit_norm

__all__ = ["BagEncoder", "Model", "from_linen", "split_variables", "unit_norm"]
