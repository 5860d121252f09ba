"""Linear models: one dense layer, and what its outputs mean."""

import flax.linen as nn

from jaxml.models.initializers import InitializerSpec, initializer
from jaxml.types import Array

__all__ = [
    "Linear",
    "LinearRegression",
    "LogisticRegression",
    "OneVsAllClassifier",
    "SoftmaxClassifier",
]


def _affine(
    x: Array, num_outputs: int, kernel_init: InitializerSpec, bias_init: InitializerSpec, bias: bool
) -> Array:
    """`x W + b`, within a compact method; the layer is named `output`, as an MLP's last."""
    return nn.Dense(
        num_outputs,
        use_bias=bias,
        kernel_init=initializer(kernel_init),
        bias_init=initializer(bias_init),
        name="output",
    )(x)


class Linear(nn.Module):
    """An affine map, `x W + b`.

    With a convex loss all starts lead to the same minimum, so that it starts at zero: outputs 0, the
    uniform distribution over classes.

    Attributes:
        num_outputs: ≥ 1.
        kernel_init, bias_init: as `initializer` takes them.
        use_bias: whether there is a `b`.
    """

    num_outputs: int
    kernel_init: InitializerSpec = "zeros"
    bias_init: InitializerSpec = "zeros"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs for a batch.

        Args:
            x: `[..., D]` float; integers and booleans are taken as numbers.

        Returns:
            `[..., num_outputs]`, float32 for inputs of at most 32 bits.

        Raises:
            ValueError: if `num_outputs` is below 1 or an initialiser unknown.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> variables = Linear(2).init(jax.random.key(0), jnp.ones((4, 3)))
            >>> jax.tree.map(jnp.shape, variables["params"])
            {'output': {'bias': (2,), 'kernel': (3, 2)}}
        """
        if self.num_outputs < 1:
            raise ValueError(f"num_outputs must be at least 1, got {self.num_outputs!r}")
        return _affine(x, self.num_outputs, self.kernel_init, self.bias_init, self.use_bias)


class LinearRegression(nn.Module):
    """One number for each example, `ŷ = x · w + b`; with squared error the least squares fit.

    The outputs have the shape of targets `[N]`, without an axis of one: `[N, 1]` less `[N]` would be
    `[N, N]`, and nothing would complain. For several targets `[N, K]` take `Linear(K)`.

    Attributes:
        kernel_init, bias_init: as `initializer` takes them.
        use_bias: whether there is a `b`.
    """

    kernel_init: InitializerSpec = "zeros"
    bias_init: InitializerSpec = "zeros"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Predictions for a batch.

        Args:
            x: `[..., D]` float; integers and booleans are taken as numbers.

        Returns:
            `[...]`, float32 for inputs of at most 32 bits.

        Raises:
            ValueError: for an unknown initialiser.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> x = jnp.ones((4, 3))
            >>> LinearRegression().init_with_output(jax.random.key(0), x)[0].shape
            (4,)
        """
        return _affine(x, 1, self.kernel_init, self.bias_init, self.use_bias)[..., 0]


class LogisticRegression(nn.Module):
    """One logit for each example: the log odds of class 1, `log(p / (1 − p)) = x · w + b`.

    To be trained with `optax.sigmoid_binary_cross_entropy` on labels `[N]` of 0 and 1, whose shape the
    logits have: no axis of one.

    Attributes:
        kernel_init, bias_init: as `initializer` takes them.
        use_bias: whether there is a `b`.
    """

    kernel_init: InitializerSpec = "zeros"
    bias_init: InitializerSpec = "zeros"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Logits for a batch.

        Args:
            x: `[..., D]` float; integers and booleans are taken as numbers.

        Returns:
            `[...]`, float32 for inputs of at most 32 bits.

        Raises:
            ValueError: for an unknown initialiser.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> logits, _ = LogisticRegression().init_with_output(jax.random.key(0), jnp.ones((2, 3)))
            >>> LogisticRegression.probabilities(logits).tolist()
            [0.5, 0.5]
        """
        return _affine(x, 1, self.kernel_init, self.bias_init, self.use_bias)[..., 0]

    @staticmethod
    def probabilities(logits: Array) -> Array:
        """Of class 1: `σ(z)`, the shape of `logits`."""
        return nn.sigmoid(logits)


class SoftmaxClassifier(nn.Module):
    """Logits of classes that exclude each other: `p_k = exp z_k / Σ_j exp z_j`, `z = x W + b`.

    To be trained with `optax.softmax_cross_entropy_with_integer_labels` on labels `[N]`. Adding the same
    to all of an example's logits changes nothing: only differences between columns of `W` are determined
    by the data.

    Attributes:
        num_classes: ≥ 1.
        kernel_init, bias_init: as `initializer` takes them.
        use_bias: whether there is a `b`.
    """

    num_classes: int
    kernel_init: InitializerSpec = "zeros"
    bias_init: InitializerSpec = "zeros"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Logits for a batch.

        Args:
            x: `[..., D]` float; integers and booleans are taken as numbers.

        Returns:
            `[..., num_classes]`, float32 for inputs of at most 32 bits.

        Raises:
            ValueError: if `num_classes` is below 1 or an initialiser unknown.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> module, x = SoftmaxClassifier(4), jnp.ones((1, 3))
            >>> SoftmaxClassifier.probabilities(module.init_with_output(jax.random.key(0), x)[0]).tolist()
            [[0.25, 0.25, 0.25, 0.25]]
        """
        _check_classes(self.num_classes)
        return _affine(x, self.num_classes, self.kernel_init, self.bias_init, self.use_bias)

    @staticmethod
    def probabilities(logits: Array) -> Array:
        """Of each class, `[..., num_classes]`; they add up to one."""
        return nn.softmax(logits)


class OneVsAllClassifier(nn.Module):
    """A yes-or-no question for each class: `num_classes` logistic regressions, side by side.

        p_k = σ(z_k),    z = x W + b

    To be trained with `optax.sigmoid_binary_cross_entropy` on labels `[N, num_classes]` of 0 and 1, of
    which several or none may be 1; of a single class its one-hot labels. Each column of `W` is what a
    logistic regression on that class alone would be; the largest logit is the answer where there is to be
    one. At the start each class has probability ½; with many classes `bias_init=("constant", -log(K − 1))`
    starts at 1 / K and spares the first steps unlearning it (Lin et al., 2017, section 4.1).

    Attributes:
        num_classes: ≥ 1.
        kernel_init, bias_init: as `initializer` takes them.
        use_bias: whether there is a `b`.
    """

    num_classes: int
    kernel_init: InitializerSpec = "zeros"
    bias_init: InitializerSpec = "zeros"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Logits for a batch.

        Args:
            x: `[..., D]` float; integers and booleans are taken as numbers.

        Returns:
            `[..., num_classes]`, float32 for inputs of at most 32 bits.

        Raises:
            ValueError: if `num_classes` is below 1 or an initialiser unknown.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> module, x = OneVsAllClassifier(3), jnp.ones((1, 3))
            >>> OneVsAllClassifier.probabilities(module.init_with_output(jax.random.key(0), x)[0]).tolist()
            [[0.5, 0.5, 0.5]]
        """
        _check_classes(self.num_classes)
        return _affine(x, self.num_classes, self.kernel_init, self.bias_init, self.use_bias)

    @staticmethod
    def probabilities(logits: Array) -> Array:
        """Of each class by itself, `[..., num_classes]`; they need not add up to one."""
        return nn.sigmoid(logits)


def _check_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes!r}")
