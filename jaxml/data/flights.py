"""Every flight that left New York City's three airports in 2013, with weather, aircraft and airports.

Each function reads columns of one table as text, in the order of the file; a missing value is the empty
text. It raises `packages.DataMissing` if the package or its table is not there or is cut short, and
ValueError for a name that is not a column.

References:
    Bureau of Transportation Statistics, by way of the R package `nycflights13` (CC0).
"""

import csv
import io
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.data import packages

PACKAGE, VERSION = "nycflights13", "0.0.3"
NUM_FLIGHTS = 336_776

# table -> its file in the package, and how many rows it holds.
_TABLES = {
    "flights": ("flights.csv.zip", NUM_FLIGHTS),
    "weather": ("weather.csv", 26_115),
    "planes": ("planes.csv", 3_322),
    "airports": ("airports.csv", 1_458),
}


def read_flights(columns: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """Returns columns [336,776] of the flights.

    Args:
        columns: names among year, month, day, dep_time, sched_dep_time, dep_delay, arr_time,
            sched_arr_time, arr_delay, carrier, flight, tailnum, origin, dest, air_time, distance, hour,
            minute, time_hour.
    """
    return _read("flights", columns)


def read_weather(columns: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """Returns columns [26,115] of the weather at each of the three airports, hour by hour.

    The row of an hour is the report made some ten minutes before that hour ends. Some hours are missing.

    Args:
        columns: names among origin, year, month, day, hour, temp, dewp (degrees Fahrenheit), humid (%),
            wind_dir (degrees), wind_speed, wind_gust (miles an hour), precip (inches), pressure
            (millibars), visib (miles), time_hour (UTC).
    """
    return _read("weather", columns)


def read_planes(columns: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """Returns columns [3,322] of the aircraft.

    Args:
        columns: names among tailnum, year (of manufacture), type, manufacturer, model, engines, seats,
            speed, engine.
    """
    return _read("planes", columns)


def read_airports(columns: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """Returns columns [1,458] of the airports of the United States; four destinations are not among them.

    Args:
        columns: names among faa (the code in `dest`), name, lat, lon, alt, tz, dst, tzone (the name of a
            time zone).
    """
    return _read("airports", columns)


def _read(table: str, columns: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    file, num_rows = _TABLES[table]
    path = f"{PACKAGE}/data/{file}"
    content = packages.read(PACKAGE, VERSION, path)
    try:
        if file.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = archive.read(f"{table}.csv")
        text = content.decode()
    except (KeyError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise packages.damaged(PACKAGE, VERSION, path, error) from error
    header, *rows = csv.reader(io.StringIO(text))
    for name in columns:
        checks.choice("columns", name, header)
    if len(rows) != num_rows:
        raise packages.DataMissing(f"{PACKAGE} must hold {num_rows} {table}, got {len(rows)}")
    at = {name: header.index(name) for name in columns}
    return {
        name: np.array(["" if row[i] == "NA" else row[i] for row in rows]) for name, i in at.items()
    }
