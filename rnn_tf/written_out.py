"""The gradients of a simple recurrent network in PyTorch, written out: no autograd, no waiting.

A step of `nn.RNN` on 64 sequences is a few microseconds of arithmetic, and autograd records, keeps
and replays several operations for each. Written out, a time step is two operations forward and two
backward, into memory that is there already; everything else is one operation for all time steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rnn_tf.pytorch import ACTIVATIONS, SequenceClassifier

MINUS_ONE = torch.tensor(-1.0)
# Activations that can be computed in place and whose slope follows from their value.
IN_PLACE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "elu": functional.elu_,
    "relu": torch.relu_,
    # tanh(x) = 2 sigmoid(2x) - 1, in half the time of PyTorch's own; x comes doubled.
    "tanh": lambda doubled: torch.add(MINUS_ONE, doubled.sigmoid_(), alpha=2, out=doubled),
}
# What a matrix product multiplies by on its way, at no cost.
FACTORS = {"tanh": 2}
SLOPES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "elu": lambda state, out: torch.clamp(state, max=0, out=out).add_(1),
    "relu": lambda state, out: torch.sign(state, out=out),
    "tanh": lambda state, out: torch.mul(state, state, out=out).neg_().add_(1),
}


class WrittenOut:
    """The gradients of the mean cross-entropy of one batch, for `nn.RNN` or `ActivatedRNN`.

    Put a batch into `x`, scaled float32 `(timesteps, examples, features)`, and call this: it fills
    `grad`, which must be there, of each parameter but `bias_hh_l0`, which only adds to the other
    bias and is not trained. Time comes first, so that each time step is one piece of memory.
    """

    def __init__(
        self, module: SequenceClassifier, activation: str, timesteps: int, examples: int
    ) -> None:
        self.module = module
        self.activation = activation
        units, features = module.recurrent.weight_ih_l0.shape
        self.x = torch.empty(timesteps, examples, features)
        self._states = torch.empty(timesteps, examples, units)
        # What the activation is taken of: where it works in place, the same memory.
        in_place = activation in IN_PLACE
        self._sums = self._states if in_place else torch.empty_like(self._states)
        self._slopes = torch.empty_like(self._states)
        self._carried = torch.empty(examples, units)
        self._minus_one = torch.full((examples, 1), -1.0)
        # Views cost as much to make as a small operation: they are made once.
        self._by_step = list(zip(self._sums.unbind(), self._states.unbind(), strict=True))
        self._slopes_back = self._slopes.unbind()[::-1]

    def __call__(self, y: torch.Tensor, logits: torch.Tensor) -> None:
        """Fill `logits`, float32 `(examples, classes)`, and the gradients; `y`: int64 classes."""
        with torch.no_grad():
            self._fill(y, logits)

    def _fill(self, y: torch.Tensor, logits: torch.Tensor) -> None:
        dense = self.module.dense
        last = self._forward()
        torch.addmm(dense.bias, last, dense.weight.t(), out=logits)
        # The gradient of the mean cross-entropy: what is said, less what is true.
        error = torch.softmax(logits, 1).scatter_add_(1, y[:, None], self._minus_one)
        error /= len(y)
        torch.mm(error.t(), last, out=dense.weight.grad)
        torch.sum(error, 0, out=dense.bias.grad)
        torch.mm(error, dense.weight, out=self._carried)
        self._backward()

    def _forward(self) -> torch.Tensor:
        """Fill the states of all time steps; the last one, `(examples, units)`."""
        recurrent = self.module.recurrent
        bias = recurrent.bias_ih_l0 + recurrent.bias_hh_l0
        # The inputs of all time steps at once: they wait for no state.
        inputs = self._sums.flatten(0, 1)
        weight, by = recurrent.weight_ih_l0.t(), FACTORS.get(self.activation, 1)
        torch.addmm(bias, self.x.flatten(0, 1), weight, beta=by, alpha=by, out=inputs)
        weight = recurrent.weight_hh_l0.t()
        state = self._activate(*self._by_step[0])
        for sums, states in self._by_step[1:]:
            state = self._activate(sums.addmm_(state, weight, alpha=by), states)
        return state

    def _backward(self) -> None:
        """Carry the last state's gradient back in time; fill those of the recurrent weights."""
        recurrent, carried = self.module.recurrent, self._carried
        self._fill_slopes()
        weight = recurrent.weight_hh_l0
        # The slopes become the gradients of the sums, from the last time step to the first.
        later = self._slopes_back[0].mul_(carried)
        for slopes in self._slopes_back[1:]:
            torch.mm(later, weight, out=carried)
            later = slopes.mul_(carried)
        grads = self._slopes.flatten(0, 1)
        after, before = self._slopes[1:].flatten(0, 1), self._states[:-1].flatten(0, 1)
        torch.mm(grads.t(), self.x.flatten(0, 1), out=recurrent.weight_ih_l0.grad)
        torch.mm(after.t(), before, out=recurrent.weight_hh_l0.grad)
        torch.sum(grads, 0, out=recurrent.bias_ih_l0.grad)

    def _activate(self, sums: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        if self.activation in IN_PLACE:
            return IN_PLACE[self.activation](sums)
        return states.copy_(ACTIVATIONS[self.activation](sums))

    def _fill_slopes(self) -> None:
        if self.activation in SLOPES:
            SLOPES[self.activation](self._states, self._slopes)
            return
        # Autograd knows the slope of any function; of all time steps at once it costs little.
        with torch.enable_grad():
            sums = self._sums.detach().requires_grad_()
            total = ACTIVATIONS[self.activation](sums).sum()
        self._slopes.copy_(torch.autograd.grad(total, sums)[0])
