"""Features of a flight as they are known at a clock: the evening before, or minutes before departure.

Every feature is a sum over events at or before the flight's clock. The time of an event is when it can be
known: a departure and its delay when the aircraft has left, an arrival, its delay and its taxiing when it
is at the gate. The table gives no time for a cancellation, so a cancelled flight is one that has not left
yet. The schedule is known throughout, at the late clock with the aircraft that flew in the end (the table
does not record when it was assigned).

Sums of minutes are sums of integers, so later events cannot change them by rounding.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.flights.table import MEASURES, ORIGINS, Flights, Weather

__all__ = ["LEAD", "early", "late"]

LEAD = 30
"""The late clock, in minutes before the scheduled departure."""

_DAY = 1440
# Delays are cut at three hours: a longer one does not predict more for the next flight.
_EARLIEST, _LATEST = -30, 180
_SPAN = 2**21  # more minutes than a year has: group and time make one sortable number

Columns = dict[str, NDArray[Any]]


def codes(*columns: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """Returns ids of combinations, [N] in [0, n), and n."""
    ids, n = np.zeros(len(columns[0]), np.int64), 1
    for column in columns:
        values, own = np.unique(column, return_inverse=True)
        ids, n = ids * len(values) + own, n * len(values)
    present, ids = np.unique(ids, return_inverse=True)
    return ids, len(present)


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
    origin, _ = codes(flights.origin)
    carrier, _ = codes(flights.origin, flights.carrier)
    dest, _ = codes(flights.dest)
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


class History:
    """Means of past flights up to each evening (18:00 in New York), with exponentially falling weights."""

    def __init__(self, flights: Flights) -> None:
        evenings = np.full(flights.day.max() + 2, np.iinfo(np.int64).max)
        evenings[flights.day] = flights.evening
        # Days without a flight have no evening of their own.
        self._evenings = np.minimum.accumulate(evenings[::-1])[::-1]
        self._known = flights.arrived <= self._evenings[-2]
        rows = self._known
        self._day = np.searchsorted(self._evenings, flights.arrived[rows], side="left")
        delay, gained = flights.arr_delay[rows], (flights.arr_delay - flights.dep_delay)[rows]
        self._values = {
            "late": (delay > 15).astype(np.float64),
            "delay": clipped(delay).astype(np.float64),
            "en route": clipped(gained).astype(np.float64),
            "taxi": np.clip(np.nan_to_num(flights.taxi[rows]), 0, 120),
        }

    def means(
        self,
        group: NDArray[np.int64],
        num_groups: int,
        day: NDArray[np.int64],
        memory: float,
        names: tuple[str, ...],
        prior: Mapping[str, NDArray] | None = None,
        weight: float = 0.0,
    ) -> dict[str, NDArray]:
        """Returns number and means of the flights of each flight's group up to the evening before it.

        Args:
            group: [N] of all flights.
            num_groups: of ids.
            day: [N] of all flights.
            memory: days after which an outcome counts 1/e.
            names: the values to average.
            prior: [N] each, to which means are shrunk.
            weight: number of flights that the prior counts.
        """
        num_days, keep = len(self._evenings), np.exp(-1.0 / memory)
        cell = self._day * num_groups + group[self._known]

        def remembered(values: NDArray | None) -> NDArray:
            sums = np.bincount(cell, values, num_days * num_groups).reshape(num_days, num_groups)
            sums = sums.astype(np.float64)
            for d in range(1, num_days):
                sums[d] += keep * sums[d - 1]
            return sums[day, group]

        count = remembered(None)
        found = {"number": count}
        for name in names:
            found[name] = ratio(
                remembered(self._values[name]), count, prior[name] if prior else np.nan, weight
            )
        return found


def history(flights: Flights, *, aircraft: bool) -> Columns:
    """Returns delays up to the evening before, by airport, carrier, destination, hour, route and number."""
    known = History(flights)
    day = flights.day
    columns: Columns = {}
    everything = np.zeros(len(flights), np.int64)
    overall = known.means(everything, 1, day, 14.0, ("late", "delay", "en route", "taxi"))
    columns["late lately"] = overall["late"]
    columns["delay lately"] = overall["delay"]
    for memory, label in ((0.7, "yesterday"), (4.0, "this week")):
        found = known.means(everything, 1, day, memory, ("late", "en route"), overall, 5.0)
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
        ids, n = codes(*parts)
        for memory in memories:
            slow = memory == memories[-1] and name in ("destination", "route", "flight number")
            wanted = ("late", "delay", "en route") if slow else ("late", "delay")
            found = known.means(ids, n, day, memory, wanted, overall, weight)
            for each in wanted:
                columns[f"{each} of the {name}, {memory:g} days"] = found[each]
        if name in ("route", "flight number", "aircraft"):
            columns[f"flights of the {name}"] = found["number"]
    return columns


def _filled(weather: Weather) -> dict[str, NDArray[np.float64]]:
    """Returns measures [3, hours]; gaps hold the last observation of up to six hours ago."""
    values = {name: weather.values[..., i].copy() for i, name in enumerate(MEASURES)}
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


def sky(flights: Flights, weather: Weather, hour: NDArray[np.int64], *, forecast: bool) -> Columns:
    """Returns the weather at the airport at an hour of the year [N], and its change up to then.

    Args:
        flights: for their airports.
        weather: observations.
        hour: [N] of the year.
        forecast: adds the hours after it.
    """
    seen = _filled(weather)
    at = np.searchsorted(ORIGINS, flights.origin), np.clip(hour, 0, weather.values.shape[1] - 1)
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
    left, landed = ~np.isnan(flights.dep_delay), flights.arrived < 2**39
    dep, arr = clipped(flights.dep_delay), clipped(flights.arr_delay)
    gained = clipped(flights.arr_delay - flights.dep_delay)
    everything = np.zeros(len(flights), np.int64)
    origin, _ = codes(flights.origin)
    at_airport, _ = codes(flights.origin, flights.carrier)
    carrier, _ = codes(flights.carrier)
    dest, _ = codes(flights.dest)
    route, _ = codes(flights.dest, flights.carrier)

    def departures(name: str, group: NDArray, minutes: tuple[int, ...]) -> None:
        events = Running(
            group[left],
            flights.departed[left],
            {"delay": dep[left], "late": dep[left] > 15},
        )
        for window in minutes:
            number, sums = events.window(group, clock, window)
            columns[f"departures, {name}, {window} min"] = number
            columns[f"departure delay, {name}, {window} min"] = ratio(
                sums["delay"], number, 10.0, 1.0
            )
            columns[f"late departures, {name}, {window} min"] = ratio(
                sums["late"], number, 0.2, 1.0
            )

    def arrivals(name: str, group: NDArray, minutes: tuple[int, ...]) -> None:
        events = Running(
            group[landed],
            flights.arrived[landed],
            {
                "delay": arr[landed],
                "gained": gained[landed],
                "taxi": np.nan_to_num(flights.taxi[landed]),
            },
        )
        for window in minutes:
            number, sums = events.window(group, clock, window)
            columns[f"arrivals, {name}, {window} min"] = number
            columns[f"arrival delay, {name}, {window} min"] = ratio(sums["delay"], number, 5.0, 1.0)
            columns[f"en route, {name}, {window} min"] = ratio(sums["gained"], number, -5.0, 1.0)
            columns[f"taxi, {name}, {window} min"] = ratio(sums["taxi"], number, 23.0, 1.0)

    def outstanding(name: str, group: NDArray, limit: int) -> None:
        """Flights due before the clock that have not left, for at most `limit` minutes."""
        due, gone = flights.scheduled, np.minimum(flights.departed, flights.scheduled + limit)
        rows = gone > due
        value = {"due": due[rows]}
        begins, ends = (
            Running(group[rows], due[rows], value),
            Running(group[rows], gone[rows], value),
        )
        forever = 2**20
        began, due_began = begins.window(group, clock, forever)
        ended, due_ended = ends.window(group, clock, forever)
        waiting = began - ended
        overdue = waiting * clock - (due_began["due"] - due_ended["due"])
        columns[f"outstanding, {name}"] = waiting
        columns[f"overdue, {name}"] = overdue
        columns[f"mean overdue, {name}"] = ratio(overdue, waiting, 0.0, 1.0)

    departures("all", everything, (60,))
    departures("airport", origin, (30, 60, 180))
    departures("carrier", carrier, (120,))
    departures("carrier at the airport", at_airport, (60, 180, 480))
    departures("destination", dest, (180, 480))
    departures("carrier to the destination", route, (600,))
    arrivals("all", everything, (60, 180))
    arrivals("airport", origin, (60, 180))
    arrivals("carrier at the airport", at_airport, (240,))
    arrivals("destination", dest, (120, 360))
    arrivals("carrier to the destination", route, (600,))
    outstanding("all", everything, 240)
    outstanding("airport", origin, 240)
    outstanding("carrier at the airport", at_airport, 240)
    outstanding("carrier", carrier, 240)
    outstanding("destination", dest, 240)
    return columns


def incoming(flights: Flights, clock: NDArray[np.int64]) -> Columns:
    """Returns the aircraft's last departure from New York, whether it has landed, and its expected return.

    The way back is not in the table; it is assumed to last as long as the schedule allows for the way
    there, with 40 minutes on the ground.
    """
    n = len(flights)
    tail, _ = codes(flights.tailnum)
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
    columns: Columns = {
        "aircraft, delay at its last departure": of_last(np.clip(flights.dep_delay, -30, 400)),
        "aircraft, delay at its last arrival": np.where(
            landed, np.clip(flights.arr_delay[last], -60, 400), np.nan
        ),
        "aircraft, delay as known": np.where(
            landed,
            np.clip(flights.arr_delay[last], -60, 400),
            of_last(np.clip(flights.dep_delay, -30, 400)),
        ),
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


def early(flights: Flights, weather: Weather) -> Columns:
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


def late(flights: Flights, weather: Weather, *, lead: int = LEAD) -> Columns:
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
