"""Cases measured in turn, each in its own process."""

import itertools
import json
import os

import numpy as np
import pytest

from jaxml.bench import measure_alternately
from jaxml.files import write_record


def counting(path, name):
    """Writes its name for every sample, so that the order can be read."""
    numbers = itertools.count()

    def sample():
        with open(path, "a") as log:
            log.write(name)
        return float(next(numbers))

    return sample


def holding(megabytes):
    block = np.ones(megabytes * 2**17)
    return lambda: float(block[0])


def failing(when):
    if when == "setup":
        raise RuntimeError("no room\nand a long story")

    def sample():
        if when == "dies":
            os._exit(3)
        raise ValueError("bad sample")

    return sample


def test_cases_take_turns_and_one_that_fails_does_so_alone(tmp_path):
    log = tmp_path / "order"
    cases = {name: (counting, {"path": str(log), "name": name}) for name in "ab"}
    errors = {
        "setup": "RuntimeError: no room",
        "sample": "ValueError: bad sample",
        "dies": "its process ended with code 3",
    }
    bad = {when: (failing, {"when": when}) for when in errors}
    results = measure_alternately(bad | cases, rounds=3)
    assert log.read_text() == "ababab"
    for name in cases:
        assert (results[name].samples, results[name].error) == ([0.0, 1.0, 2.0], None)
    for when, error in errors.items():
        assert (results[when].samples, results[when].error) == ([], error)


def test_peak_memory_is_each_cases_own():
    ballast = np.ones(2**24)  # 128 MiB in the parent, which no child may be charged with.
    results = measure_alternately(
        {"small": (holding, {"megabytes": 1}), "large": (holding, {"megabytes": 200})}, rounds=1
    )
    difference = results["large"].peak_bytes - results["small"].peak_bytes
    assert 180 * 2**20 < difference < 220 * 2**20
    assert ballast[0] == 1.0


def test_rows_are_strict_json(tmp_path):
    path = tmp_path / "deep" / "rows.json"
    write_record(path, [{"a": 1}, {"b": [0.5]}])
    assert json.loads(path.read_text()) == [{"a": 1}, {"b": [0.5]}]
    with pytest.raises(ValueError):
        write_record(path, [{"a": float("nan")}])
    assert json.loads(path.read_text()) == [{"a": 1}, {"b": [0.5]}]
    assert [p.name for p in path.parent.iterdir()] == ["rows.json"]
