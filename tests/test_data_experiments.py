"""The bed of damaged tables from its command line, in a size of seconds."""

import importlib.metadata
import json
import zipfile

import numpy as np
import pytest

from experiments import data_corruptions as bed
from jaxml.data import flights as data


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """Every eleventh flight: reading all of them takes seconds."""
    whole = importlib.metadata.distribution(data.PACKAGE).locate_file(
        f"{data.PACKAGE}/data/flights.csv.zip"
    )
    with zipfile.ZipFile(str(whole)) as archive:
        header, *lines = archive.read("flights.csv").decode().splitlines()
    few = lines[::11]
    path = tmp_path_factory.mktemp("flights") / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", "\n".join([header, *few]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata.PathDistribution, "locate_file", lambda self, name: path)
        patch.setitem(data._TABLES, "flights", ("flights.csv.zip", len(few)))
        table = bed.read_table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bed, "read_table", lambda: table)
        yield table


def test_the_bed_runs_and_catches(flights, tmp_path, capsys):
    path = tmp_path / "results.json"
    arguments = [
        "--num-rows",
        "4000",
        "--num-clean",
        "3",
        "--seeds",
        "0",
        "--run-dir",
        str(path.parent),
    ]
    assert bed.main(arguments) == 0
    *rows, clean = json.loads(path.read_text())
    assert {row["corruption"] for row in rows} == set(bed.CORRUPTIONS) and len(rows) >= 20
    assert sum(row["caught"] for row in rows) >= 0.85 * len(rows)
    assert clean["accused"] <= 1 and clean["runs"] == 3
    assert "caught" in capsys.readouterr().out


def test_each_damage_changes_the_table(flights, tmp_path):
    """Or the table of what is caught would count luck."""
    config = bed.Config(num_rows=2000)
    one = bed.make_bed(flights, 0, config, tmp_path)
    for i, (name, (_, damage)) in enumerate(bed.CORRUPTIONS.items()):
        rng = np.random.default_rng(i)
        given = one.draw(2000, rng)
        before = {column: values.copy() for column, values in given.items()}
        after = damage(given, rng, one)
        for column, values in given.items():
            np.testing.assert_array_equal(values, before[column])
        if not isinstance(after, dict):
            continue
        same = list(after) == list(before) and all(
            after[c].dtype == before[c].dtype
            and np.array_equal(after[c], before[c], equal_nan=before[c].dtype.kind == "f")
            for c in before
        )
        assert not same, name
