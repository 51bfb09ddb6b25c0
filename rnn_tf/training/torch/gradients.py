"""The gradients of a recurrent layer and a softmax in PyTorch, written out."""

from __future__ import annotations

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
        self._shift = weight.new_tensor(self._layer.shift)
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
        x, padding = self.x[:steps], None
        if lengths is not None:
            padding = (self._steps[:steps] >= lengths)[..., None]
            x.masked_fill_(padding, 0)  # whatever it holds
        kept = self._layer.forward(x)
        if self.module.every_step:
            states, y = self._states_of_all_steps(kept, padding), y.t().flatten()
            labelled, y = y >= 0, y.clamp(min=0)
            counts = labelled if weight is None else labelled * weight.index_select(0, y)
            said = logits.new_empty(len(states), logits.shape[2])
            error = self._fill_dense(states, y, said, counts)
            logits[:, steps:] = 0
            logits[:, :steps] = said.unflatten(0, (steps, -1)).transpose(0, 1)
        else:
            last = kept[-1] if lengths is None else kept[lengths - 1, self._rows]
            states = torch.add(self._shift, last, alpha=self._layer.scale)
            of_each = None if weight is None else weight.index_select(0, y)
            error = self._fill_dense(states, y, logits, of_each)
        self._layer.backward(x, self._of_kept(error, steps, lengths), padding)

    def _of_kept(
        self, error: torch.Tensor, steps: int, lengths: torch.Tensor | None
    ) -> torch.Tensor:
        """What the gradients of the logits make of those of `kept`, as the layer takes it."""
        of_kept = torch.mm(error, self.module.dense.weight * self._layer.scale)
        if self.module.every_step:
            return of_kept.unflatten(0, (steps, -1))
        if lengths is None:
            return of_kept
        of_steps = of_kept.new_zeros(steps, *of_kept.shape)
        of_steps[lengths - 1, self._rows] = of_kept
        return of_steps

    def _states_of_all_steps(
        self, kept: torch.Tensor, padding: torch.Tensor | None
    ) -> torch.Tensor:
        """The states after all time steps, one step after the other; 0 in the padding."""
        states = kept.mul(self._layer.scale).add_(self._layer.shift)
        if padding is not None:
            states.masked_fill_(padding, 0)
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
