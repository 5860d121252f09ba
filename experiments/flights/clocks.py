"""Features of a flight as they are known at a clock: the evening before, or minutes before departure.

Every feature is a sum over events at or before the flight's clock. The time of an event is when it can be
known: a departure and its delay when the aircraft has left, an arrival, its delay and its taxiing when it
is at the gate. The table gives no time for a cancellation, so a cancelled flight is one that has not left
yet. The schedule is known throughout, at the late clock with the aircraft that flew in the end (the table
does not record when it was assigned).

Sums of minutes are sums of integers, so later events cannot change them by rounding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.flights.table import MEASURES, NEVER, ORIGINS, Flights

__all__ = ["LEAD", "early", "late"]

LEAD = 30
"""The late clock, in minutes before the scheduled departure."""

_DAY = 1440
# Delays are cut at three hours: a longer one does not predict more for the next flight.
_EARLIEST, _LATEST = -30, 180
_SPAN = 2**21  # more minutes than a year has: group and time make one sortable number

Columns = dict[str, NDArray[Any]]


def codes(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Returns ids of combinations, [N] in [0, n)."""
    ids = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, own = np.unique(column, return_inverse=True)
        ids = ids * len(values) + own
    return np.unique(ids, return_inverse=True)[1]


class Running:
    """Sums over the events of a group in a window of time, by two look-ups in cumulative sums.

    Args:
        groups: [E] ids.
        times: [E] minutes at which the events are known.
        values: by name [E] integers.
    """

    def __init__(
        self, groups: NDArray[np.int64], times: NDArray[np.int64], values: Mapping[str, NDArray]
    ) -> None:
        key = groups * _SPAN + times + _DAY * 2
        order = np.argsort(key, kind="stable")
        self._key = key[order]
        self._sums = {
            name: np.concatenate([[0], np.cumsum(each[order].astype(np.int64))])
            for name, each in values.items()
        }

    def until(self, groups: NDArray[np.int64], clock: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns [Q], the number of events up to the clock in the order of groups and times."""
        return np.searchsorted(self._key, groups * _SPAN + clock + _DAY * 2, side="right")

    def window(
        self, groups: NDArray[np.int64], clock: NDArray[np.int64], minutes: int
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
        """Returns the number of events in (clock − minutes, clock], and sums of their values."""
        start, end = self.until(groups, clock - minutes), self.until(groups, clock)
        return end - start, {name: each[end] - each[start] for name, each in self._sums.items()}


def clipped(delay: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns delays as bounded integers, 0 where there is none."""
    return np.clip(np.nan_to_num(delay), _EARLIEST, _LATEST).astype(np.int64)


def ratio(total: NDArray, number: NDArray, prior: Any = np.nan, weight: float = 0.0) -> NDArray:
    """Returns means, shrunk to a prior that counts `weight` times; NaN of nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total + (weight * prior if weight else 0.0)) / (number + weight)


def schedule(flights: Flights) -> Columns:
    """Returns the schedule of each flight, and the traffic planned around it; known at both clocks."""
    origin = codes(flights.origin)
    carrier = codes(flights.origin, flights.carrier)
    dest = codes(flights.dest)
    at = flights.scheduled
    one = {"n": np.ones(len(flights), np.int64)}
    columns: Columns = {
        "carrier": flights.carrier,
        "origin": flights.origin,
        "dest": flights.dest,
        "weekday": flights.weekday,
        "hour": flights.hour,
        "time of day": flights.hour + flights.minute / 60.0,
        "minute": flights.minute,
        "distance": flights.distance,
        "scheduled duration": flights.block,
        "days to a holiday": _days_to_a_holiday(flights.day),
    }
    for name, group in (("airport", origin), ("carrier", carrier), ("destination", dest)):
        planned = Running(group, at, one)
        columns[f"planned at the {name}, hour before"] = planned.window(group, at, 60)[0]
        columns[f"planned at the {name}, hour after"] = planned.window(group, at + 60, 60)[0]
    planned = Running(carrier, at, one)
    columns["planned of the carrier, day"] = planned.window(
        carrier, flights.evening + 30 * 60, _DAY
    )[0]
    return columns


def _days_to_a_holiday(day: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns days after (below 0: before) the nearest busy holiday, within ± 6; 7 for none."""
    # New Year, Easter, Memorial Day, Independence Day, Labor Day, Thanksgiving, Christmas, New Year.
    holidays = np.array([0, 89, 146, 184, 244, 331, 358, 365])
    distance = day[:, None] - holidays
    nearest = np.take_along_axis(distance, np.abs(distance).argmin(1)[:, None], 1)[:, 0]
    return np.where(np.abs(nearest) <= 6, nearest, 7)


def history(flights: Flights, *, aircraft: bool) -> Columns:
    """Returns delays up to the evening before, by airport, carrier, destination, hour, route and number.

    They are means of the flights up to each evening (18:00 in New York), whose weights fall by the day.
    """
    evenings = np.full(flights.day.max() + 2, np.iinfo(np.int64).max)
    evenings[flights.day] = flights.evening
    # Days without a flight have no evening of their own.
    evenings = np.minimum.accumulate(evenings[::-1])[::-1]
    rows = flights.arrived <= evenings[-2]
    known_on = np.searchsorted(evenings, flights.arrived[rows], side="left")
    delay, gained = flights.arr_delay[rows], (flights.arr_delay - flights.dep_delay)[rows]
    outcomes = {
        "late": (delay > 15).astype(np.float64),
        "delay": clipped(delay).astype(np.float64),
        "en route": clipped(gained).astype(np.float64),
    }

    def means(
        group: NDArray[np.int64],
        num_groups: int,
        memory: float,
        names: tuple[str, ...],
        prior: Mapping[str, NDArray] | None = None,
        weight: float = 0.0,
    ) -> dict[str, NDArray]:
        """Returns number and means of the flights of each flight's group up to the evening before it.

        Args:
            group: [N] of all flights.
            num_groups: of ids.
            memory: days after which an outcome counts 1/e.
            names: the outcomes to average.
            prior: [N] each, to which means are shrunk.
            weight: number of flights that the prior counts.
        """
        num_days, keep = len(evenings), np.exp(-1.0 / memory)
        cell = known_on * num_groups + group[rows]

        def remembered(values: NDArray | None) -> NDArray:
            sums = np.bincount(cell, values, num_days * num_groups).reshape(num_days, num_groups)
            sums = sums.astype(np.float64)
            for d in range(1, num_days):
                sums[d] += keep * sums[d - 1]
            return sums[flights.day, group]

        count = remembered(None)
        found = {"number": count}
        for name in names:
            found[name] = ratio(
                remembered(outcomes[name]), count, prior[name] if prior else np.nan, weight
            )
        return found

    columns: Columns = {}
    everything = np.zeros(len(flights), np.int64)
    overall = means(everything, 1, 14.0, ("late", "delay", "en route"))
    columns["late lately"] = overall["late"]
    columns["delay lately"] = overall["delay"]
    for memory, label in ((0.7, "yesterday"), (4.0, "this week")):
        found = means(everything, 1, memory, ("late", "en route"), overall, 5.0)
        columns[f"late, {label}"] = found["late"]
        columns[f"en route, {label}"] = found["en route"]
    groups: list[tuple[str, tuple[NDArray, ...], tuple[float, ...], float]] = [
        ("airport", (flights.origin,), (0.7, 7.0, 30.0), 10.0),
        ("carrier", (flights.carrier,), (0.7, 7.0, 30.0), 10.0),
        ("destination", (flights.dest,), (0.7, 7.0, 45.0), 10.0),
        ("hour", (flights.origin, flights.hour), (14.0, 45.0), 20.0),
        ("carrier at the airport", (flights.origin, flights.carrier), (14.0,), 20.0),
        ("carrier and hour", (flights.carrier, flights.hour), (30.0,), 20.0),
        ("route", (flights.origin, flights.dest, flights.carrier), (14.0, 60.0), 10.0),
        ("flight number", (flights.carrier, flights.flight, flights.dest), (20.0, 60.0), 6.0),
        ("weekday", (flights.weekday,), (40.0,), 20.0),
    ]
    if aircraft:
        groups.append(("aircraft", (flights.tailnum,), (3.0, 30.0), 6.0))
    for name, parts, memories, weight in groups:
        ids = codes(*parts)
        for memory in memories:
            slow = memory == memories[-1] and name in ("destination", "route", "flight number")
            wanted = ("late", "delay", "en route") if slow else ("late", "delay")
            found = means(ids, ids.max() + 1, memory, wanted, overall, weight)
            for each in wanted:
                columns[f"{each} of the {name}, {memory:g} days"] = found[each]
        if name in ("route", "flight number", "aircraft"):
            columns[f"flights of the {name}"] = found["number"]
    return columns


def _filled(weather: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Returns measures [3, hours]; gaps hold the last observation of up to six hours ago."""
    values = {name: weather[..., i].copy() for i, name in enumerate(MEASURES)}
    # A gust is left out where there is none.
    values["wind_gust"] = np.fmax(values["wind_gust"], values["wind_speed"])
    for each in values.values():
        for _ in range(6):
            each[:, 1:] = np.where(np.isnan(each[:, 1:]), each[:, :-1], each[:, 1:])
    return values


def _over(values: NDArray, hours: range, function: Any) -> NDArray:
    """Returns a function of the hours around each hour, without NaN; [3, hours]."""
    parts = []
    for shift in hours:
        moved = np.full_like(values, np.nan)
        if shift >= 0:
            moved[:, : values.shape[1] - shift] = values[:, shift:]
        else:
            moved[:, -shift:] = values[:, :shift]
        parts.append(moved)
    together = parts[0]
    for part in parts[1:]:
        together = function(together, part)
    return together


def sky(
    flights: Flights, weather: NDArray[np.float64], hour: NDArray[np.int64], *, forecast: bool
) -> Columns:
    """Returns the weather at the airport at an hour of the year [N], and its change up to then.

    Args:
        flights: for their airports.
        weather: observations.
        hour: [N] of the year.
        forecast: adds the hours after it.
    """
    seen = _filled(weather)
    at = np.searchsorted(ORIGINS, flights.origin), np.clip(hour, 0, weather.shape[1] - 1)
    most, least = np.fmax, np.fmin

    def total(values: NDArray, hours: range) -> NDArray:
        return _over(values, hours, lambda a, b: np.nan_to_num(a) + np.nan_to_num(b))

    speed, gust, visib, precip = (
        seen[name] for name in ("wind_speed", "wind_gust", "visib", "precip")
    )
    angle = np.deg2rad(seen["wind_dir"])
    columns: Columns = {
        "temperature": seen["temp"][at],
        "dew point depression": (seen["temp"] - seen["dewp"])[at],
        "humidity": seen["humid"][at],
        "wind": speed[at],
        "gust": gust[at],
        "wind from the north": (speed * np.cos(angle))[at],
        "wind from the east": (speed * np.sin(angle))[at],
        "precipitation": precip[at],
        "pressure": seen["pressure"][at],
        "visibility": visib[at],
        "precipitation, 3 hours": total(precip, range(-2, 1))[at],
        "precipitation, 12 hours": total(precip, range(-11, 1))[at],
        "least visibility, 6 hours": _over(visib, range(-5, 1), least)[at],
        "strongest gust, 6 hours": _over(gust, range(-5, 1), most)[at],
    }
    freezing = np.where(seen["temp"] < 34, precip, 0.0)
    columns["freezing precipitation, 12 hours"] = total(freezing, range(-11, 1))[at]
    for name, label in (("pressure", "pressure"), ("temp", "temperature"), ("dewp", "dew point")):
        before = _over(seen[name], range(-3, -2), None)
        columns[f"change of {label}, 3 hours"] = (seen[name] - before)[at]
    for name, values in (("precipitation", precip), ("visibility", visib), ("wind", speed)):
        mean = ratio(np.nansum(values, 0), (~np.isnan(values)).sum(0))
        columns[f"{name}, all airports"] = mean[at[1]]
    if forecast:
        columns["precipitation, next 3 hours"] = total(precip, range(1, 4))[at]
        columns["least visibility, next 3 hours"] = _over(visib, range(1, 4), least)[at]
        columns["strongest gust, next 3 hours"] = _over(gust, range(1, 4), most)[at]
        after = _over(seen["pressure"], range(3, 4), None)
        columns["change of pressure, next 3 hours"] = (after - seen["pressure"])[at]
        columns["precipitation, ± 12 hours"] = total(precip, range(-12, 13))[at]
        columns["least visibility, ± 12 hours"] = _over(visib, range(-12, 13), least)[at]
        columns["mean wind, ± 6 hours"] = (total(speed, range(-6, 7)) / 13)[at]
        columns["hours of low visibility, before 12"] = total(
            (visib < 3).astype(float), range(-11, 1)
        )[at]
        columns["freezing precipitation, ± 12 hours"] = total(freezing, range(-12, 13))[at]
    return columns


def running(flights: Flights, clock: NDArray[np.int64]) -> Columns:
    """Returns the delays of the last hours at a clock, and the flights that are overdue, by group."""
    columns: Columns = {}
    dep = clipped(flights.dep_delay)
    everything = np.zeros(len(flights), np.int64)
    origin = codes(flights.origin)
    at_airport = codes(flights.origin, flights.carrier)
    carrier = codes(flights.carrier)
    dest = codes(flights.dest)
    route = codes(flights.dest, flights.carrier)

    def recent(
        what: str,
        rows: NDArray[np.bool_],
        times: NDArray[np.int64],
        values: Mapping[str, tuple[NDArray, float]],
        groups: Sequence[tuple[str, NDArray, tuple[int, ...]]],
    ) -> None:
        """Adds number and means of the last minutes' events; a mean is shrunk to its prior."""
        for name, group, minutes in groups:
            kept = {label: each[rows] for label, (each, _) in values.items()}
            events = Running(group[rows], times[rows], kept)
            for window in minutes:
                number, sums = events.window(group, clock, window)
                columns[f"{what}, {name}, {window} min"] = number
                for label, (_, prior) in values.items():
                    mean = ratio(sums[label], number, prior, 1.0)
                    columns[f"{label}, {name}, {window} min"] = mean

    def outstanding(name: str, group: NDArray) -> None:
        """Adds flights due before the clock that have not left, for at most four hours."""
        due, gone = flights.scheduled, np.minimum(flights.departed, flights.scheduled + 240)
        rows = gone > due
        value = {"due": due[rows]}
        begins = Running(group[rows], due[rows], value)
        ends = Running(group[rows], gone[rows], value)
        forever = 2**20
        began, due_began = begins.window(group, clock, forever)
        ended, due_ended = ends.window(group, clock, forever)
        waiting = began - ended
        overdue = waiting * clock - (due_began["due"] - due_ended["due"])
        columns[f"outstanding, {name}"] = waiting
        columns[f"overdue, {name}"] = overdue
        columns[f"mean overdue, {name}"] = ratio(overdue, waiting, 0.0, 1.0)

    recent(
        "departures",
        ~np.isnan(flights.dep_delay),
        flights.departed,
        {"departure delay": (dep, 10.0), "late departures": (dep > 15, 0.2)},
        [
            ("all", everything, (60,)),
            ("airport", origin, (30, 60, 180)),
            ("carrier", carrier, (120,)),
            ("carrier at the airport", at_airport, (60, 180, 480)),
            ("destination", dest, (180, 480)),
            ("carrier to the destination", route, (600,)),
        ],
    )
    recent(
        "arrivals",
        flights.arrived < NEVER,
        flights.arrived,
        {
            "arrival delay": (clipped(flights.arr_delay), 5.0),
            "en route": (clipped(flights.arr_delay - flights.dep_delay), -5.0),
            "taxi": (np.nan_to_num(flights.taxi), 23.0),
        },
        [
            ("all", everything, (60, 180)),
            ("airport", origin, (60, 180)),
            ("carrier at the airport", at_airport, (240,)),
            ("destination", dest, (120, 360)),
            ("carrier to the destination", route, (600,)),
        ],
    )
    for name, group in (
        ("all", everything),
        ("airport", origin),
        ("carrier at the airport", at_airport),
        ("carrier", carrier),
        ("destination", dest),
    ):
        outstanding(name, group)
    return columns


def incoming(flights: Flights, clock: NDArray[np.int64]) -> Columns:
    """Returns the aircraft's last departure from New York, whether it has landed, and its expected return.

    The way back is not in the table; it is assumed to last as long as the schedule allows for the way
    there, with 40 minutes on the ground.
    """
    n = len(flights)
    tail = codes(flights.tailnum)
    named = flights.tailnum != ""
    left = ~np.isnan(flights.dep_delay) & named
    rows = np.flatnonzero(left)
    group, departed = tail[rows], flights.departed[rows]
    order = np.lexsort((departed, group))
    events = Running(group, departed, {})
    position = events.until(tail, clock) - 1
    last = rows[order][np.maximum(position, 0)]
    # The event before in the order may belong to another aircraft or another day.
    since = clock - flights.departed[last]
    there = (position >= 0) & (tail[last] == tail) & named & (since < 36 * 60)

    def of_last(values: NDArray) -> NDArray[np.float64]:
        return np.where(there, values[last].astype(np.float64), np.nan)

    landed = there & (flights.arrived[last] <= clock)
    due_there = flights.scheduled + flights.block.astype(np.int64)  # where it went
    expected = np.where(
        landed, flights.arrived[last], due_there[last] + clipped(flights.dep_delay)[last]
    )
    back = expected + flights.block[last].astype(np.int64) + 40
    on_schedule = due_there[last] + flights.block[last].astype(np.int64) + 40
    slack = flights.scheduled - np.maximum(back, clock - 60)
    at_departure = of_last(np.clip(flights.dep_delay, -30, 400))
    at_arrival = np.clip(flights.arr_delay[last], -60, 400)
    columns: Columns = {
        "aircraft, delay at its last departure": at_departure,
        "aircraft, delay at its last arrival": np.where(landed, at_arrival, np.nan),
        "aircraft, delay as known": np.where(landed, at_arrival, at_departure),
        "aircraft, minutes since its last departure": np.where(there, since, np.nan),
        "aircraft, has landed": landed.astype(np.float64),
        "aircraft, slack": np.where(there, np.clip(slack, -300, 900), np.nan),
        "aircraft, slack on the schedule": np.where(
            there, np.clip(flights.scheduled - on_schedule, -300, 900), np.nan
        ),
        "aircraft, same airport": np.where(there, flights.origin[last] == flights.origin, np.nan),
    }
    # The aircraft's previous flight on the schedule: has it left yet?
    order = np.lexsort((flights.scheduled, tail))
    before = np.full(n, -1)
    same = (tail[order][1:] == tail[order][:-1]) & named[order][1:]
    before[order[1:]] = np.where(same, order[:-1], -1)
    gap = flights.scheduled - flights.scheduled[before]
    near = (before >= 0) & (gap < 20 * 60) & (gap > 0)
    waiting = near & (flights.departed[before] > clock)
    overdue = np.clip(clock - flights.scheduled[before], -600, 600)
    columns["aircraft, flight before overdue"] = np.where(waiting, overdue, -60.0 * near)
    columns["aircraft, minutes to the flight before"] = np.where(near, gap, np.nan)
    columns["aircraft, turn on the schedule"] = np.where(
        near, gap - 2 * flights.block[before], np.nan
    )
    return columns


def early(flights: Flights, weather: NDArray[np.float64]) -> Columns:
    """Returns the columns known at 18:00 in New York of the day before, with a perfect weather forecast.

    Args:
        flights: all flights, cancelled ones included.
        weather: observations; those around the scheduled hour replace a forecast.

    Returns:
        Columns by name, [N] each: text or numbers, NaN where nothing is known.
    """
    return {
        **schedule(flights),
        **history(flights, aircraft=False),
        **sky(flights, weather, flights.scheduled // 60, forecast=True),
    }


def late(flights: Flights, weather: NDArray[np.float64], *, lead: int = LEAD) -> Columns:
    """Returns the columns known `lead` minutes before the scheduled departure.

    Args:
        flights: all flights, cancelled ones included.
        weather: observations, used up to the last full hour before the clock.
        lead: minutes between the clock and the scheduled departure.
    """
    clock = flights.scheduled - lead
    return {
        **schedule(flights),
        **history(flights, aircraft=True),
        "seats": flights.seats,
        "built": flights.plane_year,
        **sky(flights, weather, clock // 60 - 1, forecast=False),
        **running(flights, clock),
        **incoming(flights, clock),
    }
