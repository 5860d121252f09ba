"""Activity of layers against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxml import models, monitor


class Network(nn.Module):
    """One layer of each activation, the second with two dead units."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(20 * nn.Dense(6, name="tanh")(x))
        x = nn.relu(nn.Dense(6, name="relu", bias_init=nn.initializers.constant(-9))(x))
        x = nn.sigmoid(nn.Dense(6, name="sigmoid")(x))
        return nn.Dense(2, name="output")(x)


def test_activity_against_numpy():
    model = Network()
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    dead = variables["params"]["relu"]
    dead["bias"] = jnp.array([-9.0, -9, 0, 0, 0, 0])
    recorder = monitor.Recorder(model, lambda o, y: jnp.square(o).sum(-1), variables, x, every=2)

    def observe(step):
        batch = {"x": x, "y": np.zeros(32)}
        return recorder.observe(variables["params"], {}, jax.random.key(0), step, batch)

    found, blank = (jax.jit(observe)(jnp.int32(step)) for step in (2, 3))
    assert all(not leaf.any() for leaf in jax.tree.leaves(blank))
    rows = dict(zip(monitor.ACTIVITY, np.asarray(found.layers).T, strict=True))

    listener = models.listen(model)
    _, _, seen = listener.apply(variables, listener.taps(variables, x), x)
    outputs = {name: np.asarray(layer.outputs) for name, layer in seen.items()}
    for i, name in enumerate(("tanh", "relu", "sigmoid", "output")):
        own = outputs[name]
        np.testing.assert_allclose(rows["rms"][i], np.sqrt(np.square(own).mean()), rtol=1e-5)
        spread = np.sqrt(np.square(own - own.mean(0)).mean())
        np.testing.assert_allclose(rows["spread"][i], spread, rtol=1e-5)
    # The tanh layer is followed by the tanh of a multiple of it.
    assert rows["relu"][1] == 1 and rows["sigmoid"][2] == 1 and rows["tanh"][0] < 0.5
    np.testing.assert_allclose(rows["cut"][1], (outputs["relu"] < 0).mean(), atol=1e-6)
    np.testing.assert_allclose(rows["dead"][1], (outputs["relu"] <= 0).all(0).mean(), rtol=1e-6)
    assert rows["dead"][1] > 0.3
    np.testing.assert_array_equal(found.alive[6:12], (outputs["relu"] > 0).any(0))
    # Twice the outputs, over the examples.
    gradient = np.linalg.norm(2 * outputs["output"] / 32)
    np.testing.assert_allclose(rows["gradient_norm"][3], gradient, rtol=1e-5)
    norms = [np.linalg.norm(leaf) for leaf in jax.tree.leaves(variables["params"])]
    np.testing.assert_allclose(found.parameter_norms, norms, rtol=1e-5)
