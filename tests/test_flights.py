"""The flights experiment, with few flights and tiny models.

No feature depends on events after its clock: later events are rewritten and features compared."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.flights import __main__ as experiment
from experiments.flights import candidate, clocks, judging, models, table
from jaxml import serving
from jaxml.features import FeaturePipeline, bucketize
from jaxml.serving import candidate as candidates
from jaxml.serving import rows


@pytest.fixture(scope="module")
def everything():
    """The table of a year, read once."""
    return table.read()


@pytest.fixture(scope="module")
def few(everything):
    """Every eighth flight of three fortnights, and the weather."""
    flights, weather = everything
    return flights.take(experiment.shortened(flights)[::8]), weather


@pytest.fixture(scope="module")
def known(everything):
    """All flights of three weeks in March, and the weather."""
    flights, weather = everything
    return flights.take((flights.day >= 59) & (flights.day < 80)), weather


def test_the_tables_are_checked_against_their_schemas(few, tmp_path):
    flights, weather = few
    parts = table.split(flights)
    assert set(flights.month[parts.training]) <= set(range(1, 9))
    assert set(flights.month[parts.validation]) <= {9, 10}
    assert set(flights.month[parts.test]) <= {11, 12}
    assert np.isfinite(flights.arr_delay[np.concatenate(dataclasses.astuple(parts))]).all()
    cleaned, found = experiment.checked(flights, weather, parts, tmp_path)
    # The wind of 1,048 miles an hour at Newark on 12 February is in the package.
    assert any("1048" in each for each in found["weather"])
    assert np.nanmax(weather) > 1048 and np.nanmax(cleaned[..., 4]) < 150
    assert np.isnan(cleaned).sum() == np.isnan(weather).sum() + 1
    assert (tmp_path / "schema-flights.toml").exists()


def test_thresholds_are_chosen_on_the_validation_months_alone():
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.3).astype(float)
    scores = np.clip(0.5 * labels + 0.5 * rng.random(3000), 0, 1)
    rows = np.split(np.arange(3000), 3)
    before = judging.thresholds(labels, scores, table.Split(*rows))
    changed = labels.copy()
    changed[rows[2]] = 1 - changed[rows[2]]
    after = judging.thresholds(changed, scores, table.Split(*rows))
    for name, each in before.items():
        assert after[name]["threshold"] == each["threshold"]
        assert after[name]["precision in test"] != each["precision in test"]


def test_differences_have_the_width_of_whole_days():
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(40), 25)
    labels = (rng.random(1000) < 0.4).astype(float)
    good_day = rng.random(40) < 0.6  # on the other days the second model is the better one
    first = np.where(good_day[day], 2 * labels - 1, 0.0)
    second = np.where(good_day[day], 0.0, 2 * labels - 1)
    outputs = {"first": first, "second": second}
    own, wide = judging.intervals(labels, outputs, day, 100)
    _, narrow = judging.intervals(labels, outputs, np.arange(1000), 100)
    for name, each in wide.items():
        low, high = each["interval"]
        assert low < each["value"] < high
        other = narrow[name]["interval"]
        assert high - low > 2 * (other[1] - other[0])
        assert all(ends[name][0] < ends[name][1] for ends in own.values())
    assert wide["AUC"]["value"] > 0 > wide["log loss"]["value"]


@pytest.mark.slow
def test_a_run_from_tables_to_pictures(few, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "read", lambda: few)
    assert experiment.main(["--smoke", "--run-dir", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["anomalies"]["weather"] and results["rows"]["test"] > 1000
    for clock, result in results["clocks"].items():
        assert len(result["classification"]) == len(result["regression"]) == 4
        for each in result["classification"].values():
            assert each["AUC interval"][0] <= each["AUC"] <= each["AUC interval"][1]
        assert (tmp_path / f"{clock}-thresholds.png").read_bytes()[1:4] == b"PNG"
    assert results["clocks"]["early"]["random split"].keys() >= {"split by time"}
    assert (tmp_path / "models.png").read_bytes()[1:4] == b"PNG"
    for clock, place in (("late", tmp_path), ("early", tmp_path / "early")):
        left = candidates.read(place)
        bundle = serving.load(left.bundle)
        figures = results["clocks"][clock]["classification"]["network"]
        assert bundle.manifest.name == f"flights-{clock}"
        assert bundle.manifest.metrics["AUC"] == pytest.approx(figures["AUC"])
        assert len(left.held_out["late"]) == results["rows"]["test"]
        assert set(left.gate.columns) <= set(left.held_out)


@pytest.fixture(scope="module")
def made():
    """Inputs of 1,200 flights whose delay depends on a number and a category."""
    rng = np.random.default_rng(0)
    dense, ids = rng.normal(size=(1200, 2)).astype(np.float32), rng.integers(0, 4, (1200, 1))
    minutes = 20 * dense[:, 0] + 15 * (ids[:, 0] == 2) + 10 * rng.normal(size=1200)
    pipeline = FeaturePipeline({"a": [], "b": [], "carrier": bucketize([1, 2, 3])})
    pipeline = pipeline.fit({"a": dense[:, 0], "b": dense[:, 1], "carrier": ids[:, 0]})
    inputs = models.Inputs({"dense": dense, "ids": ids.astype(np.int32)}, pipeline, [])
    return inputs, minutes, table.Split(*np.split(np.arange(1200), [800, 1000]))


def test_a_clock_leaves_a_candidate_that_answers_as_its_network(made, tmp_path):
    inputs, minutes, parts = made
    late, test = (minutes > 15).astype(float), parts.test
    settings = models.Settings(
        (8,), epochs=1.0, batch_size=200, learning_rate=3e-2, members=3, monitor=False
    )
    trained = {
        "network": models.network(inputs, late, parts, settings),
        "logistic": models.logistic(inputs, late, parts, dataclasses.replace(settings, widths=())),
    }
    outputs = trained["network"].outputs[test]
    figures = judging.classification(late[test], outputs)
    columns = {
        "a": inputs.x["dense"][:, 0],
        "b": inputs.x["dense"][:, 1],
        "carrier": inputs.x["ids"][:, 0],
        "origin": np.resize(table.ORIGINS, 1200),
    }
    flights = SimpleNamespace(day=np.arange(1200) // 10)
    left = dict(inputs=inputs, settings=settings, trained=trained, late=late)
    candidate.leave(tmp_path / "a", "late", columns, flights, parts, figures=figures, **left)
    bundle = serving.load(tmp_path / "a" / "candidate" / "bundle")
    asked = {name: each[test] for name, each in columns.items()}
    np.testing.assert_allclose(
        bundle.predict(asked)["probability"], judging.probability(outputs), atol=1e-6
    )
    wrong = {**figures, "AUC": figures["AUC"] + 1e-4}
    with pytest.raises(RuntimeError, match="the bundle has AUC"):
        candidate.leave(tmp_path / "b", "late", columns, flights, parts, figures=wrong, **left)


def test_a_schema_admits_other_flights_and_no_other_units(few):
    columns = clocks.early(*few)
    seen, later = ({name: each[at::2] for name, each in columns.items()} for at in (0, 1))
    by_row = rows.row_schema(candidate.reviewed(seen), tuple(columns))
    number = len(later["carrier"])

    def refused(name, values):
        found = [each.rows for each in rows.validate_rows({**later, name: values}, by_row)]
        return len(np.unique(np.concatenate([*found, np.zeros(0, int)]))) / number

    assert refused("carrier", later["carrier"]) < 0.01
    assert refused("wind", np.full(number, np.nan)) < 0.01
    assert refused("pressure", later["pressure"] / 33.86) > 0.9
    assert refused("scheduled duration", later["scheduled duration"] * 60) == 1
    assert refused("origin", np.full(number, "??")) == 1
    assert refused("distance", np.full(number, np.nan)) == 1


def test_members_are_averaged_and_measured_in_minutes(made):
    inputs, minutes, parts = made
    settings = models.Settings(
        (8,), dropout=0.0, epochs=20.0, batch_size=64, learning_rate=0.02, monitor=False
    )
    trained = models.network(inputs, minutes, parts, settings, loss=models.huber, scale=(5.0, 20.0))
    assert trained.members.shape == (2, 1200) and (trained.members[0] != trained.members[1]).any()
    np.testing.assert_array_equal(trained.outputs, trained.members.mean(0))
    for member in trained.members:
        error = np.abs(member - minutes)[parts.test].mean()
        assert error < 10 < np.abs(5 - minutes)[parts.test].mean()


def test_logistic_regression_reaches_the_minimum_of_scikit_learn(made):
    inputs, minutes, parts = made
    labels = (minutes > 15).astype(float)
    settings = models.Settings(epochs=60.0, batch_size=200, learning_rate=3e-2, monitor=False)
    ours = models.logistic(inputs, labels, parts, settings)
    theirs = models.scikit_learn_logistic(inputs, labels, parts.training, iterations=100)
    np.testing.assert_allclose(ours.outputs, theirs.outputs, atol=0.03)
    assert np.ptp(theirs.outputs) > 1


def test_features_of_all_flights_are_fitted_on_the_training_rows(few):
    flights, weather = few
    parts = table.split(flights)
    columns = clocks.early(flights, weather)
    inputs = models.inputs(columns, parts.training)
    assert inputs.x["dense"].dtype == np.float32 and inputs.x["ids"].dtype == np.int32
    assert np.isfinite(inputs.x["dense"]).all()
    assert (inputs.x["ids"].max(0) < inputs.pipeline.id_sizes).all()
    later = {name: np.concatenate([v, v[:5]]) for name, v in columns.items()}
    again = models.inputs(later, parts.training).x
    for name, values in inputs.x.items():
        np.testing.assert_array_equal(again[name][: len(flights)], values)


def replayed(flights, weather, now, seed=None):
    """The tables at a moment: later events are removed (`seed` None) or replaced by random ones."""
    rng = np.random.default_rng(seed)
    n = len(flights)

    def other(values, low, high):
        made = rng.integers(low, high, n)
        return np.full(n, np.nan) if seed is None else made.astype(values.dtype)

    gone, landed = flights.departed <= now, flights.arrived <= now
    later = now + 1 + rng.integers(0, 400, n)
    never = np.full(n, table.NEVER)
    departed = np.where(gone, flights.departed, never if seed is None else later)
    changed = dataclasses.replace(
        flights,
        departed=departed,
        dep_delay=np.where(gone, flights.dep_delay, other(flights.dep_delay, -20, 300)),
        arrived=np.where(landed, flights.arrived, never if seed is None else later + 500),
        arr_delay=np.where(landed, flights.arr_delay, other(flights.arr_delay, -60, 300)),
        taxi=np.where(landed, flights.taxi, other(flights.taxi, 5, 90)),
    )
    values = weather.copy()
    unseen = 60 * np.arange(values.shape[1]) + 60 > now  # an hour is known when it is full
    values[:, unseen] = np.nan if seed is None else rng.normal(50, 30, values[:, unseen].shape)
    return changed, values


def differing(before, after, rows):
    """Names of the features that differ in any bit."""
    assert before.keys() == after.keys()
    return [
        name
        for name in before
        if not np.array_equal(
            before[name][rows], after[name][rows], equal_nan=before[name].dtype.kind == "f"
        )
    ]


# Times of day with flights behind and ahead of them, in minutes of the year (UTC).
MOMENTS = [(31 + 28 + day) * 1440 + hour * 60 + minute for day, hour, minute in
           ((4, 12, 7), (7, 22, 30), (11, 17, 0), (15, 23, 59))]  # fmt: skip


@pytest.mark.parametrize(("lead", "seed"), [(30, None), (30, 1), (0, 1), (120, None)])
def test_no_later_event_changes_a_feature_of_the_late_clock(known, lead, seed):
    flights, weather = known
    before = clocks.late(flights, weather, lead=lead)
    for now in MOMENTS[:: 1 if lead == 30 else 2]:
        after = clocks.late(*replayed(flights, weather, now, seed), lead=lead)
        rows = flights.scheduled - lead <= now
        assert 1000 < rows.sum() < len(flights) - 1000
        assert differing(before, after, rows) == []


@pytest.mark.parametrize("seed", [None, 1])
def test_no_event_after_the_evening_before_changes_a_feature_of_the_early_clock(known, seed):
    """Except for the weather, which replaces a forecast."""
    flights, weather = known
    before = clocks.early(flights, weather)
    for now in MOMENTS:
        after = clocks.early(replayed(flights, weather, now, seed)[0], weather)
        rows = flights.evening <= now
        assert 1000 < rows.sum() < len(flights) - 1000
        assert differing(before, after, rows) == []


def test_the_comparison_sees_a_leak(known):
    """A clock an hour later depends on the events of that hour."""
    flights, weather = known
    now = MOMENTS[1]
    before = clocks.late(flights, weather)
    after = clocks.late(*replayed(flights, weather, now, 1))
    rows = (flights.scheduled - 30 > now) & (flights.scheduled - 30 <= now + 60)
    assert rows.sum() > 50
    changed = differing(before, after, rows)
    for name in (
        "departure delay, airport, 60 min",
        "late departures, carrier at the airport, 180 min",
        "arrival delay, destination, 360 min",
        "en route, all, 60 min",
        "taxi, airport, 60 min",
        "outstanding, airport",
        "overdue, carrier at the airport",
        "aircraft, delay as known",
        "aircraft, slack",
        "temperature",
    ):
        assert name in changed
    next_day = flights.evening > now
    early = differing(
        clocks.early(flights, weather),
        clocks.early(replayed(flights, weather, now, 1)[0], weather),
        next_day,
    )
    assert "late, yesterday" in early and "delay of the route, 14 days" in early


def test_moving_the_clock_back_forgets(known):
    """A clock two hours earlier uses fewer events; compared with sums by hand."""
    flights, weather = known
    at, earlier = (clocks.late(flights, weather, lead=lead) for lead in (30, 150))
    rows = flights.evening > flights.evening.min() + 1440
    name = "departures, airport, 180 min"
    assert (at[name] != earlier[name])[rows].mean() > 0.9
    for i in np.random.default_rng(0).choice(np.flatnonzero(rows), 50):
        for columns, lead in ((at, 30), (earlier, 150)):
            clock = flights.scheduled[i] - lead
            here = flights.origin == flights.origin[i]
            left = here & (flights.departed <= clock) & (flights.departed > clock - 180)
            assert columns[name][i] == left.sum()
            due = here & (flights.scheduled <= clock) & (flights.scheduled > clock - 240)
            waiting = due & (flights.departed > clock)
            assert columns["outstanding, airport"][i] == waiting.sum()
            assert columns["overdue, airport"][i] == (clock - flights.scheduled[waiting]).sum()
            hour = clock // 60 - 1
            seen = weather[table.ORIGINS.index(flights.origin[i]), hour, 0]
            assert np.isnan(seen) or columns["temperature"][i] == seen


def test_history_is_a_mean_that_forgets(known):
    """By hand: all arrivals up to the evening before, with weights that fall by a factor a day."""
    flights, _ = known
    found = clocks.history(flights, aircraft=True)
    for i in np.random.default_rng(1).choice(np.flatnonzero(flights.day > 70), 20):
        evenings = {
            d: e for d, e in zip(flights.day.tolist(), flights.evening.tolist(), strict=True)
        }
        before = flights.arrived <= flights.evening[i]
        age = np.zeros(len(flights))
        for d in range(flights.day.min(), flights.day[i]):
            age[flights.arrived > evenings[d]] = d + 1
        age = flights.day[i] - np.maximum(age, flights.day.min())
        for memory, name, same in (
            (14.0, "late lately", np.ones(len(flights), bool)),
            (14.0, "late of the carrier at the airport, 14 days",
             (flights.origin == flights.origin[i]) & (flights.carrier == flights.carrier[i])),
        ):  # fmt: skip
            weight = np.exp(-age / memory) * (before & same)
            late = (weight * (flights.arr_delay > 15)).sum()
            if name == "late lately":
                overall = wanted = late / weight.sum()
            else:
                wanted = (late + 20 * overall) / (weight.sum() + 20)
            np.testing.assert_allclose(found[name][i], wanted, rtol=1e-9)


def test_clocks_of_all_zones_agree(known):
    """A flight takes its scheduled time plus the delay on the way, by three clocks."""
    flights, _ = known
    flown = flights.arrived < table.NEVER
    lasted = (flights.arrived - flights.departed)[flown]
    lost = (flights.arr_delay - flights.dep_delay)[flown]
    assert (lasted == flights.block[flown] + lost).all()
    assert (flights.taxi[flown] >= 5).all() and (flights.taxi[flown] < 240).all()
    # 18:00 of the day before, in every season.
    ahead = flights.scheduled - flights.evening
    local = flights.hour * 60 + flights.minute + 6 * 60
    summer = flights.day >= 31 + 28 + 9  # clocks went forward on 10 March at 2:00
    changed = flights.day == 31 + 28 + 9
    assert (ahead[~changed] == local[~changed]).all()
    assert (ahead[changed] == local[changed] - 60).all()
    assert summer.any() and not summer.all()
