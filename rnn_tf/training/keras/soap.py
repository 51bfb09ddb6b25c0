"""SOAP, a second-order optimizer that suits very small networks. Pure Keras 3.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (2024): Adam, run in the
eigenbasis of Shampoo's preconditioner. For a gradient matrix G `(rows, columns)` it averages
L = G G^T and R = G^T G, keeps their eigenvectors Q_L and Q_R, and takes Adam's step for
Q_L^T G Q_R, turned back. A network of a few thousand weights is limited by how well it is
optimised, and its matrices are small enough for this to cost little.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# The basis is refreshed at each of the first steps. It starts as the identity, and a velocity
# averaged in a basis that still turns quickly is that of no direction: steps would be far too long.
EARLY_STEPS = 100
# The rest of the recipe, for this optimizer and its counterpart in PyTorch.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
BETA_SHAMPOO = 0.95
BASIS_EVERY = 10
# In a basis that stays, no step of Adam is longer than 7.3 in any direction (Cauchy-Schwarz, from
# the two betas). When the basis turns, a direction can come to stand on a velocity of almost
# nothing, that of another direction, and one step thousands long ends the training.
LONGEST = 50.0


class Soap(keras.optimizers.Optimizer):
    """SOAP over whole layers: the kernels and the bias of a layer are stacked into one matrix.

    The weights of a recurrent cell multiply the concatenated input `[x, h, 1]`, so their
    gradients share the statistics of that input. Every `basis_every` steps the eigenbasis is
    refreshed by one step of orthogonal iteration. `clip_norm` bounds the norm of the whole
    gradient before anything else; the Keras arguments `clipnorm`, ... would bound the update.

    Its averages are of the gradients that `apply` is given: where replicas share a batch, those of
    the whole batch.
    """

    def __init__(
        self,
        learning_rate: Any = 3e-3,
        beta_1: float = BETA_1,
        beta_2: float = BETA_2,
        epsilon: float = EPSILON,
        beta_shampoo: float = BETA_SHAMPOO,
        basis_every: int = BASIS_EVERY,
        clip_norm: float | None = None,
        name: str = "soap",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.beta_shampoo = beta_shampoo
        self.basis_every = basis_every
        self.clip_norm = clip_norm
        if clip_norm is not None:
            # In a variable, so that one compiled program serves every limit.
            self._limit = keras.Variable(clip_norm, dtype="float32", trainable=False, name="clip")

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._layers = _by_layer(variables)
        self._states = [
            self._layer_state(f"layer_{i}", [variables[j] for j in layer])
            for i, layer in enumerate(self._layers)
        ]

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """Turn the gradients into SOAP's directions, and step along those."""
        if trainable_variables is not None and not self.built:
            self.build(list(trainable_variables))
        if self.clip_norm is not None:
            norm = ops.sqrt(sum(ops.sum(ops.square(grad)) for grad in grads))
            limit = ops.convert_to_tensor(self._limit)
            grads = [grad * (limit / ops.maximum(norm, limit)) for grad in grads]
        directions = list(grads)
        for layer, state in zip(self._layers, self._states, strict=True):
            parts = [_as_rows(grads[i]) for i in layer]
            direction = self._direction(ops.concatenate(parts, axis=0), state)
            start = 0
            for i, part in zip(layer, parts, strict=True):
                rows = direction[start : start + part.shape[0]]
                directions[i] = ops.reshape(rows, grads[i].shape)
                start += part.shape[0]
        super().apply(directions, trainable_variables)

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * ops.cast(gradient, variable.dtype))

    def _direction(self, grad: Any, state: dict[str, keras.Variable]) -> Any:
        """Adam's step for the gradient matrix `(rows, columns)` in the eigenbasis, turned back."""
        left = self._average(state["left"], ops.matmul(grad, ops.transpose(grad)))
        right = self._average(state["right"], ops.matmul(ops.transpose(grad), grad))
        old = (
            ops.convert_to_tensor(state["left_basis"]),
            ops.convert_to_tensor(state["right_basis"]),
        )
        q_left, q_right = ops.cond(
            self._is_refresh(self.iterations),
            lambda: (_next_basis(left, old[0]), _next_basis(right, old[1])),
            lambda: old,
        )
        state["left_basis"].assign(q_left)
        state["right_basis"].assign(q_right)

        def turn(matrix: Any) -> Any:
            return ops.matmul(ops.matmul(ops.transpose(q_left), matrix), q_right)

        momentum = self.beta_1 * state["momentum"] + (1 - self.beta_1) * grad
        state["momentum"].assign(momentum)
        velocity = self.beta_2 * state["velocity"] + (1 - self.beta_2) * ops.square(turn(grad))
        state["velocity"].assign(velocity)
        # Both averages start at zero; Adam's correction for that.
        step = ops.cast(self.iterations + 1, "float32")
        correction = ops.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        turned = correction * turn(momentum) / (ops.sqrt(velocity) + self.epsilon)
        turned = ops.clip(turned, -LONGEST, LONGEST)
        return ops.matmul(ops.matmul(q_left, turned), ops.transpose(q_right))

    def _is_refresh(self, step: Any) -> Any:
        return ops.logical_or(step < EARLY_STEPS, ops.equal(step % self.basis_every, 0))

    def _average(self, average: keras.Variable, value: Any) -> Any:
        average.assign(self.beta_shampoo * average + (1 - self.beta_shampoo) * value)
        return ops.convert_to_tensor(average)

    def _layer_state(self, name: str, layer: list[keras.Variable]) -> dict[str, keras.Variable]:
        columns = layer[0].shape[-1]
        rows = sum(_as_rows(variable).shape[0] for variable in layer)
        shapes = {
            "momentum": ((rows, columns), "zeros"),
            "velocity": ((rows, columns), "zeros"),
            "left": ((rows, rows), "zeros"),
            "right": ((columns, columns), "zeros"),
            "left_basis": ((rows, rows), "identity"),
            "right_basis": ((columns, columns), "identity"),
        }
        return {
            kind: self.add_variable(
                shape, initializer=start, dtype="float32", name=f"{name}_{kind}"
            )
            for kind, (shape, start) in shapes.items()
        }

    def get_config(self) -> dict[str, Any]:
        names = ("beta_1", "beta_2", "epsilon", "beta_shampoo", "basis_every", "clip_norm")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _by_layer(variables: list[keras.Variable]) -> list[list[int]]:
    """The indices of the variables of each layer: those with the same path but for the name."""
    layers: dict[str, list[int]] = {}
    for i, variable in enumerate(variables):
        layers.setdefault(variable.path.rpartition("/")[0], []).append(i)
    return list(layers.values())


def _as_rows(value: Any) -> Any:
    """A kernel `(inputs, columns)` as it is; a bias `(columns,)` or `(n, columns)` as rows."""
    return ops.reshape(value, (-1, value.shape[-1]))


def _next_basis(matrix: Any, basis: Any) -> Any:
    """One step of orthogonal iteration towards the eigenvectors of a symmetric matrix."""
    return ops.qr(ops.matmul(matrix, basis))[0]
