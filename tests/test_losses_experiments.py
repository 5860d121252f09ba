"""The experiment on losses from its command line, in a size of seconds."""

import json

import numpy as np
import pytest

from experiments import losses_and_outliers
from jaxml import losses


@pytest.fixture(scope="module", autouse=True)
def flights():
    """The table is 336,776 lines of text: read once for all tests."""
    table = losses_and_outliers.read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses_and_outliers, "read", lambda: table)
        yield table


def test_what_is_wrong_is_wrong_by_a_day(flights):
    departure, by_clock, truth = flights
    assert len(departure) == len(by_clock) == len(truth) == 327_346
    assert set(np.unique(by_clock - truth)) == {-1440, 0, 1440}
    assert 0.02 < (by_clock != truth).mean() < 0.025
    assert losses_and_outliers.minutes(np.array(["517", "5", "2400"])).tolist() == [317, 5, 1440]


def test_a_line_of_squares_is_the_least_squares(flights):
    x, y = (column[:3000] for column in flights[:2])
    config = losses_and_outliers.Config(num_steps=300)
    line = losses_and_outliers.fit_line(x, y, losses.squared, config)
    np.testing.assert_allclose(line, np.polyfit(x, y, 1), atol=0.05)


def test_the_squared_loss_is_carried_away_and_the_others_are_not(tmp_path, capsys):
    arguments = ["--num-flights", "3000", "--num-steps", "300", "--run-dir", str(tmp_path / "run")]
    assert losses_and_outliers.main(arguments) == 0
    figures = json.loads((tmp_path / "run" / "results.json").read_text())
    slopes = {name: line["slope"] for name, line in figures["lines"].items()}
    errors = figures["mean_absolute_error"]
    assert slopes["squared"] < 0.5 < 0.9 < min(slopes["absolute"], slopes["Huber"]) < 1.1
    assert errors["squared"] > 2 * max(errors["absolute"], errors["Huber"])
    assert (tmp_path / "run" / "lines.png").read_bytes()[1:4] == b"PNG"
    assert "turn the slope of the squared loss" in capsys.readouterr().out
    assert losses_and_outliers.main(["--num-flights", "1"]) == 2
