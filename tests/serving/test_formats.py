"""Bundles of every format that was ever written are read, and answer as they did."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxml import serving
from jaxml.serving import manifest

WRITTEN = sorted(Path(__file__).parent.glob("fixtures/bundle-format-*"))


def test_there_is_one_of_each_format():
    assert [path.name for path in WRITTEN] == [
        f"bundle-format-{number}" for number in range(1, manifest.FORMAT + 1)
    ]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_an_old_bundle_answers_as_it_did(path):
    bundle = serving.load(path)
    rows, recorded = bundle.examples()
    assert bundle.check(rows) == []
    answers = bundle.predict(rows)
    assert answers["place"].tolist() == recorded["place"]
    for name in ("probability", "score"):
        np.testing.assert_allclose(answers[name], recorded[name], rtol=1e-6, atol=1e-6)
    alone = bundle.predict({name: each[:1] for name, each in rows.items()})
    np.testing.assert_allclose(alone["score"], answers["score"][:1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_an_old_bundle_is_described_as_it_was(path):
    bundle, content = serving.load(path), json.loads((path / manifest.FILE).read_text())
    assert content["format"] == int(path.name.rpartition("-")[2])
    assert bundle.columns == ("distance", "wind", "carrier", "hour", "name")
    assert (bundle.manifest.max_batch, bundle.manifest.metrics) == (8, {"roc_auc": 0.75})
    assert bundle.manifest.findings == ("a finding",)
    assert len(bundle.training()["wind"]) == 60
    assert {"SCHEMA_MISSING_COLUMN", "ENUM_TYPE_UNEXPECTED_STRING_VALUES"} == {
        each.kind for each in bundle.check({"distance": [90], "wind": [1.0], "carrier": ["?"]})
    }
