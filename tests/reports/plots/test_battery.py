"""Pictures: their size, their scales, and no text on another."""

import itertools
from functools import partial

import numpy as np
import pytest
from matplotlib.text import Text

from jaxml.reports import plots
from jaxml.reports.plots import canvas, runs

rng = np.random.default_rng(0)
STEPS = np.arange(6000)
NOISY = 8 * np.exp(-STEPS / 900) + 1.2 + 0.3 * rng.standard_normal(6000)
COMPARED = {
    "rate 0.01": (STEPS, 2 * NOISY, STEPS[::300], 2 * NOISY[::300] + 0.5),
    "rate 0.1": (STEPS, NOISY, STEPS[::300], NOISY[::300] + 0.5),
    "rate 1": (STEPS, np.where(STEPS < 2000, NOISY / 2, np.inf), [0, 3000], [9, np.nan]),
}
compare = partial(plots.loss_curves, title="")

PICTURES = {
    "dots": partial(
        plots.dots,
        ["network", "logistic regression", "scikit-learn, boosting"],
        {"AUC": [0.7431, 0.74, 0.737], "log loss": [0.486, np.nan, 0.4942], "equal": [0.5] * 3},
        {
            "AUC": [(0.74, 0.75), (0.7, 0.742), (0.73, 0.74)],
            "log loss": [(0.48, 0.49), (np.nan, np.nan), (0.4942, 0.4942)],
            "equal": [(0.5, 0.5)] * 3,
        },
        title="Figures that differ by little",
    ),
    "dots of one panel": partial(
        plots.dots,
        ["a", "b"],
        {"AUC": [0.7, 0.8]},
        {"AUC": [(0.6, 0.75), (0.7, 0.95)]},
        title="One",
    ),
    "response map": partial(
        plots.response_map,
        ("weight penalty", [0.0, 1e-3, 1e-1]),
        ("learning rate", [1e-3, 1e-2, 0.1, 1.0]),
        [[1.2, 0.5, 0.2, np.nan], [1.3, 0.6, 0.1, np.inf], [2.0, 2.0, 1.9, 2.4]],
        notes=[["learning_rate_too_low", "", "", "learning_rate_too_high, dead_relu"]] * 3,
        label="validation loss",
        title="Two that pull against each other",
    ),
    "loss": partial(
        plots.loss_curves,
        {"resolver": COMPARED["rate 0.1"]},
        title="A title so long that it has to be wrapped: " + "234,908 classes, 6,000 steps, " * 3,
    ),
    "one step": partial(plots.loss_curves, {"a": ([7], [2.0], [], [])}, title="One report"),
    "many bars": partial(
        plots.bars,
        [f"measure number {i}" for i in range(9)],
        {f"method {i}": [np.nan, *rng.random(7), 12345.6] for i in range(5)},
        ylabel="score",
        title="Many",
    ),
    "curves": partial(
        plots.curves,
        {
            f"layer number {i}": ([0.1, 1, 10, 100], np.sort(rng.random(4))[::-1] * (1 + i))
            for i in range(9)
        },
        xlabel="seconds of training",
        ylabel="exact loss on held-out examples (nats)",
        title="Quality against time",
    ),
    "compared curves": partial(plots.loss_curves, COMPARED, title="Three runs"),
    "many compared": partial(
        plots.loss_curves,
        {
            f"digits/20260101-0000{i:02}: learning_rate {0.01 * i:g}": (
                STEPS[::100],
                (1 + i) * NOISY[::100],
                [0, 3000, 6000],
                [9, 4 + i, 2 + i],
            )
            for i in range(20)
        },
        title="Twenty runs",
    ),
    "scaling": partial(
        plots.scaling,
        {
            name: ([1e4, 1e5, 1e6, 1e7], [b + 0.2 * rng.random(9) for _ in range(4)])
            for b, name in enumerate(["sgd", "adagrad", "rowwise_adagrad", "adam"], start=3)
        },
        xlabel="classes",
        ylabel="ms a step",
        title="One training step",
    ),
    "fitted lines": partial(
        plots.fitted_lines,
        {"right": (NOISY, 2 * NOISY + rng.normal(size=6000)), "wrong": ([2.0, 3.0], [-90.0, 80.0])},
        {name: (2.0 + i, -i) for i, name in enumerate(["squared", "absolute", "Huber"])},
        xlabel="minutes at departure",
        ylabel="minutes at arrival",
        title="Lines",
    ),
    "trade-off": partial(
        plots.trade_off,
        [np.inf, *np.linspace(0.999, 0.0001, 300)],
        precision=[np.nan, *np.linspace(1, 0.1, 300)],
        recall=np.linspace(0, 1, 301) ** 0.3,
        false_positive_rate=np.linspace(0, 1, 301) ** 2,
        base_rate=0.1,
        chosen={"cost 1 : 5": 0.17, "precision of 0.9": 0.9, "best F1": 0.4},
        reliability=([0.1, 0.5, np.nan, 0.9], [0.2, 0.4, np.nan, 0.8], [500, 60, 0, 20]),
        title="Recurrence of tumours: what a threshold buys",
    ),
    "histograms": partial(
        plots.histograms,
        [
            (
                f"{side} number {i}: a heading that takes two lines if it must",
                np.arange(41.0),
                rng.integers(0, 10**5, 40),
            )
            for i in range(4)
            for side in ("before", "after")
        ],
        title="Columns before and after",
    ),
    "distances": partial(
        plots.distances,
        [
            (f"column {i}, which has a long name of its own", 0.5 / (1 + i), 0.05, i < 6)
            for i in range(20)
        ],
        {
            f"column {i}": [
                (f"level {k}: a text that is cut", k / 45, (9 - k) / 45) for k in range(10)
            ]
            for i in range(3)
        },
        title="flights, version 3: 1,407 rows served, against training",
    ),
    "one distance": partial(
        plots.distances, [("text", 0.0, 0.1, False)], {"text": [("'a'", 1.0, 1.0)]}, title="One"
    ),
    "one histogram": partial(plots.histograms, [("constant", [-0.5, 0.5], [0])], title="Nothing"),
    "map": partial(
        plots.heatmap,
        rng.random((28, 3)),
        rows=[f"leaky_relu, initializer {i}" for i in range(28)],
        columns=["2", "6", "12"],
        notes=[["0.10 poor initialization ⇒ 0.95"] * 3] * 28,
        limits=(0.1, 1.0),
        xlabel="hidden layers",
        label="held-out accuracy",
        title="A map of many rows",
    ),
    "small map": partial(
        plots.heatmap,
        [[0.1, np.nan], [12.5, 3.0]],
        rows=["a", "b"],
        columns=["c", "d"],
        notes=[["0.10", ""], ["12", "3.00"]],
        limits=(0.1, 12.5),
        xlabel="columns",
        label="values",
        title="Four",
    ),
    "alignments": partial(
        plots.alignments,
        {
            "knight": ([*"knight"], ["N", "AY", "T"], rng.random((6, 3))),
            "ox": ([*"ox"], ["AA", "K", "S"], np.eye(2, 3)),
            "a": (["a"], ["AH"], [[1.0]]),
        },
        label="share",
        title="Letters and phones",
    ),
    "log scaling": partial(
        plots.scaling,
        {"ours": ([1e4, 1e8], [[3], [3.1, 3.2]]), "theirs": ([1e4, 1e6], [[4, 5], [111, 120]])},
        xlabel="classes",
        ylabel="ms",
        title="Peers",
    ),
    "training": partial(
        plots.training,
        [3.0, 2.0, np.nan, 1.0],
        flow={"hidden_0": [1e-6, 0.0], "hidden_1": [1e-3, 1.0]},
        looks=[0, 2],
        clipped=[False, True, False, False],
        rejected=[False, False, True, False],
        findings=[(0, "vanishing_gradient"), (2, "non_finite"), (2, "dead_relu")],
        title="A monitored training",
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_its_size_and_no_text_on_another(tmp_path, monkeypatch, name):
    boxes = {}
    draw = Text.draw

    def note(text, renderer):
        if text.get_visible() and text.get_text().strip():
            boxes[text] = text.get_text(), text.get_window_extent(renderer)
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", note)
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    PICTURES[name](path=path)
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (1200, 800)
    # Many lines with markers, four panels, or 50 texts take more; 84 on 84 colours even more.
    most = {"curves": 150_000, "trade-off": 150_000, "map": 350_000, "many compared": 400_000}
    most["distances"] = 170_000
    assert len(content) < most.get(name, 110_000)
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
    assert len(boxes) > 6
    for (one, a), (other, b) in itertools.combinations(boxes.values(), 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), f"{one!r} lies on {other!r}"
    for text, box in boxes.values():
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1200 and box.y1 <= 800, text


def test_a_notebook_shows_a_picture_that_is_not_written():
    assert PICTURES["one step"]()._repr_png_()[1:4] == b"PNG"


def test_no_two_of_28_lines_look_alike():
    styles = [canvas.style(i, 28) for i in range(28)]
    assert len({tuple(s["color"]) for s in styles}) == 28
    assert len({(s["linestyle"], s["marker"]) for s in styles}) == 28
    assert len({s["marker"] for s in styles[:7]}) == 7


def test_the_scale_follows_the_values():
    for name, scale in [("scaling", "linear"), ("log scaling", "log")]:
        axes = PICTURES[name]().axes[0]
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", scale)
    assert PICTURES["scaling"]().axes[0].get_ylim()[0] == 0
    for last, scale in [(0.1, "log"), (100.0, "linear"), (-1.0, "linear")]:
        (axes,) = compare({"a": ([0, 1, 2], [1000.0, 500.0, last], [], [])}).axes
        assert axes.get_yscale() == scale


def test_what_is_drawn_is_what_was_given():
    lines = PICTURES["scaling"]().axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["sgd", "adagrad", "rowwise_adagrad", "adam"]
    for base, line in enumerate(lines, start=3):
        assert ((line.get_ydata() > base) & (line.get_ydata() < base + 0.2)).all()
    axes = PICTURES["fitted lines"]().axes[0]
    right, wrong, *lines = axes.get_lines()
    assert len(right.get_xdata()) == 6000 and wrong.get_ydata().tolist() == [-90, 80]
    assert [line.get_label() for line in lines] == ["squared", "absolute", "Huber"]
    for i, line in enumerate(lines):
        np.testing.assert_allclose(line.get_ydata(), (2 + i) * line.get_xdata() - i)
        np.testing.assert_allclose(line.get_xdata(), [NOISY.min(), NOISY.max()])
    bars = plots.bars(["a", "b"], {"x": [0.25, 12.0]}, ylabel="", title="").axes[0]
    assert [patch.get_height() for patch in bars.patches] == [0.25, 12.0]
    assert [text.get_text() for text in bars.texts] == ["0.25", "12"]


def test_a_map_has_its_values_colours_and_notes():
    axes = PICTURES["small map"]().axes[0]
    shown = axes.collections[0].get_array()
    np.testing.assert_array_equal(shown.filled(-1), [[0.1, -1], [12.5, 3.0]])
    assert axes.collections[0].get_clim() == (0.1, 12.5)
    assert [text.get_text() for text in axes.texts] == ["0.10", "", "12", "3.00"]
    assert axes.yaxis_inverted()


def test_compared_runs_have_a_line_each_and_say_where_they_end():
    (axes,) = PICTURES["compared curves"]().axes
    assert axes.get_yscale() == "linear"
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [
        "rate 0.01", "rate 0.1", "rate 1, not finite from step 2,000",
        "training", "validation", "its lowest",
    ]  # fmt: skip
    solid = [
        line for line in axes.lines if line.get_linestyle() == "-" and line.get_alpha() is None
    ]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    smooth = [line for line in solid if len(line.get_xdata()) == 6000]
    held = [line for line in dashed if len(line.get_xdata())]
    for lines in (smooth, held):  # A run's training and validation have one colour, no other's.
        assert [line.get_color() for line in lines] == list(canvas.COLORS[:3])
    np.testing.assert_array_equal(held[1].get_ydata(), NOISY[::300] + 0.5)
    truth = 8 * np.exp(-STEPS / 900) + 1.2
    assert np.abs(smooth[1].get_ydata() - truth).max() < 0.15
    (cross,) = (line for line in axes.lines if line.get_marker() == "X")
    assert cross.get_xdata() == [1999]


def test_a_run_that_diverged_does_not_press_the_others_flat():
    runs = {
        "good": (STEPS, NOISY, [0, 6000], [9.0, 2.0]),
        "bad": (STEPS, NOISY * np.exp(STEPS / 100), [], []),
        "worse": (STEPS, np.where(STEPS < 99, 9 + 1e9 * STEPS, np.nan), [], []),
    }
    (axes,) = compare(runs).axes
    low, high = axes.get_ylim()
    assert low < 1.3 and 9 < high < 12
    assert axes.get_legend_handles_labels()[1][:3] == [
        "good", f"bad, rises to {runs['bad'][1].max():.2g}",
        "worse, rises to 9.8e+10, not finite from step 99",
    ]  # fmt: skip
    (axes,) = compare({**runs, "good": ([0], [2.0], [], [])}).axes
    assert axes.get_ylim() == (1.0, 3.0)
    del runs["good"]  # None to compare them with: they are shown whole.
    (axes,) = compare(runs).axes
    assert axes.get_ylim()[1] > 1e25 and axes.get_yscale() == "log"
    assert axes.get_legend_handles_labels()[1][0] == "bad"


def test_compared_runs_of_one_kind_of_loss_or_one_step_are_drawn():
    (axes,) = compare(
            {"held out": ([], [], [5], [2.0]), "nothing": ([0], [np.nan], [], []),
             "one": ([5], [90.0], [], [])},
    ).axes  # fmt: skip
    assert axes.get_yscale() == "log"
    assert axes.get_legend_handles_labels()[1][1] == "nothing, not finite from step 0"


AXES = {"xlabel": "", "ylabel": "", "title": ""}
scaled, curved = partial(plots.scaling, **AXES), partial(plots.curves, **AXES)
fitted = partial(plots.fitted_lines, **AXES)
barred = partial(plots.bars, ["a"], ylabel="", title="")
heat = partial(
    plots.heatmap, rows=["a"], columns=["b", "c"], limits=(0, 1), xlabel="", label="", title=""
)
respond = partial(plots.response_map, ("a", [1]), ("b", [1]), label="", title="")
BAD = [
    (partial(barred, {}), "series must not be empty"),
    (partial(barred, {"x": [1, 2]}), r"'x'.*\(2,\)"),
    (partial(barred, {"x": [-1]}), "at least 0"),
    (partial(plots.histograms, [], title=""), "panels must not be empty"),
    (partial(plots.histograms, [("x", [0, 1], [1, 2])], title=""), "'x'.*2 edges and 2"),
    (partial(compare, {}), "runs must hold 1 to 20, got 0"),
    (
        partial(compare, {"a": ([0, 1], [1], [], [])}),
        r"'a'.*training must be x and y.*\(2,\) and \(1,\)",
    ),
    (partial(compare, {"a": ([0], [np.nan], [], [])}), "finite loss, got none"),
    (partial(scaled, {"x": ([0], [[1]])}), "positive sizes"),
    (partial(scaled, {"x": ([10], [[np.nan]])}), "samples of at least 0 at size 10"),
    (partial(curved, {"x": ([1, 2], [1])}), "x and y of one length"),
    (partial(curved, {"x": ([0, 2], [1, 1])}), "fit their axis"),
    (partial(fitted, {"a": ([], [])}, {"a": (1, 0)}), "points must not be empty"),
    (partial(fitted, {"a": ([1], [np.nan])}, {"a": (1, 0)}), "finite"),
    (partial(heat, [[1.0]], notes=[["", ""]]), r"shape \(1, 2\).*got \(1, 1\)"),
    (partial(heat, [[1.0, 2.0]], notes=[["a"]]), "notes must be 1 rows of 2 texts"),
    (partial(respond, [[np.nan]], notes=[[""]]), "finite"),
    (partial(respond, [[1.0]], notes=[[]]), "notes"),
    (partial(PICTURES["training"].func, [np.nan], **PICTURES["training"].keywords), "losses"),
    (partial(PICTURES["training"], flow={"a": [1.0]}), "flow"),
    (partial(PICTURES["trade-off"], recall=[0.5]), "recall"),
    (partial(PICTURES["trade-off"], recall=np.full(301, 1.5)), r"in \[0, 1\]"),
]


@pytest.mark.parametrize(("picture", "message"), BAD)
def test_bad_input_is_an_error_and_nothing_is_written(tmp_path, picture, message):
    with pytest.raises(ValueError, match=message):
        picture(path=tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(OSError):
        PICTURES["one step"](path=tmp_path / "picture.png")
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_smoothing_keeps_lines_and_ends_and_takes_out_noise():
    line = np.linspace(5, -2, 1000)
    np.testing.assert_allclose(runs._smooth(line), line, atol=1e-9)
    noise = rng.standard_normal(1000)
    assert np.abs(runs._smooth(line + noise) - line)[20:-20].max() < 1.0
    holes = np.where(np.arange(1000) % 7 == 0, np.nan, line)
    smooth = runs._smooth(holes)
    np.testing.assert_array_equal(np.isnan(smooth), np.isnan(holes))
    np.testing.assert_allclose(smooth[1:7], line[1:7], atol=0.01)
    lonely = np.full(1000, np.nan)
    lonely[500] = 3.0
    assert runs._smooth(lonely)[500] == 3.0


def test_samples_are_drawn_as_their_mean_and_range():
    page = plots.curves(
        {"loss": ([1, 2, 4], [[1.0, 3.0], [2.0, 4.0], [0.0, 2.0]])}, xlabel="", ylabel="", title=""
    )
    (axes,) = page.axes
    assert axes.lines[0].get_ydata().tolist() == [2, 3, 1]
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().bounds == (1, 0, 3, 4)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]


@pytest.mark.parametrize(
    ("counts", "note"), [([50, 50, 51], "equally many"), ([5, 50, 500], "larger dots")]
)
def test_dots_have_sizes_only_where_they_differ(counts, note):
    reliability = ([0.1, 0.5, 0.9], [0.2, 0.4, 0.8], counts)
    page = PICTURES["trade-off"](reliability=reliability)
    diagonal = next(axes for axes in page.axes if axes.get_ylabel() == "share of positives")
    assert diagonal.get_title().startswith(note)
    assert len(np.unique(diagonal.collections[0].get_sizes())) == (3 if "larger" in note else 1)
