"""Records and views of a run: a JSONL file, a console, TensorBoard, pictures, a directory of its own.

Everything is given plain values. The packages behind the views are imported when a view is made.
"""

from jaxml.reports import jsonl, plots, rundir
from jaxml.reports.console import ConsoleWriter, progress, table
from jaxml.reports.jsonl import JsonlWriter
from jaxml.reports.rundir import RunDirectoryError
from jaxml.reports.tensorboard import TensorBoardWriter
from jaxml.reports.versions import environment
from jaxml.reports.writer import Writer, Writers

__all__ = [
    "ConsoleWriter",
    "JsonlWriter",
    "RunDirectoryError",
    "TensorBoardWriter",
    "Writer",
    "Writers",
    "environment",
    "jsonl",
    "plots",
    "progress",
    "rundir",
    "table",
]
