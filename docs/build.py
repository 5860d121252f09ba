"""Build the documentation: `make docs`.

Every `docs/templates/NAME.md` is a Jinja template, rendered to `docs/experiments/NAME.md` with the records
of `experiments/results/*.json` as its variables (`softmax-cost.json` is `softmax_cost`). A field that a
record lacks is an error. `docs/templates/README.md` is rendered into `README.md`, between its two markers.
`python -m docs.build --check` writes nothing and exits with 1 if a page is not what its record says.
"""

import json
import math
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

ROOT = Path(__file__).parents[1]
TEMPLATES, PAGES = ROOT / "docs/templates", ROOT / "docs/experiments"
BEGIN, END = "<!-- results: written by `make docs` -->", "<!-- end of results -->"


def records() -> dict[str, Any]:
    """Returns the content of every record by its name, with underscores for hyphens."""
    found = (ROOT / "experiments/results").glob("*.json")
    return {path.stem.replace("-", "_"): json.loads(path.read_text()) for path in sorted(found)}


def where(rows: Iterable[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """Returns the rows whose fields have the wanted values."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def only(rows: Iterable[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """Returns the one row whose fields have the wanted values."""
    found = where(rows, **wanted)
    if len(found) != 1:
        raise ValueError(f"wanted one row with {wanted}, got {len(found)}")
    return found[0]


def machine(record: Any) -> str:
    """Returns device and versions of a record in one phrase."""
    rows = record if isinstance(record, list) else [record]
    env = next(row["environment"] for row in rows if "environment" in row)
    device = (
        f"{env['cores']} CPU core{'s' * (env['cores'] > 1)}"
        if env["device"] == "cpu"
        else env["device"]
    )
    return f"{device}, Python {env['python']}, jax {env['jax']}"


def pages() -> dict[Path, str]:
    """Returns the text of every generated file by its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "where": where,
        "only": only,
        "median": statistics.median,
        "exp": math.exp,
    }
    environment.globals |= {"machine": machine}
    environment.filters["format"] = lambda value, spec: format(value, spec)
    known = records()
    found = {}
    for template in sorted(path.name for path in TEMPLATES.glob("*.md")):
        text = environment.get_template(template).render(known)
        if template == "README.md":
            before, rest = (ROOT / template).read_text().split(BEGIN)
            text = before + BEGIN + "\n" + text + END + rest.split(END)[1]
            found[ROOT / template] = text
        else:
            source = f"<!-- Written by `make docs` from docs/templates/{template}. -->\n"
            found[PAGES / template] = source + text
    return found


def main() -> None:
    stale = {
        path: text
        for path, text in pages().items()
        if not path.exists() or path.read_text() != text
    }
    for path, text in stale.items():
        if "--check" not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        print(("stale" if "--check" in sys.argv else "wrote"), path.relative_to(ROOT))
    sys.exit(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
