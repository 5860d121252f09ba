"""Pictures: their size, their scales, and no text on another."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from jaxml.reports import plots
from jaxml.reports.plots import canvas

rng = np.random.default_rng(0)
STEPS = np.arange(6000)
NOISY = 8 * np.exp(-STEPS / 900) + 1.2 + 0.3 * rng.standard_normal(6000)
COMPARED = {
    "rate 0.01": (STEPS, 2 * NOISY, STEPS[::300], 2 * NOISY[::300] + 0.5),
    "rate 0.1": (STEPS, NOISY, STEPS[::300], NOISY[::300] + 0.5),
    "rate 1": (STEPS, np.where(STEPS < 2000, NOISY / 2, np.inf), [0, 3000], [9, np.nan]),
}

PICTURES = {
    "dots": lambda path: plots.dots(
        path,
        ["network", "logistic regression", "scikit-learn, boosting"],
        {"AUC": [0.7431, 0.74, 0.737], "log loss": [0.486, np.nan, 0.4942], "equal": [0.5] * 3},
        title="Figures that differ by little",
    ),
    "dots of one panel": lambda path: plots.dots(
        path, ["a", "b"], {"AUC": [0.7, 0.8]}, title="One"
    ),
    "population": lambda path: plots.population(
        path,
        np.arange(200),
        np.where(
            (np.arange(200) > 90) & (np.arange(12)[:, None] == 11),
            np.nan,
            np.exp(-np.arange(200) * np.geomspace(1e-4, 0.1, 12)[:, None]) + 0.1,
        ),
        np.geomspace(1e-4, 0.1, 12),
        value="learning rate",
        title="Twelve members, one of which does not end",
    ),
    "generalization": lambda path: plots.generalization(
        path,
        {
            f"penalty {i}": ((STEPS[:300], NOISY[:300] / (i + 1)), (STEPS[:300:30], NOISY[:300:30]))
            for i in range(3)
        },
        title="Training and validation",
    ),
    "response map": lambda path: plots.response_map(
        path,
        ("weight penalty", [0.0, 1e-3, 1e-1]),
        ("learning rate", [1e-3, 1e-2, 0.1, 1.0]),
        [[1.2, 0.5, 0.2, np.nan], [1.3, 0.6, 0.1, np.inf], [2.0, 2.0, 1.9, 2.4]],
        notes=[["learning_rate_too_low", "", "", "learning_rate_too_high, dead_relu"]] * 3,
        label="validation loss",
        title="Two that pull against each other",
    ),
    "loss": lambda path: plots.loss_curves(
        path,
        (STEPS, NOISY),
        (STEPS[::300], NOISY[::300] + 0.4),
        title="A title so long that it has to be wrapped: " + "234,908 classes, 6,000 steps, " * 3,
    ),
    "log loss": lambda path: plots.loss_curves(path, (STEPS, 1e4 / (1 + STEPS)), title="Power law"),
    "diverged": lambda path: plots.loss_curves(
        path, (STEPS, np.where(STEPS < 4000, NOISY, np.inf)), title="Diverged"
    ),
    "one step": lambda path: plots.loss_curves(path, ([7], [2.0]), title="One report"),
    "bars": lambda path: plots.bars(
        path,
        ["P@1", "R@10", "R@100"],
        {f"{name}, {kind}": rng.random(3) for name in ["resolver", "TF-IDF"] for kind in "ab"},
        ylabel="share of held-out aliases",
        title="Held-out aliases",
    ),
    "many bars": lambda path: plots.bars(
        path,
        [f"measure number {i}" for i in range(9)],
        {f"method {i}": [np.nan, *rng.random(7), 12345.6] for i in range(5)},
        ylabel="score",
        title="Many",
    ),
    "curves": lambda path: plots.curves(
        path,
        {
            f"layer number {i}": ([0.1, 1, 10, 100], np.sort(rng.random(4))[::-1] * (1 + i))
            for i in range(9)
        },
        xlabel="seconds of training",
        ylabel="exact loss on held-out examples (nats)",
        title="Quality against time",
    ),
    "compared curves": lambda path: plots.compared_curves(path, COMPARED, title="Three runs"),
    "many compared": lambda path: plots.compared_curves(
        path,
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
    "scaling": lambda path: plots.scaling(
        path,
        {
            name: ([1e4, 1e5, 1e6, 1e7], [b + 0.2 * rng.random(9) for _ in range(4)])
            for b, name in enumerate(["sgd", "adagrad", "rowwise_adagrad", "adam"], start=3)
        },
        xlabel="classes",
        ylabel="ms a step",
        title="One training step",
    ),
    "fitted lines": lambda path: plots.fitted_lines(
        path,
        {"right": (NOISY, 2 * NOISY + rng.normal(size=6000)), "wrong": ([2.0, 3.0], [-90.0, 80.0])},
        {name: (2.0 + i, -i) for i, name in enumerate(["squared", "absolute", "Huber"])},
        xlabel="minutes at departure",
        ylabel="minutes at arrival",
        title="Lines",
    ),
    "trade-off": lambda path: plots.trade_off(
        path,
        [np.inf, *np.linspace(0.999, 0.0001, 300)],
        precision=[np.nan, *np.linspace(1, 0.1, 300)],
        recall=np.linspace(0, 1, 301) ** 0.3,
        false_positive_rate=np.linspace(0, 1, 301) ** 2,
        base_rate=0.1,
        chosen={"cost 1 : 5": 0.17, "precision of 0.9": 0.9, "best F1": 0.4},
        reliability=([0.1, 0.5, np.nan, 0.9], [0.2, 0.4, np.nan, 0.8], [500, 60, 0, 20]),
        title="Recurrence of tumours: what a threshold buys",
    ),
    "trade-off of logits": lambda path: plots.trade_off(
        path,
        [np.inf, 2.0, -3.5],
        precision=[np.nan, 1.0, 0.5],
        recall=[0.0, 0.5, 1.0],
        false_positive_rate=[0.0, 0.0, 1.0],
        base_rate=0.5,
        title="Logits",
    ),
    "histograms": lambda path: plots.histograms(
        path,
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
    "one histogram": lambda path: plots.histograms(
        path, [("constant", [-0.5, 0.5], [0])], title="Nothing"
    ),
    "map": lambda path: plots.heatmap(
        path,
        rng.random((28, 3)),
        rows=[f"leaky_relu, initializer {i}" for i in range(28)],
        columns=["2", "6", "12"],
        notes=[["0.10 poor initialization ⇒ 0.95"] * 3] * 28,
        xlabel="hidden layers",
        label="held-out accuracy",
        title="A map of many rows",
    ),
    "small map": lambda path: plots.heatmap(
        path,
        [[0.1, np.nan], [12.5, 3.0]],
        rows=["a", "b"],
        columns=["c", "d"],
        ylabel="rows",
        xlabel="columns",
        label="values",
        title="Four",
    ),
    "log scaling": lambda path: plots.scaling(
        path,
        {"ours": ([1e4, 1e8], [[3], [3.1, 3.2]]), "theirs": ([1e4, 1e6], [[4, 5], [111, 120]])},
        xlabel="classes",
        ylabel="ms",
        title="Peers",
    ),
}


@pytest.fixture
def drawn(monkeypatch):
    """Draws a picture and gives its figure instead of writing it."""

    def draw(picture):
        figures = []
        monkeypatch.setattr(canvas, "write", lambda figure, path: figures.append(figure))
        picture(None)
        FigureCanvasAgg(figures[0]).draw()
        return figures[0]

    return draw


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_of_its_size(tmp_path, name):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    PICTURES[name](path)
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (1200, 800)
    # Many lines with markers and a legend of them, four panels, or 84 texts on 84 colours take more.
    most = {
        "curves": 150_000,
        "trade-off": 150_000,
        "population": 150_000,
        "map": 350_000,
        "many compared": 400_000,
    }
    assert len(content) < most.get(name, 100_000)
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_lies_on_another_or_leaves_the_picture(drawn, monkeypatch, name):
    boxes = []
    draw = Text.draw

    def note(text, renderer):
        if text.get_visible() and text.get_text().strip():
            boxes.append((text.get_text(), text.get_window_extent(renderer)))
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", note)
    drawn(PICTURES[name])
    assert len(boxes) > 6
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), f"{one!r} lies on {other!r}"
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1200 and box.y1 <= 800, text


def test_the_scale_follows_the_values(drawn):
    for name, scale in [
        ("loss", "linear"),
        ("log loss", "log"),
        ("scaling", "linear"),
        ("log scaling", "log"),
    ]:
        axes = drawn(PICTURES[name]).axes[0]
        assert axes.get_yscale() == scale, name
        if "scaling" in name:
            assert axes.get_xscale() == "log"
    assert drawn(PICTURES["scaling"]).axes[0].get_ylim()[0] == 0

    def negative(path):
        plots.loss_curves(path, ([0, 1, 2], [1000.0, 1.0, -1.0]), title="")

    assert drawn(negative).axes[0].get_yscale() == "linear"


def test_what_is_drawn_is_what_was_given(drawn):
    lines = drawn(PICTURES["scaling"]).axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["sgd", "adagrad", "rowwise_adagrad", "adam"]
    for base, line in enumerate(lines, start=3):
        assert ((line.get_ydata() > base) & (line.get_ydata() < base + 0.2)).all()
    axes = drawn(PICTURES["fitted lines"]).axes[0]
    right, wrong, *lines = axes.get_lines()
    assert len(right.get_xdata()) == 6000 and wrong.get_ydata().tolist() == [-90, 80]
    assert [line.get_label() for line in lines] == ["squared", "absolute", "Huber"]
    for i, line in enumerate(lines):
        np.testing.assert_allclose(line.get_ydata(), (2 + i) * line.get_xdata() - i)
        np.testing.assert_allclose(line.get_xdata(), [NOISY.min(), NOISY.max()])
    bars = drawn(
        lambda path: plots.bars(path, ["a", "b"], {"x": [0.25, 12.0]}, ylabel="", title="")
    ).axes[0]
    assert [patch.get_height() for patch in bars.patches] == [0.25, 12.0]
    assert [text.get_text() for text in bars.texts] == ["0.25", "12"]


def test_a_map_has_its_values_colours_and_notes(drawn):
    axes = drawn(PICTURES["small map"]).axes[0]
    shown = axes.collections[0].get_array()
    np.testing.assert_array_equal(shown.filled(-1), [[0.1, -1], [12.5, 3.0]])
    assert axes.collections[0].get_clim() == (0.1, 12.5)
    assert [text.get_text() for text in axes.texts] == ["0.10", "", "12", "3.00"]
    assert axes.yaxis_inverted()


def test_the_first_loss_that_is_not_finite_is_named(drawn):
    labels = [line.get_label() for line in drawn(PICTURES["diverged"]).axes[0].get_lines()]
    assert "not finite at step 4,000" in labels


def test_compared_runs_have_a_line_each_and_say_where_they_end(drawn):
    (axes,) = drawn(PICTURES["compared curves"]).axes
    assert axes.get_yscale() == "linear"
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [
        "rate 0.01", "rate 0.1", "rate 1, not finite from step 2,000", "training", "validation",
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


def test_a_run_that_diverged_does_not_press_the_others_flat(drawn):
    runs = {
        "good": (STEPS, NOISY, [0, 6000], [9.0, 2.0]),
        "bad": (STEPS, NOISY * np.exp(STEPS / 100), [], []),
        "worse": (STEPS, np.where(STEPS < 99, 9 + 1e9 * STEPS, np.nan), [], []),
    }
    (axes,) = drawn(lambda path: compare(path, runs)).axes
    low, high = axes.get_ylim()
    assert low < 1.3 and 9 < high < 12
    assert axes.get_legend_handles_labels()[1][:3] == [
        "good", f"bad, rises to {runs['bad'][1].max():.2g}",
        "worse, rises to 9.8e+10, not finite from step 99",
    ]  # fmt: skip
    (axes,) = drawn(lambda path: compare(path, {**runs, "good": ([0], [2.0], [], [])})).axes
    assert axes.get_ylim() == (1.0, 3.0)
    del runs["good"]  # None to compare them with: they are shown whole.
    (axes,) = drawn(lambda path: compare(path, runs)).axes
    assert axes.get_ylim()[1] > 1e25 and axes.get_yscale() == "log"
    assert axes.get_legend_handles_labels()[1][0] == "bad"


def test_compared_runs_of_one_kind_of_loss_or_one_step_are_drawn(drawn):
    (axes,) = drawn(
        lambda path: compare(
            path,
            {"held out": ([], [], [5], [2.0]), "nothing": ([0], [np.nan], [], []),
             "one": ([5], [90.0], [], [])},
        )
    ).axes  # fmt: skip
    assert axes.get_yscale() == "log"
    assert axes.get_legend_handles_labels()[1][1] == "nothing, not finite from step 0"


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (lambda p: plots.loss_curves(p, ([1, 2], [1.0]), title=""), r"train.*\(2,\) and \(1,\)"),
        (lambda p: plots.loss_curves(p, ([1], [np.nan]), title=""), "train must have a finite"),
        (lambda p: plots.loss_curves(p, ([], []), title=""), "train must have a finite"),
        (lambda p: plots.loss_curves(p, ([1], [1]), ([1], []), title=""), "validation must be"),
        (lambda p: plots.bars(p, [], {}, ylabel="", title=""), "must not be empty"),
        (lambda p: plots.bars(p, ["a"], {"x": [1, 2]}, ylabel="", title=""), r"'x'.*\(2,\)"),
        (lambda p: plots.bars(p, ["a"], {"x": [-1]}, ylabel="", title=""), "at least 0"),
        (lambda p: plots.scaling(p, {}, xlabel="", ylabel="", title=""), "must not be empty"),
        (lambda p: fits(p, {}, {"a": (1, 0)}), "must not be empty; got 0 points, 1 lines"),
        (lambda p: fits(p, {"a": ([], [])}, {"a": (1, 0)}), "must not be empty"),
        (lambda p: fits(p, {"a": ([1], [1])}, {}), "must not be empty"),
        (lambda p: fits(p, {"a": ([1], [1, 2])}, {"a": (1, 0)}), "'a'.*of one length"),
        (lambda p: fits(p, {"a": ([1], [np.nan])}, {"a": (1, 0)}), "finite"),
        (lambda p: fits(p, {"a": ([1], [1])}, {"a": (np.inf, 0)}), "finite"),
        (lambda p: plots.histograms(p, [], title=""), "at least one"),
        (lambda p: plots.histograms(p, [("x", [0, 1], [1, 2])], title=""), "'x'.*2 edges and 2"),
        (lambda p: plots.histograms(p, [("x", [1, 0], [1])], title=""), "rising edges"),
        (lambda p: compare(p, {}), "runs must hold 1 to 20, got 0"),
        (lambda p: compare(p, {str(i): ([0], [1], [], []) for i in range(21)}), "got 21"),
        (lambda p: compare(p, {"a": ([0, 1], [1], [], [])}), "'a'.*training must be steps"),
        (lambda p: compare(p, {"a": ([], [], [0, 1], [1])}), "'a'.*validation must be steps"),
        (lambda p: compare(p, {"a": ([0], [np.nan], [], [])}), "finite loss, got none"),
        (lambda p: compare(p, {"a": ([], [], [], [])}), "finite loss, got none"),
        (lambda p: draw(p, {}), "must not be empty"),
        (lambda p: draw(p, {"x": ([1, 2], [1])}), "as many x as y"),
        (lambda p: draw(p, {"x": ([0, 2], [1, 1])}), "fit their axis"),
        (lambda p: heat(p, [[1.0]]), r"shape \(1, 2\).*got \(1, 1\)"),
        (lambda p: heat(p, [[1.0, 2.0]], [["a"]]), "notes must be 1 rows of 2 texts"),
        (lambda p: heat(p, [[1.0, 2.0]], [["a", "b"]] * 2), "notes must be 1 rows of 2 texts"),
        (lambda p: scale(p, [0], [[1]]), "positive sizes"),
        (lambda p: scale(p, [1, 2], [[1]]), "positive sizes"),
        (lambda p: scale(p, [10], [[]]), "samples of at least 0 at size 10"),
        (lambda p: scale(p, [10], [[np.nan]]), "samples of at least 0 at size 10"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(tmp_path, picture, message):
    with pytest.raises(ValueError, match=message):
        picture(tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def draw(path, series):
    plots.curves(path, series, xlabel="", ylabel="", title="")


def compare(path, runs):
    plots.compared_curves(path, runs, title="")


def fits(path, points, lines):
    plots.fitted_lines(path, points, lines, xlabel="", ylabel="", title="")


def heat(path, values, notes=None):
    plots.heatmap(path, values, rows=["a"], columns=["b", "c"], notes=notes, label="", title="")


def scale(path, sizes, samples):
    plots.scaling(path, {"x": (sizes, samples)}, xlabel="", ylabel="", title="")


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(OSError):
        PICTURES["one step"](tmp_path / "picture.png")
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


WATCHED = {
    "losses": [3.0, 2.0, float("nan"), 1.0],
    "flow": {"hidden_0": [1e-6, 0.0], "hidden_1": [1e-3, 1.0]},
    "looks": [0, 2],
    "clipped": [False, True, False, False],
    "refused": [False, False, True, False],
    "findings": [(0, "vanishing_gradient"), (2, "non_finite"), (2, "dead_relu")],
    "validation": ([0, 4], [3.0, 1.5]),
}


def test_a_watched_training_is_drawn(tmp_path):
    picture = tmp_path / "training.png"
    plots.training(picture, **WATCHED, title="A run")
    assert picture.read_bytes()[1:4] == b"PNG" and picture.stat().st_size < 200_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"losses": [float("nan")] * 4}, "losses"),
        ({"flow": {"a": [1.0]}}, "flow"),
        ({"clipped": [True]}, "clipped"),
    ],
)
def test_a_watched_training_that_does_not_fit_is_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        plots.training(tmp_path / "training.png", **{**WATCHED, **wrong}, title="A run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: plots.population(p, [0, 1], [[1.0]], [1.0], value="v", title="t"), "losses"),
        (lambda p: plots.population(p, [0], [[1.0]], [np.nan], value="v", title="t"), "values"),
        (lambda p: plots.population(p, [0], [[np.nan]], [1.0], value="v", title="t"), "finite"),
        (lambda p: plots.generalization(p, {}, title="t"), "curves"),
        (
            lambda p: plots.response_map(
                p, ("a", [1]), ("b", [1, 2]), [[1.0]], label="l", title="t"
            ),
            "values",
        ),
        (
            lambda p: plots.response_map(
                p, ("a", [1]), ("b", [1]), [[1.0]], notes=[[]], label="l", title="t"
            ),
            "notes",
        ),
    ],
)
def test_pictures_of_populations_refuse_what_does_not_fit(tmp_path, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
