"""The table and the picture of a problem."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxml import reports

__all__ = ["picture", "tables"]


def tables(name: str, record: Mapping[str, Any]) -> None:
    """Prints the students, and the classes that were left out."""
    rows = [
        [
            row["student"],
            row["accuracy"],
            row["gain"],
            *row["gain interval"],
            row["agreement"],
            row["KL"],
        ]
        for row in record["students"]
    ]
    accuracy = record["teacher"]["accuracy"]
    heading = f"{name}: {record['seeds']} seeds; the teacher's accuracy is {accuracy:.4f}"
    reports.table(heading, ["student", "accuracy", "gain", "from", "to", "agreement", "KL"], rows)
    names = ("class", "alpha", "bias", "class before", "class after", "class of the teacher")
    rows = [[each[column] for column in names] for each in record["omitted"]]
    reports.table(f"{name}: a class left out of the transfer set", list(names), rows)


def picture(path: Path, name: str, record: Mapping[str, Any]) -> None:
    """Draws accuracy, agreement and divergence of the students, with intervals."""
    students = record["students"]
    measures = ("accuracy", "agreement", "KL")
    headings = {"accuracy": "accuracy", "agreement": "agreement with the teacher", "KL": "KL, nats"}
    reports.plots.dots(
        [row["student"] for row in students],
        {headings[m]: [row[m] for row in students] for m in measures},
        {headings[m]: [row[f"{m} interval"] for row in students] for m in measures},
        title=f"{name}: students of a teacher and of the labels, mean and 95 % interval of "
        f"{record['seeds']} seeds",
        path=path,
    )
