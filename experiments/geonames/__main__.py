"""Can a softmax over 234,908 places recognise a spelling that it has never seen?

    python -m experiments.geonames                           train (the default command)
    python -m experiments.geonames --resume runs/geonames/…  continue an interrupted run
    python -m experiments.geonames resolve RUN Muenchen …    resolve names, or lines of stdin
    python -m experiments.geonames distill RUN               train a resolver of an eighth of its size

Every populated place of GeoNames is a class, every alias of it an example: 1.16 million (alias, place)
pairs to learn from, 20,000 aliases held out. An alias is a bag of hashed character n-grams, encoded as the
sum of their embeddings on the unit sphere; a class is a unit vector; the score is their cosine over a
temperature. Training is candidate-sampled softmax: a step reads and writes a few thousand of the class
rows. Its candidates are neighbourhoods: blocks of classes whose vectors are similar, formed anew in each
epoch. A batch has a few examples of each block, so that candidates are hard negatives for these and a
sample of all classes for the others.

A run leaves a candidate that `python -m jaxml.serving publish` takes: the model answers a name with its
five most probable places. `resolve` asks it, too.

Expect a strict P@1 of 0.60 on all held-out aliases, and of 0.57 on those without a twin in training (an
alias of the same place that differs only by accents, case, hyphens or spaces). Training takes five to
ten minutes on two cores.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tyro

from experiments.geonames import candidate, data, distilling, report, training
from experiments.geonames.config import Config, check, read_config
from jaxml import bench, reports, serving, train
from jaxml.data import packages
from jaxml.train import checkpoint


def train_command(config: Config, *, run_dir: Path | None, resume: Path | None) -> None:
    """Trains a new run, or the rest of an interrupted one, and reports."""
    if resume is not None:
        config = read_config(resume)
    check(config)
    aliases = data.load_aliases(config)
    with reports.rundir.running(
        "geonames", config, path=resume or run_dir, resume=resume is not None
    ) as run_dir:
        print(f"run directory: {run_dir}")
        names = aliases.names
        print(f"{names.num_places:,} places, {len(names.train):,} aliases to learn from")
        start = max(checkpoint.steps(run_dir / "checkpoints"), default=0) if resume else None
        writer = reports.Writers(
            reports.ConsoleWriter(config.num_steps, batch_size=config.batch_size),
            reports.JsonlWriter(run_dir / "metrics.jsonl", resume_from_step=start),
            reports.TensorBoardWriter(run_dir / "tensorboard", resume_from_step=start),
        )
        started = time.perf_counter()
        try:
            with train.stop_on_signals() as should_stop:
                state = training.train_model(
                    config,
                    aliases,
                    run_dir,
                    writer=writer,
                    resume=resume is not None,
                    should_stop=should_stop,
                )
        finally:
            writer.close()
        print(f"trained in {time.perf_counter() - started:.0f} s")
        results, baseline = report.report_results(config, aliases, state, run_dir)
        bundle = candidate.leave(config, names, state, run_dir, results, baseline)
        for line in candidate.answers(bundle, data.EXAMPLE_QUERIES, k=3):
            print(line)
        print(f"pictures, record and checkpoint: {run_dir}")


def resolve_command(run_dir: Path, queries: Sequence[str], *, k: int) -> None:
    """Resolves names with a finished run; without names, each line of standard input that is not empty."""
    read_config(run_dir)
    if not 1 <= k <= candidate.ANSWERS:
        raise ValueError(f"k must be from 1 to {candidate.ANSWERS}, got {k}")
    bundle = serving.load(run_dir / "candidate" / "bundle")
    asked = (query.strip() for query in queries or sys.stdin)
    for line in candidate.answers(bundle, filter(None, asked), k=k):
        print(line, flush=True)


@dataclasses.dataclass(frozen=True)
class Train(Config):
    """Train the place-name resolver. `resolve --help` shows how to use a finished run."""

    run_dir: Path | None = None
    """Directory of the run; None for runs/geonames/<time>."""
    resume: Path | None = None
    """Continue this run, with its own configuration, from its last checkpoint."""


@dataclasses.dataclass(frozen=True)
class Resolve:
    """Resolve names with a finished run: the most probable places of each, with probabilities."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names to resolve; without any, the lines of standard input."""
    k: int = candidate.ANSWERS
    """Places shown for a name, at most five."""


def main(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit code: 0, 2 for bad input, 130 if interrupted."""
    bench.compilation_cache()
    try:
        if arguments and arguments[0] == "resolve":
            asked = tyro.cli(
                Resolve, args=arguments[1:], prog="python -m experiments.geonames resolve"
            )
            resolve_command(asked.run, asked.names, k=asked.k)
            return 0
        if arguments and arguments[0] == "distill":
            prog = "python -m experiments.geonames distill"
            distilling.command(tyro.cli(distilling.Distill, args=arguments[1:], prog=prog))
            return 0
        arguments = arguments[1:] if arguments and arguments[0] == "train" else arguments
        chosen = tyro.cli(Train, args=arguments, prog="python -m experiments.geonames")
        options = dataclasses.asdict(chosen)
        run_dir, resume = options.pop("run_dir"), options.pop("resume")
        train_command(Config(**options), run_dir=run_dir, resume=resume)
        return 0
    except training.Interrupted:
        print("stopped; the checkpoint is saved: continue with --resume and the run directory")
        return 130
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (packages.DataMissing, checkpoint.CheckpointError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
