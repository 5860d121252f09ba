"""Can a softmax over 234,908 places recognise a spelling that it has never seen?

    python -m experiments.geonames                           train (the default command)
    python -m experiments.geonames --resume runs/geonames/…  continue an interrupted run
    python -m experiments.geonames resolve RUN Muenchen …    resolve names, or lines of stdin

Every populated place of GeoNames is a class, every alias of it an example: 1.16 million (alias, place)
pairs to learn from, 20,000 aliases held out. An alias is a bag of hashed character n-grams, encoded as the
sum of their embeddings on the unit sphere; a class is a unit vector; the score is their cosine over a
temperature. Training is candidate-sampled softmax: a step reads and writes a few thousand of the class
rows. Its candidates are neighbourhoods: blocks of classes whose vectors are similar, formed anew in each
epoch. A batch has a few examples of each block, so that candidates are hard negatives for these and a
sample of all classes for the others.

A run leaves a candidate that `python -m jaxml.serving publish` takes: the model answers a name with its
five most probable places. `resolve` asks it, too.

Expect a strict P@1 of 0.60 on all held-out aliases, and of 0.57 on those without a twin in training (an
alias of the same place that differs only by accents, case, hyphens or spaces). Training takes five to
ten minutes on two cores.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxml import bench, features, files, models, reports, serving, softmax, tables, train
from jaxml.bench import tfidf
from jaxml.data import cache, geonames, grouping, packages
from jaxml.train import checkpoint
from jaxml.types import Array, PyTree
from jaxml.validation import schema

EXAMPLE_QUERIES = (
    "Muenchen",
    "Мюнхен",
    "Munich",
    "Nueva York",
    "東京",
    "Sankt-Peterburg",
    "Lisbona",
)
RECALL_AT = (1, 10, 100)
ANSWERS = 5
"""Places that the model names."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the place-name resolver, and compare it with TF-IDF on the same held-out aliases."""

    num_steps: int = 7_000
    """Steps of training."""
    batch_size: int = 1_024
    """Aliases in a batch."""
    num_sampled: int = 4_096
    """Candidate classes of a batch."""
    block_size: int = 64
    """Largest number of classes in a neighbourhood; a batch has num_sampled / block_size neighbourhoods."""
    dim: int = 128
    """Length of the vectors."""
    temperature: float = 0.05
    """Cosines are divided by this."""
    ngram_dropout: float = 0.1
    """Share of an alias's n-grams that a training step leaves out."""
    learning_rate: float = 0.1
    """Learning rate of row-wise Adagrad at the first step; it falls linearly to zero."""
    num_buckets: int = 2**18
    """Rows of the n-gram table."""
    max_ngrams: int = 48
    """Largest number of n-grams of an alias."""
    seed: int = 0
    """Seed of initialisation, order and candidates; the split is fixed."""
    num_places: int | None = None
    """Use only this many places, for a quick look; None for all."""
    validate_on: int = 2_000
    """Validation aliases to score once an epoch."""
    baseline: bool = True
    """Compare with the TF-IDF nearest neighbour."""


# ------------------------------------------------------------------------------------------------ data


@dataclasses.dataclass(frozen=True, eq=False)
class Aliases:
    """The data set and the n-gram ids of every alias, `[num_pairs, max_ngrams]`."""

    names: geonames.GeoNames
    ngrams: np.ndarray


def pipeline(config: Config) -> features.FeaturePipeline:
    """Returns the feature of a name, the same in training and in answers; it learns nothing from data."""
    ngrams = features.character_ngrams(config.num_buckets, config.max_ngrams)
    return features.FeaturePipeline({"name": ngrams}).fit({"name": EXAMPLE_QUERIES})


def hashed(config: Config, aliases: Sequence[str]) -> np.ndarray:
    """Returns the n-gram ids of aliases."""
    return pipeline(config).encode({"name": aliases})["name"]


def load_names(config: Config) -> geonames.GeoNames:
    """Returns all places, or for a quick look the first few, with a held-out share to match."""
    if config.num_places is None:
        return geonames.load()
    cities = geonames.read_cities()
    few = {key: cities[key] for key in list(cities)[: config.num_places]}
    held_out = max(1, config.num_places // 12)
    return geonames.build(few, num_test=held_out, num_validation=max(1, held_out // 4))


def load_aliases(config: Config) -> Aliases:
    """Returns data and n-gram ids; the ids of the whole data set are cached on disk."""
    names = load_names(config)
    if config.num_places is not None:
        return Aliases(names, hashed(config, list(names.alias)))
    name = f"geonames-ngrams-{config.max_ngrams}-{config.num_buckets}"
    ids = cache.cached_array(name, lambda: hashed(config, list(names.alias)))
    return Aliases(names, ids)


# ----------------------------------------------------------------------------------------------- model


def make_task(config: Config, num_places: int) -> train.Task:
    """Returns the rows that a batch needs, and its loss.

    A batch holds `ngrams` int32 [B, L], `labels` int32 [B] (-1 where a team is not full) and `blocks`
    int32 [K].
    """

    def lookup(batch: PyTree, sampler_state: PyTree, key: Array) -> tuple[dict[str, Any], Any]:
        labels = batch["labels"]
        candidates = softmax.neighbourhood_candidates(
            sampler_state["parts"], batch["blocks"], sampler_state["share"], labels
        )
        # A new spelling shares only some n-grams with the known ones; so do training examples.
        dropped = jax.random.bernoulli(
            jax.random.fold_in(key, 1), config.ngram_dropout, batch["ngrams"].shape
        )
        bags = train.Bags(jnp.where(dropped, config.num_buckets, batch["ngrams"]))
        places = {"true": labels, "candidates": candidates.ids[0]}
        return {"ngrams": bags, "places": places}, candidates

    def loss(params, model_state, rows, batch, candidates, key):
        labels = batch["labels"]
        losses = softmax.sampled_softmax_loss_from_rows(
            models.unit_norm(rows["ngrams"]),
            models.unit_norm(rows["places"]["true"]),
            models.unit_norm(rows["places"]["candidates"]),
            labels,
            candidates,
            correction="negatives",
            temperature=config.temperature,
            where=labels >= 0,
            num_classes=num_places,
        )
        return losses.sum() / jnp.maximum((labels >= 0).sum(), 1), (model_state, {})

    return train.Task(loss=loss, lookup=lookup)


def make_row_optimizers(config: Config) -> dict[str, train.RowSchedule]:
    """Returns row-wise Adagrad for both tables, its learning rate a function of the step."""

    def at(step: Array) -> tables.RowOptimizer:
        return tables.rowwise_adagrad(config.learning_rate * (1.0 - step / config.num_steps))

    return {"ngrams": at, "places": at}


@jax.jit
def encode(ngram_table: Array, ids: Array) -> Array:
    """Returns the unit vectors `[N, dim]` of n-gram ids `[N, L]`."""
    return models.unit_norm(tables.gather_bags(ngram_table, ids))


@jax.jit
def class_vectors(state: train.State) -> Array:
    """Returns the unit vectors of the places, `[num_places, dim]`."""
    return models.unit_norm(tables.from_storage(state.tables["places"]))


def initial_state(config: Config, aliases: Aliases) -> train.State:
    """Returns random n-gram vectors, and every place at the mean of its training aliases' encodings."""
    key = jax.random.key(config.seed)
    table_key, run_key = jax.random.split(key)
    ngram_table = tables.init_table(table_key, config.num_buckets, config.dim)
    places = jnp.zeros((aliases.names.num_places, config.dim))

    @jax.jit
    def add(places: Array, ids: Array, labels: Array) -> Array:
        return places.at[labels].add(encode(ngram_table, ids))

    pairs = aliases.names.train
    for chunk in np.array_split(pairs, max(1, -(-len(pairs) // 8192))):
        places = add(places, aliases.ngrams[chunk], aliases.names.place[chunk])
    return train.create_state(
        run_key,
        tables={"ngrams": ngram_table, "places": models.unit_norm(places)},
        row_optimizers=make_row_optimizers(config),
        sampler_state=blank_sampler_state(config, aliases.names.num_places),
    )


# --------------------------------------------------------------------------------------------- batches


def blank_sampler_state(config: Config, num_places: int) -> PyTree:
    """Returns the neighbourhoods before the first epoch, with their final shapes."""
    vectors = jax.ShapeDtypeStruct((num_places, config.dim), jnp.float32)
    shapes = jax.eval_shape(
        lambda v, k: softmax.neighbourhoods(v, k, block_size=config.block_size),
        vectors,
        jax.random.key(0),
    )
    parts = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return {"parts": parts, "share": jnp.zeros(parts.members.shape[0])}


def steps_per_epoch(config: Config, names: geonames.GeoNames) -> int:
    """Returns the steps between two cuts into neighbourhoods."""
    return max(1, len(names.train) // config.batch_size)


def epoch_batches(
    config: Config, aliases: Aliases, state: train.State, epoch: int
) -> tuple[train.State, Callable[[int, int], PyTree]]:
    """Returns the state with the shares of the blocks, and the batches of an epoch by their number.

    Everything follows from the seed, the epoch and the neighbourhoods in the state: a run that continues in
    the middle of an epoch sees the same batches.
    """
    names = aliases.names
    per_epoch, drawn = steps_per_epoch(config, names), config.num_sampled // config.block_size
    block = np.asarray(state.sampler_state["parts"].block)
    teams, team_block = grouping.grouped_epoch(
        block[names.place[names.train]], config.batch_size // drawn, seed=config.seed, epoch=epoch
    )
    share = np.bincount(team_block, minlength=len(state.sampler_state["share"])) / len(team_block)
    state = dataclasses.replace(
        state,
        sampler_state={**state.sampler_state, "share": jnp.asarray(share, jnp.float32)},
    )

    def grouped(position: int, count: int) -> PyTree:
        # Batches past the end of the epoch are not used; the last one fills their place.
        number = np.minimum(
            np.arange(position, position + count) - epoch * per_epoch, per_epoch - 1
        )
        team = number[:, None] * drawn + np.arange(drawn)
        examples = teams[team % len(teams)].reshape(count, -1)
        pairs = names.train[np.maximum(examples, 0)]
        return {
            "ngrams": aliases.ngrams[pairs],
            "labels": np.where(examples >= 0, names.place[pairs], -1),
            "blocks": team_block[team % len(teams)],
        }

    return state, grouped


# ------------------------------------------------------------------------------------------ evaluation


def rank_places(state: train.State, ids: np.ndarray, *, k: int) -> np.ndarray:
    """Returns the ids of the k best places of each n-gram row, `[N, k]`."""
    vectors, at_once = class_vectors(state), 512
    empty = state.tables["ngrams"].shape[0]
    padded = np.pad(ids, ((0, -len(ids) % at_once), (0, 0)), constant_values=empty)

    @jax.jit
    def search(queries: Array) -> Array:
        return softmax.top_k(encode(state.tables["ngrams"], queries), vectors, k=k)[1]

    parts = range(0, len(padded), at_once)
    return np.concatenate([search(padded[i : i + at_once]) for i in parts])[: len(ids)]


def validation_losses(
    config: Config, state: train.State, ids: np.ndarray, places: np.ndarray
) -> float:
    """Returns the mean loss of the softmax over all places, which training estimates from candidates."""
    vectors = class_vectors(state)

    @jax.jit
    def loss(ids: Array, places: Array) -> Array:
        inputs = encode(state.tables["ngrams"], ids)
        return softmax.full_softmax_loss(inputs, places, vectors, temperature=config.temperature)

    size = 125  # The logits of so many aliases are 117 MB.
    parts = range(0, len(ids) - len(ids) % size or len(ids), size)
    return float(np.mean([loss(ids[i : i + size], places[i : i + size]).mean() for i in parts]))


def recall(right: np.ndarray, chosen: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """Returns P@1 and R@k of ranked answers `[N, k]`, each marked right or wrong."""
    names = {k: f"{'P' if k == 1 else 'R'}@{k}" for k in RECALL_AT}
    return {name: float(right[chosen, :k].any(axis=1).mean()) for k, name in names.items()}


def judge(names: geonames.GeoNames, ranked: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns the figures of a ranking of the held-out aliases.

    `strict` wants the place that the alias was held out of; `any` is content with any place of that very
    name. `without twin` are the aliases of which training has no spelling that differs only by accents,
    case, hyphens or spaces.
    """
    strict = ranked == names.place[names.test.pairs][:, None]
    any_bearer, alone = names.test.is_answer(ranked), ~names.test.has_twin
    return {
        "strict, all": recall(strict),
        "strict, without twin": recall(strict, alone),
        "any, all": recall(any_bearer),
        "any, without twin": recall(any_bearer, alone),
    }


# ------------------------------------------------------------------------------------------------- run


class Interrupted(Exception):
    """Training was asked to stop, and its checkpoint is on disk."""


def train_model(
    config: Config,
    aliases: Aliases,
    run_dir: Path,
    *,
    writer: reports.Writer,
    resume: bool,
    should_stop: Callable[[], bool],
) -> train.State:
    """Trains to the end, or until asked to stop; saves a checkpoint an epoch and at the end.

    Raises:
        Interrupted: after the checkpoint of a run that was asked to stop.
        checkpoint.CheckpointError: if one cannot be written or read.
    """
    names = aliases.names
    per_epoch = steps_per_epoch(config, names)
    kept = train.Checkpoints(run_dir / "checkpoints", every=1, keep=1)
    target = jax.eval_shape(lambda: initial_shapes(config, names))
    found = kept.restore({}, target) if resume else None
    state = initial_state(config, aliases) if found is None else found[0]
    task, optimizers = make_task(config, names.num_places), make_row_optimizers(config)
    program = train.repeat(train.make_step(task, row_optimizers=optimizers))
    validation = aliases.names.validation.pairs[: config.validate_on]
    clock = [time.perf_counter(), int(state.step)]

    def report(state: train.State, happened: train.Report) -> None:
        step, now = int(state.step), time.perf_counter()
        rate = (step - clock[1]) * config.batch_size / (now - clock[0])
        clock[:] = now, step
        writer.scalars(
            step,
            {
                "loss": happened.loss.mean(),
                "examples_per_second": rate,
                "learning_rate": config.learning_rate * (1 - step / config.num_steps),
                "accepted": happened.accepted.mean(),
            },
        )

    with kept:
        while int(state.step) < config.num_steps:
            epoch, within = divmod(int(state.position), per_epoch)
            if not within:  # cut the classes into neighbourhoods by their present vectors
                parts = softmax.neighbourhoods(
                    class_vectors(state),
                    jax.random.fold_in(state.key, epoch),
                    block_size=config.block_size,
                )
                sampler_state = {**state.sampler_state, "parts": parts}
                state = dataclasses.replace(state, sampler_state=sampler_state)
            state, next_batches = epoch_batches(config, aliases, state, epoch)
            state = train.run(
                program,
                state,
                next_batches,
                num_steps=min(config.num_steps, (epoch + 1) * per_epoch),
                on_reports=report,
                should_stop=should_stop,
            )
            step = int(state.step)
            kept.save(step, state)
            if should_stop() and step < config.num_steps:
                raise Interrupted
            loss = validation_losses(
                config, state, aliases.ngrams[validation], aliases.names.place[validation]
            )
            writer.scalars(step, {"validation_loss": loss})
            clock[0] = time.perf_counter()
    return state


def initial_shapes(config: Config, names: geonames.GeoNames) -> train.State:
    """Returns a state of the right structure and shapes, for `jax.eval_shape`."""
    ngram_table = tables.init_table(jax.random.key(0), config.num_buckets, config.dim)
    return train.create_state(
        jax.random.key(0),
        tables={"ngrams": ngram_table, "places": jnp.zeros((names.num_places, config.dim))},
        row_optimizers=make_row_optimizers(config),
        sampler_state=blank_sampler_state(config, names.num_places),
    )


def report_results(
    config: Config, aliases: Aliases, state: train.State, run_dir: Path
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Evaluates model and baseline on the held-out aliases; writes results.json and pictures.

    Returns:
        The results, and the baseline's ranking `[N, k]`, None without one.
    """
    names = aliases.names
    k = min(RECALL_AT[-1], names.num_places)
    started = time.perf_counter()
    ranked = rank_places(state, aliases.ngrams[names.test.pairs], k=k)
    results: dict[str, Any] = {
        "jaxml": judge(names, ranked),
        "seconds": {"search": time.perf_counter() - started},
    }
    found = None
    if config.baseline:
        started = time.perf_counter()
        train_names, queries = names.alias.take(names.train), names.alias.take(names.test.pairs)
        found = tfidf.tfidf_nearest_neighbour(train_names, names.place[names.train], queries, k=k)
        results["TF-IDF"] = judge(names, found)
        results["seconds"]["TF-IDF"] = time.perf_counter() - started
    methods = [name for name in ("jaxml", "TF-IDF") if name in results]
    for population in results["jaxml"]:
        rows = [[name, *results[name][population].values()] for name in methods]
        title = f"{len(names.test):,} held-out aliases: {population}"
        reports.table(title, ["method", *results["jaxml"][population]], rows)
    results["environment"] = reports.environment()
    files.write_json(run_dir / "results.json", results)

    run = reports.rundir.read(run_dir)
    reports.plots.loss_curves(
        {"resolver": (run.steps, run.losses, run.validation_steps, run.validations)},
        title=f"Softmax over {names.num_places:,} places: candidates in training, all in validation",
        ylabel="cross-entropy (nats)",
        path=run_dir / "loss.png",
    )
    figures = ("strict, all", "strict, without twin")
    reports.plots.bars(
        [f"{measure}\n{name}" for name in figures for measure in results["jaxml"][name]],
        {m: [value for name in figures for value in results[m][name].values()] for m in methods},
        ylabel="share of held-out aliases",
        title="Unseen spellings: is the place first, among ten, among a hundred?",
        path=run_dir / "results.png",
    )
    return results, found


# --------------------------------------------------------------------------------------- the candidate


def make_model(config: Config) -> Callable[[PyTree, PyTree], dict[str, Array]]:
    """Returns the model that is served: the most probable places of a name, and their probabilities."""

    def model(params: PyTree, features: PyTree) -> dict[str, Array]:
        inputs = encode(params["ngrams"], features["ids"]) / config.temperature
        shares, places = softmax.top_k_probabilities(
            inputs,
            params["places"],
            k=min(ANSWERS, len(params["places"])),
            block_size=8192,  # The number of rows is not known when the model is exported.
        )
        return {"place": places, "probability": shares}

    return model


def make_gate(baseline: bool) -> serving.Gate:
    """Returns what is asked of a resolver of all places before it answers."""
    return serving.Gate(
        task="top_k",
        label="place",
        output="place",
        baseline="TF-IDF" if baseline else None,
        thresholds=(
            serving.Threshold("precision@1", bound=0.5, change=0.01),
            serving.Threshold("recall@5", bound=0.7, change=0.01),
            serving.Threshold(
                "precision@1", bound=0.45, change=0.02, by="twin", values=("no", "yes")
            ),
            serving.Threshold("refused_rows", bound=0.01),
            serving.Threshold("latency_ms", bound=250.0),
            serving.Threshold("size_bytes", bound=300e6),
        ),
    )


def leave(
    config: Config,
    names: geonames.GeoNames,
    state: train.State,
    run_dir: Path,
    results: Mapping[str, Any],
    baseline: np.ndarray | None,
) -> serving.Bundle:
    """Writes the candidate of a run; returns its bundle.

    Args:
        config: of the run.
        names: the data.
        state: after training.
        run_dir: of the run.
        results: of `report_results`.
        baseline: TF-IDF's ranking of the test aliases.
    """
    test = names.test
    held_out = {
        "name": names.alias.take(test.pairs),
        "place": names.place[test.pairs],
        "twin": np.where(test.has_twin, "yes", "no"),
    }
    if baseline is not None:
        held_out["TF-IDF"] = baseline[:, 0]
    training = {"name": names.alias.take(names.train)}
    serving.leave(
        run_dir,
        held_out=held_out,
        gate=make_gate(baseline is not None),
        model=make_model(config),
        params={"ngrams": state.tables["ngrams"], "places": class_vectors(state)},
        pipeline=pipeline(config),
        schema=schema.infer_schema(training),
        training=training,
        name="geonames",
        labels={"place": list(map("{} ({})".format, names.name, names.country))},
        metrics=results["jaxml"]["strict, all"],
        max_batch=64,
    )
    return serving.load(run_dir / "candidate" / "bundle")


def check(config: Config) -> None:
    """Raises ValueError for a configuration that cannot be trained."""
    for name in ("num_steps", "batch_size", "num_sampled", "block_size", "dim", "validate_on"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if config.num_places is not None and config.num_places < 2:
        raise ValueError(f"num_places must be at least 2, got {config.num_places}")
    if not 0 <= config.ngram_dropout < 1:
        raise ValueError(f"ngram_dropout must be in [0, 1), got {config.ngram_dropout}")
    if not config.temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {config.temperature}")
    drawn = config.num_sampled // config.block_size
    if drawn < 1 or config.batch_size % drawn:
        raise ValueError(
            f"num_sampled // block_size must divide batch_size {config.batch_size}, "
            f"got {config.num_sampled} // {config.block_size} = {drawn}"
        )


def train_command(config: Config, *, run_dir: Path | None, resume: Path | None) -> None:
    """Trains a new run, or the rest of an interrupted one, and reports."""
    if resume is not None:
        config = read_config(resume)
    check(config)
    aliases = load_aliases(config)
    with reports.rundir.running(
        "geonames", config, path=resume or run_dir, resume=resume is not None
    ) as run_dir:
        print(f"run directory: {run_dir}")
        names = aliases.names
        print(f"{names.num_places:,} places, {len(names.train):,} aliases to learn from")
        start = max(checkpoint.steps(run_dir / "checkpoints"), default=0) if resume else None
        writer = reports.Writers(
            reports.ConsoleWriter(config.num_steps, batch_size=config.batch_size),
            reports.JsonlWriter(run_dir / "metrics.jsonl", resume_from_step=start),
            reports.TensorBoardWriter(run_dir / "tensorboard", resume_from_step=start),
        )
        started = time.perf_counter()
        try:
            with train.stop_on_signals() as should_stop:
                state = train_model(
                    config,
                    aliases,
                    run_dir,
                    writer=writer,
                    resume=resume is not None,
                    should_stop=should_stop,
                )
        finally:
            writer.close()
        print(f"trained in {time.perf_counter() - started:.0f} s")
        results, baseline = report_results(config, aliases, state, run_dir)
        bundle = leave(config, names, state, run_dir, results, baseline)
        for line in answers(bundle, EXAMPLE_QUERIES, k=3):
            print(line)
        print(f"pictures, record and checkpoint: {run_dir}")


# --------------------------------------------------------------------------------------------- resolve


def read_config(run_dir: Path) -> Config:
    """Returns the configuration that a run was started with.

    Raises:
        reports.RunDirectoryError: if it is no run of this experiment.
    """
    stored = reports.rundir.read(run_dir).config
    fields = {field.name for field in dataclasses.fields(Config)}
    if set(stored) != fields:
        raise reports.RunDirectoryError(f"{run_dir}: is no run of this experiment")
    return Config(**stored)


def answers(bundle: serving.Bundle, queries: Iterable[str], *, k: int) -> Iterator[str]:
    """Yields for each query a line with the k most probable places and their probabilities."""
    for query in queries:
        found = bundle.predict({"name": [query]})
        places = zip(found["place"][0, :k], found["probability"][0], strict=False)
        yield f"{query} -> " + ", ".join(f"{place} {share:.2f}" for place, share in places)


def resolve_command(run_dir: Path, queries: Sequence[str], *, k: int) -> None:
    """Resolves names with a finished run; without names, each line of standard input that is not empty."""
    read_config(run_dir)
    if not 1 <= k <= ANSWERS:
        raise ValueError(f"k must be from 1 to {ANSWERS}, got {k}")
    bundle = serving.load(run_dir / "candidate" / "bundle")
    asked = (query.strip() for query in queries or sys.stdin)
    for line in answers(bundle, filter(None, asked), k=k):
        print(line, flush=True)


# -------------------------------------------------------------------------------------- command line


@dataclasses.dataclass(frozen=True)
class Train(Config):
    """Train the place-name resolver. `resolve --help` shows how to use a finished run."""

    run_dir: Path | None = None
    """Directory of the run; None for runs/geonames/<time>."""
    resume: Path | None = None
    """Continue this run, with its own configuration, from its last checkpoint."""


@dataclasses.dataclass(frozen=True)
class Resolve:
    """Resolve names with a finished run: the most probable places of each, with probabilities."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names to resolve; without any, the lines of standard input."""
    k: int = ANSWERS
    """Places shown for a name, at most five."""


def main(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit code: 0, 2 for bad input, 130 if interrupted."""
    try:
        if arguments and arguments[0] == "resolve":
            asked = tyro.cli(
                Resolve, args=arguments[1:], prog="python -m experiments.geonames resolve"
            )
            resolve_command(asked.run, asked.names, k=asked.k)
            return 0
        bench.compilation_cache()
        arguments = arguments[1:] if arguments and arguments[0] == "train" else arguments
        chosen = tyro.cli(Train, args=arguments, prog="python -m experiments.geonames")
        options = dataclasses.asdict(chosen)
        run_dir, resume = options.pop("run_dir"), options.pop("resume")
        train_command(Config(**options), run_dir=run_dir, resume=resume)
        return 0
    except Interrupted:
        print("stopped; the checkpoint is saved: continue with --resume and the run directory")
        return 130
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (packages.DataMissing, checkpoint.CheckpointError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
