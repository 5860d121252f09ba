"""The command line: `python -m experiments.language_model --help`."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from experiments import command
from experiments.language_model import candidate, complete, layers, ngram, report, training
from jaxml import bench, files
from jaxml.data import corpus, gcide

if TYPE_CHECKING:
    LayerName = str
else:
    LayerName = Literal[layers.NAMES[1:]]

# A sampled layer is trained for as long as the exact one, but not beyond two points worse by so much.
_WORSE = 0.02


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains a next-word model with the exact softmax, and with layers that need less. `complete --help`
    shows how to use a finished run."""

    text: Path | None = None
    """A text in UTF-8, a document a line; None for the dictionary."""
    minutes: float = 30.0
    """Time to train the exact softmax, and at the end the best sampled layer."""
    layers: tuple[LayerName, ...] = layers.NAMES[1:]
    """Layers to compare with it."""
    dim: int = 256
    """Length of the vectors of words, and units of the LSTM."""
    streams: int = 32
    """Texts read side by side."""
    window: int = 16
    """Words of each stream in a step."""
    num_sampled: int = 2_048
    """Candidates of a step."""
    learning_rate: float = 0.2
    """Learning rate of Adagrad for the tables."""
    dense_learning_rate: float = 0.002
    """Learning rate of Adam for the LSTM."""
    validate_on: int = 8_192
    """Held-out words that each point of a curve is measured on."""
    seed: int = 0
    """Seed of initialisation and candidates; the split is fixed."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""
    resume: Path | None = None
    """Continue this run: layers that are in its curves.json are not trained again."""


def experiment(config: Config, run_dir: Path) -> dict[str, Any]:
    """Measures, prints and draws; returns the record."""
    for name in ("minutes", "learning_rate", "dense_learning_rate"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")
    bench.compilation_cache()
    text = gcide.load() if config.text is None else corpus.build(corpus.read_documents(config.text))
    print(f"{len(text.train):,} words to learn from, {text.num_words:,} of them distinct and known")
    study = Study(config, text, run_dir)
    exact = study.row("exact", "exact", training.stops(), lambda points: True)
    last = exact["points"][-1]
    known = [point["step"] for point in exact["points"][1:]]

    def until_as_good(points: Sequence[training.Point]) -> bool:
        now = points[-1]
        return now["step"] < last["step"] or (
            now["loss"] > last["loss"] and now["step"] < 2 * last["step"]
        )

    for name in config.layers:
        study.row(name, name, training.stops(known), until_as_good)
    rows = report.compared(study.rows)
    if sampled := [row for row in rows if row["layer"] in layers.SAMPLERS]:
        best = min(
            sampled, key=lambda row: math.inf if row["to_exact"] is None else row["to_exact"]
        )
        name = f"{best['layer']}, as long as exact"
        leave = partial(candidate.leave, run_dir, text)
        study.row(name, best["layer"], training.stops(known), _improves, leave)
        rows = report.compared(study.rows)
    counted = ngram.perplexity(text)
    if counted is None:
        print(ngram.HOW)
    report.show(rows, counted)
    report.picture(run_dir / "language_model.png", rows, counted)
    return {
        "words": text.num_words,
        "training_words": len(text.train),
        "test_words": len(text.test),
        "settings": dataclasses.asdict(study.settings),
        "layers": rows,
        "ngram": counted,
    }  # fmt: skip


def _improves(points: Sequence[training.Point]) -> bool:
    losses = [point["loss"] for point in points]
    return min(losses[-2:]) <= min(losses) + _WORSE


class Study:
    """The rows of the layers that were trained, kept in `curves.json`."""

    def __init__(self, config: Config, text: corpus.Corpus, run_dir: Path) -> None:
        self._config, self._text, self._run_dir = config, text, run_dir
        self._path = run_dir / "curves.json"
        self._kept = json.loads(self._path.read_text()) if self._path.exists() else []
        self.rows: list[dict[str, Any]] = []
        self.settings = training.Settings(
            dim=config.dim,
            streams=config.streams,
            window=config.window,
            num_sampled=config.num_sampled,
            learning_rate=config.learning_rate,
            dense_learning_rate=config.dense_learning_rate,
            seed=config.seed,
        )

    def row(
        self,
        name: str,
        layer: str,
        stops: Any,
        goes_on: Callable[[Sequence[training.Point]], bool],
        leave: Callable[[training.Trainer, float], None] | None = None,
    ) -> dict[str, Any]:
        """Returns the row of a layer: the one that is kept, or else a new one, after training.

        It has `name`, `settings`, `training_words`, `layer`, the `points` of its curve, and `perplexity` on
        the test part. `leave(trainer, perplexity)` is called after training, before the row is kept.
        """
        known = {
            "name": name,
            "settings": dataclasses.asdict(self.settings),
            "training_words": len(self._text.train),
        }
        row = next((row for row in self._kept if known.items() <= row.items()), None)
        if row is None:
            trainer, found = self._train(name, layer, stops, goes_on)
            if leave is not None:
                leave(trainer, found["perplexity"])
            row = {**known, **found}
            self._kept.append(row)
            files.write_record(self._path, self._kept)
        self.rows.append(row)
        return row

    def _train(
        self, name: str, layer: str, stops: Any, goes_on: Any
    ) -> tuple[training.Trainer, dict[str, Any]]:
        config, text = self._config, self._text
        trainer = training.Trainer(text, layer, self.settings)

        def say(point: training.Point) -> None:
            loss, seconds = math.exp(point["loss"]), point["seconds"]
            print(f"{name} {point['step']:,}: {seconds:.1f} s, perplexity {loss:.1f}", flush=True)

        points = training.curve(
            trainer,
            text.validation[: config.validate_on],
            stops,
            goes_on,
            max_seconds=60 * config.minutes,
            say=say,
        )
        perplexity = math.exp(trainer.loss(text.test))
        return trainer, {"layer": layer, "points": points, "perplexity": perplexity}


def main(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit code, as `command.run` does."""
    if arguments[:1] != ["complete"]:
        return command.run("language_model", Config, experiment, arguments)
    prog = "python -m experiments.language_model complete"
    try:
        complete.run(tyro.cli(complete.Complete, args=arguments[1:], prog=prog))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
