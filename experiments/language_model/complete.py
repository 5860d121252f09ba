"""The next words of a text by a finished run."""

import dataclasses
from pathlib import Path

import numpy as np
import tyro

from experiments.language_model import candidate
from jaxml import reports, serving
from jaxml.data import corpus

_LONGEST = 20


@dataclasses.dataclass(frozen=True)
class Complete:
    """Prints the next words that a finished run finds most probable, and continues a text."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    text: tyro.conf.Positional[str] = ""
    """The beginning of an entry, of which the last sixteen words are read. Empty for none."""
    seed: int = 0
    """Seed of the continuation that is drawn."""


class Reader:
    """A finished run that is asked for the next word."""

    def __init__(self, run_dir: Path) -> None:
        reports.rundir.read(run_dir)
        self._bundle = serving.load(run_dir / "candidate" / "bundle")
        self.ids = {word: at for at, word in enumerate(self._bundle.labels["word"].tolist())}

    def after(self, words: list[str]) -> tuple[list[str], np.ndarray]:
        """Returns the most probable next words, and their probabilities."""
        read = [self.ids.get(word, corpus.UNKNOWN) for word in words]
        tokens = np.array([*read, corpus.END], np.int32)
        found = self._bundle.predict(candidate.contexts(tokens, np.array([len(read)])))
        return found["word"][0].tolist(), found["probability"][0]

    def go_on(self, words: list[str], draws: np.random.Generator | None) -> list[str]:
        """Returns the text with what follows up to the end of the entry, at most twenty words.

        A word is the most probable one, or drawn among the ten most probable; never the unknown one.
        """
        text = list(words)
        while len(text) < len(words) + _LONGEST:
            found, shares = self.after(text)
            shares = np.where(np.array(found) == corpus.SPECIAL[corpus.UNKNOWN], 0.0, shares)
            at = (
                shares.argmax()
                if draws is None
                else draws.choice(len(found), p=shares / shares.sum())
            )
            if found[at] == corpus.SPECIAL[corpus.END]:
                break
            text.append(found[at])
        return text


def run(asked: Complete) -> None:
    """Prints unknown words, the most probable next words, and two continuations."""
    reader = Reader(asked.run)
    words = corpus.words_of(asked.text)
    for word in words:
        if word not in reader.ids:
            print(f"not one of the {len(reader.ids):,} words: {word}")
    found, shares = reader.after(words)
    rows = [[word, float(share)] for word, share in zip(found, shares, strict=True)]
    reports.table(f"after {' '.join(words) or 'nothing'!r}", ["next word", "probability"], rows)
    for name, draws in (("most probable", None), ("drawn", np.random.default_rng(asked.seed))):
        print(f"{name}: {' '.join(reader.go_on(words, draws))}")
