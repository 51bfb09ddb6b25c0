"""SOAP in PyTorch: the formulas and constants of `rnn_tf.training.keras.soap`, step for step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from rnn_tf.training.keras import soap


class Soap(torch.optim.Optimizer):
    """SOAP over whole layers: a parameter group is a layer, its weights side by side one matrix.

    PyTorch's weights are `(rows, inputs)`, Keras's kernels transposed, and biases `(rows,)`; both
    sides of the preconditioner change places, and the step is the same. A group's `order` puts
    the rows as Keras has its columns: orthogonal iteration takes one after the other, so another
    order is another basis. `weight_decay` is decoupled and leaves biases alone.
    """

    def __init__(
        self,
        layers: Iterable[dict[str, Any]],
        lr: float = 3e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(layers, {"lr": lr, "weight_decay": weight_decay, "order": None})

    def step(self, closure: None = None) -> None:
        """Take one step along the gradients in `grad`, which every parameter must have."""
        with torch.no_grad():
            for layer in self.param_groups:
                self._step_of(layer)

    def _step_of(self, layer: dict[str, Any]) -> None:
        parameters, rate, order = layer["params"], layer["lr"], layer["order"]
        grad = torch.cat([_as_columns(parameter.grad) for parameter in parameters], 1)
        # An order of gates is its own inverse.
        direction = self._direction(grad if order is None else grad[order], parameters[0])
        direction = direction if order is None else direction[order]
        widths = [_as_columns(parameter).shape[1] for parameter in parameters]
        for parameter, part in zip(parameters, direction.split(widths, 1), strict=True):
            if layer["weight_decay"] and parameter.ndim > 1:
                parameter.mul_(1 - rate * layer["weight_decay"])
            parameter.sub_(part.reshape(parameter.shape), alpha=rate)

    def _direction(self, grad: torch.Tensor, key: torch.nn.Parameter) -> torch.Tensor:
        """Adam's step for the gradient matrix `(rows, inputs)` in the eigenbasis, turned back."""
        state = self.state[key] or self._start(grad, key)
        done = int(state["step"])
        state["step"] += 1
        left, right = state["left"], state["right"]
        left.addmm_(grad, grad.t(), beta=soap.BETA_SHAMPOO, alpha=1 - soap.BETA_SHAMPOO)
        right.addmm_(grad.t(), grad, beta=soap.BETA_SHAMPOO, alpha=1 - soap.BETA_SHAMPOO)
        if done < soap.EARLY_STEPS or done % soap.BASIS_EVERY == 0:
            state["left_basis"] = _next_basis(left, state["left_basis"])
            state["right_basis"] = _next_basis(right, state["right_basis"])
        q_left, q_right = state["left_basis"], state["right_basis"]
        momentum, velocity = state["momentum"], state["velocity"]
        momentum.lerp_(grad, 1 - soap.BETA_1)
        turned = q_left.t() @ grad @ q_right
        velocity.mul_(soap.BETA_2).addcmul_(turned, turned, value=1 - soap.BETA_2)
        # Both averages start at zero; Adam's correction for that.
        correction = (1 - soap.BETA_2 ** (done + 1)) ** 0.5 / (1 - soap.BETA_1 ** (done + 1))
        step = (q_left.t() @ momentum @ q_right).div_(velocity.sqrt().add_(soap.EPSILON))
        step = step.mul_(correction).clamp_(-soap.LONGEST, soap.LONGEST)
        return q_left @ step @ q_right.t()

    def _start(self, grad: torch.Tensor, key: torch.nn.Parameter) -> dict[str, torch.Tensor]:
        rows, inputs = grad.shape
        state: dict[str, torch.Tensor] = self.state[key]
        state["step"] = torch.zeros(())
        state["momentum"] = torch.zeros_like(grad)
        state["velocity"] = torch.zeros_like(grad)
        for side, size in (("left", rows), ("right", inputs)):
            state[side] = grad.new_zeros(size, size)
            state[f"{side}_basis"] = torch.eye(size, dtype=grad.dtype, device=grad.device)
        return state


def _as_columns(value: torch.Tensor) -> torch.Tensor:
    """A weight `(rows, inputs)` as it is; a bias `(rows,)` as one column."""
    return value if value.ndim > 1 else value[:, None]


def _next_basis(matrix: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """One step of orthogonal iteration towards the eigenvectors of a symmetric matrix."""
    turned = matrix @ basis
    # Apple's GPUs have no such decomposition.
    on = turned.cpu() if turned.device.type == "mps" else turned
    return torch.linalg.qr(on).Q.to(turned.device)
