"""SOAP in PyTorch: the formulas and constants of `rnn_tf.training.keras.soap`, step for step."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from rnn_tf.training.keras import soap
from rnn_tf.training.torch.recorded import WARM_UPS, record


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
        # The numbers of a step, where a recording of it reads them.
        self._rate, self._correction = torch.zeros(2, device=self._keys[0].device).unbind()
        # By whether the bases change; and the steps that were taken before each recording.
        self._recordings: dict[bool, torch.cuda.CUDAGraph] = {}
        self._warm_ups = Counter[bool]()

    @property
    def _keys(self) -> list[torch.nn.Parameter]:
        """The parameter of each layer under which its state is kept."""
        return [layer["params"][0] for layer in self.param_groups]

    def step(self, closure: None = None) -> None:
        """Take one step along the gradients in `grad`, which every parameter must have.

        With one learning rate for all layers. On a GPU of CUDA the steps after the first few are
        recorded: a step is some hundred operations, each of which takes less time than the call.
        """
        done = int(self.state[self._keys[0]].get("step", 0))
        self._rate.fill_(self.param_groups[0]["lr"])
        # Both averages start at zero; Adam's correction for that.
        momentum, velocity = 1 - soap.BETA_1 ** (done + 1), 1 - soap.BETA_2 ** (done + 1)
        self._correction.fill_(velocity**0.5 / momentum)
        new_basis = done < soap.EARLY_STEPS or done % soap.BASIS_EVERY == 0
        take_step = functools.partial(self._take_step, new_basis)
        if not self._rate.is_cuda or self._warm_ups[new_basis] < WARM_UPS:
            take_step()
            self._warm_ups[new_basis] += 1
        else:
            if new_basis not in self._recordings:
                self._recordings[new_basis] = record(take_step)
            self._recordings[new_basis].replay()
        for key in self._keys:
            self.state[key]["step"] += 1

    def _take_step(self, new_basis: bool) -> None:
        with torch.no_grad():
            for layer in self.param_groups:
                self._step_of(layer, new_basis)

    def _step_of(self, layer: dict[str, Any], new_basis: bool) -> None:
        parameters, order = layer["params"], layer["order"]
        grad = torch.cat([_as_columns(parameter.grad) for parameter in parameters], 1)
        # An order of gates is its own inverse.
        grad = grad if order is None else grad[order]
        direction = self._direction(grad, parameters[0], new_basis)
        direction = direction if order is None else direction[order]
        widths = [_as_columns(parameter).shape[1] for parameter in parameters]
        for parameter, part in zip(parameters, direction.split(widths, 1), strict=True):
            if layer["weight_decay"] and parameter.ndim > 1:
                parameter.mul_(1 - self._rate * layer["weight_decay"])
            parameter.addcmul_(part.reshape(parameter.shape), self._rate, value=-1)

    def _direction(
        self, grad: torch.Tensor, key: torch.nn.Parameter, new_basis: bool
    ) -> torch.Tensor:
        """Adam's step for the gradient matrix `(rows, inputs)` in the eigenbasis, turned back."""
        state = self.state[key] or self._start(grad, key)
        left, right = state["left"], state["right"]
        left.addmm_(grad, grad.t(), beta=soap.BETA_SHAMPOO, alpha=1 - soap.BETA_SHAMPOO)
        right.addmm_(grad.t(), grad, beta=soap.BETA_SHAMPOO, alpha=1 - soap.BETA_SHAMPOO)
        if new_basis:
            for matrix, side in ((left, "left"), (right, "right")):
                basis = state[f"{side}_basis"]
                basis.copy_(_next_basis(matrix, basis))
        q_left, q_right = state["left_basis"], state["right_basis"]
        momentum, velocity = state["momentum"], state["velocity"]
        momentum.lerp_(grad, 1 - soap.BETA_1)
        turned = q_left.t() @ grad @ q_right
        velocity.mul_(soap.BETA_2).addcmul_(turned, turned, value=1 - soap.BETA_2)
        step = (q_left.t() @ momentum @ q_right).div_(velocity.sqrt().add_(soap.EPSILON))
        step = step.mul_(self._correction).clamp_(-soap.LONGEST, soap.LONGEST)
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
