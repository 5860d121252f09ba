"""Publishes, serves, asks and checks models.

python -m jaxml.serving publish RUN STORE               judge a finished run, try it, switch to it
python -m jaxml.serving serve STORE --port 8000         answer over HTTP (Open Inference Protocol v2)
python -m jaxml.serving predict STORE in.parquet out/   answer a whole table
python -m jaxml.serving check STORE                     what was served against what was trained
python -m jaxml.serving rollback STORE                  put the version before back into use
"""

import argparse
import sys
from collections.abc import Sequence

from jaxml.serving.store import Store


def rollback(options: argparse.Namespace) -> int:
    """Puts the version before back into use."""
    print(f"in use: version {Store(options.store).rollback()}")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit code: 0, 1 if a judgement is negative, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxml.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("rollback", help="put the version before back into use")
    command.add_argument("store", metavar="STORE")
    command.set_defaults(run=rollback)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
