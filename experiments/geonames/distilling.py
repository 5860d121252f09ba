"""A small resolver that learns from a large one, beside the same one that learns from labels alone."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from experiments.geonames import candidate, data, model, report, teacher, training
from experiments.geonames.config import Config, check, read_config
from experiments.geonames.data import Aliases
from jaxml import checks, files, reports, train
from jaxml.train import checkpoint

__all__ = ["Distill", "command"]

ALONE, TAUGHT = "labels alone", "with a teacher"
_SAMPLE = 1_024
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Distill:
    """Train a small resolver on the answers of a finished run, and the same one on labels alone."""

    run: tyro.conf.Positional[Path]
    """Directory of the finished run, the teacher."""
    dim: int = 32
    """Length of the student's vectors."""
    k: int = 8
    """Places that are kept of each of the teacher's answers."""
    alpha: float = 0.5
    """The teacher's share of the targets."""
    num_steps: int = 3_500
    """Steps of training of both students."""
    run_dir: Path | None = None
    """Directory of the student's run; None for runs/geonames/<time>."""


def command(options: Distill) -> None:
    """Trains both students and reports; the taught one is left to be published."""
    config = read_config(options.run)
    student = dataclasses.replace(config, dim=options.dim, num_steps=options.num_steps)
    check(student)
    alpha = checks.number("alpha", options.alpha, 0, 1)
    k = checks.integer("k", options.k, 1)
    aliases = data.load_aliases(config)
    names = aliases.names
    shapes = jax.eval_shape(lambda: model.initial_shapes(config, names))
    state = checkpoint.load(options.run / "checkpoints", shapes)
    with reports.rundir.running("geonames", student, path=options.run_dir) as run_dir:
        print(f"run directory: {run_dir}")
        started = time.perf_counter()
        given = kept_answers(options.run / f"answers-{k}.npz", config, aliases, state, k)
        seconds = {"teacher's answers": time.perf_counter() - started}
        targets = teacher.mixed(given, names.place[names.train], alpha)
        results: dict[str, Any] = {
            "teacher": figures(aliases, state),
            "teacher's answers": teacher.found(config, aliases, state, given, _SAMPLE),
            "alpha": alpha,
            "k": k,
            "dim": {"teacher": config.dim, "student": student.dim},
            "steps": {"teacher": config.num_steps, "student": student.num_steps},
        }
        taught = {ALONE: None, TAUGHT: (targets.ids, targets.probabilities)}
        states = {}
        for kind, targets_of in taught.items():
            started = time.perf_counter()
            place = run_dir if kind == TAUGHT else run_dir / "alone"
            states[kind] = trained(student, dataclasses.replace(aliases, taught=targets_of), place)
            seconds[kind] = time.perf_counter() - started
            results[kind] = figures(aliases, states[kind])
        results["milliseconds"] = times(
            {"teacher": (config, state), TAUGHT: (student, states[TAUGHT])}
        )
        results |= {"seconds": seconds, "environment": reports.environment()}
        files.write_json(run_dir / "results.json", results)
        show(results, len(names.test), run_dir)
        candidate.leave(
            student, names, states[TAUGHT], run_dir, {"jaxml": results[TAUGHT]}, None, least=0.3
        )
        print(f"pictures, record and checkpoint: {run_dir}")


def kept_answers(
    path: Path, config: Config, aliases: Aliases, state: train.State, k: int
) -> teacher.Answers:
    """Returns the teacher's answers, from a file in its run if an earlier student has left one."""
    if path.exists():
        with np.load(path) as kept:
            return teacher.Answers(kept["ids"], kept["probabilities"])
    given = teacher.answers(config, aliases, state, k)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, ids=given.ids, probabilities=given.probabilities)
    return given


def trained(config: Config, aliases: Aliases, place: Path) -> train.State:
    """Returns the state of a student after its training; its record is in `place`."""
    place.mkdir(parents=True, exist_ok=True)
    writer = reports.Writers(
        reports.ConsoleWriter(config.num_steps, batch_size=config.batch_size),
        reports.JsonlWriter(place / "metrics.jsonl"),
    )
    try:
        with train.stop_on_signals() as should_stop:
            return training.train_model(
                config, aliases, place, writer=writer, resume=False, should_stop=should_stop
            )
    finally:
        writer.close()


def figures(aliases: Aliases, state: train.State) -> dict[str, dict[str, float]]:
    """Returns how often a resolver is right on the held-out aliases."""
    names = aliases.names
    k = min(report.RECALL_AT[-1], names.num_places)
    return report.judge(names, report.rank_places(state, aliases.ngrams[names.test.pairs], k=k))


def times(resolvers: dict[str, tuple[Config, train.State]]) -> dict[str, float]:
    """Returns the milliseconds in which resolvers answer 64 names, measured in turns."""
    taken: dict[str, list[float]] = {kind: [] for kind in resolvers}
    functions = {}
    for kind, (config, state) in resolvers.items():
        names = [data.EXAMPLE_QUERIES[i % len(data.EXAMPLE_QUERIES)] for i in range(_AT_ONCE)]
        params = {"ngrams": state.tables["ngrams"], "places": model.class_vectors(state)}
        answer = jax.jit(candidate.make_model(config))
        functions[kind] = (answer, params, {"ids": data.hashed(config, names)})
    for turn in range(8):
        for kind, (answer, params, features) in functions.items():
            started = time.perf_counter()
            jax.block_until_ready(answer(params, features))
            if turn:  # The first compiles.
                taken[kind].append(1e3 * (time.perf_counter() - started))
    return {kind: float(np.median(each)) for kind, each in taken.items()}


def show(results: dict[str, Any], num_test: int, run_dir: Path) -> None:
    """Prints the table, and draws the picture."""
    kinds = ("teacher", TAUGHT, ALONE)
    populations = ("strict, all", "strict, without twin")
    for population in populations:
        rows = [[kind, *results[kind][population].values()] for kind in kinds]
        title = f"{num_test:,} held-out aliases: {population}"
        reports.table(title, ["resolver", *results["teacher"][population]], rows)
    dim = results["dim"]
    titles = {"teacher": f"teacher, d = {dim['teacher']}"}
    titles |= {kind: f"d = {dim['student']}, {kind}" for kind in (TAUGHT, ALONE)}
    reports.plots.bars(
        [f"{measure}\n{name}" for name in populations for measure in results["teacher"][name]],
        {
            titles[kind]: [value for name in populations for value in results[kind][name].values()]
            for kind in kinds
        },
        ylabel="share of held-out aliases",
        title="Unseen spellings: a large resolver, and small ones with and without it",
        path=run_dir / "distilled.png",
    )
