"""The gradients of a small recurrent network in PyTorch, written out: no autograd, no waiting."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rnn_tf.training.torch.layer_gradients import layer_gradients
from rnn_tf.training.torch.module import SequenceClassifier


class ManualGradients:
    """The gradients of the mean cross-entropy of one batch, for one layer in one direction.

    The layer is one of `are_written_out`. Put a batch into `x`, scaled float
    `(timesteps, examples, features)`, and call this: it fills `grad`, which must be there, of each
    parameter; of a simple layer not that of `bias_hh_l0`, which only adds to the other bias and is
    not trained. Time comes first, so that each time step is one piece of memory.

    Of right-padded sequences only the steps up to the longest of the batch are computed. States
    beyond the end of a sequence are computed with the others and come to nothing: the answer is
    that of the state at its own end, where the way back begins. A module that answers at every step
    has the states of all steps answer, and their gradients join on the way back.
    """

    def __init__(
        self, module: SequenceClassifier, activation: str, timesteps: int, examples: int
    ) -> None:
        self.module = module
        weight = module.recurrent.weight_ih_l0
        self.x = weight.new_empty(timesteps, examples, weight.shape[1])
        self._layer = layer_gradients(module.recurrent, activation, timesteps, examples)
        answers = timesteps * examples if module.every_step else examples
        self._shift = torch.full_like(self._layer.kept[0], self._layer.shift)
        self._minus_one = weight.new_full((answers, 1), -1.0)
        self._rows = torch.arange(examples)
        self._steps = torch.arange(timesteps)[:, None]

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
        x, kept = self.x[:steps], self._layer.kept
        padding = None if lengths is None else self._padding(steps, lengths)
        self._layer.forward(x)
        if self.module.every_step:
            states, y = self._states_of_all_steps(steps, padding), y.t().flatten()
            labelled, y = y >= 0, y.clamp(min=0)
            counts = labelled if weight is None else labelled * weight.index_select(0, y)
            said = logits.new_empty(len(states), logits.shape[2])
            error = self._fill_dense(states, y, said, counts)
            logits[:, steps:] = 0
            logits[:, :steps] = said.unflatten(0, (steps, -1)).transpose(0, 1)
        else:
            last = kept[steps] if lengths is None else kept[lengths, self._rows]
            states = torch.add(self._shift, last, alpha=self._layer.scale)
            of_each = None if weight is None else weight.index_select(0, y)
            error = self._fill_dense(states, y, logits, of_each)
        self._layer.backward(x, self._of_kept_back(error, steps, lengths), padding)

    def _of_kept_back(
        self, error: torch.Tensor, steps: int, lengths: torch.Tensor | None
    ) -> Sequence[torch.Tensor | None]:
        """What the gradients of the logits make of `kept` of each step, from the last one back."""
        of_kept = torch.mm(error, self.module.dense.weight * self._layer.scale)
        if self.module.every_step:
            return list(of_kept.unflatten(0, (steps, -1)).unbind()[::-1])
        if lengths is None:
            return [of_kept, *[None] * (steps - 1)]
        of_steps = of_kept.new_zeros(steps, *of_kept.shape)
        of_steps[lengths - 1, self._rows] = of_kept
        return list(of_steps.unbind()[::-1])

    def _states_of_all_steps(self, steps: int, padding: torch.Tensor | None) -> torch.Tensor:
        """The states after the first `steps` time steps, one step after the other."""
        layer = self._layer
        states = layer.kept[1 : steps + 1].mul(layer.scale).add_(layer.shift)
        if padding is not None:
            states.masked_fill_(padding, 0)
        return states.flatten(0, 1)

    def _padding(self, steps: int, lengths: torch.Tensor) -> torch.Tensor:
        """Which of the first `steps` steps are beyond the end: bool `(steps, examples, 1)`."""
        return (self._steps[:steps] >= lengths)[..., None]

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
