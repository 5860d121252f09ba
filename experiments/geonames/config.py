"""The options of a training."""

import dataclasses
from pathlib import Path

from jaxml import reports


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
