"""The pronunciation experiment: alignment and search against enumeration, and the commands as a whole."""

import itertools
import json
import operator
import re

import jax
import numpy as np
import pytest

from experiments.pronunciation import __main__ as pronunciation
from experiments.pronunciation import alignment, analogy, decoding, student, words
from experiments.pronunciation.model import Pronouncer, Size
from jaxml import serving, trees
from jaxml.serving import gate as gates

LETTERS, PHONES = 3, 2
WORDS = [[0, 1], [2, 0], [0], [1, 2], [1, 1], [2, 0, 1]]
SPOKEN = [[0, 1], [1], [0, 1], [0, 0, 1], [], [1, 0, 0]]


def alignments(word, phones):
    """All ways to give each letter none, one or two of the phones, as chunks of the whole table."""
    for counts in itertools.product(range(3), repeat=len(word)):
        if sum(counts) == len(phones):
            ends = np.cumsum(counts)
            parts = [phones[e - n : e] for e, n in zip(ends, counts, strict=True)]
            yield [
                0 if not p else 1 + p[0] if len(p) == 1 else 1 + PHONES + p[0] * PHONES + p[1]
                for p in parts
            ]


def test_expected_counts_and_best_alignments_are_those_of_all_alignments():
    table = np.random.default_rng(0).random((LETTERS, 1 + PHONES + PHONES**2))
    table /= table.sum(1, keepdims=True)
    groups = [*alignment._groups(WORDS, SPOKEN, PHONES)]
    wanted, best = np.zeros_like(table), {}
    for row, (word, phones) in enumerate(zip(WORDS, SPOKEN, strict=True)):
        ways = [*alignments(word, phones)]
        p = np.array([table[word, way].prod() for way in ways])
        best[row] = ways[p.argmax()]
        for way, share in zip(ways, p / p.sum(), strict=True):
            np.add.at(wanted, (word, way), share)
    found = sum(alignment._expected_counts(group, table) for group in groups)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    paths = {
        row: chunk.tolist()
        for rows, chunks in alignment._paths(groups, table)
        for row, chunk in zip(rows.tolist(), chunks, strict=True)
    }
    assert paths == best


def test_a_word_of_too_many_phones_is_left_out():
    chunks_of, chunks = alignment.align([[0], [1], [0]], [[0], [1], [0, 1, 0]], 2, 2)
    assert chunks_of[2] is None and chunks.tolist() == [[-1, -1], [0, -1], [1, -1]]
    assert [each.tolist() for each in chunks_of[:2]] == [[1], [2]]


def test_an_epoch_holds_each_row_once_in_batches_of_similar_words():
    letters = words.encoded(["a" * n for n in (1, 5, 6, 7, 9, 28, 5, 4)])
    taken = list(itertools.islice(words.batches(letters, 2, seed=0), 6))
    rows = np.concatenate([rows for _, rows in taken])
    assert sorted(rows[rows >= 0]) == [*range(8)]
    for width, rows in taken:
        lengths = (letters[rows[rows >= 0]] > 0).sum(1)
        assert {words.width_of(each) for each in lengths.tolist()} == {width}


@pytest.fixture(scope="module")
def ensemble():
    network = Pronouncer(Size(3, 4), 3)
    letters = words.encoded(["cab", "b"])[:, :4]
    seen = analogy.look_up(analogy.collect(letters, np.where(letters > 0, 1, -1)), letters)
    inputs = {"seen": seen, "chunks": np.zeros_like(letters)}
    made = [network.init(jax.random.key(seed), inputs) for seed in (0, 1)]
    # Of other sizes, so that the members disagree.
    return (
        network,
        trees.stack([jax.tree.map(lambda leaf: 4 * leaf, each) for each in made]),
        seen,
    )


def test_a_wide_beam_finds_every_sequence_with_the_members_mean_probabilities(ensemble):
    network, members, seen = ensemble
    found = jax.jit(lambda some: decoding.search(network, members, some, 27))(seen)
    for row, length in ((0, 3), (1, 1)):
        ways = np.array([*itertools.product(range(3), repeat=length)])
        at = (np.full(len(ways), row), slice(length))
        batch = {"seen": jax.tree.map(operator.itemgetter(at), seen), "chunks": ways}
        logits = jax.vmap(lambda each, batch=batch: network.apply(each, batch))(members)
        p = np.asarray(jax.nn.softmax(logits), np.float64).mean(0)
        p = np.take_along_axis(p, ways[..., None], -1)[..., 0].prod(-1)
        order = np.argsort(-p)
        np.testing.assert_allclose(np.exp(found.scores[row, : len(p)]), p[order], rtol=1e-4)
        np.testing.assert_array_equal(found.chunks[row, : len(p), :length], ways[order])
        assert not np.asarray(found.chunks[row, : len(p), length:]).any()
        assert np.isneginf(found.scores[row, len(p) :]).all()


@pytest.fixture(scope="module")
def pairs():
    """Letters and chunks of short words; two words have two pronunciations."""
    rng = np.random.default_rng(0)
    spelled = sorted({"".join(rng.choice([*"abc"], rng.integers(1, 9))) for _ in range(60)})
    spelled += spelled[3:5]
    letters = words.encoded(spelled)
    return spelled, letters, np.where(letters > 0, rng.integers(0, 3, letters.shape), -1)


def votes(spelled, chunks, context, of):
    """How many words of `of` have each of the three chunks where `context` stands around a letter."""
    found = np.zeros(3, int)
    for row in of:
        for place in range(len(spelled[row])):
            if around(spelled[row], place, *context[0]) == context[1]:
                found[chunks[row, place]] += 1
    return found


def around(word, place, before, after):
    padded = "-" * before + word + "-" * after
    return padded[place : place + before + 1 + after]


def check_told(seen, spelled, chunks, row, of):
    """Asserts that a row was told what the words of `of` say."""
    for place, (k, size) in itertools.product(
        range(len(spelled[row])), enumerate(analogy.CONTEXTS)
    ):
        count = votes(spelled, chunks, (size, around(spelled[row], place, *size)), of)
        chunk, (share, number) = seen.chunks[row, place, k], seen.evidence[row, place, k]
        if not count.any():
            assert chunk == share == number == 0
            continue
        assert count[chunk - 1] == count.max()
        assert share == pytest.approx(count.max() / count.sum(), rel=1e-3)
        assert number == pytest.approx(np.log1p(count.sum()) / 2, rel=1e-3)
    assert not np.asarray(seen.chunks[row, len(spelled[row]) :]).any()
    assert not np.asarray(seen.evidence[row, len(spelled[row]) :]).any()


def test_a_new_word_is_told_what_the_dictionary_says(pairs):
    spelled, letters, chunks = pairs
    known, new = [*range(40)], [*range(40, 48)]
    seen = analogy.look_up(analogy.collect(letters[known], chunks[known]), letters)
    for row in new:
        check_told(seen, spelled, chunks, row, known)


def test_a_word_in_training_is_told_what_others_say_and_not_itself(pairs):
    spelled, letters, chunks = pairs
    seen = analogy.without_own(letters, chunks)
    part = {word: rank % 10 for rank, word in enumerate(sorted(set(spelled)))}
    for row in (0, 3, 4, 20, len(spelled) - 2, len(spelled) - 1):
        others = [i for i, word in enumerate(spelled) if part[word] != part[spelled[row]]]
        check_told(seen, spelled, chunks, row, others)
    longest = max(range(len(spelled)), key=lambda row: len(spelled[row]))
    widest = analogy.CONTEXTS.index((5, 5))
    assert (seen.chunks[longest, 3, widest], seen.chunks[longest, 0, 0]) == (
        0,
        pytest.approx(2, abs=1),
    )


@pytest.mark.parametrize("dropout", [-0.1, 0.5])
def test_a_share_of_dropped_units_out_of_range_is_named(dropout):
    network = Pronouncer(Size(3, 4), 3, dropout)
    with pytest.raises(ValueError, match="dropout"):
        network.init(jax.random.key(0), {})


def test_alignments_of_the_same_phones_are_one_pronunciation():
    phones = np.array([[-1, -1], [0, -1], [1, -1], [0, 1]])
    chunks = np.array([[[1, 2], [3, 0], [2, 0], [0, 3]]])  # AA AE, AA AE, AE, AA AE
    scores = np.log(np.array([[0.3, 0.25, 0.4, 0.05]], np.float32))
    said = decoding.spoken(decoding.Found(chunks, scores), phones)
    best, probability = decoding.merged(said, scores)
    assert best[0, :2].tolist() == [[1, 2, 0, 0], [2, 0, 0, 0]]
    np.testing.assert_allclose(probability, [[0.6, 0.4, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        (pronunciation, ["--num-words", "1"], "num_words must be .* at least 2, got 1"),
        (student, ["run", "--alpha", "1.5"], "alpha must be .* got 1.5"),
        (student, ["run", "--temperature", "0"], "temperature must be .* above 0, got 0"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, command, arguments, told):
    assert command.main([*arguments, "--run-dir", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error) and error.count("\n") == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A teacher of two small networks that have hardly learned, and its student."""
    small = ["--size.encoder-features", "4", "--size.decoder-features", "4"]
    quick = ["--schedule.num-steps", "2", "--schedule.batch-size", "16", "--num-words", "60"]
    home = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "WIDTHS", (words.LONGEST,))
        options = [*small, *quick, "--members", "2", "--beam", "2"]
        assert pronunciation.main([*options, "--run-dir", str(home / "teacher")]) == 0
        options = [str(home / "teacher"), *small, *quick, "--seeds", "0"]
        assert student.main([*options, "--run-dir", str(home / "student")]) == 0
    return home


@pytest.mark.slow
def test_a_run_leaves_its_record_a_student_and_candidates(run):
    record = json.loads((run / "teacher" / "results.json").read_text())
    assert [(row["members"], row["beam"]) for row in record["results"]] == [
        *itertools.product((1, 2), (1, 2, 4))
    ]
    taught = json.loads((run / "student" / "results.json").read_text())
    assert [row["learned from"] for row in taught["students"]] == ["teacher", "dictionary"]
    assert taught["parameters"]["teacher"] > taught["parameters"]["student"]
    for name, number in (("teacher", 2), ("student", 1)):
        left = serving.load(run / name / "candidate" / "bundle")
        assert left.predict({"word": ["hello"]})["phones"].shape == (1, number, 56)


@pytest.mark.slow
def test_pronounce_answers_words_or_names_what_is_wrong(run, capsys):
    def pronounce(*arguments):
        code = pronunciation.main(["pronounce", str(run / "teacher"), *arguments])
        return code, *capsys.readouterr()

    capsys.readouterr()
    code, out, err = pronounce("Hello", "b")
    assert (code, err) == (0, "") and [line[:5] for line in out.splitlines()] == ["Hello", "b -> "]
    code, out, err = pronounce("hello", "naïve")
    assert code == 2 and out == "" and err.count("\n") == 1 and "'ï' in 'naïve'" in err
    code, _, err = pronounce("a" * 29)
    assert code == 2 and "1 to 28 characters" in err
    assert pronunciation.main(["pronounce", str(run / "none"), "a"]) == 2


@pytest.mark.slow
def test_the_gate_judges_sequences(run):
    read = serving.candidate.read(run / "student")
    verdict = gates.judge(serving.load(read.bundle), None, read.held_out, read.gate)
    first = verdict.checks[0]
    assert (first.name, first.outcome) == ("precision@1", "failed") and first.value < 0.1
    some = {name: each[:200] for name, each in read.held_out.items()}
    said = serving.load(read.bundle).predict({"word": some["word"]})["phones"][:, 0]
    told = [" ".join(filter(None, each)) for each in said.tolist()]
    right = np.array([f"X | {each}" if i % 2 else "X" for i, each in enumerate(told)], object)
    verdict = gates.judge(serving.load(read.bundle), None, {**some, "phones": right}, read.gate)
    assert verdict.checks[0].value == 0.5
