"""Publishes, serves, asks and checks models.

python -m jaxml.serving publish RUN STORE               judge a finished run, try it, switch to it
python -m jaxml.serving serve STORE --port 8000         answer over HTTP (Open Inference Protocol v2)
python -m jaxml.serving predict STORE in.parquet out/   answer a whole table
python -m jaxml.serving check STORE                     what was served against what was trained
python -m jaxml.serving rollback STORE                  put the version before back into use
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxml.serving.store import Store, bundle_of


def publish(options: argparse.Namespace) -> int:
    """Judges a finished run, tries it in a server, and switches to it."""
    from jaxml.serving.publishing import publish as attempt

    told = attempt(options.run_dir, options.store)
    if told.number is None:
        print(f"in use already: version {told.version}")
        return 0
    page = Path(options.store, "verdicts", f"{told.number}.html")
    print(f"{told.table()}\n\nverdict: {page}")
    for reason in told.reasons:
        print(f"refused: {reason}")
    if told.passed:
        print(f"in use: version {told.version}")
    return 0 if told.passed else 1


def _add_publish(commands: Any) -> None:
    command = commands.add_parser("publish", help="judge a finished run, try it, switch to it")
    command.add_argument("run_dir", metavar="RUN", help="a run directory, or a folder inside")
    command.add_argument("store", metavar="STORE", help="is made if it is not there")
    command.set_defaults(run=publish)


def rollback(options: argparse.Namespace) -> int:
    """Puts the version before back into use."""
    print(f"in use: version {Store(options.store).rollback()}")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Answers over HTTP until it is told to stop."""
    from jaxml.serving import server

    token = os.environ.get("JAXML_TOKEN") or None
    if options.token_file is not None:
        token = Path(options.token_file).read_text("utf-8", errors="replace").strip()
        if not token:
            raise ValueError(f"{options.token_file}: must hold a token, is empty")
    return server.serve(
        options.path,
        server.Options(
            host=options.host,
            port=options.port,
            max_wait_ms=options.max_wait_ms,
            max_queue=options.max_queue,
            timeout=options.timeout,
            token=token,
            log_sample=options.log_sample,
        ),
    )


def _add_serve(commands: Any) -> None:
    command = commands.add_parser("serve", help="answer over HTTP (Open Inference Protocol v2)")
    command.add_argument("path", metavar="STORE", help="a store, or a bundle")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on")
    command.add_argument("--port", type=int, default=8000, help="0 for any")
    command.add_argument(
        "--max-wait-ms", type=float, default=5.0, help="longest wait for a batch to fill"
    )
    command.add_argument("--max-queue", type=int, default=1024, help="most rows that wait")
    command.add_argument("--timeout", type=float, default=10.0, help="seconds for a request")
    command.add_argument("--token-file", help="holds the token; else JAXML_TOKEN does, if set")
    command.add_argument("--log-sample", type=float, default=1.0, help="share that is logged")
    command.set_defaults(run=serve)


def check(options: argparse.Namespace) -> int:
    """Compares what was served with what was trained; returns 1 if they differ."""
    from jaxml.serving import checking

    report = checking.check(options.store, table=options.table, key=options.key)
    print(report)
    if options.plot:
        checking.plot(report, options.plot)
    return int(report.failed)


def _add_check(commands: Any) -> None:
    command = commands.add_parser("check", help="what was served against what was trained")
    command.add_argument("store", metavar="STORE")
    command.add_argument("--table", help="raw columns from where training has them, CSV or Parquet")
    command.add_argument("--key", help="the table's column that holds the ids of requests")
    command.add_argument("--plot", metavar="PNG", help="draw the distances")
    command.set_defaults(run=check)


def predict(options: argparse.Namespace) -> int:
    """Answers a whole table."""
    from jaxml.serving import bundle, static

    path, version = bundle_of(options.path)
    report = static.predict(
        bundle.load(path), options.table, options.directory, key=options.key, version=version
    )
    print(report)
    return 0


def _add_predict(commands: Any) -> None:
    command = commands.add_parser("predict", help="answer a whole table; goes on after a kill")
    command.add_argument("path", metavar="STORE", help="a store, or a bundle")
    command.add_argument("table", metavar="TABLE", help="a Parquet file, or CSV by its suffix")
    command.add_argument("directory", metavar="OUT", help="for the answers: OUT/part-*.parquet")
    command.add_argument("--key", metavar="COLUMN", help="also write look-ups by this column")
    command.set_defaults(run=predict)


def main(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit code: 0, 1 if a judgement is negative, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxml.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_publish(commands)
    _add_serve(commands)
    _add_predict(commands)
    command = commands.add_parser("rollback", help="put the version before back into use")
    command.add_argument("store", metavar="STORE")
    command.set_defaults(run=rollback)
    _add_check(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        print(f"error: {error}; pip install 'jaxml[experiments,serving]'", file=sys.stderr)
        return 2
    except (OSError, ValueError, RecursionError) as error:  # JSON that is nested too deeply.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    # Ends as an error does: files are closed, and a server that is being tried ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
