"""How is an English word that is in no dictionary pronounced?

    JAX_NUM_CPU_DEVICES=2 python -m experiments.pronunciation   train (some 20 minutes on two cores)
    python -m experiments.pronunciation pronounce RUN WORD …    the most probable pronunciations

Four networks are trained, as many on each device, and the mean of their probabilities answers.

Every letter of a word stands for none, one or two of its phones; which ones is learned from the dictionary
by expectation maximisation. So the network needs no attention: an encoder reads the letters in both
directions, and a decoder takes them one by one and says which phones each stands for, given those of the
letters before. Beside each letter stands what other words of the dictionary say of it in the same context.
A beam search finds the most probable sequence.

The data are the CMU dictionary without stress; a tenth of its words is held out. Published for it: weighted
transducers 33.9 % word error rate, a transformer 31 % (README of g2p-seq2seq). The record is
`experiments/results/pronunciation.json`.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import tyro

from experiments import command
from experiments.pronunciation import analogy, candidate, judging, training, words
from experiments.pronunciation.model import Pronouncer, Size
from jaxml import bench, losses, reports, trees
from jaxml.data import cmudict
from jaxml.train import checkpoint
from jaxml.types import PyTree

_WATCHED = 1000  # validation words while training
_SHOWN, _SHOWN_OF = 4, 200  # the longest of the first test words


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains networks that pronounce words, and counts their errors on words that they have not seen."""

    size: Size = dataclasses.field(default_factory=Size)
    """Of each network."""
    schedule: training.Schedule = dataclasses.field(default_factory=training.Schedule)
    """Of each training."""
    members: int = 4
    """Networks, trained side by side on the devices there are; the mean of their probabilities answers."""
    beam: int = 4
    """Hypotheses that the search keeps."""
    num_words: int | None = None
    """Learn from this many words only, for a quick look; None for all."""
    seed: int = 0
    """Seed of the first network; the split is fixed."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def experiment(config: Config, run_dir: Path) -> Any:
    """Trains, judges, draws, and leaves a candidate; returns the record."""
    bench.compilation_cache()
    started = time.perf_counter()
    data = cmudict.load()
    aligned = words.align(data, config.num_words)
    print(f"{len(aligned.letters):,} pairs, {aligned.num_left_out} left out", flush=True)
    network = Pronouncer(config.size, len(aligned.phones), config.schedule.dropout)
    members = trained(config, network, data, aligned)
    seconds = time.perf_counter() - started
    checkpoint.save(run_dir / "model", members)
    rows, test = [], data.test[: config.num_words]
    for number in dict.fromkeys((1, config.members)):
        some = trees.take(members, slice(number))
        for beam in dict.fromkeys((1, config.beam, 2 * config.beam)):
            row = judging.judged(network, some, aligned, data, test, beam)
            rows.append({"members": number, **row})
    title = f"{len(test):,} words that were held out"
    reports.table(title, [*rows[0]], [[*row.values()] for row in rows])
    shown = sorted((data.words[i] for i in data.test[:_SHOWN_OF]), key=len)[-_SHOWN:]
    judging.picture(network, members, aligned, shown, run_dir / "pronunciation.png")
    (served,) = (r for r in rows if (r["members"], r["beam"]) == (config.members, config.beam))
    bundle = candidate.leave(
        run_dir,
        network,
        members,
        aligned,
        data,
        beam=config.beam,
        metrics={"WER": served["WER"], "PER": served["PER"]},
    )
    for line in candidate.pronounced(bundle, shown):
        print(line)
    return {
        "results": rows,
        "seconds": seconds,
        "parameters of a member": trees.num_parameters(members) // config.members,
        "pairs": len(aligned.letters),
        "pairs left out": aligned.num_left_out,
        "chunks": len(aligned.phones),
        "test words": len(test),
    }


def trained(
    config: Config, network: Pronouncer, data: cmudict.CMUDict, aligned: words.Aligned
) -> PyTree:
    """Returns the variables of networks that have learned the alignments."""

    def targets(rows: Any, width: int) -> dict[str, Any]:
        return {"chunks": aligned.chunks[rows, :width]}

    def loss(logits: Any, batch: Any, trial: Any) -> Any:
        chunks = batch["chunks"]
        return losses.softmax_cross_entropy(logits, jnp.maximum(chunks, 0), where=chunks >= 0)

    def report(step: int, figures: dict[str, float], members: PyTree) -> None:
        line = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        one = trees.take(members, slice(1))
        row = judging.judged(network, one, aligned, data, data.validation[:_WATCHED], 1)
        print(f"step {step}: {line}, validation WER {row['WER']:.4f}", flush=True)

    seeds = range(config.seed, config.seed + config.members)
    seen = analogy.without_own(aligned.letters, aligned.chunks)
    return training.fit(network, seen, targets, loss, config.schedule, seeds, (), report)


@dataclasses.dataclass(frozen=True)
class Pronounce:
    """Prints the most probable pronunciations of words, and their probabilities."""

    run: tyro.conf.Positional[Path]
    """Directory of a finished run."""
    words: tyro.conf.Positional[tuple[str, ...]]
    """Words to pronounce."""


def pronounce(arguments: Sequence[str]) -> int:
    """Answers words with a finished run; returns the exit code: 0, or 2 for bad input."""
    asked = tyro.cli(
        Pronounce, args=arguments, prog="python -m experiments.pronunciation pronounce"
    )
    try:
        for line in candidate.pronounced(candidate.load(asked.run), asked.words):
            print(line)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "pronounce":
        return pronounce(arguments[1:])
    return command.run("pronunciation", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
