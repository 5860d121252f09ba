"""Verdicts: neither noise nor luck decides them."""

import dataclasses

import numpy as np
import pytest

from jaxml import metrics, serving
from jaxml.serving import gate as gates
from jaxml.serving import scores
from jaxml.serving.gate import quality
from jaxml.serving.held_out import HeldOut


def binary(*thresholds, **options):
    return serving.Gate("binary", "late", "probability", thresholds, **options)


def simulated(rng, *, days=30, rows=20, skills=(1.0, 1.0)):
    """Held-out rows of days that differ, and the answers of models of some skills."""
    day = np.repeat(np.arange(days), rows)
    signal = rng.normal(size=days * rows) + rng.normal(0, 0.5, days)[day]
    late = (rng.random(days * rows) < 1 / (1 + np.exp(-signal))).astype(np.int64)
    answers = []
    for skill in skills:
        noise = 0.5 * rng.normal(size=len(signal)) + 0.3 * rng.normal(size=days)[day]
        answers.append(1 / (1 + np.exp(-skill * signal - noise)))
    return {"late": late, "day": day}, answers


def judged(gate, table, own, before=None):
    checks = quality(own, before, HeldOut.read(table, gate), gate)
    return {check.name: check for check in checks}


def refused(gate, table, own, before=None):
    return any(each.outcome == "failed" for each in judged(gate, table, own, before).values())


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "brier", "calibration_error"])
def test_metrics_of_resamples_are_those_of_the_metrics_package(name):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).astype(np.float64)
    answers = (rng.integers(0, 16, 300) / 15).astype(np.float32)  # ties, edges of bins, 0 and 1
    weights = rng.integers(0, 4, (5, 300))
    found = scores.metric_of(name, labels, answers)(weights.astype(np.float64))
    wanted = [getattr(metrics, name)(labels, answers, weights=one) for one in weights]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_precision_and_recall_count_the_right_ids():
    labels = np.array([3, 1, 4, 1])
    ids = np.array([[3, 0, 2], [0, 1, 2], [0, 1, 2], [2, 0, 1]])
    for name, wanted in (("precision@1", 0.25), ("recall@2", 0.5), ("recall@3", 0.75)):
        assert scores.value(name, labels, ids) == wanted
    with pytest.raises(ValueError, match="3 answers"):
        scores.value("recall@4", labels, ids)


NO_LOSS = (serving.Threshold("roc_auc", change=0.0), serving.Threshold("log_loss", change=0.0))


def test_equal_models_pass_and_a_clearly_worse_one_is_refused():
    """Two models with errors of the same size, and one that uses the signal less."""
    gate, rng = binary(*NO_LOSS, group="day"), np.random.default_rng(1)
    equal = [refused(gate, table, *both) for table, both in (simulated(rng) for _ in range(100))]
    assert np.mean(equal) <= 0.05
    worse = [
        refused(gate, table, *both)
        for table, both in (simulated(rng, skills=(0.2, 1.0)) for _ in range(40))
    ]
    assert np.mean(worse) >= 0.95


def test_a_lucky_model_is_not_better_than_the_baseline():
    gate, rng = binary(baseline="simple", group="day"), np.random.default_rng(2)
    outcome = {}
    for skill, times in ((1.0, 100), (0.0, 20)):
        drawn = (simulated(rng, skills=(1.0, skill)) for _ in range(times))
        outcome[skill] = [refused(gate, table | {"simple": b}, a) for table, (a, b) in drawn]
    assert np.mean(outcome[1.0]) >= 0.95  # half of these are ahead
    assert np.mean(outcome[0.0]) <= 0.05


def test_days_are_drawn_whole():
    """Twenty copies of a row make one day: they tell as much as one row."""
    table, answers = simulated(np.random.default_rng(3), days=60, rows=1)
    table = {name: np.repeat(each, 20) for name, each in table.items()}
    answers = [np.repeat(each, 20) for each in answers]
    widths = {}
    for group in ("day", None):
        gate = binary(serving.Threshold("brier", change=0.0), group=group)
        low, high = judged(gate, table, *answers)["change of brier"].interval
        widths[group] = high - low
    assert 3.5 < widths["day"] / widths[None] < 5.5  # √20 = 4.5


def test_bounds_are_inclusive():
    table, (own, _) = simulated(np.random.default_rng(4))
    for name, better in (("roc_auc", 1), ("brier", -1)):
        value = judged(binary(serving.Threshold(name, bound=0.5)), table, own)[name].value
        for bound, outcome in ((value, "passed"), (np.nextafter(value, better), "failed")):
            found = judged(binary(serving.Threshold(name, bound=bound)), table, own)
            assert found[name].outcome == outcome
    same = judged(binary(*NO_LOSS), table, own, own)
    assert {each.outcome for each in same.values()} == {"passed"}
    assert same["change of roc_auc"].interval == (0.0, 0.0)


def test_of_two_changes_the_stricter_holds():
    table, (own, _) = simulated(np.random.default_rng(5), days=60)
    worse = own * 0.4
    loss = metrics.log_loss(table["late"], worse) / metrics.log_loss(table["late"], own) - 1
    for change, relative, refuse in (
        (None, 2 * loss, False),
        (1.0, 2 * loss, False),
        (None, loss / 10, True),
        (1.0, loss / 10, True),
        (loss / 100, 1.0, True),
    ):
        threshold = serving.Threshold("log_loss", change=change, relative_change=relative)
        assert refused(binary(threshold), table, worse, own) == refuse


def test_what_cannot_be_computed_fails():
    table, (own, _) = simulated(np.random.default_rng(6))
    odd = own.copy()
    odd[3] = np.nan
    bound = serving.Threshold("brier", bound=1.0)
    for answers, text in ((odd, "1 answers are not numbers"), (own + 1, "no probabilities")):
        found = judged(binary(bound), table, answers)["brier"]
        assert found.outcome == "failed" and text in found.note
    change = serving.Threshold("brier", change=1.0)
    assert "1 answers" in judged(binary(change), table, own, odd)["change of brier"].note
    assert judged(binary(change), table, own, "gone")["change of brier"].note == "gone"
    first = judged(binary(change), table, own)["change of brier"]
    assert (first.outcome, first.note) == ("skipped", "there is no bundle to compare with")
    few = {name: each[:99] for name, each in table.items()}
    assert judged(binary(bound), few, own[:99])["brier"].note == "99 rows are too few"
    recall = serving.Gate("top_k", "late", "ids", (serving.Threshold("recall@3", bound=0.0),))
    ids = np.zeros((len(own), 2), np.int64)
    assert "2 answers a row" in judged(recall, table, ids)["recall@3"].note


def test_each_value_of_a_column_is_judged():
    rng = np.random.default_rng(7)
    table, (own, _) = simulated(rng, rows=30)
    table["origin"] = np.array(["EWR"] * 400 + ["JFK"] * 450 + ["LGA"] * 50)
    bad = np.where(table["origin"] == "JFK", 1 - own, own)

    def found(**options):
        gate = binary(serving.Threshold("roc_auc", bound=0.6, by="origin", **options))
        return {name: each.outcome for name, each in judged(gate, table, bad).items()}

    usual = {
        "roc_auc, origin = EWR": "passed",
        "roc_auc, origin = JFK": "failed",
        "roc_auc, origin = LGA": "skipped",
    }
    assert found() == usual
    named = found(values=("LGA", "TEB"))
    assert named == {**usual, "roc_auc, origin = LGA": "failed", "roc_auc, origin = TEB": "failed"}
    gate = binary(serving.Threshold("roc_auc", bound=0.6, by="carrier"))
    assert [each.note for each in judged(gate, table, own).values()] == [
        "held-out rows have no such column"
    ]
    table["origin"] = np.arange(900) // 3
    gate = binary(serving.Threshold("roc_auc", bound=0.0, by="origin"))
    assert judged(gate, table, own)["roc_auc, origin"].note == "no value has enough rows"


def test_labels_and_columns_are_checked():
    table, _ = simulated(np.random.default_rng(8))
    gate = binary(*NO_LOSS, group="day")
    for changed, text in (
        ({"late": table["late"] * 2}, "'late' must be 0 or 1, got 2.0"),
        ({"late": np.where(table["day"] == 3, np.nan, table["late"])}, "got nan in row 60"),
        ({"day": None}, "must have the column 'day'"),
    ):
        given = {name: each for name, each in (table | changed).items() if each is not None}
        with pytest.raises(ValueError, match=text):
            HeldOut.read(given, gate)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, flights, logistic):
    """A model that learned, one that did not, and held-out rows."""
    path = tmp_path_factory.mktemp("bundles")
    for name, strength in (("good", 1.0), ("bad", 0.1)):
        serving.save(path / name, **logistic(*flights(), strength=strength))
    columns, late = flights(600, seed=2)
    table = {**columns, "late": late, "day": np.arange(600) // 20, "simple": columns["distance"]}
    return serving.load(path / "good"), serving.load(path / "bad"), table


def test_bundles_are_judged_on_the_same_rows(bundles):
    good, bad, table = bundles
    gate = binary(
        serving.Threshold("roc_auc", bound=0.9),
        serving.Threshold("log_loss", relative_change=0.1),
        serving.Threshold("latency_ms", bound=1e4, change=1e4),
        serving.Threshold("size_bytes", bound=1e6, relative_change=0.5),
        baseline="simple",
        group="day",
    )
    first = gates.judge(good, None, table, gate)
    assert first.passed and [each.outcome for each in first.checks].count("skipped") == 3
    assert gates.judge(good, bad, table, gate).passed
    verdict = gates.judge(bad, good, table, gate)
    assert [each.name for each in verdict.checks if each.outcome == "failed"] == [
        "change of log_loss"
    ]
    low, high = next(e.interval for e in verdict.checks if e.name == "change of log_loss")
    assert 0 < low < high


def test_rows_that_the_schema_refuses_are_counted(bundles):
    good, _, table = bundles
    gate = binary(serving.Threshold("refused_rows", bound=0.02))
    (check,) = gates.judge(good, None, table, gate).checks
    assert check.outcome == "passed"
    refused = {row for each in good.check({n: table[n] for n in good.columns}) for row in each.rows}
    assert check.value == len(refused) / 600
    away = np.where(np.arange(600) < 30, "TEB", table["origin"])
    (check,) = gates.judge(good, None, {**table, "origin": away}, gate).checks
    assert check.outcome == "failed" and 0.05 <= check.value <= 0.07


def test_a_bundle_in_use_that_cannot_answer_any_more_fails_the_changes(bundles):
    good, bad, table = bundles
    gate = binary(
        serving.Threshold("roc_auc", change=0.1), serving.Threshold("latency_ms", change=1e4)
    )
    inputs = (*bad.manifest.inputs, bad.manifest.inputs[0]._replace(name="gate"))
    other = dataclasses.replace(bad, manifest=dataclasses.replace(bad.manifest, inputs=inputs))
    verdict = gates.judge(good, other, table, gate)
    assert {each.outcome for each in verdict.checks} == {"failed"}
    assert "needs the column 'gate'" in verdict.checks[0].note
    for changed in ({**table, "hour": ["noon"] * 600}, dict(list(table.items())[1:])):
        (check,) = gates.judge(good, bad, changed, gate).checks
        assert check.outcome == "failed" and "\n" not in check.note
    renamed = dataclasses.replace(gate, output="score")
    assert "no output 'score'" in gates.judge(good, None, table, renamed).checks[0].note
