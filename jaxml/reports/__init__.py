"""What a run tells the world: a JSONL record, and views of it on a console, TensorBoard and paper.

Writers are given plain values, and import what they need when they are made: the packages behind
the views are not needed to train.
"""

from jaxml.reports import jsonl, plots, rundir
from jaxml.reports.console import ConsoleWriter, table
from jaxml.reports.jsonl import JsonlWriter
from jaxml.reports.rundir import RunDirectoryError
from jaxml.reports.tensorboard import TensorBoardWriter
from jaxml.reports.writer import Writer, Writers

__all__ = [
    "ConsoleWriter",
    "JsonlWriter",
    "RunDirectoryError",
    "TensorBoardWriter",
    "Writer",
    "Writers",
    "jsonl",
    "plots",
    "rundir",
    "table",
]
