"""Answers to many words, their error rates, and the map of letters and phones."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from experiments.pronunciation import analogy, words
from experiments.pronunciation.decoding import merged, search, spoken
from experiments.pronunciation.model import Pronouncer
from jaxml import reports
from jaxml.data import cmudict
from jaxml.types import PyTree

__all__ = ["answers", "judged", "picture"]

_AT_ONCE = 256
_BEAM_OF_MAP = 16


def answers(
    network: Pronouncer,
    members: PyTree,
    aligned: words.Aligned,
    letters: NDArray[np.int32],
    beam: int,
) -> list[words.Phones]:
    """Returns the most probable phones of words, int32 [N, 28]."""
    order = np.argsort((letters > 0).sum(1), kind="stable")  # The longest word sets the steps.
    parts = []
    for at in range(0, len(order), _AT_ONCE):
        some = letters[order[at : at + _AT_ONCE]]
        padded = np.pad(some, ((0, _AT_ONCE - len(some)), (0, 0)), mode="edge")
        best = _best(network, beam, members, aligned.phones, aligned.analogies, padded)
        parts.append(np.asarray(best)[: len(some)])
    return texts(np.concatenate(parts)[np.argsort(order)])


@partial(jax.jit, static_argnums=(0, 1))
def _best(
    network: Pronouncer, beam: int, members: PyTree, phones: Any, analogies: Any, letters: Any
) -> Any:
    found = search(network, members, analogy.look_up(analogies, letters), beam)
    return merged(spoken(found, phones), found.scores)[0][:, 0]


def texts(said: NDArray) -> list[words.Phones]:
    """Returns phones counted from 1 as texts."""
    return [tuple(cmudict.PHONES[each - 1] for each in row if each) for row in said.tolist()]


def judged(
    network: Pronouncer,
    members: PyTree,
    aligned: words.Aligned,
    data: cmudict.CMUDict,
    chosen: NDArray[np.int32],
    beam: int,
) -> dict[str, Any]:
    """Returns word and phone error rates of the answers to some words of the dictionary."""
    given = answers(network, members, aligned, words.encoded([data.words[i] for i in chosen]), beam)
    word, phone = words.error_rates(given, [data.pronunciations[i] for i in chosen])
    return {"beam": beam, "WER": word, "PER": phone}


def picture(
    network: Pronouncer, members: PyTree, aligned: words.Aligned, shown: Sequence[str], path: Path
) -> None:
    """Draws which letters stand for which phones: P by all alignments of the answer that are found."""
    seen = analogy.look_up(aligned.analogies, words.encoded(shown))
    found, phones = search(network, members, seen, _BEAM_OF_MAP), aligned.phones
    all_said = spoken(found, phones)
    best = texts(np.asarray(merged(all_said, found.scores)[0][:, 0]))
    said = np.asarray(all_said)
    maps = {}
    for row, word in enumerate(shown):
        if not best[row]:  # Of a network that has hardly learned.
            continue
        shares = np.zeros((len(word), len(best[row])))
        same = [k for k, each in enumerate(texts(said[row])) if each == best[row]]
        weights = np.exp(np.asarray(found.scores[row, same], np.float64))
        for k, weight in zip(same, weights / weights.sum(), strict=True):
            counts = (phones[np.asarray(found.chunks[row, k, : len(word)])] >= 0).sum(1)
            shares[np.repeat(np.arange(len(word)), counts), np.arange(counts.sum())] += weight
        maps[word] = ([*word], [*best[row]], shares)
    if not maps:
        return
    reports.plots.alignments(
        maps,
        label="probability that the letter stands for the phone",
        title="Letters of words that the network has not seen, and the phones it answers",
        path=path,
    )
