"""Text for people: tables, and errors in one line."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

_LEAST = 12  # No text is wrapped to fewer characters.


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = 80) -> str:
    """Returns a table whose headings and texts are wrapped to fit a width. Numbers are never cut.

    Numbers have four digits, or all those before the point; None is a dash.

    Args:
        columns: one heading a column.
        rows: one cell a column.
        width: characters of a line; None for no limit. Many columns of numbers may need more.

    Raises:
        ValueError: if a row has more or fewer cells than there are columns.

    >>> print(table(["method", "P@1", "places"], [["TF-IDF", 0.30811, 234908], ["jaxml", 0.607, None]]))
    method     P@1   places
    TF-IDF  0.3081  234,908
    jaxml    0.607        –
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"rows must have {len(columns)} cells, got {list(row)}")
    widths, least, numeric = [], [], []
    for i, heading in enumerate(columns):
        given = [row[i] for row in rows if row[i] is not None]
        longest = max((len(_cell(row[i])) for row in rows), default=0)
        numeric.append(bool(given) and all(map(_is_number, given)))
        widths.append(max(len(heading), longest))
        word = max(map(len, heading.split()), default=0)
        least.append(max(word, longest if numeric[i] else min(longest, _LEAST)))
    while width is not None and sum(widths) + 2 * len(widths) - 2 > width:
        slack = [now - low for now, low in zip(widths, least, strict=True)]
        if max(slack) == 0:
            break
        widths[slack.index(max(slack))] -= 1
    lines = []
    for row in (columns, *rows):
        parts = [textwrap.wrap(_cell(cell), size) for cell, size in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*parts, fillvalue=""):
            padded = [
                part.rjust(size) if right else part.ljust(size)
                for part, size, right in zip(line, widths, numeric, strict=True)
            ]
            lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def one_line(error: BaseException) -> str:
    """Returns the name of an error and the first line of its message, 200 characters of it.

    >>> one_line(ValueError("no such file\\n  details")), one_line(AssertionError())
    ('ValueError: no such file', 'AssertionError: ')
    """
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _is_number(cell: Any) -> bool:
    return hasattr(cell, "__float__") and not isinstance(cell, bool)


def _cell(cell: Any) -> str:
    if cell is None:
        return "–"
    if not _is_number(cell):
        return str(cell)
    value = cell.item() if hasattr(cell, "item") else cell
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"
