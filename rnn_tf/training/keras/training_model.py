"""What every way of training a model in Keras shares: its noise, a step in parts, how it counts."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rnn_tf.model.classifier import MaskedSequential, recurrent_layers
from rnn_tf.training.keras.chance import next_seed, normal_noise


class TrainingSequential(MaskedSequential):
    """A Sequential in training.

    Its scores count each answer once, whatever it weighs in the loss. What it reads in training has
    normal noise of the deviation `noise` `(features,)`; None: none.

    What was learned from the data is in variables, `learned`, so that one compiled program serves
    many trainings.
    """

    def __init__(self, layers: list[keras.Layer], noise: np.ndarray | None = None) -> None:
        super().__init__(layers)
        self.learned: list[tf.Variable] = []
        self.noise = None
        if noise is not None:
            self.noise = self.learn(noise)
            # Its state is among the variables: a training that goes on draws what it would have.
            self.noise_seed = keras.random.SeedGenerator()

    def learn(self, numbers: np.ndarray) -> tf.Variable:
        """A variable of what was learned from the data, which no training changes."""
        self.learned.append(tf.Variable(numbers, trainable=False))
        return self.learned[-1]

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if training and self.noise is not None:
            x, *lengths = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
            x += self.noise * normal_noise(x, next_seed(self.noise_seed))
            inputs = (x, *lengths) if lengths else x
        return super().call(inputs, training=training, mask=mask)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        if sample_weight is not None:
            sample_weight = tf.cast(sample_weight > 0, tf.float32)
        scores: dict[str, Any] = super().compute_metrics(x, y, y_pred, sample_weight)
        return scores

    def learning_rate(self) -> tf.Tensor:
        """That of the next step, float32 `()`."""
        return keras.ops.convert_to_tensor(self.optimizer.learning_rate)

    def gradients_of_part(
        self, x: Any, y: tf.Tensor, weight: tf.Tensor, *, answers: int
    ) -> tuple[tf.Tensor, ...]:
        """The logits of a part of a batch; then what is to be summed over its parts.

        That is the weights, the loss, and the gradient for each variable, these two of the sum of
        the losses as a share of the `answers` of the whole batch: of the size of a mean, which
        float16 needs. `update` makes it the mean by weight.
        """
        variables = [variable.value for variable in self.trainable_variables]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            probabilities = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=probabilities, sample_weight=weight)
            total = tf.reduce_sum(weight)
            # Keras's is the mean of this part, divided by the number of replicas.
            loss *= tf.cast(total * (replicas / answers), loss.dtype)
            scaled = self.optimizer.scale_loss(loss)
        return logits_of(probabilities), total, loss, *tape.gradient(scaled, variables)

    def update(
        self,
        y: tf.Tensor,
        weight: tf.Tensor,
        logits: tf.Tensor,
        sums: Sequence[tf.Tensor],
        *,
        answers: int,
    ) -> None:
        """Make the step of a batch by the `sums` over its parts, and count what it answered."""
        total, loss, *gradients = sums
        share = tf.math.divide_no_nan(float(answers), total)
        gradients = [gradient * tf.cast(share, gradient.dtype) for gradient in gradients]
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self._loss_tracker.update_state(loss * share, sample_weight=y.shape[0])
        probabilities = tf.nn.softmax(logits)
        self.compute_metrics(x=None, y=y, y_pred=probabilities, sample_weight=weight)


def logits_of(probabilities: tf.Tensor) -> tf.Tensor:
    """The logits of a softmax in the same program.

    Keras computes a loss from them where it finds them, and elsewhere from probabilities of at
    least 1e-7, so that no loss is above 16.1. A program that counts answers of another is given
    these, and makes the softmax itself.
    """
    if probabilities.op.type != "Softmax":
        raise ValueError(f"expected answers of a softmax, got those of {probabilities.op.type}")
    logits: tf.Tensor = probabilities.op.inputs[0]
    return logits


@contextlib.contextmanager
def rolled(model: keras.Sequential) -> Iterator[None]:
    """Have the recurrent layers loop over time meanwhile, also where it is written out."""
    layers = list(itertools.chain(*recurrent_layers(model)))
    written_out = [layer.unroll for layer in layers]
    for layer in layers:
        layer.unroll = False
    try:
        yield
    finally:
        for layer, unroll in zip(layers, written_out, strict=True):
            layer.unroll = unroll
