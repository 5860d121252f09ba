"""The experiments on models from their command lines, in a size of seconds."""

import json

import numpy as np
import pytest

from experiments import activations, embedding_size, long_memory
from jaxml import monitor
from jaxml.data import flights


def test_the_map_of_activations(tmp_path, capsys):
    """A small network trains; one whose weights are all but zero does not, is seen through and revived."""
    small = ["--depths", "3", "--activations", "relu", "--initializers", "he", "small"]
    small += ["--width", "16", "--run-dir", str(tmp_path / "run")]
    assert activations.main([*small, "--num-steps", "200"]) == 0
    assert (tmp_path / "run" / "activations.png").read_bytes()[1:4] == b"PNG"
    well, sick = json.loads((tmp_path / "run" / "results.json").read_text())
    assert well["accuracy"] > 0.85 and sick["accuracy"] < 0.3
    assert sick["findings"] and sick["remedies"][0]["initializer"] == "he_normal"
    assert sick["accuracy_after"] > 0.85
    assert "of 2 networks train" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        activations.main(["--activations", "rely"])
    assert "leaky_relu" in capsys.readouterr().err


def test_a_recipe_takes_every_change():
    recipe = activations.Recipe(2, "sigmoid", "small", 0.1)
    remedy = monitor.Remedy(
        learning_rate_factor=0.5, clip=1.0, initializer="he_normal", activation="relu",
        normalization="layer",
    )  # fmt: skip
    assert recipe.after(remedy) == activations.Recipe(2, "relu", "he_normal", 0.05, 1.0, True)
    assert recipe.after(monitor.Remedy(learning_rate=0.2)).learning_rate == 0.2
    assert recipe.after(monitor.Remedy(data="shuffle")) == recipe


def test_the_sentence_counts():
    def row(accuracy, findings, after):
        return {"accuracy": accuracy, "findings": findings, "accuracy_after": after}

    rows = [row(0.95, [], None), row(0.1, ["dead_relu"], 0.94), row(0.2, [], None)]
    assert activations.sentence(rows, 0.9) == (
        "1 of 3 networks train; of the 2 that do not, something is found in 1 (dead relu 1), and what "
        "the monitor advises revives 1 of these."
    )


@pytest.fixture
def few_flights(monkeypatch):
    """Aircraft that fly to one place each: an embedding of size 1 can hardly tell 12 places apart."""
    noise = np.random.default_rng(0)
    tail = noise.integers(0, 60, 1500)
    columns = {
        "month": np.full(1500, "1"), "day": np.full(1500, "2"), "hour": np.full(1500, "7"),
        "tailnum": np.array([f"N{i}" for i in tail]), "origin": np.full(1500, "JFK"),
        "dest": np.array([f"D{i % 12}" for i in tail]),
    }  # fmt: skip
    columns["tailnum"][:3] = ""
    monkeypatch.setattr(flights, "read_flights", lambda names: {n: columns[n] for n in names})


def test_the_size_of_an_embedding(tmp_path, capsys, few_flights):
    path = tmp_path / "results.json"
    small = ["--dims", "1", "8", "--seeds", "0", "--num-train", "1000", "--num-validation", "500"]
    small += [
        "--num-steps",
        "100",
        "--batch-size",
        "64",
        "--width",
        "16",
        "--learning-rate",
        "0.02",
    ]
    assert embedding_size.main([*small, "--run-dir", str(tmp_path)]) == 0
    rows = json.loads(path.read_text())
    assert [row["dim"] for row in rows] == [1, 8]
    assert rows[1]["best"] < 0.5 * rows[0]["best"] and rows[0]["rows"] <= 60
    assert (tmp_path / "embedding_size.png").read_bytes()[1:4] == b"PNG"
    assert "use d = 8" in capsys.readouterr().out
    assert embedding_size.main(["--num-train", "5000"]) == 2


def test_vocabularies_are_those_of_the_training_flights(few_flights):
    config = embedding_size.Config(num_train=1000, num_validation=500, rare=15)
    data = embedding_size.load(config)
    assert data.x.shape == (1500, 4) and data.num_classes == 12
    known = data.x[:1000, 0]
    counts = np.bincount(known[known >= 0], minlength=data.sizes[0])
    assert counts.min() >= 15 and data.x[:, 0].max() == data.sizes[0] - 1
    assert (data.x[:, 0] == -1).any()


def test_the_smallest_size_within_one_standard_error():
    rows = [
        {"dim": dim, "best": loss}
        for dim, losses in {1: [2.0, 2.0], 4: [1.05, 1.06], 8: [1.0, 1.1], 16: [1.2, 1.2]}.items()
        for loss in losses
    ]
    assert embedding_size.advice(rows) == (8, 4)
    assert embedding_size.advice([row for row in rows if row["dim"] in (1, 16)]) == (16, 16)


@pytest.mark.slow
def test_long_memory(tmp_path, capsys):
    """A minGRU learns to tell the first of few symbols; the record has the gradient over time."""
    small = ["--studies", "length", "--cells", "mingru", "--lengths", "4", "--num-steps", "300"]
    small += ["--features", "16", "--seeds", "1", "--run-dir", str(tmp_path / "run")]
    assert long_memory.main(small) == 0
    for name in ("long-memory.png", "long-memory-gradients.png"):
        assert (tmp_path / "run" / name).read_bytes()[1:4] == b"PNG"
    first, added = json.loads((tmp_path / "run" / "results.json").read_text())
    assert first["accuracy"] > [0.5] and first["task"] == "first symbol"
    assert np.isfinite(added["gradients"]).all() and np.shape(added["gradients"]) == (2, 32)
    capsys.readouterr()
    assert long_memory.main(["--lengths", "3"]) == 2
    assert "lengths must be at least 4, got 3" in capsys.readouterr().err
    slow = ["--studies", "length", "--lengths", "1000", "--cells", "lstm"]
    assert long_memory.main([*slow, "--run-dir", str(tmp_path / "slow")]) == 2
    assert "over 1000 steps only mingru, minlstm are trained" in capsys.readouterr().err


@pytest.mark.parametrize("task", long_memory.TASKS)
def test_tasks_can_be_solved(task):
    """Labels are what the sequences say."""
    x, y = long_memory.TASKS[task](200, 12, seed=0)
    if task == "first symbol":
        np.testing.assert_array_equal(x[:, 0], y[:, 0])
    elif task == "adding":
        assert (x[:, :6, 1].sum(1) == 1).all() and (x[:, 6:, 1].sum(1) == 1).all()
        np.testing.assert_allclose((x[..., 0] * x[..., 1]).sum(1), y[:, 0], rtol=1e-6)
    else:
        blank, question = 8, 9
        assert (x[:, 12:] == question).all()
        for row, symbols in zip(x[:, :12], y, strict=True):
            np.testing.assert_array_equal(row[row != blank], symbols)
