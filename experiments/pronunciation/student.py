"""Does a network a tenth as large pronounce nearly as well if the large one teaches it?

    python -m experiments.pronunciation.student RUN    of a run of `experiments.pronunciation`

The teacher's probabilities of each letter's phones, given those before, are computed once for all training
pairs. Students learn from them mixed with the dictionary (Hinton's loss at a temperature), others of the
same size from the dictionary alone; all are trained side by side as one program. The best student by
validation is left to be published: it decodes greedily. Its answers are timed beside those of the teacher.
"""

import dataclasses
import itertools
import operator
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from numpy.typing import NDArray

from experiments import command
from experiments.pronunciation import analogy, candidate, judging, training, words
from experiments.pronunciation.model import Pronouncer, Size
from jaxml import bench, checks, losses, reports, serving, trees
from jaxml.data import cmudict
from jaxml.train import checkpoint
from jaxml.types import Array, PyTree

_AT_ONCE = 512
_TIMED = 64  # words, and those of a batch
_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains students with and without a teacher."""

    run: tyro.conf.Positional[Path]
    """Directory of the teacher's run."""
    size: Size = dataclasses.field(
        default_factory=lambda: Size(encoder_features=64, decoder_features=96)
    )
    """Of a student."""
    schedule: training.Schedule = dataclasses.field(
        default_factory=lambda: training.Schedule(num_steps=12_000, dropout=0.0)
    )
    """Of the students' training."""
    alpha: float = 0.9
    """Share of the teacher in the loss; the rest is the dictionary's."""
    temperature: float = 2.0
    """By which the logits of both are divided."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each seed trains one student with a teacher and one without."""
    num_words: int | None = None
    """Learn from this many words only, for a quick look; as the teacher did."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def read(run_dir: Path, aligned: words.Aligned) -> tuple[Pronouncer, PyTree, int]:
    """Returns the network of a run, the variables of its members, and its beam.

    Raises:
        ValueError: the run is none of a teacher, or learned other chunks.
    """
    options = reports.rundir.read(run_dir).config
    try:
        network = Pronouncer(Size(**options["size"]), len(aligned.phones))
        number, beam = options["members"], options["beam"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run_dir}: is no run of experiments.pronunciation") from error
    seen = analogy.look_up(aligned.analogies, np.zeros((1, 2), np.int32))
    blank = jax.eval_shape(
        network.init,
        jax.random.key(0),
        {"seen": seen, "chunks": seen.letters},
    )
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((number, *leaf.shape), leaf.dtype), blank
    )
    return network, checkpoint.load(run_dir / "model", stacked), beam


def taught(
    network: Pronouncer, members: PyTree, aligned: words.Aligned, seen: analogy.Seen
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Returns what the teacher says of each letter of each pair, given the right chunks before.

    Returns:
        float16 [P, C], the logarithm of the members' mean probabilities for the P letters of all pairs, and
        int64 [N], the row of the first letter of each pair.
    """

    @jax.jit
    def said(seen: Any, chunks: Any) -> Array:
        each = jax.vmap(lambda one: network.apply(one, {"seen": seen, "chunks": chunks}))
        return losses.teacher_ensemble(each(members)).astype(jnp.float16)

    length = (aligned.letters > 0).sum(1)
    first = np.cumsum(length) - length
    log_p = np.empty((length.sum(), network.num_chunks), np.float16)
    order = np.argsort(length, kind="stable")
    for at in range(0, len(order), _AT_ONCE):
        rows = order[at : at + _AT_ONCE]
        width = words.width_of(length[rows].max())
        padded = np.resize(rows, _AT_ONCE)
        some = jax.tree.map(operator.itemgetter((padded, slice(width))), (seen, aligned.chunks))
        found = np.asarray(said(*some))
        there = np.arange(width) < length[rows, None]
        log_p[(first[rows, None] + np.arange(width))[there]] = found[: len(rows)][there]
    return log_p, first


def study(
    config: Config,
    network: Pronouncer,
    aligned: words.Aligned,
    seen: analogy.Seen,
    log_p: NDArray,
    first: NDArray,
) -> PyTree:
    """Returns the variables of the students, those with a teacher first, stacked."""

    def targets(rows: NDArray[np.integer], width: int) -> dict[str, NDArray]:
        chunks = aligned.chunks[rows, :width]
        at = np.where(chunks >= 0, first[rows, None] + np.arange(width), 0)
        return {"chunks": chunks, "teacher": log_p[at].astype(np.float32)}

    def loss(logits: Array, batch: Mapping[str, Array], alpha: Array) -> Array:
        return losses.distillation(
            logits,
            batch["teacher"],
            jnp.maximum(batch["chunks"], 0),
            alpha=alpha,
            temperature=config.temperature,
            where=batch["chunks"] >= 0,
        )

    def report(step: int, figures: dict[str, float], variables: PyTree) -> None:
        print(f"step {step}: {figures['loss']:.4f}, {figures['seconds']:.0f} s", flush=True)

    alphas = np.repeat(np.array([config.alpha, 0.0], np.float32), len(config.seeds))
    seeds = config.seeds * 2
    return training.fit(network, seen, targets, loss, config.schedule, seeds, alphas, report)


def latencies(bundles: Mapping[str, serving.Bundle], asked: Sequence[str]) -> dict[str, Any]:
    """Returns the median milliseconds of answers to single words, and to all of them at once.

    The bundles take turns, each with all words, so that each finds its own parameters in the cache, as a
    service does.
    """
    found: dict[str, Any] = {}
    for kind, parts in (("one word", [[each] for each in asked]), ("batch", [asked] * 5)):
        times: dict[str, list[float]] = {name: [] for name in bundles}
        for _ in range(_ROUNDS):
            for name, bundle in bundles.items():
                bundle.predict({"word": parts[0]})  # The first time it compiles.
                for part in parts:
                    started = time.perf_counter()
                    bundle.predict({"word": part})
                    times[name].append(1000 * (time.perf_counter() - started))
        found[kind] = {name: statistics.median(each) for name, each in times.items()}
        found[kind]["ratio"] = found[kind]["teacher"] / found[kind]["student"]
    return found


def experiment(config: Config, run_dir: Path) -> Any:
    """Trains students, judges them beside their teacher, and leaves the best; returns the record."""
    checks.number("alpha", config.alpha, 0, 1)
    checks.number("temperature", config.temperature, above=0)
    bench.compilation_cache()
    data = cmudict.load()
    aligned = words.align(data, config.num_words)
    teacher, members, beam = read(config.run, aligned)
    network = Pronouncer(config.size, len(aligned.phones), config.schedule.dropout)
    seen = analogy.without_own(aligned.letters, aligned.chunks)
    log_p, first = taught(teacher, members, aligned, seen)
    started = time.perf_counter()
    students = study(config, network, aligned, seen, log_p, first)
    seconds = time.perf_counter() - started

    def judged(of: Pronouncer, some: PyTree, chosen: Any, beam: int) -> Any:
        return judging.judged(of, some, aligned, data, chosen[: config.num_words], beam)

    rows = []
    for place, (kind, seed) in enumerate(
        itertools.product(("teacher", "dictionary"), config.seeds)
    ):
        one = trees.take(students, slice(place, place + 1))
        rows.append(
            {
                "learned from": kind,
                "seed": seed,
                "validation WER": judged(network, one, data.validation, 1)["WER"],
                **judged(network, one, data.test, 1),
            }
        )
    best = min(range(len(config.seeds)), key=lambda place: rows[place]["validation WER"])
    student = trees.take(students, slice(best, best + 1))
    checkpoint.save(run_dir / "model", student)
    metrics = {"WER": rows[best]["WER"], "PER": rows[best]["PER"]}
    left = candidate.leave(run_dir, network, student, aligned, data, beam=1, metrics=metrics)
    asked = [data.words[i] for i in data.test[:_TIMED]]
    before = judged(teacher, members, data.test, beam)
    reports.table("students", [*rows[0]], [[*row.values()] for row in rows])
    return {
        "students": rows,
        "best": rows[best],
        "teacher": before,
        "kept accuracy": (1 - metrics["WER"]) / max(1 - before["WER"], 1e-9),
        "parameters": {
            "teacher": trees.num_parameters(members),
            "student": trees.num_parameters(student),
        },
        "latency": latencies({"teacher": candidate.load(config.run), "student": left}, asked),
        "seconds": seconds,
    }


def main(arguments: Sequence[str]) -> int:
    return command.run("pronunciation.student", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
