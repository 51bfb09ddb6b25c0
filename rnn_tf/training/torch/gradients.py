"""The gradients of a simple recurrent network in PyTorch, written out: no autograd, no waiting.

A step of `nn.RNN` on 64 sequences is a few microseconds of arithmetic, and autograd records, keeps
and replays several operations for each. Written out, a time step is two operations forward and two
backward, into memory that is there already; everything else is one operation for all time steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

from rnn_tf.training.torch.module import ACTIVATIONS, SequenceClassifier


class Activation(NamedTuple):
    """An activation as `scale * function(factor * x) + shift`.

    Of a state only the value of the function is kept; the three numbers go into the weights. With
    a `slope`, which fills `out` with the function's slope where it has a value, the function works
    in place; without one, autograd finds the slope.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    slope: Callable[[torch.Tensor, torch.Tensor], object] | None = None
    factor: float = 1.0
    scale: float = 1.0
    shift: float = 0.0


def _slope_of_sigmoid(value: torch.Tensor, out: torch.Tensor) -> None:
    torch.addcmul(value, value, value, value=-1, out=out)


IN_PLACE = {
    "elu": Activation(functional.elu_, lambda v, out: torch.clamp(v, max=0, out=out).add_(1)),
    "relu": Activation(torch.relu_, lambda v, out: torch.sign(v, out=out)),
    "sigmoid": Activation(torch.sigmoid_, _slope_of_sigmoid),
    # tanh(x) = 2 sigmoid(2x) - 1, in half the time of PyTorch's own.
    "tanh": Activation(torch.sigmoid_, _slope_of_sigmoid, factor=2.0, scale=2.0, shift=-1.0),
}


class ManualGradients:
    """The gradients of the mean cross-entropy of one batch, for one simple layer in one direction.

    The layer is `nn.RNN` or `Recurrent`. Put a batch into `x`, scaled float32
    `(timesteps, examples, features)`, and call this: it fills `grad`, which must be there, of each
    parameter but `bias_hh_l0`, which only adds to the other bias and is not trained. Time comes
    first, so that each time step is one piece of memory.
    """

    def __init__(
        self, module: SequenceClassifier, activation: str, timesteps: int, examples: int
    ) -> None:
        self.module = module
        self.activation = IN_PLACE.get(activation) or Activation(ACTIVATIONS[activation])
        units, features = module.recurrent.weight_ih_l0.shape
        self.x = torch.empty(timesteps, examples, features)
        # What is kept of each state; first of the state 0, before all time steps.
        self._kept = torch.empty(timesteps + 1, examples, units)
        self._kept[0] = -self.activation.shift / self.activation.scale
        in_place = self.activation.slope is not None
        self._sums = self._kept[1:] if in_place else torch.empty(timesteps, examples, units)
        self._slopes = torch.empty(timesteps, examples, units)
        self._carried = torch.empty(examples, units)
        self._shift = torch.full((examples, units), self.activation.shift)
        self._minus_one = torch.full((examples, 1), -1.0)
        # Views cost as much to make as a small operation: they are made once.
        self._sums_by_step = self._sums.unbind()
        self._kept_by_step = self._kept.unbind()
        self._slopes_back = self._slopes.unbind()[::-1]

    def __call__(self, y: torch.Tensor, logits: torch.Tensor) -> None:
        """Fill `logits`, float32 `(examples, classes)`, and the gradients; `y`: int64 classes."""
        with torch.no_grad():
            self._fill(y, logits)

    def _fill(self, y: torch.Tensor, logits: torch.Tensor) -> None:
        dense = self.module.dense
        self._forward()
        last = torch.add(self._shift, self._kept_by_step[-1], alpha=self.activation.scale)
        torch.addmm(dense.bias, last, dense.weight.t(), out=logits)
        # The gradient of the mean cross-entropy: what is said, less what is true.
        error = torch.softmax(logits, 1).scatter_add_(1, y[:, None], self._minus_one)
        error /= len(y)
        torch.mm(error.t(), last, out=dense.weight.grad)
        torch.sum(error, 0, out=dense.bias.grad)
        self._backward(error)

    def _forward(self) -> None:
        """Fill what is kept of the states of all time steps."""
        recurrent = self.module.recurrent
        function, _, factor, scale, shift = self.activation
        weight = recurrent.weight_hh_l0.t()
        bias = recurrent.bias_ih_l0 + recurrent.bias_hh_l0
        if shift:
            bias += shift * weight.sum(0)
        # The inputs of all time steps at once: they wait for no state.
        inputs, weight_in = self._sums.flatten(0, 1), recurrent.weight_ih_l0.t()
        torch.addmm(bias, self.x.flatten(0, 1), weight_in, beta=factor, alpha=factor, out=inputs)
        kept, in_place = self._kept_by_step[0], self.activation.slope is not None
        for sums, keep in zip(self._sums_by_step, self._kept_by_step[1:], strict=True):
            kept = function(sums.addmm_(kept, weight, alpha=factor * scale))
            if not in_place:
                keep.copy_(kept)

    def _backward(self, error: torch.Tensor) -> None:
        """Carry the gradient of the logits back in time; fill those of the recurrent weights."""
        recurrent, carried = self.module.recurrent, self._carried
        _, _, factor, scale, shift = self.activation
        self._fill_slopes()
        torch.mm(error, self.module.dense.weight * (factor * scale), out=carried)
        weight = recurrent.weight_hh_l0 * (factor * scale)
        # The slopes become the gradients of the sums, from the last time step to the first.
        later = self._slopes_back[0].mul_(carried)
        for slopes in self._slopes_back[1:]:
            torch.mm(later, weight, out=carried)
            later = slopes.mul_(carried)
        grads, before = self._slopes.flatten(0, 1), self._kept[:-1].flatten(0, 1)
        grad = torch.sum(grads, 0, out=recurrent.bias_ih_l0.grad)
        # This way round the product takes two thirds of the time.
        recurrent.weight_ih_l0.grad.copy_((self.x.flatten(0, 1).t() @ grads).t())
        # The states are `scale * before + shift`.
        torch.addmm(
            grad[:, None],
            grads.t(),
            before,
            beta=shift,
            alpha=scale,
            out=recurrent.weight_hh_l0.grad,
        )

    def _fill_slopes(self) -> None:
        if self.activation.slope is not None:
            self.activation.slope(self._kept[1:], self._slopes)
            return
        # Autograd knows the slope of any function; of all time steps at once it costs little.
        with torch.enable_grad():
            sums = self._sums.detach().requires_grad_()
            total = self.activation.function(sums).sum()
        self._slopes.copy_(torch.autograd.grad(total, sums)[0])
