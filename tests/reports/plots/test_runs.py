"""A smoothed course is true: it keeps lines and ends, and takes out noise."""

import numpy as np

from jaxml.reports.plots import runs

rng = np.random.default_rng(0)


def test_smoothing_keeps_lines_and_ends_and_takes_out_noise():
    line = np.linspace(5, -2, 1000)
    np.testing.assert_allclose(runs._smooth(line), line, atol=1e-9)
    noise = rng.standard_normal(1000)
    assert runs._smooth(line + noise)[20:-20].std() < 1.05 * line.std()
    assert np.abs(runs._smooth(line + noise) - line)[20:-20].max() < 1.0
    holes = np.where(np.arange(1000) % 7 == 0, np.nan, line)
    smooth = runs._smooth(holes)
    np.testing.assert_array_equal(np.isnan(smooth), np.isnan(holes))
    np.testing.assert_allclose(smooth[1:7], line[1:7], atol=1e-9)
    lonely = np.full(1000, np.nan)
    lonely[500] = 3.0
    assert runs._smooth(lonely)[500] == 3.0
