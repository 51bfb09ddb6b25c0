"""Splits to tf.data: the only module that knows the order of the steps, and why it is so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from rnn_tf.data.spec import SequenceSpec, Split
from rnn_tf.training.order import Order

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


def pieces(
    order: Order, first: int, last: int, *, class_weights: np.ndarray | None = None
) -> tf.data.Dataset:
    """The pieces of the epochs `first` to `last - 1`, for a program that trains one at a time.

    An element is `(x, y, weight)`: raw `(steps, batch_size, timesteps, features)`, int32 and
    float32 `(steps, batch_size)`. A weight is 1, or that of the class, `class_weights`
    `(classes,)`; weight 0 marks what fills the last batch. Where lengths vary, `x` is
    `(x, lengths)`, the lengths int32 `(steps, batch_size)`.

    Where an epoch has several pieces, all have one shape, so that one program serves them all, and
    `steps`, int32 `()`, comes last: how many of the batches there are to train.
    """
    dataset = tf.data.Dataset.range(first * order.pieces, last * order.pieces)
    dataset = dataset.map(_as_it_is(_piece(order)))
    gather = _gather(order.split, class_weights)
    several = order.pieces > 1

    def piece(rows: tf.Tensor, steps: tf.Tensor) -> tuple[Any, ...]:
        return (*gather(rows), steps) if several else gather(rows)

    # Gathering on the host is a memory copy; the compiled program would do it number by number.
    dataset = dataset.map(_as_it_is(piece), num_parallel_calls=1)
    # The next piece is gathered while this one trains; more would only hold memory.
    return dataset.prefetch(1).with_options(_untuned())


def batches(
    order: Order,
    spec: SequenceSpec,
    epoch: Callable[[], np.ndarray],
    *,
    class_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """One epoch in batches, the one that `epoch()`, int64, says when an iteration begins.

    An element is `(x, y, weight)`: normalized float32 `(batch_size, timesteps, features)`, int32
    and float32 `(batch_size,)`. Weights are as in `pieces`. Where lengths vary, `x` is
    `(x, lengths)`, the lengths int32 `(batch_size,)`.
    """
    now = tf.data.Dataset.range(order.pieces)
    numbers = now.map(
        _as_it_is(lambda n: n + order.pieces * tf.numpy_function(epoch, [], tf.int64))
    )
    rows = numbers.map(_as_it_is(_rows_of_piece(order)))
    dataset = _examples(order.split, spec, rows, class_weights)
    # How many come of a piece is only known when its order is, and Keras must know it before.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(order.updates))
    # Last, so that everything above overlaps with training.
    return dataset.prefetch(tf.data.AUTOTUNE)


def evaluation_batches(split: Split, spec: SequenceSpec, *, raw: bool = False) -> tf.data.Dataset:
    """The split once, in order, every example: `(x, y)`, y int32, or by step `(x, y, weight)`.

    `x` is normalized float32 `(batch, timesteps, features)`, or as it was loaded if `raw`; where
    lengths vary, `(x, lengths)`.
    """
    most = evaluation_batch(spec)
    weights = _weights(split, None)
    labels = (split.y,) if weights is None else (_labels(split), weights)
    if split.stored is not None:
        dataset = _read_in_order(split, labels, most)
    elif len(split.y) <= most:
        dataset = tf.data.Dataset.from_tensors((_inputs(split), *labels))
    else:
        dataset = _in_slices((_inputs(split), *labels), most)
    if not raw:
        normalize = normalizer(*spec.normalization.arrays())
        # After batching, so that normalizing is vectorised.
        dataset = dataset.map(_as_it_is(lambda x, *labels: (normalize(x), *labels))).prefetch(1)
    return dataset.with_options(_untuned())


def evaluation_batch(spec: SequenceSpec) -> int:
    """The most examples of `spec` that are evaluated at a time."""
    by_input = EVALUATION_BYTES // (4 * spec.longest * spec.features)
    by_states = STATES_BYTES // (4 * spec.longest * NUMBERS_A_STEP)
    return max(1, min(EVALUATION_BATCH, by_input, by_states))


def parts_of_batches(
    split: Split,
    spec: SequenceSpec,
    rows: tf.data.Dataset,
    replicas: int,
    mine: range,
    *,
    class_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """For each batch the parts of the replicas `mine` out of so many, one after the other, endless.

    `rows` has the examples of some batches at a time, from `endless_rows` or `rows_in_order`. A
    replica has every `replicas`th of a batch. All parts are of one size; weight 0 marks what fills
    them. An element is as in `batches`.
    """

    def filled(rows: tf.Tensor) -> tf.Tensor:
        return tf.pad(rows, [[0, 0], [0, -rows.shape[1] % replicas]], constant_values=-1)

    def parts(batches: tf.Tensor) -> tf.Tensor:
        size = batches.shape[1] // replicas
        by_replica = tf.reshape(batches, (-1, size, replicas))[:, :, mine.start : mine.stop]
        return tf.reshape(tf.transpose(by_replica, (0, 2, 1)), (-1, size))

    rows_of_parts = rows.map(_as_it_is(lambda rows: parts(filled(rows))))
    dataset = _examples(split, spec, rows_of_parts, class_weights)
    # Without an end, workers need not ask each other at each step whether there is more.
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def endless_rows(order: Order, first: int) -> tf.data.Dataset:
    """The rows of each piece of all epochs from `first` on, int32 `(batches, batch_size)`."""
    numbers = tf.data.Dataset.counter(first * order.pieces)
    return numbers.map(_as_it_is(_rows_of_piece(order)))


def rows_in_order(split: Split, batch_size: int) -> tf.data.Dataset:
    """All rows of a split, again and again: int32 `(1, batch_size)`, -1 fills the last."""
    steps = -(-len(split.y) // batch_size)
    rows = np.full(steps * batch_size, -1, np.int32)
    rows[: len(split.y)] = np.arange(len(split.y))
    return tf.data.Dataset.from_tensor_slices(rows.reshape(steps, 1, batch_size)).repeat()


def _examples(
    split: Split,
    spec: SequenceSpec,
    rows: tf.data.Dataset,
    class_weights: np.ndarray | None,
) -> tf.data.Dataset:
    """The examples of one batch after the other, normalized, of which `rows` has some at a time."""
    normalize = normalizer(*spec.normalization.arrays())
    gather = _gather(split, class_weights)
    if split.stored is None:
        # Whole batches, so that one vectorised call gathers and normalizes 64 examples, not one.
        # Shuffling indices before anything is touched shuffles the whole split at no cost.
        dataset = rows.unbatch().map(_as_it_is(gather), num_parallel_calls=tf.data.AUTOTUNE)
    else:
        # The examples of a batch lie far apart in the files, those of a piece do not.
        dataset = rows.map(_as_it_is(gather), num_parallel_calls=1).unbatch()

    def as_seen(x: Inputs, *others: tf.Tensor) -> tuple[Inputs, ...]:
        return normalize(x), *others

    return dataset.map(_as_it_is(as_seen), num_parallel_calls=tf.data.AUTOTUNE)


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


def _piece(order: Order) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """By its number, counted from the first epoch: the rows of a piece, and how many batches.

    Rows are int32 `(order.batches, batch_size)`, whatever there are to train.
    """

    def rows_of(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = order.piece(*divmod(int(number), order.pieces))
        missing = order.batches - len(rows)
        rows_of_all = np.pad(rows, ((0, missing), (0, 0)), constant_values=-1)
        return rows_of_all, np.array(len(rows), np.int32)

    def piece(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows, steps = tf.numpy_function(rows_of, [number], (tf.int32, tf.int32))
        # Python functions lose the static shape that a compiler needs.
        return tf.ensure_shape(rows, (order.batches, order.batch_size)), tf.ensure_shape(steps, ())

    return piece


def _rows_of_piece(order: Order) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same, without what fills a piece: int32 `(batches, batch_size)`."""
    piece = _piece(order)

    def rows_of_piece(number: tf.Tensor) -> tf.Tensor:
        rows, steps = piece(number)
        return rows[:steps]

    return rows_of_piece


def _in_slices(arrays: tuple[Any, ...], most: int) -> tf.data.Dataset:
    """Arrays of one length, so many of their rows at a time.

    Cut out as a whole: taking rows one by one and putting them together takes longer than the
    answers to them.
    """
    rows = tf.nest.map_structure(tf.constant, arrays)
    starts = tf.data.Dataset.range(0, len(arrays[-1]), most)

    def cut(start: tf.Tensor) -> tuple[Any, ...]:
        slices: tuple[Any, ...] = tf.nest.map_structure(lambda x: x[start : start + most], rows)
        return slices

    return starts.map(_as_it_is(cut), num_parallel_calls=1).prefetch(1)


def _read_in_order(split: Split, labels: tuple[np.ndarray, ...], most: int) -> tf.data.Dataset:
    """The examples of files in their order, `most` at a time, each with its `labels`."""
    rows = tf.data.Dataset.range(len(split.y)).batch(most)
    others = tuple(map(tf.constant, labels))
    inputs = _inputs_at(split)

    def read(rows: tf.Tensor) -> tuple[Any, ...]:
        return inputs(rows), *(tf.gather(each, rows) for each in others)

    return rows.map(_as_it_is(read), num_parallel_calls=1).prefetch(1)


def _inputs(split: Split) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """The sequences of a split as a model is asked for them, but not normalized."""
    return split.x if split.lengths is None else (split.x, split.lengths)


def _inputs_at(split: Split) -> Callable[[tf.Tensor], Inputs]:
    """A function that gives the `_inputs` at indices of any shape."""
    if split.stored is None:
        examples = tf.nest.map_structure(tf.constant, _inputs(split))
        return lambda index: tf.nest.map_structure(lambda each: tf.gather(each, index), examples)
    read = split.stored.gather
    if split.lengths is None:
        return read
    lengths = tf.constant(split.lengths)
    return lambda index: (read(index), tf.gather(lengths, index))


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
    inputs, labels = _inputs_at(split), tf.constant(_labels(split))
    weights = _weights(split, class_weights)
    of_example = None if weights is None else tf.constant(weights)

    def gather(order: tf.Tensor) -> tuple[Inputs, tf.Tensor, tf.Tensor]:
        weight = tf.cast(order >= 0, tf.float32)
        # Example 0 fills the last batch: any finite numbers do, since their weight is 0.
        index = tf.maximum(order, 0)
        if of_example is not None:
            gathered = tf.gather(of_example, index)
            weight = gathered * (weight[..., None] if split.labelled_by_step else weight)
        return inputs(index), tf.gather(labels, index), weight

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
