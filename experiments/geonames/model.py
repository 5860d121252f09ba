"""The model: vectors of n-grams and of places, and the loss of a batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.geonames.config import Config
from experiments.geonames.data import Aliases
from jaxml import models, softmax, tables, train
from jaxml.data import geonames
from jaxml.types import Array, PyTree


def make_task(config: Config, num_places: int) -> train.Task:
    """Returns the rows that a batch needs, and its loss.

    A batch holds `ngrams` int32 [B, L], `labels` int32 [B] (-1 where a team is not full) and `blocks`
    int32 [K]; a student's also `taught`, places int32 [B, k] and their probabilities.
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
        true = batch["taught"][0] if "taught" in batch else labels
        places = {"true": true, "candidates": candidates.ids[0]}
        return {"ngrams": bags, "places": places}, candidates

    def loss(params, model_state, rows, batch, candidates, key):
        labels = batch["labels"]
        vectors = jax.tree.map(models.unit_norm, rows)
        true, candidate_rows = vectors["places"]["true"], vectors["places"]["candidates"]
        options: dict[str, Any] = {
            "temperature": config.temperature,
            "where": labels >= 0,
            "num_classes": num_places,
        }
        if "taught" in batch:
            ids, probabilities = batch["taught"]
            losses = softmax.sampled_distillation_loss_from_rows(
                vectors["ngrams"], true, candidate_rows, ids, probabilities, candidates, **options
            )
        else:
            losses = softmax.sampled_softmax_loss_from_rows(
                vectors["ngrams"],
                true,
                candidate_rows,
                labels,
                candidates,
                correction="negatives",
                **options,
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


def initial_shapes(config: Config, names: geonames.GeoNames) -> train.State:
    """Returns a state of the right structure and shapes, for `jax.eval_shape`."""
    ngram_table = tables.init_table(jax.random.key(0), config.num_buckets, config.dim)
    return train.create_state(
        jax.random.key(0),
        tables={"ngrams": ngram_table, "places": jnp.zeros((names.num_places, config.dim))},
        row_optimizers=make_row_optimizers(config),
        sampler_state=blank_sampler_state(config, names.num_places),
    )
