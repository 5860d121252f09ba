"""The next-word model: its windows, its layers, and the command in a size of seconds."""

import itertools
import json
import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.language_model import __main__ as language_model
from experiments.language_model import candidate, layers, ngram, report, training
from jaxml.data import corpus

SETTINGS = training.Settings(
    dim=8,
    streams=4,
    window=8,
    num_sampled=20,
    learning_rate=0.1,
    dense_learning_rate=0.002,
    seed=0,
)


def texts(number=300):
    """Every word but the first tells the next one: w3 follows w1 or w2."""
    draws = random.Random(0)
    for _ in range(number):
        word, words = draws.randrange(40), []
        for _ in range(draws.randint(4, 12)):
            words.append(f"w{word}")
            word = (2 * word + draws.randint(1, 2)) % 40
        yield " ".join(words)


@pytest.fixture(scope="module")
def text():
    return corpus.build(list(texts()), held_out=0.1)


def test_windows_hold_every_word_once_and_reset_at_documents():
    tokens = np.array([5, 6, corpus.END, 7, 8, 9, 3, 4, corpus.END], np.int32)
    read = training.windows(tokens, 2, 3)
    assert {part.shape for part in read.values()} == {(2, 2, 3)}
    streams = {name: part.swapaxes(0, 1).reshape(2, -1) for name, part in read.items()}
    labels = streams["labels"].ravel()
    assert labels.tolist() == [*tokens, -1, -1, -1]
    assert streams["inputs"].ravel()[:9].tolist() == [corpus.END, *tokens[:-1]]
    assert streams["resets"].tolist() == [
        [True, False, False, True, False, False],
        [True] + 5 * [False],
    ]


def test_the_exact_loss_is_that_of_a_softmax_over_all_words_and_falls(text):
    """Perplexity of the test part against NumPy in float64, with states of the trainer's own network."""
    trainer = training.Trainer(text, "exact", SETTINGS)
    read = training.windows(text.test, 32, 32)
    held, params = trainer.state.tables, trainer.state.params
    assert len(read["inputs"]) == 1
    states, _ = trainer.network.apply(
        {"params": params},
        held["embedding"][read["inputs"][0]],
        resets=jnp.asarray(read["resets"][0]),
    )
    logits = np.asarray(states, np.float64) @ np.asarray(held["classes"], np.float64).T
    logits += layers.log_shares(text.counts)
    labels = read["labels"][0]
    own = np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)[..., 0]
    expected = (np.log(np.exp(logits).sum(-1)) - own)[labels >= 0]
    assert len(expected) == len(text.test)
    before = trainer.loss(text.test)
    assert before == pytest.approx(expected.mean(), rel=1e-5)
    trainer.run(300, 60.0)
    assert trainer.loss(text.test) < before - 0.3


def test_a_sampled_step_touches_its_own_rows():
    """At 70,000 words a step changes the rows of its words and candidates, and needs no room for others."""
    size = 70_000
    counts = np.arange(size, 0, -1)
    text = corpus.Corpus(None, counts, *[np.arange(256, dtype=np.int32)] * 3)
    object.__setattr__(text, "words", range(size))
    trainer = training.Trainer(text, "log_uniform", SETTINGS)
    before = jax.tree.map(np.array, trainer.state.tables)
    compiled = trainer.program.lower(trainer.state, trainer._batches(0, 10), jnp.int32(1)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < size * SETTINGS.dim * 4 / 2
    trainer.state, _ = trainer.program(trainer.state, trainer._batches(0, 10), jnp.int32(1))
    words = SETTINGS.streams * SETTINGS.window
    for name, most in (("embedding", words), ("classes", words + SETTINGS.num_sampled)):
        moved = (np.asarray(trainer.state.tables[name]) != before[name]).any(1).sum()
        assert 1 < moved <= most


def test_a_curve_ends_with_the_parameters_of_its_best_point(text):
    trainer = training.Trainer(text, "log_uniform", replace(SETTINGS, learning_rate=1.0))

    def goes_on(points):
        return points[-1]["loss"] <= min(p["loss"] for p in points)

    points = training.curve(
        trainer, text.validation, range(50, 2000, 50), goes_on, max_seconds=60.0, say=lambda p: None
    )
    assert trainer.state.step == points[-1]["step"]
    assert trainer.loss(text.validation) == min(p["loss"] for p in points) < points[-1]["loss"]


@pytest.mark.slow  # Each is a program to compile.
@pytest.mark.parametrize("name", ["adaptive", "in_batch", "streaming_unigram"])
def test_every_layer_learns(text, name):
    trainer = training.Trainer(text, name, SETTINGS)
    before = trainer.loss(text.validation)
    trainer.run(300, 60.0)
    assert trainer.loss(text.validation) < before - 0.3


def test_a_text_that_is_too_short(text):
    short = corpus.Corpus(text.words, text.counts, text.train[:9], text.train, text.train)
    with pytest.raises(ValueError, match="text must have 32 words to learn from"):
        training.Trainer(short, "exact", SETTINGS)


def test_the_time_to_a_loss():
    points = [{"step": s, "seconds": float(s), "loss": x} for s, x in ((0, 7), (10, 6), (30, 5))]
    assert training.seconds_to(points, 6.5) == 5.0 and training.seconds_to(points, 5.5) == 20.0
    assert training.seconds_to(points, 4.0) is None and training.seconds_to(points, 8.0) == 0.0
    exact = [{"step": s, "seconds": 9.0 * s, "loss": x} for s, x in ((0, 7), (10, 6))]
    first, second = report.compared(
        [{"name": "exact", "points": exact}, {"name": "unigram", "points": points}]
    )
    assert first["to_exact"] == 0 and second["to_exact"] == 0 and second["speedup"] == 9.0
    assert list(itertools.islice(training.stops([10, 100]), 4)) == [10, 100, 120, 150]


@pytest.mark.parametrize(
    ("losses", "goes_on"),
    [
        ([5.4, 5.3, 5.4], True),
        ([5.4, 5.4, 5.3], True),
        ([5.3, 5.31, 5.4], True),
        ([5.3, 5.4, 5.4], False),
    ],
)
def test_one_worse_point_is_no_end(losses, goes_on):
    points = [{"step": step, "seconds": 0.0, "loss": loss} for step, loss in enumerate(losses)]
    assert language_model._improves(points) == goes_on


def test_the_command(tmp_path, capsys, monkeypatch):
    """A run on a text file, in a size of seconds; then it completes a text. Nothing is trained twice."""
    monkeypatch.setattr(ngram.shutil, "which", lambda name: None)
    file, run = tmp_path / "text.txt", tmp_path / "run"
    file.write_text("\n".join(texts()), "utf-8")
    small = ["--text", str(file), "--minutes", "0.002", "--layers", "unigram", "--dim", "8"]
    small += ["--streams", "4", "--window", "8", "--num-sampled", "20", "--validate-on", "100"]
    assert language_model.main([*small, "--run-dir", str(run)]) == 0
    record = json.loads((run / "results.json").read_text())
    names = ["exact", "unigram", "unigram, as long as exact"]
    assert [row["name"] for row in record["layers"]] == names and record["ngram"] is None
    assert all(1 < row["perplexity"] < 60 for row in record["layers"])
    assert (run / "language_model.png").read_bytes()[1:4] == b"PNG"
    assert "no 5-gram model" in capsys.readouterr().out

    monkeypatch.setattr(training, "Trainer", None)
    assert language_model.main([*small, "--resume", str(run)]) == 0
    assert language_model.main(["complete", str(run), "W3 xyzzy"]) == 0
    said = capsys.readouterr().out
    assert "not one of the 42 words: xyzzy" in said and "drawn: w3 xyzzy" in said
    file.write_text("\n".join([*texts()] * 2), "utf-8")
    with pytest.raises(TypeError):  # The layers of another text are trained again.
        language_model.main([*small, "--resume", str(run)])


def test_contexts_end_where_the_document_begins():
    tokens = np.array([5, 6, corpus.END, 7, 8, corpus.END], np.int32)
    found = candidate.contexts(tokens, np.array([0, 2, 4, 5]))
    assert [found[f"word_{distance}"].tolist() for distance in (1, 2, 3)] == [
        [corpus.END, 6, 7, 8],
        [corpus.END, 5, corpus.END, 7],
        [corpus.END, corpus.END, corpus.END, corpus.END],
    ]
    assert all(not part.any() for name, part in found.items() if name not in ("word_1", "word_2"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--text", "none.txt"], "none.txt"),
        (["--text", "latin.txt"], "latin.txt must be a text in UTF-8"),
        (["--text", "short.txt"], "documents must be 3 or more"),
        (["--minutes", "0"], "minutes must be above 0, got 0.0"),
        (["complete", "none", "a"], "none"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    (tmp_path / "short.txt").write_text("one line", "utf-8")
    assert language_model.main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_the_text_of_the_ngram_model(tmp_path, text):
    """KenLM reads a document a line, without its end, and the unknown word as a word."""
    tokens = np.array([2, 1, 3, corpus.END, 4, corpus.END], np.int32)
    ngram._write(tmp_path / "text", text, tokens)
    lines = [line.split() for line in (tmp_path / "text").read_text("utf-8").splitlines()]
    first, second, third = text.words.take([2, 3, 4])
    assert lines == [[first, "*", second], [third]]
