"""Measures, compares and draws; see the package's docstring."""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import command
from experiments.serving_load import client, report, servers, standins, traffic
from experiments.serving_load.bench import Bench, Plan
from jaxml import reports, serving

MODELS = {"flights": standins.of_flights, "geonames": standins.of_places}
# The resolver's logits are cosines over a temperature of 0.05, up to 20: float32 rounds them by 1e-6, and
# the program for another number of rows otherwise.
TOLERANCES = {"flights": 1e-6, "geonames": 1e-5}


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures servers of two models under load, and compares every answer."""

    flights: Path | None = None
    """Bundle, store or run of the flights model; None for the newest run, or else a stand-in."""
    geonames: Path | None = None
    """Bundle, store or run of the place-name resolver; None for the newest run, or else a stand-in."""
    requests: int = 100_000
    """Requests of the long run."""
    smoke: bool = False
    """Measure little, for a moment each, to see that it runs."""
    seed: int = 0
    """Seed of the arrivals."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""

    @property
    def plan(self) -> Plan:
        """What is measured of each model."""
        return Plan(0.2, 1, (1, 64), (0.5,)) if self.smoke else Plan(2.0, 3)


def measured(model: str, path: Path, config: Config) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the rows of one model, and what is asked of it."""
    bundle = serving.load(path)
    made = traffic.make(bundle, TOLERANCES[model])
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(servers.running(arguments))
            for name, arguments in servers.commands(path).items()
        }
        bench = Bench(model, made, started, config.plan)
        bench.closed()
        bench.opened(config.seed)
        if model == "flights":
            bench.long(2000 if config.smoke else config.requests)
    size = len(b"".join(made.requests[traffic.BATCHED][0])) + client.DIGITS
    return bench.rows, {"columns": len(bundle.columns), "request_bytes": size}


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    rows: list[dict[str, Any]] = []
    models: dict[str, Any] = {}
    for model, standin in MODELS.items():
        path = servers.bundle(model, getattr(config, model), standin, run_dir)
        found, about = measured(model, path, config)
        models[model] = {"stand_in": path == run_dir / model, **about}
        rows += found
        report.tables(rows, model)
        report.picture(rows, model, run_dir / f"latency-{model}.png")
    summary = report.summary(rows)
    reports.table("in one run", ["figure", "value"], [[k, f"{v:,.4g}"] for k, v in summary.items()])
    record = {"summary": summary, "models": models, "rows": rows}
    command.write(run_dir, record)
    if summary["wrong answers"]:
        raise command.Failed(f"{summary['wrong answers']} answers are wrong")
    return record


def main(arguments: Sequence[str]) -> int:
    return command.run("serving_load", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
