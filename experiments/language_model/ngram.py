"""A count-based n-gram model with Kneser-Ney smoothing, by the programs of KenLM."""

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxml.data import corpus

ORDER = 5
HOW = (
    "no 5-gram model: `lmplz` and `query` of KenLM are not on the PATH. To build them: "
    "pip download --no-deps --no-binary kenlm kenlm; unpack it; in a folder below it "
    "cmake .. && make lmplz query (needs a compiler, CMake and Boost); then PATH=…/bin:$PATH"
)
# KenLM has its own meaning for <unk>; no word has this character.
_UNKNOWN = "*"


def perplexity(text: corpus.Corpus) -> dict[str, float] | None:
    """Returns perplexity on the test part, seconds to estimate and n-grams kept; None without KenLM.

    The tokens are those of the other models: words outside of the vocabulary are one word, and the end of a
    document is predicted.

    Raises:
        ValueError: a program of KenLM fails, which it does on a text of few words.
    """
    if shutil.which("lmplz") is None or shutil.which("query") is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("train", "test"):
            _write(folder / part, text, getattr(text, part))
        started = time.perf_counter()
        model = folder / "model.arpa"
        _run(
            *("lmplz", "-o", str(ORDER), "--text", str(folder / "train"), "--arpa", str(model)),
            *("-T", str(folder / "temporary"), "-S", "1G"),
        )
        seconds = time.perf_counter() - started
        with open(folder / "test", encoding="utf-8") as test:
            answer = _run("query", "-v", "summary", str(model), stdin=test)
        with open(model, encoding="utf-8") as arpa:
            kept = [int(line.split("=")[1]) for line in arpa.readlines(1000) if "=" in line]
    found = re.search(r"Perplexity including OOVs:\s*(\S+)", answer)
    if found is None:
        raise ValueError(f"query must print a perplexity, got {answer[:200]!r}")
    return {"perplexity": float(found[1]), "seconds": seconds, "ngrams": sum(kept)}


def _write(path: Path, text: corpus.Corpus, tokens: NDArray[np.int32]) -> None:
    """Writes documents as lines, without their ends, which KenLM adds itself."""
    words = np.array([*text.words, "\n"], object)
    words[corpus.END], words[corpus.UNKNOWN] = "\n", _UNKNOWN
    path.write_text(" ".join(words[tokens]), "utf-8")


def _run(*arguments: str, stdin=None) -> str:
    done = subprocess.run(arguments, stdin=stdin, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing is said"])[-1]
        raise ValueError(f"{arguments[0]} of KenLM failed: {last}")
    return done.stdout
