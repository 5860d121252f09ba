"""Every public function under `jax_enable_x64`: same values, same dtypes, same draws.

Each case of `CASES` is computed without the flag and with it. Inputs and labels of a case are NumPy's
default dtypes, which JAX then reads as 64 bits; parameters and tables are float32, as they are documented.
A new public name has a case here, or is one of those that compute nothing with JAX.
"""

import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import bfloat16, ids, losses, metrics, models, monitor, softmax, tables, train, trees
from jaxml.metrics import streaming

PACKAGES = ("losses", "softmax", "tables", "metrics", "metrics.streaming", "models", "train",
            "monitor", "trees")  # fmt: skip

WITHOUT_JAX = (
    """
    losses.balanced_class_weights losses.kernels_only
    softmax.recommend tables.EMPTY_ID
    models.ACTIVATIONS models.INITIALIZERS models.split_variables
    train.choice train.grid train.log_uniform train.uniform train.stop_on_signals
    monitor.ACTIVITY monitor.STATISTICS monitor.SYMPTOMS monitor.diagnose
    monitor.diagnose_loss_curve monitor.inspect monitor.is_suspicious monitor.layout monitor.remedy
    trees.num_bytes trees.num_parameters
""".split()
    + [
        f"metrics.{name}"
        for name in metrics.__all__
        if name not in ("streaming", "bootstrap", "by_slice", "collection", "all_reduce")
    ]
)
"""Names that compute on the host."""

TYPES = """
    softmax.AdaptiveSoftmax softmax.Candidates softmax.Gap softmax.Neighbourhoods
    softmax.Recommendation softmax.Sampler softmax.Setup
    tables.RowGradient tables.RowOptimizer
    metrics.streaming streaming.Accumulator streaming.BoundedAuc
    models.Layer models.Listener models.Model models.Seen
    train.Bags train.EarlyStopping train.Fit train.Monitor train.Report train.RowSchedule train.State
    train.Sweep train.Task train.TrainState train.Trial train.Whole
    monitor.Activity monitor.After monitor.DataReport monitor.Finding monitor.FindingsWarning
    monitor.GuardState monitor.History monitor.Layout monitor.Remedy monitor.Symptom monitor.Verdict
""".split()
"""Names that others take or return."""

random = np.random.default_rng(0)


def numbers(*shape):
    """Float64, exact in float32."""
    return random.normal(size=shape).astype(np.float32).astype(np.float64)


N, D, C = 6, 4, 10
X, SCORES, TARGETS = numbers(N, D), numbers(N, C), numbers(N)
IDS, BINARY, WEIGHTS = random.integers(0, C, N), np.arange(N) % 2, np.ones(N) / 4
KEPT = np.arange(N) != 2
TABLE, BIASES = numbers(C, D).astype(np.float32), numbers(C).astype(np.float32)
PROBABILITIES = np.round(random.random(N), 3).astype(np.float32).astype(np.float64)


def graded(function, inputs, *rest, **options):
    """The value at float64 inputs, and the gradient at float32 ones."""
    of = lambda x: function(x, *rest, **options)  # noqa: E731
    both = jax.jit(lambda x, narrow: (of(x), jax.grad(lambda x: jnp.sum(of(x)))(narrow)))
    return both(jnp.asarray(inputs), jnp.asarray(inputs, jnp.float32))


def of_loss(loss, outputs, targets, **options):
    def both(x):
        return loss(x, targets, where=KEPT, **options), loss(x, jnp.asarray(targets), **options)

    return graded(lambda x: jnp.stack(both(x)), outputs)


LOSSES = {
    "losses.absolute": lambda: of_loss(losses.absolute, TARGETS, numbers_like(TARGETS)),
    "losses.distillation": lambda: graded(
        losses.distillation, SCORES, SCORES[::-1], IDS, alpha=0.3, temperature=2.0, where=KEPT
    ),
    "losses.focal": lambda: of_loss(losses.focal, TARGETS, BINARY, alpha=0.3),
    "losses.hint": lambda: of_loss(losses.hint, X, X[::-1], projection=X[:D]),
    "losses.huber": lambda: of_loss(losses.huber, TARGETS, numbers_like(TARGETS)),
    "losses.one_vs_all": lambda: of_loss(losses.one_vs_all, SCORES, IDS),
    "losses.quantile": lambda: of_loss(losses.quantile, TARGETS, numbers_like(TARGETS)),
    "losses.sigmoid_binary_cross_entropy": lambda: of_loss(
        losses.sigmoid_binary_cross_entropy, TARGETS, BINARY
    ),
    "losses.soft_targets": lambda: of_loss(losses.soft_targets, SCORES, SCORES[::-1].copy()),
    "losses.softmax_cross_entropy": lambda: (
        of_loss(losses.softmax_cross_entropy, SCORES, IDS),
        of_loss(losses.softmax_cross_entropy, SCORES, IDS, label_smoothing=0.1),
        of_loss(losses.softmax_cross_entropy, SCORES, np.eye(C)[IDS]),
    ),
    "losses.squared": lambda: of_loss(losses.squared, TARGETS, numbers_like(TARGETS)),
    "losses.teacher_ensemble": lambda: graded(losses.teacher_ensemble, SCORES, temperature=2.0),
    "losses.weighted": lambda: of_loss(
        losses.weighted(losses.softmax_cross_entropy, np.arange(C) / 4), SCORES, IDS
    ),
    "losses.l1": lambda: graded(losses.l1, X, 0.3),
    "losses.l2": lambda: graded(losses.l2, X, 0.3),
    "losses.proximal_l1": lambda: updated(
        optax.chain(optax.sgd(0.1), losses.proximal_l1(optax.constant_schedule(0.1), 0.5))
    ),
}


def numbers_like(values):
    return values[::-1] / 2


def updated(optimizer):
    params = {"w": jnp.asarray(X, jnp.float32)}

    @jax.jit
    def run(params):
        def step(carry, gradient):
            updates, state = optimizer.update({"w": gradient}, carry[1], carry[0], value=carry[2])
            return (optax.apply_updates(carry[0], updates), state, carry[2]), None

        start = (params, optimizer.init(params), jnp.float32(1))
        return jax.lax.scan(step, start, jnp.asarray(numbers(3, N, D), jnp.float32) * 0 + 1)[0]

    return run(params)


def of_layer(loss, *arguments, labels=IDS, **options):
    """Value and gradients of an output layer, with float64 inputs, and with several true classes."""
    table, several = jnp.asarray(TABLE), np.stack([IDS, (IDS + 1) % C], 1)
    of = lambda x, w, b, y: loss(x, y, w, b, *arguments, **options)  # noqa: E731
    total = lambda *given: jnp.sum(of(*given))  # noqa: E731
    narrow = (X.astype(np.float32), table, BIASES, several)
    both = jax.jit(lambda wide, narrow: (of(*wide), jax.grad(total, (0, 1, 2))(*narrow)))
    return both((jnp.asarray(X), table, BIASES, jnp.asarray(labels)), narrow)


def candidates():
    return softmax.Candidates(np.array([1, 3, 3, 7]), np.array([0.5, 1, 1, 2]), np.ones(N) / 2)


def of_candidates(loss, **options):
    table = jnp.asarray(TABLE)
    of = lambda x, w: loss(x, IDS, w, jnp.asarray(BIASES), candidates(), **options)  # noqa: E731
    gradient = jax.grad(lambda x, w: of(x, w).sum(), (0, 1))
    both = jax.jit(lambda x, narrow, w: (of(x, w), gradient(narrow, w)))
    return both(jnp.asarray(X), X.astype(np.float32), table)


def of_rows():
    rows, sampled = TABLE[IDS], TABLE[[1, 3, 3, 7]]
    loss = lambda x, r, s: softmax.sampled_softmax_loss_from_rows(  # noqa: E731
        x, r, s, IDS, candidates(), num_classes=C
    )
    total = lambda *given: loss(*given).sum()  # noqa: E731
    both = jax.jit(lambda x, *narrow: (loss(x, *narrow[1:]), jax.grad(total, (0, 1, 2))(*narrow)))
    return both(jnp.asarray(X), X.astype(np.float32), rows, sampled)


def of_update(labels=IDS):
    optimizer = tables.adagrad(0.1)
    state = optimizer.init(jnp.asarray(TABLE))
    step = lambda x, y, table, state: softmax.blockwise_softmax_update(  # noqa: E731
        x, y, table, state, optimizer.rule, biases=BIASES, label_smoothing=0.1, block_size=4
    )
    return jax.jit(step)(X.astype(np.float32), jnp.asarray(labels), jnp.asarray(TABLE), state)


def of_adaptive(layer):
    params = layer.init(jax.random.key(0), D)
    total = lambda params, x: layer.loss(params, x, IDS).sum()  # noqa: E731

    @jax.jit
    def every(params, x, ids, narrow):
        loss, gradient = layer.loss(params, x, ids), jax.grad(total, (0, 1))(params, narrow)
        return loss, gradient, layer.log_prob(params, x), layer.top_k(params, x, 3)

    return params, every(params, jnp.asarray(X), jnp.asarray(IDS), X.astype(np.float32))


def of_sampler(name):
    """Draws, counts and states of a sampler, as the registry sets it up."""

    def case():
        setup = softmax.SAMPLERS[name](np.arange(C, 0, -1), N, 4)
        sampler, key = setup.sampler, jax.random.key(1)
        inputs = jnp.asarray(X) if setup.follows_model else None
        state = sampler.init(jnp.asarray(TABLE, float) if setup.follows_model else None)
        found = []
        for labels in (IDS, (IDS * 3) % C):
            drawn = sampler.sample(
                state, key, jnp.asarray(labels), setup.num_sampled, unique=setup.unique,
                where=KEPT, inputs=inputs,
            )  # fmt: skip
            found.append((drawn, sampler.probability(state, labels, inputs=inputs)))
            state = sampler.update(state, jnp.asarray(labels), where=KEPT)
        return found, state

    return case


def of_teacher():
    drawn, ids = candidates(), np.stack([IDS, (IDS + 1) % C], -1)
    rows, sampled = TABLE[ids], TABLE[np.asarray(drawn.ids)]
    loss = lambda x, s: softmax.sampled_distillation_loss_from_rows(  # noqa: E731
        x, rows, s, ids, np.full(ids.shape, 0.25), drawn, num_classes=C
    )
    return graded(loss, X, sampled)


def of_gap():
    sampler = softmax.uniform(C)
    found = lambda x, y: softmax.estimate_gap(  # noqa: E731
        x, y, jnp.asarray(TABLE), BIASES, sampler, (), jax.random.key(0), 4, 3, gradients="inputs"
    )
    return jax.jit(found)(jnp.asarray(X), jnp.asarray(IDS))


def of_neighbourhoods():
    parts = softmax.neighbourhoods(jnp.asarray(TABLE, float), jax.random.key(0), block_size=3)
    blocks = jnp.array([0, 2])
    share = jnp.ones(len(parts.members)) / len(parts.members)
    labels = parts.members[blocks].reshape(-1)[:3]
    return parts, softmax.neighbourhood_candidates(parts, blocks, share, labels)


SOFTMAX = {
    **{f"softmax.{name}": of_sampler(name) for name in softmax.SAMPLERS if name in softmax.__all__},
    "softmax.SAMPLERS": lambda: [
        of_sampler(name)() for name in softmax.SAMPLERS if name not in softmax.__all__
    ],
    "softmax.adaptive_softmax": lambda: of_adaptive(
        softmax.adaptive_softmax([3, C], head_bias=True)
    ),
    "softmax.two_level_softmax": lambda: of_adaptive(softmax.two_level_softmax(C)),
    "softmax.full_softmax_loss": lambda: of_layer(
        softmax.full_softmax_loss, temperature=0.7, softcap=3.0, label_smoothing=0.1, z_loss=1e-3
    ),
    "softmax.blockwise_softmax_loss": lambda: of_layer(
        softmax.blockwise_softmax_loss, block_size=4, temperature=0.7, softcap=3.0,
        label_smoothing=0.1, z_loss=1e-3, reduction="mean",
    ),
    "softmax.blockwise_softmax_update": of_update,
    "softmax.one_vs_all_loss": lambda: of_layer(softmax.one_vs_all_loss, block_size=4),
    "softmax.per_example_sampled_softmax_loss": lambda: of_layer(
        softmax.per_example_sampled_softmax_loss, softmax.uniform(C), (), jax.random.key(0), 3
    ),
    "softmax.sampled_softmax_loss": lambda: of_candidates(
        softmax.sampled_softmax_loss, temperature=0.7, num_hard=2
    ),
    "softmax.sampled_softmax_loss_from_rows": of_rows,
    "softmax.sampled_distillation_loss_from_rows": of_teacher,
    "softmax.nce_loss": lambda: of_candidates(softmax.nce_loss),
    "softmax.sampled_logistic_loss": lambda: of_candidates(softmax.sampled_logistic_loss),
    "softmax.estimate_gap": of_gap,
    "softmax.neighbourhoods": of_neighbourhoods,
    "softmax.neighbourhood_candidates": of_neighbourhoods,
    "softmax.top_k": lambda: softmax.top_k(
        jnp.asarray(X), jnp.asarray(TABLE, float), jnp.asarray(BIASES), k=3, block_size=4
    ),
    "softmax.top_k_probabilities": lambda: softmax.top_k_probabilities(
        jnp.asarray(X), jnp.asarray(TABLE, float), jnp.asarray(BIASES), k=3, block_size=4
    ),
}  # fmt: skip


def of_row_optimizer(optimizer):
    """Two updates of a table in blocks, with bags, duplicates and ids out of range."""
    some = np.array([[3, 1], [3, -1], [7, C], [1, 1]])
    values = numbers_like(TABLE[:4])

    def run(table):
        state = optimizer.init(table)
        for gradient in (
            tables.RowGradient(jnp.asarray(some), jnp.asarray(values, float)),
            tables.coalesce(tables.RowGradient(jnp.asarray(some[:, 0]), jnp.asarray(values))),
        ):
            table, state = optimizer.update(gradient, state, table)
        return table, state, optimizer.rule(table, state, jnp.ones(table.shape, jnp.float32))

    return jax.jit(run)(jnp.asarray(TABLE))


def of_large_row_update():
    table, key = jnp.zeros((9000, 1), jnp.float32), jax.random.key(0)
    gradient = tables.RowGradient(jnp.arange(9000) % 5000, jnp.ones((9000, 1)))
    optimizer = tables.adam(0.1)
    narrow = tables.to_storage(table, "uint16")
    return (
        jax.jit(optimizer.update)(gradient, optimizer.init(table), table),
        jax.jit(optimizer.update)(gradient, optimizer.init(narrow), narrow, key=key),
    )


TABLES = {
    "tables.adagrad": lambda: of_row_optimizer(tables.adagrad(0.1)),
    "tables.adam": of_large_row_update,
    "tables.rowwise_adagrad": lambda: of_row_optimizer(tables.rowwise_adagrad(jnp.asarray(0.1))),
    "tables.sgd": lambda: of_row_optimizer(tables.sgd(jnp.asarray(0.1))),
    "tables.coalesce": lambda: tables.coalesce(
        tables.RowGradient(jnp.asarray([[3, 1], [3, -1]]), jnp.asarray(numbers_like(TABLE[:2])))
    ),
    "tables.from_storage": lambda: tables.from_storage(tables.to_storage(TABLE, "bfloat16")),
    "tables.to_storage": lambda: (
        tables.to_storage(jnp.asarray(X), "uint16", key=jax.random.key(0)),
        tables.to_storage(jnp.asarray(X), "float16"),
    ),
    "tables.storage_dtype": lambda: np.zeros(1, tables.storage_dtype("bfloat16")),
    "tables.gather_rows": lambda: tables.gather_rows(jnp.asarray(TABLE), np.array([3, -1, 2**40])),
    "tables.gather_bags": lambda: jax.jit(tables.gather_bags)(
        jnp.asarray(TABLE), jnp.asarray([[3, -1], [C, 2]])
    ),
    "tables.init_table": lambda: [
        tables.init_table(jax.random.key(0), 4100, 3, dtype=dtype, distribution=distribution)
        for dtype in ("float32", "bfloat16")
        for distribution in ("normal", "uniform")
    ],
}


def of_metric(metric, labels, scores):
    state = metric.update(metric.empty(), jnp.asarray(labels), jnp.asarray(scores))
    more = metric.update(state, labels, scores, WEIGHTS, KEPT)
    both = metric.merge(state, more)
    return both, metric.compute(both)


def streamed(name, scores=PROBABILITIES, labels=BINARY, **options):
    return lambda: of_metric(getattr(streaming, name)(**options), labels, scores)


def shared():
    metric = streaming.accuracy()

    def share(labels, scores):
        return metrics.all_reduce(metric, metric.update(metric.empty(), labels, scores), "devices")

    return jax.vmap(share, axis_name="devices")(
        jnp.asarray(BINARY).reshape(2, -1), jnp.asarray(PROBABILITIES).reshape(2, -1)
    )


def intervals():
    labels, scores = np.arange(300) % 2, (np.arange(300) * 7 % 11) / 10
    options = {"key": jax.random.key(0), "num_samples": 20}
    return [
        metrics.bootstrap(metric, labels[:n], scores[:n], **options)
        for metric in (streaming.accuracy(), metrics.accuracy)
        for n in (300, 60)
    ]


METRICS = {
    **{
        f"streaming.{name}": streamed(name)
        for name in (
            "average_precision brier calibration_error confusion_counts f_beta false_positive_rate "
            "log_loss precision precision_recall_curve prediction_bias recall reliability_diagram "
            "roc_auc roc_auc_with_bound roc_curve threshold_counts"
        ).split()
    },
    "streaming.accuracy": lambda: [
        streamed("accuracy", SCORES, IDS)(),
        streamed("accuracy", IDS[::-1], IDS)(),
        streamed("log_loss", SCORES, IDS, from_logits=True)(),
    ],
    "streaming.confusion_matrix": lambda: [
        streamed("confusion_matrix", IDS[::-1], IDS, num_classes=C)(),
        streamed("confusion_matrix", SCORES, IDS, num_classes=C)(),
    ],
    "streaming.top_k_accuracy": streamed("top_k_accuracy", SCORES, IDS, k=2),
    "streaming.mean_absolute_error": streamed("mean_absolute_error", TARGETS, X[:, 0]),
    "streaming.mean_squared_error": streamed("mean_squared_error", TARGETS, X[:, 0]),
    "streaming.root_mean_squared_error": streamed("root_mean_squared_error", TARGETS, X[:, 0]),
    "metrics.all_reduce": shared,
    "metrics.bootstrap": intervals,
    "metrics.by_slice": lambda: list(
        metrics.by_slice(
            streaming.accuracy(), BINARY, PROBABILITIES, KEPT, key=jax.random.key(0), num_samples=9
        ).values()
    ),
    "metrics.collection": lambda: of_metric(
        metrics.collection({"a": streaming.accuracy(), "b": streaming.brier()}),
        BINARY, PROBABILITIES,
    ),
}  # fmt: skip


def of_module(module, x):
    model = models.from_linen(module)
    variables = model.init(jax.random.key(0), x)
    return variables, model.apply(variables, x, key=jax.random.key(1), training=True)


class Recurrent(nn.Module):
    """Of one cell."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.RNN(nn.GRUCell(3))(x)[:, -1])[:, 0]


def squared(outputs, labels):
    return jnp.square(outputs - labels)


def listened():
    module, x = Recurrent(), jnp.asarray(numbers_like(SEQUENCES), jnp.float32)
    listener, variables = models.listen(module), module.init(jax.random.key(0), x)
    taps = listener.taps(variables, x)
    of = lambda taps: listener.apply(variables, taps, x)[0].sum()  # noqa: E731
    return listener.apply(variables, taps, x), jax.grad(of)(taps)


SEQUENCES = numbers(N, 3, 2)

MODELS = {
    "models.activate": lambda: [
        models.activate(jnp.asarray(X, jnp.float32), name) for name in models.ACTIVATIONS
    ],
    "models.initializer": lambda: [
        models.initializer(
            (name, 0.5) if name in ("constant", "variance_scaling_normal") else name
        )(jax.random.key(0), (3, 4))
        for name in models.INITIALIZERS
    ],
    "models.unit_norm": lambda: models.unit_norm(jnp.asarray(X)),
    "models.Linear": lambda: of_module(models.Linear(2), X.astype(np.float32)),
    "models.MLP": lambda: [
        of_module(models.MLP((3,), 2, "prelu", "he_normal", kind, 0.5), X.astype(np.float32))
        for kind in ("none", "layer", "batch")
    ],
    "models.Embedding": lambda: of_module(models.Embedding(C, 3), jnp.asarray(IDS)),
    "models.TabularMLP": lambda: of_module(
        models.TabularMLP((C, C), 2, (3,), 1),
        {"dense": X.astype(np.float32), "ids": np.stack([IDS, IDS], 1)},
    ),
    "models.Recurrent": lambda: [
        of_module(models.Recurrent(cell, 3, 2, dropout=0.5), np.stack([X, X]).astype(np.float32))
        for cell in ("lstm", "gru", "mingru", "lru")
    ],
    "models.from_linen": lambda: of_module(nn.Dense(2), X.astype(np.float32)),
    "models.listen": listened,
}


def guarded():
    return updated(monitor.guard(optax.adam(0.1)))


def recorded_activity():
    module, batch = Recurrent(), {"x": SEQUENCES.astype(np.float32), "y": jnp.asarray(TARGETS)}
    variables = module.init(jax.random.key(0), batch["x"])
    recorder = monitor.Recorder(module, squared, variables, batch["x"], every=2)
    observe = jax.jit(lambda step: recorder.observe(
        variables["params"], {}, jax.random.key(0), step, batch
    ))  # fmt: skip
    return observe(jnp.int32(2)), observe(jnp.int32(3))


def final_diagnostics():
    module = models.Linear(1, squeeze=True)
    model, optimizer = models.from_linen(module), optax.adam(0.1)
    first = module.init(jax.random.key(0), jnp.asarray(X))["params"]
    last = jax.tree.map(lambda leaf: leaf + 0.1, first)

    def compute(params, model_state, x, y, key, training):
        outputs, state = model.apply({"params": params, **model_state}, x)
        return squared(outputs, y), outputs, state

    after = monitor.FinalDiagnostics(compute, squared, lambda _: optimizer).measure(
        (X, TARGETS), first=(first, {}), last=(last, {}),
        opt_state=monitor.guard(optimizer).init(last), seed=0, curved=True,
    )  # fmt: skip
    return {**vars(after), "equal_units": (), "further": list(after.further.values())}


MONITOR = {
    "monitor.guard": guarded,
    "monitor.is_guarded": guarded,
    "monitor.verdict": lambda: monitor.verdict(guarded()[1]),
    "monitor.Recorder": recorded_activity,
    "monitor.FinalDiagnostics": final_diagnostics,
    "monitor.held_out_signal": lambda: monitor.held_out_signal(
        lambda w, x, y: squared(x @ w, y), jnp.asarray(X[0], jnp.float32), jnp.asarray(X),
        jnp.asarray(TARGETS),
    ),
    "monitor.preserving_penalty": lambda: monitor.preserving_penalty(Recurrent(), squared)(
        Recurrent().init(jax.random.key(0), jnp.asarray(SEQUENCES, jnp.float32)),
        jnp.asarray(SEQUENCES, jnp.float32), jnp.asarray(TARGETS),
    ),
}  # fmt: skip

DATA = (numbers(40, D), random.integers(0, 3, 40))
TRAINING = {"num_steps": 12, "batch_size": 8}


def fitted(**options):
    found = train.fit(
        models.MLP((4,), 3, dropout=0.2, normalization="batch"), losses.softmax_cross_entropy,
        optax.sgd(0.01), DATA, **TRAINING, key=jax.random.key(0), validation_data=DATA,
        early_stopping=train.EarlyStopping(3, 4), **options,
    )  # fmt: skip
    return result(found), found.predict(DATA[0]), found.evaluate(*DATA)


def result(found):
    return (
        found.params,
        found.model_state,
        found.opt_state,
        found.loss_curve,
        found.validation_curve,
    )


class WithDropout(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not training)(x))


def swept(search, **options):
    found = search(
        WithDropout(), losses.softmax_cross_entropy, lambda h: optax.sgd(h["learning_rate"]),
        DATA, space={"learning_rate": [0.01, 0.1]}, seeds=2, key=jax.random.key(0), **TRAINING,
        **options,
    )  # fmt: skip
    return [result(trial.fit) for trial in found.trials]


def with_checkpoints(directory):
    for steps in (6, 12):
        with train.Checkpoints(directory, every=6) as kept:
            found = train.fit(
                models.Linear(3), losses.softmax_cross_entropy, optax.sgd(0.1), DATA,
                num_steps=steps, batch_size=8, key=jax.random.key(0), checkpoints=kept, monitor=False,
            )  # fmt: skip
    return result(found)


def of_steps():
    """Steps with a table, a sampler and a dense layer, one by one and repeated."""
    sampler, optimizer = softmax.queue(C, 4), monitor.guard(optax.adam(0.1))

    def lookup(batch, state, key):
        drawn = sampler.sample(state, key, batch["y"], 4)
        return {"classes": {"true": batch["y"], "drawn": drawn.ids}}, drawn

    def loss(params, model_state, rows, batch, drawn, key):
        rows = rows["classes"]
        each = softmax.sampled_softmax_loss_from_rows(
            batch["x"] @ params["w"], rows["true"], rows["drawn"], batch["y"], drawn, num_classes=C
        )
        return each.mean(), (model_state, {})

    task = train.Task(
        loss, lookup, lambda state, batch, accepted: sampler.update(
            state, batch["y"], where=jnp.broadcast_to(accepted, batch["y"].shape))
    )  # fmt: skip
    rows = {"classes": lambda step: tables.adagrad(0.1)}
    step = train.make_step(task, optimizer=optimizer, row_optimizers=rows)

    def start():
        return train.create_state(
            jax.random.key(0), params={"w": jnp.eye(D, dtype=jnp.float32)}, optimizer=optimizer,
            tables={"classes": jnp.asarray(TABLE)}, row_optimizers=rows,
            sampler_state=sampler.init(),
        )  # fmt: skip

    batches = {"x": np.stack([X] * 3), "y": np.stack([IDS] * 3)}
    program = train.repeat(step)
    state = train.run(
        program, start(), lambda at, count: jax.tree.map(lambda leaf: leaf[:count], batches),
        num_steps=3, steps_per_call=2,
    )  # fmt: skip
    return state, program(start(), batches, 3)


def with_recorder():
    module, optimizer = models.MLP((4,), 1), monitor.guard(optax.sgd(0.1))
    loss = lambda outputs, labels: squared(outputs[:, 0], labels)  # noqa: E731
    model = models.from_linen(module)
    params = model.init(jax.random.key(0), X)["params"]

    def of(params, model_state, rows, batch, context, key):
        outputs, _ = model.apply({"params": params}, batch["x"])
        return loss(outputs, batch["y"]).mean(), (model_state, {})

    recorder = monitor.Recorder(module, loss, {"params": params}, X)
    step = train.recorded(train.make_step(train.Task(of), optimizer=optimizer), recorder)
    state = train.create_state(
        jax.random.key(0), params=params, model_state={}, optimizer=optimizer
    )
    return jax.jit(step)(state, {"x": jnp.asarray(X), "y": jnp.asarray(TARGETS)})


TRAIN = {
    "train.fit": lambda: fitted(monitor=train.Monitor(every=2, on_bad_data="drop")),
    "train.Checkpoints": with_checkpoints,
    "train.sweep": lambda: swept(train.sweep, validation_data=DATA, monitor=False),
    "train.successive_halving": lambda: swept(
        train.successive_halving, factor=2, rungs=1, monitor=False
    ),
    "train.verify_signal": lambda: train.verify_signal(
        models.Linear(3), losses.softmax_cross_entropy, optax.sgd(0.1), DATA, **TRAINING,
        key=jax.random.key(0),
    ),
    "train.random_space": lambda: train.random_space(
        jax.random.key(0), 3, {"rate": train.log_uniform(1e-3, 1)}
    ),
    "train.make_step": of_steps,
    "train.create_state": of_steps,
    "train.repeat": of_steps,
    "train.run": of_steps,
    "train.recorded": with_recorder,
    "train.all_finite": lambda: train.all_finite(jnp.asarray(1.0), {"w": jnp.asarray(X)}),
}  # fmt: skip

TREE = {"w": X, "n": IDS}
TREES = {
    "trees.all_finite": lambda: trees.all_finite(jax.tree.map(jnp.asarray, TREE)),
    "trees.global_norm": lambda: graded(lambda x: trees.global_norm({"x": x}), X),
    "trees.norm": lambda: trees.norm(jnp.asarray(X), axis=1),
    "trees.select": lambda: trees.select(KEPT.all(), {"w": TABLE}, {"w": -TABLE}),
    "trees.stays_finite": lambda: trees.stays_finite(
        {"w": jnp.asarray(X)}, {"w": jnp.asarray(X, jnp.float32)}
    ),
    "trees.stack": lambda: trees.stack([{"w": TABLE}] * 2),
    "trees.take": lambda: trees.take({"w": jnp.asarray(TABLE)}, jnp.asarray(IDS)),
    "ids.as_int32": lambda: [
        ids.as_int32("ids", given, C) for given in (IDS, jnp.asarray(IDS), [2**40], np.uint8(3))
    ],
    "bfloat16.from_bits": lambda: bfloat16.from_bits(bfloat16.to_dtype(jnp.asarray(X), "uint16")),
    "bfloat16.to_dtype": lambda: bfloat16.to_dtype(jnp.asarray(X), "float16"),
}

CASES = {**LOSSES, **SOFTMAX, **TABLES, **METRICS, **MODELS, **MONITOR, **TRAIN, **TREES}


def test_every_public_name_has_a_case():
    public = [
        f"{package.split('.')[-1]}.{name}"
        for package in PACKAGES
        for name in importlib.import_module(f"jaxml.{package}").__all__
    ]
    public += ["ids.as_int32", "bfloat16.from_bits", "bfloat16.to_dtype"]
    listed = [*CASES, *WITHOUT_JAX, *TYPES]
    assert len(listed) == len(set(listed))
    assert set(public) == set(listed)


def host(leaf):
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


computed = {}


# The others take a minute of compiling; all run in `make test-all`.
QUICK = [name for name in CASES if name.split(".")[0] in ("losses", "tables", "trees", "monitor")]
QUICK += ["softmax.sampled_softmax_loss", "softmax.top_k", "models.MLP"]
QUICK.remove("monitor.held_out_signal")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_values_and_draws_do_not_depend_on_the_flag(name, tmp_path):
    if CASES[name] not in computed:  # Some names have their case in common.
        computed[CASES[name]] = []
        for flag in (False, True):
            with jax.enable_x64(flag):
                given = [tmp_path / str(flag)] if name == "train.Checkpoints" else []
                computed[CASES[name]].append(jax.tree.map(host, CASES[name](*given)))
    found = computed[CASES[name]]
    narrow, wide = (jax.tree_util.tree_leaves_with_path(each) for each in found)
    assert [path for path, _ in narrow] == [path for path, _ in wide]
    for (path, one), (_, other) in zip(narrow, wide, strict=True):
        where = jax.tree_util.keystr(path)
        assert one.dtype == other.dtype, where
        if one.dtype.kind in "biuSU":
            np.testing.assert_array_equal(other, one, err_msg=where)
        else:
            one, other = one.astype(np.float64), other.astype(np.float64)
            np.testing.assert_allclose(other, one, rtol=3e-5, atol=3e-6, err_msg=where)
