"""What the tests of memory share."""

import re

import numpy as np
import pytest


@pytest.fixture
def largest_array():
    """`largest_array(compiled)`: how many entries the largest array of a program has."""

    def largest(compiled):
        shapes = re.findall(r"\b(?:pred|bf16|[suf]\d+)\[([\d,]+)\]", compiled.as_text())
        return max(np.prod([int(n) for n in shape.split(",")]) for shape in shapes)

    return largest
