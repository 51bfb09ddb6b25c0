"""Sequences as a program has them in memory: one array, or a list with an array for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnn_tf.data.spec import Split, valid_steps
from rnn_tf.errors import InputError


def in_one_array(sequences: Any) -> Any:
    """A list of sequences that are all as long, as one array; what is no list, as it is.

    A sequence is `(steps, features)`, or `(steps,)` for one feature. Sequences of different lengths
    stay a list, of arrays `(steps, features)`. Raises `InputError` for sequences that do not go
    together.
    """
    of_objects = isinstance(sequences, np.ndarray) and sequences.dtype == object
    if not isinstance(sequences, (list, tuple)) and not (of_objects and sequences.ndim == 1):
        return sequences
    arrays = [np.asarray(each) for each in sequences]
    if len({each.shape for each in arrays}) <= 1:
        return np.array(arrays)
    for place, each in enumerate(arrays):
        if each.ndim not in (1, 2) or each.ndim != arrays[0].ndim or 0 in each.shape:
            raise InputError(
                f"bad shape of sequence {place}",
                expected="(steps, features) in all of them, or (steps,), each at least 1",
                got=each.shape,
            )
    if arrays[0].ndim == 1:
        arrays = [each[:, np.newaxis] for each in arrays]
    for place, each in enumerate(arrays):
        if each.shape[1] != arrays[0].shape[1]:
            raise InputError(
                f"sequence {place} has other features than sequence 0",
                expected=f"(steps, {arrays[0].shape[1]})", got=each.shape,
            )  # fmt: skip
    return arrays


def padded(values: np.ndarray, lengths: np.ndarray, longest: int) -> np.ndarray:
    """Right-padded with zeros: `(n, longest, features)`.

    `values`, `(steps of all, features)`, holds the sequences one after the other, of `lengths`
    `(n,)`, at most `longest`.
    """
    x = np.zeros((len(lengths), longest, values.shape[1]), values.dtype)
    x[valid_steps(lengths, longest)] = values
    return x


def first_steps(split: Split, steps: int) -> Split:
    """The first examples of a split, as many as have so many time steps together, at least one."""
    lengths = np.full(len(split.x), split.x.shape[1]) if split.lengths is None else split.lengths
    return split.take(slice(0, int(np.searchsorted(np.cumsum(lengths), steps)) + 1))
