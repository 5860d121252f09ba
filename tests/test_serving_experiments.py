"""The bed of served faults, in a size of seconds."""

import json

import numpy as np
import pytest

from experiments.serving_faults import __main__ as experiment
from experiments.serving_faults import bed as beds
from experiments.serving_faults.faults import FAULTS

CAUGHT = {
    "feature computed otherwise": "rows, computed again",
    "swapped answers": "rows, computed again",
    "unit change, temperature": "distribution",
    "wrong key": "rows of the table",
    "wrong dtype": "schema",
    "missing column": "protocol",
    "flipped bit": "bundle",
    "full disk, log": "log",
    "full disk, static": "static",
}


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    return beds.make_bed(3000, 120, tmp_path_factory.mktemp("bed"))


@pytest.mark.parametrize("name", CAUGHT)
def test_a_fault_is_caught_by_its_check(bed, name):
    _, fault = FAULTS[name]
    assert CAUGHT[name] in fault(bed, np.random.default_rng(0))


def test_a_sound_model_is_not_accused(bed):
    rows = bed.draw(np.random.default_rng(1))
    assert not beds.served(bed, rows) and not beds.answered(bed, rows)
    assert not beds.loaded(bed.bundle)


@pytest.mark.slow
def test_the_whole_table(tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["--num-training", "8000", "--num-rows", "150", "--num-clean", "1"]
    assert experiment.main([*arguments, "--run-dir", str(run)]) == 0
    record = json.loads((run / "results.json").read_text())
    assert record["caught"] == len(record["faults"]) == len(FAULTS) >= 20
    assert record["clean"] == {"runs": 1, "accused": 0, "found": []}
    assert f"caught {len(FAULTS)} of {len(FAULTS)}" in capsys.readouterr().out
