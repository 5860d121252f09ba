"""Pages hold what their records say, links lead somewhere, names exist, and code blocks run."""

import json
import pkgutil
import re
from pathlib import Path

import pytest

from docs import build

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if "templates" not in path.parts
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# A block of code, and the block of its output if one follows.
PYTHON = re.compile(r"^```python\n(.*?)^```(?:\n\n^```\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-\d+)?")


def name(path):
    return path.relative_to(ROOT).as_posix()


def headings(path):
    """Returns the anchors of a page or notebook: its headings as a forge writes them."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found}


@pytest.mark.parametrize("path", build.pages(), ids=name)
def test_generated_pages_are_what_their_records_say(path):
    assert path.read_text() == build.pages()[path], "run `make docs`"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path):
    for link in LINK.findall(path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{name(path)} links to {link}"
        if anchor:
            assert anchor in headings(found), f"{name(path)} links to {link}: {headings(found)}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_names_exist(path):
    for dotted in re.findall(r"`(jaxml(?:\.\w+)+)", path.read_text()):
        pkgutil.resolve_name(dotted)
    for module in re.findall(r"python -m ((?:experiments|jaxml)[\w.]*)", path.read_text()):
        parts = module.split(".")
        assert (
            ROOT.joinpath(*parts).with_suffix(".py").exists()
            or ROOT.joinpath(*parts, "__main__.py").exists()
        ), module


@pytest.mark.parametrize("path", [p for p in PAGES if PYTHON.search(p.read_text())], ids=name)
def test_code_blocks_run(path, tmp_path, monkeypatch, capsys):
    """The blocks of a page run one after the other, as a reader types them, and print what is shown."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for block, shown in PYTHON.findall(path.read_text()):
        exec(compile(block, name(path), "exec"), namespace)
        printed = " ".join(capsys.readouterr().out.split())
        if shown:
            assert NUMBER.sub("#", printed) == NUMBER.sub("#", " ".join(shown.split()))
            values = [[float(each) for each in NUMBER.findall(text)] for text in (printed, shown)]
            assert values[0] == pytest.approx(values[1], rel=0.05), printed
