"""Flights and weather as numbers, with all times in minutes of the year, UTC."""

import dataclasses
import zoneinfo
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from jaxml.data import flights

__all__ = ["MEASURES", "NEVER", "ORIGINS", "Flights", "Split", "read", "split"]

COLUMNS = (
    "month", "day", "dep_delay", "arr_time", "sched_arr_time", "arr_delay", "carrier", "flight",
    "tailnum", "origin", "dest", "air_time", "distance", "hour", "minute", "time_hour",
)  # fmt: skip
ORIGINS = ("EWR", "JFK", "LGA")
MEASURES = (
    "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib",
)  # fmt: skip
# Time of an event that did not happen; no clock reaches it.
NEVER = 2**40
_START = np.datetime64("2013-01-01T00:00")
_NEW_YORK = "America/New_York"
# Not in the table of airports: Puerto Rico and the Virgin Islands.
_ATLANTIC = "America/Puerto_Rico"


@dataclasses.dataclass(frozen=True)
class Flights:
    """Scheduled and actual times of flights, [N] each, in UTC minutes of the year.

    Attributes:
        scheduled: departure on the schedule.
        departed: time of departure; `NEVER` if it did not leave.
        arrived: time at the gate; `NEVER` if it did not arrive, or if that is unknown.
        dep_delay: minutes; NaN if it did not leave.
        arr_delay: minutes; NaN if cancelled or diverted.
        taxi: minutes between the gates on the ground; NaN if unknown.
        block: minutes from gate to gate on the schedule.
        evening: 18:00 in New York of the day before.
        day: of the year on the schedule, local, from 0.
        weekday: Monday is 0.
        month: 1 to 12.
        hour: scheduled, local.
        minute: scheduled.
        distance: miles.
        carrier, flight, tailnum, origin, dest: text.
        plane_year, seats: of the aircraft; NaN if unknown.
    """

    scheduled: NDArray[np.int64]
    departed: NDArray[np.int64]
    arrived: NDArray[np.int64]
    dep_delay: NDArray[np.float64]
    arr_delay: NDArray[np.float64]
    taxi: NDArray[np.float64]
    block: NDArray[np.float64]
    evening: NDArray[np.int64]
    day: NDArray[np.int64]
    weekday: NDArray[np.int64]
    month: NDArray[np.int64]
    hour: NDArray[np.int64]
    minute: NDArray[np.int64]
    distance: NDArray[np.float64]
    carrier: NDArray[np.str_]
    flight: NDArray[np.str_]
    tailnum: NDArray[np.str_]
    origin: NDArray[np.str_]
    dest: NDArray[np.str_]
    plane_year: NDArray[np.float64]
    seats: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scheduled)

    def take(self, rows: NDArray) -> "Flights":
        """Returns some of the flights."""
        return Flights(**{name: part[rows] for name, part in self.columns().items()})

    def columns(self) -> dict[str, NDArray]:
        """Returns all columns by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def numbers(text: NDArray[np.str_]) -> NDArray[np.float64]:
    """Returns the numbers of a text column, NaN where missing."""
    return np.where(text == "", "nan", text).astype(np.float64)


def minutes_of(text: NDArray[np.str_]) -> NDArray[np.int64]:
    """Returns times such as 2013-01-01T10:00:00Z in minutes of the year."""
    return (text.astype("U16").astype("datetime64[m]") - _START).astype(np.int64)


def offsets(zone: str) -> NDArray[np.int64]:
    """Returns the minutes by which a zone is ahead of UTC, for each hour of the year."""
    known = zoneinfo.ZoneInfo(zone)
    start = datetime(2013, 1, 1, tzinfo=UTC)
    hours = (start + timedelta(hours=h) for h in range(367 * 24))
    ahead = [known.utcoffset(hour.astimezone(known)) or timedelta() for hour in hours]
    return np.array([int(each.total_seconds()) // 60 for each in ahead])


def read_flights() -> Flights:
    """Returns all flights, with the aircraft joined by its tail number.

    The table has times on three clocks: departures in New York's time, arrivals in the destination's, and
    one column in UTC. A flight's duration from gate to gate is the difference of its clock readings minus
    that of the zones, modulo a day.
    """
    raw = flights.read_flights(COLUMNS)
    scheduled = minutes_of(raw["time_hour"]) + numbers(raw["minute"]).astype(np.int64)
    dep_delay, arr_delay = numbers(raw["dep_delay"]), numbers(raw["arr_delay"])
    left = ~np.isnan(dep_delay)
    departed = np.where(left, scheduled + np.nan_to_num(dep_delay).astype(np.int64), NEVER)

    airports = flights.read_airports(("faa", "tzone"))
    zones = dict(zip(airports["faa"].tolist(), airports["tzone"].tolist(), strict=True))
    names, which = np.unique(raw["dest"], return_inverse=True)
    known = [zones.get(str(name), _ATLANTIC) for name in names]
    tables = {zone: offsets(zone) for zone in {*known, _NEW_YORK}}
    ahead = np.stack([tables[zone] for zone in known])

    def elapsed(begin: NDArray[np.int64], clock: NDArray[np.str_]) -> NDArray[np.float64]:
        """Returns the minutes from a departure to an arrival in the destination's time."""
        hours, minutes = np.divmod(numbers(clock), 100)
        at = np.clip((begin + 120) // 60, 0, ahead.shape[1] - 1)  # an hour on the way
        return np.mod(60 * hours + minutes - ahead[which, at] - begin, 1440.0)

    flown = elapsed(np.where(left, departed, scheduled), raw["arr_time"])
    air = numbers(raw["air_time"])
    here = left & ~np.isnan(flown) & ~np.isnan(arr_delay)
    taxi = np.where(here, flown - air, np.nan)

    planes = flights.read_planes(("tailnum", "year", "seats"))
    order = np.argsort(planes["tailnum"])
    at = np.searchsorted(planes["tailnum"][order], raw["tailnum"])
    at = order[np.minimum(at, len(order) - 1)]
    match = planes["tailnum"][at] == raw["tailnum"]

    month, day = (numbers(raw[name]).astype(np.int64) for name in ("month", "day"))
    first = np.array([f"2013-{m:02d}-01" for m in range(1, 13)], "datetime64[D]")
    date = (first - first[0]).astype(np.int64)[month - 1] + day - 1
    # 18:00 of the day before: 23:00 or 22:00 in UTC.
    evening = (date - 1) * 1440 + 18 * 60
    evening -= tables[_NEW_YORK][np.clip((evening + 300) // 60, 0, None)]
    return Flights(
        scheduled=scheduled,
        departed=departed,
        arrived=np.where(here, departed + np.nan_to_num(flown).astype(np.int64), NEVER),
        dep_delay=dep_delay,
        arr_delay=arr_delay,
        taxi=taxi,
        block=elapsed(scheduled, raw["sched_arr_time"]),
        evening=evening,
        day=date,
        weekday=(date + 1) % 7,  # 2013 began on a Tuesday
        month=month,
        hour=numbers(raw["hour"]).astype(np.int64),
        minute=numbers(raw["minute"]).astype(np.int64),
        distance=numbers(raw["distance"]),
        carrier=raw["carrier"],
        flight=raw["flight"],
        tailnum=raw["tailnum"],
        origin=raw["origin"],
        dest=raw["dest"],
        plane_year=np.where(match, numbers(planes["year"])[at], np.nan),
        seats=np.where(match, numbers(planes["seats"])[at], np.nan),
    )


def read_weather() -> NDArray[np.float64]:
    """Returns observations [3, hours, measures], by `ORIGINS` and `MEASURES`; NaN where there are none.

    Hour h is the report made within minutes 60 h to 60 h + 59 of the year (UTC), usually at 60 h + 51.
    """
    raw = flights.read_weather(("origin", "time_hour", *MEASURES))
    values = np.full((len(ORIGINS), 367 * 24, len(MEASURES)), np.nan)
    at = np.searchsorted(ORIGINS, raw["origin"]), minutes_of(raw["time_hour"]) // 60
    for i, name in enumerate(MEASURES):
        values[..., i][at] = numbers(raw[name])
    return values


def read() -> tuple[Flights, NDArray[np.float64]]:
    """Returns all flights, and the weather."""
    return read_flights(), read_weather()


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows of the three parts; only flights with a known arrival delay."""

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split(flights: Flights) -> Split:
    """Returns January to August, September and October, November and December."""
    known = np.isfinite(flights.arr_delay)
    training, validation = flights.month <= 8, (flights.month > 8) & (flights.month <= 10)
    return Split(
        *(np.flatnonzero(known & part) for part in (training, validation, flights.month > 10))
    )
