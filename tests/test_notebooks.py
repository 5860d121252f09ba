"""Every notebook runs top to bottom, was executed in that order, and stays small."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_top_to_bottom(path, monkeypatch):
    """In a smoke size, without a kernel: the code of each cell in one fresh namespace."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setenv("JAXML_SMOKE", "1")
    namespace = {"__name__": "__notebook__"}
    for number, cell in enumerate(code_cells(path)):
        exec(
            compile("".join(cell["source"]), f"{path.name}, code cell {number}", "exec"), namespace
        )
    pyplot.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_are_those_of_one_run_in_order(path):
    counts = [cell["execution_count"] for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    assert path.stat().st_size < 300_000


def test_there_is_one():
    assert NOTEBOOKS
