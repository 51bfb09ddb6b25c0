"""One recurrent layer in one direction, forward and back in time, with gradients written out.

A step of `nn.RNN` or `nn.GRU` on 64 sequences is a few microseconds of arithmetic, and autograd
records, keeps and replays several operations for each. Written out, a time step is two to five
operations forward and two or three back, into memory that is there already; everything else is one
operation for all time steps. For an LSTM PyTorch has such a loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional

from rnn_tf.model.cells import Cell
from rnn_tf.training.torch.module import ACTIVATIONS, kind_of


class LayerGradients(Protocol):
    """The states of a layer, and the gradients of its weights, for batches of one shape.

    Of a state something is `kept`, of which it is `scale * kept + shift`.
    """

    scale: float
    shift: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is kept of the states after each step of `x` `(steps, examples, features)`.

        Float `(steps, examples, units)`, which the next call overwrites.
        """

    def backward(
        self, x: torch.Tensor, of_kept: torch.Tensor, padding: torch.Tensor | None
    ) -> None:
        """Fill `grad` of the weights, after `forward` of the same `x`.

        `of_kept` are the gradients of what is kept, but for what comes through later states:
        `(steps, examples, units)`, or of the last step alone, `(examples, units)`. They are 0 in
        the `padding`, bool `(steps, examples, 1)`; so must be all that comes from there.
        """


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


class SimpleGradients:
    """Those of `nn.RNN` or a simple `Recurrent`.

    `bias_hh_l0` only adds to the other bias: it is not trained, and has no gradient here.
    """

    def __init__(
        self, recurrent: nn.Module, activation: str, timesteps: int, examples: int
    ) -> None:
        self.recurrent = recurrent
        self.activation = IN_PLACE.get(activation) or Activation(ACTIVATIONS[activation])
        self.scale, self.shift = self.activation.scale, self.activation.shift
        weight = recurrent.weight_hh_l0
        units = weight.shape[1]
        # First that of the state 0, before all time steps.
        self._kept = weight.new_empty(timesteps + 1, examples, units)
        self._kept[0] = -self.shift / self.scale
        in_place = self.activation.slope is not None
        self._sums = self._kept[1:] if in_place else weight.new_empty(timesteps, examples, units)
        # The slopes become the gradients of the sums.
        self._slopes = weight.new_empty(timesteps, examples, units)
        self._carried = weight.new_empty(examples, units)
        # Views cost as much to make as a small operation: they are made once.
        self._sums_by_step = self._sums.unbind()
        self._kept_by_step = self._kept.unbind()
        self._slopes_back = self._slopes.unbind()[::-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        recurrent, steps = self.recurrent, len(x)
        function, _, factor, scale, shift = self.activation
        weight = recurrent.weight_hh_l0.t()
        bias = recurrent.bias_ih_l0 + recurrent.bias_hh_l0
        if shift:
            bias += shift * weight.sum(0)
        # The inputs of all time steps at once: they wait for no state.
        inputs, weight_in = self._sums[:steps].flatten(0, 1), recurrent.weight_ih_l0.t()
        torch.addmm(bias, x.flatten(0, 1), weight_in, beta=factor, alpha=factor, out=inputs)
        kept, in_place = self._kept_by_step[0], self.activation.slope is not None
        keeps = self._kept_by_step[1 : steps + 1]
        for sums, keep in zip(self._sums_by_step[:steps], keeps, strict=True):
            kept = function(sums.addmm_(kept, weight, alpha=factor * scale))
            if not in_place:
                keep.copy_(kept)
        return self._kept[1 : steps + 1]

    def backward(
        self, x: torch.Tensor, of_kept: torch.Tensor, padding: torch.Tensor | None
    ) -> None:
        recurrent, factor, steps = self.recurrent, self.activation.factor, len(x)
        self._fill_slopes(steps)
        slopes, before = self._slopes[:steps], self._kept[:steps]
        if padding is not None:
            for values in (slopes, before):  # infinity times 0 would be NaN
                values.masked_fill_(padding, 0)
        self._carry(self._slopes_back[-steps:], _by_step_back(of_kept, steps))
        grads, before = slopes.flatten(0, 1), before.flatten(0, 1)
        grad = torch.sum(grads, 0, out=recurrent.bias_ih_l0.grad).mul_(factor)
        # This way round the product takes two thirds of the time.
        of_input = (x.flatten(0, 1).t() @ grads).t()
        torch.mul(of_input, factor, out=recurrent.weight_ih_l0.grad)
        # The states are `scale * before + shift`.
        torch.addmm(
            grad[:, None],
            grads.t(),
            before,
            beta=self.shift,
            alpha=self.scale * factor,
            out=recurrent.weight_hh_l0.grad,
        )

    def _carry(
        self, slopes_back: Sequence[torch.Tensor], of_kept_back: Sequence[torch.Tensor | None]
    ) -> None:
        """Turn the slopes, from the last step to the first, into the gradients of the sums."""
        weight = self.recurrent.weight_hh_l0 * (self.activation.factor * self.scale)
        later = slopes_back[0].mul_(of_kept_back[0])
        for slopes, of_kept in zip(slopes_back[1:], of_kept_back[1:], strict=True):
            if of_kept is None:
                torch.mm(later, weight, out=self._carried)
            else:
                torch.addmm(of_kept, later, weight, out=self._carried)
            later = slopes.mul_(self._carried)

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


class GruGradients:
    """Those of `nn.GRU`.

    The new content is kept as the sigmoid of its doubled sum, as tanh(x) = 2 sigmoid(2x) - 1, in
    half the time of PyTorch's own. A state is a weighted mean of the content and the state before,
    and so is what is kept of it. The sums are doubled by doubling the weights of the content.
    """

    scale, shift = 2.0, -1.0

    def __init__(self, recurrent: nn.Module, timesteps: int, examples: int) -> None:
        self.recurrent = recurrent
        weight = recurrent.weight_hh_l0
        units = weight.shape[1]
        self._units = units
        # First that of the state 0, before all time steps.
        self._kept = weight.new_full((timesteps + 1, examples, units), 0.5)
        # The sums of each step, then their activations, side by side: the new content, the gates
        # `reset` and `update`, and the state's part in the content. The input adds to the first
        # three, the state to the last three: each is one product.
        self._values = weight.new_empty(timesteps, examples, 4 * units)
        # The gradients of the sums, in the same places.
        self._grads = torch.empty_like(self._values)
        self._room = torch.empty_like(self._kept[1:])
        self._carried = weight.new_empty(examples, units)
        self._one = weight.new_ones(())
        # What the sums of each gate are multiplied by, in PyTorch's order of gates.
        self._factor = weight.new_ones(3 * units, 1)
        self._factor[2 * units :] = 2
        # Views cost as much to make as a small operation: they are made once.
        content, reset, update, part = (v.unbind() for v in self._values.split(units, 2))
        gates, of_state = self._values[..., units : 3 * units], self._values[..., units:]
        states = self._kept.unbind()
        self._steps = list(
            zip(states[:-1], states[1:], of_state.unbind(), gates.unbind(), content, reset, update,
                part, strict=True)
        )  # fmt: skip
        by_sum = self._grads.unflatten(2, (4, units)).unbind()
        of_state = self._grads[..., units:].unbind()
        self._steps_back = list(zip(by_sum, of_state, update, strict=True))[::-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        recurrent, units, steps = self.recurrent, self._units, len(x)
        state_weight = recurrent.weight_hh_l0 * (self._factor * self.scale)
        factor = self._factor[:, 0]
        # The states are `2 * kept - 1`.
        state_bias = (recurrent.bias_hh_l0 * factor).sub_(state_weight.sum(1), alpha=0.5)
        bias = recurrent.bias_ih_l0 * factor
        bias[: 2 * units] += state_bias[: 2 * units]
        weight = (recurrent.weight_ih_l0 * self._factor).roll(units, 0).t()
        # The inputs of all time steps at once: they wait for no state.
        values = self._values[:steps].flatten(0, 1)
        torch.addmm(bias.roll(units), x.flatten(0, 1), weight, out=values[:, : 3 * units])
        values[:, 3 * units :] = state_bias[2 * units :]
        turned = state_weight.t()
        for before, after, sums, gates, content, reset, update, part in self._steps[:steps]:
            sums.addmm_(before, turned)
            gates.sigmoid_()
            content.addcmul_(reset, part).sigmoid_()
            torch.lerp(content, before, update, out=after)
        return self._kept[1 : steps + 1]

    def backward(
        self, x: torch.Tensor, of_kept: torch.Tensor, padding: torch.Tensor | None
    ) -> None:
        recurrent, units, steps = self.recurrent, self._units, len(x)
        self._fill_slopes(steps)
        grads, before = self._grads[:steps], self._kept[:steps]
        self._carry(self._steps_back[-steps:], _by_step_back(of_kept, steps))
        grads, before = grads.flatten(0, 1), before.flatten(0, 1)
        sums, factor = grads.sum(0), self._factor[:, 0]
        of_input, of_state = grads[:, : 3 * units], grads[:, units:]
        torch.mul(sums[: 3 * units].roll(-units), factor, out=recurrent.bias_ih_l0.grad)
        torch.mul(sums[units:], factor, out=recurrent.bias_hh_l0.grad)
        # This way round the products take two thirds of the time.
        of_weight = (x.flatten(0, 1).t() @ of_input).t().roll(-units, 0)
        torch.mul(of_weight, self._factor, out=recurrent.weight_ih_l0.grad)
        of_weight = torch.addmm(
            sums[units:], before.t(), of_state, beta=self.shift, alpha=self.scale
        )
        torch.mul(of_weight.t(), self._factor, out=recurrent.weight_hh_l0.grad)

    def _carry(
        self,
        steps_back: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        of_kept_back: Sequence[torch.Tensor | None],
    ) -> None:
        """Turn the slopes, from the last step to the first, into the gradients of the sums."""
        weight = self.recurrent.weight_hh_l0 * (self._factor * self.scale)
        carried = self._carried.zero_()
        to_all = carried[:, None]
        for (by_sum, of_state, update), of_kept in zip(steps_back, of_kept_back, strict=True):
            if of_kept is not None:
                carried.add_(of_kept)
            by_sum.mul_(to_all)
            carried.mul_(update).addmm_(of_state, weight)

    def _fill_slopes(self, steps: int) -> None:
        """Fill the derivatives of what is kept of each state by each of its own sums."""
        content, reset, update, part = self._values[:steps].split(self._units, 2)
        of_content, of_reset, of_update, of_part = self._grads[:steps].split(self._units, 2)
        new = torch.sub(self._one, update, out=self._room[:steps])
        torch.sub(self._one, content, out=of_content).mul_(content).mul_(new)
        torch.sub(self._kept[:steps], content, out=of_update).mul_(update).mul_(new)
        torch.mul(of_content, reset, out=of_part)
        torch.sub(self._one, reset, out=of_reset).mul_(of_part).mul_(part)


class LstmGradients:
    """Those of `nn.LSTM`.

    PyTorch has one kernel for all steps of an LSTM, and one for the way back, which autograd knows
    to call; no loop in Python is as fast.
    """

    scale, shift = 1.0, 0.0

    def __init__(self, recurrent: nn.Module, examples: int) -> None:
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self._weights = [recurrent.get_parameter(f"{part}_l0") for part in parts]
        self._start = self._weights[1].new_zeros(1, examples, recurrent.hidden_size)
        self._states = self._start

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = (self._start, self._start)
        with torch.enable_grad():
            # Biases, one layer, no dropout, in training, in one direction, time first.
            self._states, _, _ = torch.lstm(
                x, start, self._weights, True, 1, 0.0, True, False, False
            )
        return self._states.detach()

    def backward(
        self, x: torch.Tensor, of_kept: torch.Tensor, padding: torch.Tensor | None
    ) -> None:
        with torch.enable_grad():
            states = self._states[-1] if of_kept.dim() == 2 else self._states
        trained = [weight for weight in self._weights if weight.requires_grad]
        found = torch.autograd.grad(states, trained, of_kept)
        torch._foreach_copy_([weight.grad for weight in trained], found)


def _by_step_back(of_kept: torch.Tensor, steps: int) -> Sequence[torch.Tensor | None]:
    """The gradients of each step from the last to the first; None where it has none."""
    if of_kept.dim() == 2:
        return [of_kept, *[None] * (steps - 1)]
    return list(of_kept.unbind()[::-1])


def are_written_out(cell: Cell, activation: str) -> bool:
    """Whether there are gradients of such a layer here.

    Those of a simple cell for any activation, those of gated cells for that of PyTorch's own.
    """
    return cell == "simple_rnn" or activation == "tanh"


def layer_gradients(
    recurrent: nn.Module, activation: str, timesteps: int, examples: int
) -> LayerGradients:
    """Those of one layer in one direction, for which `are_written_out` holds."""
    cell = kind_of(recurrent).name
    if cell == "lstm":
        return LstmGradients(recurrent, examples)
    if cell == "gru":
        return GruGradients(recurrent, timesteps, examples)
    return SimpleGradients(recurrent, activation, timesteps, examples)
