"""The experiment on static inference from its command line, in a size of seconds."""

import json

import numpy as np
import pytest

from experiments import static_inference
from jaxml.data import geonames

CITIES = {
    str(i): {
        "geonameid": i,
        "name": f"place {i}",
        "countrycode": "AT",
        "population": 10 * i,
        "alternatenames": ["", f"place {i}", f"Ort {i}", "everywhere"],
    }
    for i in range(1000)
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    rng = np.random.default_rng(0)
    columns = {
        **{name: rng.choice(["A", "B", "C"], 300) for name in ("carrier", "origin", "dest")},
        "distance": rng.integers(80, 5000, 300),
        "hour": rng.integers(5, 24, 300),
        "dep_delay": np.where(rng.random(300) < 0.1, np.nan, rng.normal(10, 30, 300)),
    }
    monkeypatch.setattr(static_inference, "flight_columns", lambda: columns)
    monkeypatch.setattr(geonames, "read_cities", lambda: CITIES)


SMALL = "--num-rows 500 --num-keys 300 --num-queries 5000 --repeats 2".split()


def test_it_runs_and_coverage_is_what_the_law_says(tmp_path, capsys):
    assert static_inference.main([*SMALL, "--run-dir", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["table"]["columns"] == 6 and len(record["table"]["ratios"]) == 2
    assert [row["keys"] for row in record["look_ups"]] == [300, 300]
    assert len(record["coverage"]) == 12
    for row in record["coverage"]:
        assert row["names"] == 2001 and row["cached_names"] == round(row["cached_share"] * 2001)
        share = row["expected"]
        assert abs(row["answered"] - share) < 5 * np.sqrt(share * (1 - share) / 5000)
    assert (tmp_path / "results.png").stat().st_size > 10_000
    assert "rows/s" in capsys.readouterr().out


def test_a_bundle_of_ones_own(tmp_path, capsys):
    static_inference.small_bundle(tmp_path / "bundle", static_inference.flight_columns())
    arguments = ["--bundle", str(tmp_path / "bundle"), "--run-dir", str(tmp_path / "run")]
    assert static_inference.main([*SMALL, *arguments]) == 0
    assert static_inference.main([*SMALL, "--bundle", str(tmp_path / "none")]) == 2
    assert "no such directory" in capsys.readouterr().err


def test_names_are_ordered_by_population():
    places = static_inference.names_by_population(CITIES)
    assert list(places)[:3] == ["place 999", "Ort 999", "everywhere"]
    assert places["everywhere"] == "place 999, AT" and len(places) == 2001
