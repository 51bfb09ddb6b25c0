"""The gradients of a simple recurrent network in PyTorch, written out: no autograd, no waiting.

A step of `nn.RNN` on 64 sequences is a few microseconds of arithmetic, and autograd records, keeps
and replays several operations for each. Written out, a time step is two operations forward and two
backward, into memory that is there already; everything else is one operation for all time steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    Of right-padded sequences only the steps up to the longest of the batch are computed. States
    beyond the end of a sequence are computed with the others and come to nothing: the answer is
    that of the state at its own end, where the way back begins. A module that answers at every step
    has the states of all steps answer, and their gradients join on the way back.
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
        answers = timesteps * examples if module.every_step else examples
        self._minus_one = torch.full((answers, 1), -1.0)
        self._rows = torch.arange(examples)
        self._steps = torch.arange(timesteps)[:, None]
        # Views cost as much to make as a small operation: they are made once.
        self._sums_by_step = self._sums.unbind()
        self._kept_by_step = self._kept.unbind()
        self._slopes_back = self._slopes.unbind()[::-1]

    def __call__(
        self,
        y: torch.Tensor,
        logits: torch.Tensor,
        lengths: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
    ) -> None:
        """Fill `logits`, float32 `(examples, classes)`, and the gradients.

        `y` are int64 classes, `lengths` int64 `(examples,)`; None: all are as long as `x`.
        `weight`, float32 `(classes,)`, is what an example of each class counts; None: all alike.
        For answers at every step, `logits` is `(examples, timesteps, classes)` and `y`
        `(examples, steps up to the longest)`, below 0 where a step has no label and does not count.
        """
        with torch.no_grad():
            self._fill(y, logits, lengths, weight)

    def _fill(
        self,
        y: torch.Tensor,
        logits: torch.Tensor,
        lengths: torch.Tensor | None,
        weight: torch.Tensor | None,
    ) -> None:
        steps = len(self.x) if lengths is None else int(lengths.max())
        self._forward(steps)
        if self.module.every_step:
            states, y = self._states_of_all_steps(steps, lengths), y.t().flatten()
            labelled, y = y >= 0, y.clamp(min=0)
            counts = labelled if weight is None else labelled * weight.index_select(0, y)
            said = logits.new_empty(len(states), logits.shape[2])
            error = self._fill_dense(states, y, said, counts)
            logits[:, steps:] = 0
            logits[:, :steps] = said.unflatten(0, (steps, -1)).transpose(0, 1)
        else:
            kept = self._kept_by_step[steps] if lengths is None else self._kept[lengths, self._rows]
            states = torch.add(self._shift, kept, alpha=self.activation.scale)
            of_each = None if weight is None else weight.index_select(0, y)
            error = self._fill_dense(states, y, logits, of_each)
        self._backward(error, steps, lengths)

    def _states_of_all_steps(self, steps: int, lengths: torch.Tensor | None) -> torch.Tensor:
        """The states after the first `steps` time steps, one step after the other."""
        states = self._kept[1 : steps + 1].mul(self.activation.scale).add_(self.activation.shift)
        if lengths is not None:
            states.masked_fill_(self._padding(steps, lengths), 0)
        return states.flatten(0, 1)

    def _fill_dense(
        self,
        states: torch.Tensor,
        y: torch.Tensor,
        logits: torch.Tensor,
        counts: torch.Tensor | None,
    ) -> torch.Tensor:
        """Fill `logits`, a row for each state, and the gradients of the weights that make them.

        Each counts `counts` in the loss, or as much as the others. Returns the gradient of the mean
        cross-entropy for the logits.
        """
        dense = self.module.dense
        torch.addmm(dense.bias, states, dense.weight.t(), out=logits)
        # What is said, less what is true.
        error = torch.softmax(logits, 1).scatter_add_(1, y[:, None], self._minus_one[: len(y)])
        if counts is None:
            error /= len(y)
        else:
            error *= (counts / counts.sum())[:, None]
        torch.mm(error.t(), states, out=dense.weight.grad)
        torch.sum(error, 0, out=dense.bias.grad)
        return error

    def _forward(self, steps: int) -> None:
        """Fill what is kept of the states of the first `steps` time steps."""
        recurrent = self.module.recurrent
        function, _, factor, scale, shift = self.activation
        weight = recurrent.weight_hh_l0.t()
        bias = recurrent.bias_ih_l0 + recurrent.bias_hh_l0
        if shift:
            bias += shift * weight.sum(0)
        # The inputs of all time steps at once: they wait for no state.
        inputs, weight_in = self._sums[:steps].flatten(0, 1), recurrent.weight_ih_l0.t()
        x = self.x[:steps].flatten(0, 1)
        torch.addmm(bias, x, weight_in, beta=factor, alpha=factor, out=inputs)
        kept, in_place = self._kept_by_step[0], self.activation.slope is not None
        keeps = self._kept_by_step[1 : steps + 1]
        for sums, keep in zip(self._sums_by_step[:steps], keeps, strict=True):
            kept = function(sums.addmm_(kept, weight, alpha=factor * scale))
            if not in_place:
                keep.copy_(kept)

    def _backward(self, error: torch.Tensor, steps: int, lengths: torch.Tensor | None) -> None:
        """Carry the gradient of the logits back in time; fill those of the recurrent weights."""
        recurrent = self.module.recurrent
        _, _, factor, scale, shift = self.activation
        self._fill_slopes(steps)
        of_states = torch.mm(error, self.module.dense.weight * (factor * scale))
        weight = recurrent.weight_hh_l0 * (factor * scale)
        slopes_back = self._slopes_back[-steps:]
        if lengths is not None:
            self._forget_padding(steps, lengths)
        if self.module.every_step:
            self._carry_all(slopes_back, weight, of_states.unflatten(0, (steps, -1)))
        elif lengths is None:
            self._carry(slopes_back, weight, of_states)
        else:
            of_steps = self._slopes.new_zeros(steps, *of_states.shape)
            of_steps[lengths - 1, self._rows] = of_states
            self._carry_all(slopes_back, weight, of_steps)
        grads, before = self._slopes[:steps].flatten(0, 1), self._kept[:steps].flatten(0, 1)
        grad = torch.sum(grads, 0, out=recurrent.bias_ih_l0.grad)
        # This way round the product takes two thirds of the time.
        x = self.x[:steps].flatten(0, 1)
        recurrent.weight_ih_l0.grad.copy_((x.t() @ grads).t())
        # The states are `scale * before + shift`.
        torch.addmm(
            grad[:, None],
            grads.t(),
            before,
            beta=shift,
            alpha=scale,
            out=recurrent.weight_hh_l0.grad,
        )

    # The slopes, from the last time step to the first, become the gradients of the sums.
    def _carry(
        self, slopes_back: Sequence[torch.Tensor], weight: torch.Tensor, of_last: torch.Tensor
    ) -> None:
        """Carry the gradient of the last state back."""
        later = slopes_back[0].mul_(of_last)
        for slopes in slopes_back[1:]:
            torch.mm(later, weight, out=self._carried)
            later = slopes.mul_(self._carried)

    def _carry_all(
        self, slopes_back: Sequence[torch.Tensor], weight: torch.Tensor, of_steps: torch.Tensor
    ) -> None:
        """Carry the gradients of the states of all steps back, 0 where a state says nothing."""
        *of_steps_before, of_step = of_steps.unbind()
        later = slopes_back[0].mul_(of_step)
        for slopes, of_step in zip(slopes_back[1:], reversed(of_steps_before), strict=True):
            torch.addmm(of_step, later, weight, out=self._carried)
            later = slopes.mul_(self._carried)

    def _forget_padding(self, steps: int, lengths: torch.Tensor) -> None:
        """Put 0 in the place of all that comes from padding: infinity times 0 would be NaN."""
        padding = self._padding(steps, lengths)
        for values in (self._slopes, self._kept, self.x):
            values[:steps].masked_fill_(padding, 0)

    def _padding(self, steps: int, lengths: torch.Tensor) -> torch.Tensor:
        """Which of the first `steps` steps are beyond the end: bool `(steps, examples, 1)`."""
        return (self._steps[:steps] >= lengths)[..., None]

    def _fill_slopes(self, steps: int) -> None:
        slopes = self._slopes[:steps]
        if self.activation.slope is not None:
            self.activation.slope(self._kept[1 : steps + 1], slopes)
            return
        # Autograd knows the slope of any function; of all time steps at once it costs little.
        with torch.enable_grad():
            sums = self._sums[:steps].detach().requires_grad_()
            total = self.activation.function(sums).sum()
        slopes.copy_(torch.autograd.grad(total, sums)[0])
