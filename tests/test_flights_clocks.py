"""No feature depends on events after its clock: later events are rewritten and features compared."""

import dataclasses

import numpy as np
import pytest

from experiments.flights import clocks, table


@pytest.fixture(scope="module")
def known():
    """All flights of three weeks in March, and the weather."""
    raw = table.read_raw()
    rows = (raw["month"] == "3") & (raw["day"].astype(int) <= 21)
    few = table.typed({name: values[rows] for name, values in raw.items()})
    return few, table.read_weather()


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
    values = weather.values.copy()
    unseen = 60 * np.arange(values.shape[1]) + 60 > now  # an hour is known when it is full
    values[:, unseen] = np.nan if seed is None else rng.normal(50, 30, values[:, unseen].shape)
    return changed, table.Weather(values)


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


@pytest.mark.parametrize("lead", [30, 0, 120])
@pytest.mark.parametrize("seed", [None, 1])
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
            seen = weather.values[table.ORIGINS.index(flights.origin[i]), hour, 0]
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
