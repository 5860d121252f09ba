"""Tables of text fit their width without cutting a number."""

import numpy as np
import pytest

from jaxml import text

NAME = "a sampler with a name of several words"


def test_numbers_are_on_the_right_and_texts_on_the_left():
    rows = [["TF-IDF", np.float32(0.23), 20000, None], ["jaxml", 1e-6, np.int64(9), "new"]]
    assert text.table(["method", "P@1", "count", "note"], rows).splitlines() == [
        "method    P@1   count  note",
        "TF-IDF   0.23  20,000  –",
        "jaxml   1e-06       9  new",
    ]


@pytest.mark.parametrize("columns", [1, 4, 14])
def test_what_is_too_wide_is_wrapped_and_no_number_is_cut(columns):
    headings = ["sampler", *(f"a long figure {i}" for i in range(columns)), "note"]
    printed = text.table(headings, [[NAME, *[12345.678] * columns, "learning rate too low, " * 3]])
    assert printed.count("12,346") == columns and "several" in printed and "…" not in printed
    assert (max(map(len, printed.splitlines())) <= 80) == (columns < 14)


def test_long_words_are_broken_in_texts():
    printed = text.table(["run", "loss"], [["runs/" + "x" * 100, 0.25]])
    assert max(map(len, printed.splitlines())) <= 80 and printed.count("x") == 100


def test_rows_must_have_a_cell_for_each_column():
    with pytest.raises(ValueError, match=r"must have 2 cells, got \[1\]"):
        text.table(["a", "b"], [[1, 2], [1]])
    assert text.table(["a", "b"], []) == "a  b"
