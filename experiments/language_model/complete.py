"""The next words of a text by a finished run."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import traverse_util

from experiments.language_model import layers
from jaxml import files, models, reports
from jaxml.data import corpus
from jaxml.data.strings import Strings
from jaxml.types import Array, PyTree

FILE = "model.npz"
_LONGEST = 20


@dataclasses.dataclass(frozen=True)
class Complete:
    """Say which words a finished run expects after a text, and go on with it."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    text: tyro.conf.Positional[str] = ""
    """The beginning of an entry; its words in any case, without punctuation. Empty for none."""
    k: int = 10
    """Most probable words shown."""
    seed: int = 0
    """Seed of the continuation that is drawn."""


def save(
    path: Path, text: corpus.Corpus, network: PyTree, embedding: Array, classes: Array
) -> None:
    """Writes a model whose layer has a table of classes."""
    arrays = {
        **traverse_util.flatten_dict(network, sep="/"),
        **{"embedding": embedding, "classes": classes, "biases": layers.log_shares(text.counts)},
        **{"utf8": text.words.utf8, "offsets": text.words.offsets},
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


class Model:
    """A trained model that reads a text word by word."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ValueError(f"{path.parent} must be a run that has left {path.name}")
        with np.load(path, allow_pickle=False) as arrays:
            held = dict(arrays)
        self.words = list(Strings(held.pop("utf8"), held.pop("offsets")))
        tables = {name: jnp.asarray(held.pop(name)) for name in ("embedding", "classes", "biases")}
        network = traverse_util.unflatten_dict(held, sep="/")
        self._held = jax.tree.map(jnp.asarray, (network, tables))
        module = models.Recurrent("lstm", tables["embedding"].shape[1])

        @jax.jit
        def step(held: PyTree, word: Array, carry: PyTree) -> tuple[Array, PyTree]:
            network, tables = held
            states, carry = module.apply(
                {"params": network}, tables["embedding"][word][None, None], carry=carry
            )
            logits = tables["classes"] @ states[0, 0] + tables["biases"]
            return jax.nn.softmax(logits), carry

        self._step = step

    def read(self, words: list[int], carry: PyTree = None) -> tuple[np.ndarray, PyTree]:
        """Returns the probability [V] of each next word after these, and the state; one word at least."""
        for word in words:
            shares, carry = self._step(self._held, jnp.int32(word), carry)
        return np.asarray(shares), carry

    def go_on(
        self, shares: np.ndarray, carry: PyTree, draws: np.random.Generator | None
    ) -> list[str]:
        """Returns the words up to the end of the entry: the most probable ones, or drawn ones.

        The unknown word is not among them, and there are at most twenty.
        """
        words: list[str] = []
        while len(words) < _LONGEST:
            shares = shares.astype(np.float64)
            shares[corpus.UNKNOWN] = 0
            word = (
                int(shares.argmax())
                if draws is None
                else int(draws.choice(len(shares), p=shares / shares.sum()))
            )
            if word == corpus.END:
                break
            words.append(self.words[word])
            shares, carry = self.read([word], carry)
        return words


def run(asked: Complete) -> None:
    """Prints unknown words, the most probable next words, and two continuations."""
    if asked.k < 1:
        raise ValueError(f"k must be at least 1, got {asked.k}")
    reports.rundir.read(asked.run)
    model = Model(asked.run / FILE)
    ids = {word: at for at, word in enumerate(model.words)}
    words = corpus.words_of(asked.text)
    for word in words:
        if word not in ids:
            print(f"not one of the {len(ids):,} words: {word}")
    read = [corpus.END, *(ids.get(word, corpus.UNKNOWN) for word in words)]
    shares, carry = model.read(read)
    rows: list[Any] = [
        [model.words[at], float(shares[at])] for at in np.argsort(-shares)[: asked.k].tolist()
    ]
    reports.table(f"after {' '.join(words) or 'nothing'!r}", ["next word", "probability"], rows)
    for name, draws in (("most probable", None), ("drawn", np.random.default_rng(asked.seed))):
        print(f"{name}: {' '.join([*words, *model.go_on(shares, carry, draws)])}")
