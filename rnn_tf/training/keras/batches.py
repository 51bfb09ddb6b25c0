"""Arrays to tf.data: the only module that knows the order of the steps, and why it is so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from rnn_tf.data.spec import SequenceSpec, Split
from rnn_tf.training.order import epoch_order

# Sequences `(batch, timesteps, features)`, where lengths vary beside their lengths, `(batch,)`.
Inputs: TypeAlias = tf.Tensor | tuple[tf.Tensor, tf.Tensor]

Numbers: TypeAlias = np.ndarray | tf.Variable

# In all that follows, labels and weights have one more axis, timesteps, where a split has labels by
# step. A step without a label, such as padding, has weight 0, and class 0: any would do.

# Examples per evaluation batch: many, since each batch has a fixed cost, and a divisor of MNIST's
# splits, so that one compiled shape serves all three. Fewer when sequences are large.
EVALUATION_BATCH = 5000
EVALUATION_BYTES = 16 * 2**20
# What gates and states of all time steps of a batch may take, at 256 numbers a step.
STATES_BYTES, NUMBERS_A_STEP = 256 * 2**20, 256


def whole_epochs(
    split: Split,
    batch_size: int,
    seed: int,
    first: int,
    last: int,
    *,
    class_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Epochs `first` to `last - 1`, one element each, for a program that runs a whole epoch.

    An element is `(x, y, weight)`: raw `(steps, batch_size, timesteps, features)`, int32 and
    float32 `(steps, batch_size)`. A weight is 1, or that of the class, `class_weights`
    `(classes,)`; weight 0 marks what fills the last batch. Where lengths vary, `x` is
    `(x, lengths)`, the lengths int32 `(steps, batch_size)`.
    """
    order = _order(split, batch_size, seed)
    dataset = tf.data.Dataset.range(first, last)
    dataset = dataset.map(_as_it_is(order))
    # Gathering on the host is a memory copy; the compiled program would do it number by number.
    dataset = dataset.map(_as_it_is(_gather(split, class_weights)), num_parallel_calls=1)
    # The next epoch is gathered while this one trains; more would only hold memory.
    return dataset.prefetch(1).with_options(_untuned())


def batches(
    split: Split,
    spec: SequenceSpec,
    batch_size: int,
    seed: int,
    epoch: Callable[[], np.ndarray],
    *,
    class_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """One epoch in batches, the one that `epoch()`, int64, says when an iteration begins.

    An element is `(x, y, weight)`: normalized float32 `(batch_size, timesteps, features)`, int32
    and float32 `(batch_size,)`. Weights are as in `whole_epochs`. Where lengths vary, `x` is
    `(x, lengths)`, the lengths int32 `(batch_size,)`.
    """
    order = _order(split, batch_size, seed)
    now = tf.data.Dataset.range(1)
    now = now.map(_as_it_is(lambda _: tf.numpy_function(epoch, [], tf.int64)))
    # Shuffling indices before anything is touched shuffles the whole split at no cost.
    dataset = now.map(_as_it_is(order)).unbatch()
    # Whole batches, so that one vectorised call gathers and normalizes 64 examples, not one.
    normalize = normalizer(*spec.normalization.arrays())
    gather = _gather(split, class_weights)

    def example_batch(order: tf.Tensor) -> tuple[Inputs, tf.Tensor, tf.Tensor]:
        x, y, weight = gather(order)
        return normalize(x), y, weight

    dataset = dataset.map(_as_it_is(example_batch), num_parallel_calls=tf.data.AUTOTUNE)
    # Last, so that everything above overlaps with training.
    return dataset.prefetch(tf.data.AUTOTUNE)


def evaluation_batches(split: Split, spec: SequenceSpec, *, raw: bool = False) -> tf.data.Dataset:
    """The split once, in order, every example: `(x, y)`, y int32, or by step `(x, y, weight)`.

    `x` is normalized float32 `(batch, timesteps, features)`, or as it was loaded if `raw`; where
    lengths vary, `(x, lengths)`.
    """
    by_input = EVALUATION_BYTES // (4 * spec.longest * spec.features)
    by_states = STATES_BYTES // (4 * spec.longest * NUMBERS_A_STEP)
    most = max(1, min(EVALUATION_BATCH, by_input, by_states))
    weights = _weights(split, None)
    labels = (split.y,) if weights is None else (_labels(split), weights)
    examples = (_inputs(split), *labels)
    if len(split.y) <= most:
        # As a whole: cutting it up and putting it together takes longer than evaluating it.
        dataset = tf.data.Dataset.from_tensors(examples)
    else:
        dataset = tf.data.Dataset.from_tensor_slices(examples).batch(most)
    if not raw:
        normalize = normalizer(*spec.normalization.arrays())
        # After batching, so that normalizing is vectorised.
        dataset = dataset.map(_as_it_is(lambda x, *labels: (normalize(x), *labels))).prefetch(1)
    return dataset.with_options(_untuned())


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` traced as Python runs it: it has no `if` or loop over tensors.

    TensorFlow would rewrite its source, to find any: 0.2 s in a process.
    """
    traced: Callable[..., Any] = tf.autograph.experimental.do_not_convert(function)
    return traced


def _untuned() -> tf.data.Options:
    """Options of a pipeline in which there is nothing to tune.

    TensorFlow starts a tuning thread for each iterator, one an epoch, even so, and often waits for
    all of them at the end of training, up to half a second each.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _order(split: Split, batch_size: int, seed: int) -> Callable[[tf.Tensor], tf.Tensor]:
    examples = len(split.y)
    shape = (-(-examples // batch_size), batch_size)

    def order(epoch: tf.Tensor) -> tf.Tensor:
        rows = tf.numpy_function(
            lambda number: epoch_order(examples, batch_size, seed, int(number), split.lengths),
            [epoch],
            tf.int32,
        )
        # Python functions lose the static shape that a compiler needs.
        return tf.ensure_shape(rows, shape)

    return order


def _inputs(split: Split) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """The sequences of a split as a model is asked for them, but not normalized."""
    return split.x if split.lengths is None else (split.x, split.lengths)


def _labels(split: Split) -> np.ndarray:
    """The class of each answer, a class also where there is none."""
    return np.maximum(split.y, 0) if split.labelled_by_step else split.y


def _weights(split: Split, class_weights: np.ndarray | None) -> np.ndarray | None:
    """What each answer counts in the loss, float32 like `y`; None where all count the same."""
    of_class = None if class_weights is None else class_weights[_labels(split)]
    if not split.labelled_by_step:
        return of_class
    labelled = (split.y >= 0).astype(np.float32)
    return labelled if of_class is None else labelled * of_class


def _gather(
    split: Split, class_weights: np.ndarray | None
) -> Callable[[tf.Tensor], tuple[Inputs, tf.Tensor, tf.Tensor]]:
    examples = tf.nest.map_structure(tf.constant, (_inputs(split), _labels(split)))
    weights = _weights(split, class_weights)
    of_example = None if weights is None else tf.constant(weights)

    def gather(order: tf.Tensor) -> tuple[Inputs, tf.Tensor, tf.Tensor]:
        weight = tf.cast(order >= 0, tf.float32)
        # Example 0 fills the last batch: any finite numbers do, since their weight is 0.
        index = tf.maximum(order, 0)
        if of_example is not None:
            gathered = tf.gather(of_example, index)
            weight = gathered * (weight[..., None] if split.labelled_by_step else weight)
        x, y = tf.nest.map_structure(lambda each: tf.gather(each, index), examples)
        return x, y, weight

    return gather


def normalizer(scale: Numbers, shift: Numbers | None = None) -> Callable[[Inputs], Inputs]:
    """The rule of `Normalize` in TensorFlow: raw `(..., features)` to float32 model input.

    `scale` and `shift` are its arrays, or variables that hold them. Lengths beside the sequences
    stay as they are.
    """

    def normalized(x: tf.Tensor) -> tf.Tensor:
        scaled = tf.cast(x, tf.float32) * scale
        return scaled if shift is None else scaled + shift

    def of_inputs(inputs: Inputs) -> Inputs:
        if isinstance(inputs, tuple):
            sequences, lengths = inputs
            return normalized(sequences), lengths
        return normalized(inputs)

    return of_inputs
