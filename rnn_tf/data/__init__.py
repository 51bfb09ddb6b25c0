"""Where examples come from: `load(source)`, one module per kind of source."""

from __future__ import annotations

import warnings

from rnn_tf.data.likely_mistakes import likely_mistakes
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.errors import InputError

__all__ = ["SequenceData", "SequenceSpec", "Split", "load", "needs_tensorflow"]

TFDS = "tfds:"

MNIST = "mnist"


def load(source: str, *, to_train: bool = False) -> SequenceData:
    """Load a data set by name.

    `mnist` is the embedded default, `tfds:<name>` a set of TensorFlow Datasets, `<file>.npz` the
    user's own arrays. With `to_train`, warns (`UserWarning`) of what is probably a mistake in data
    to train on. Raises `InputError` for any other name, and for a source that cannot be read.
    """
    data = _load(source)
    if to_train and source != MNIST:
        for line in likely_mistakes(data):
            warnings.warn(f"{source}: {line}", stacklevel=2)
    return data


def _load(source: str) -> SequenceData:
    if source == MNIST:
        from rnn_tf.data import mnist

        return mnist.load()
    if source.startswith(TFDS):
        from rnn_tf.data import tfds

        return tfds.load(source.removeprefix(TFDS))
    if source.endswith(".npz"):
        from rnn_tf.data import npz

        return npz.load(source)
    raise InputError(
        f"unknown dataset {source!r}",
        expected="mnist, tfds:<name> or <file>.npz",
        fix="For your own arrays, save them with numpy.savez and give the path of the .npz file.",
    )


def needs_tensorflow(source: str) -> bool:
    """Whether reading this source may import TensorFlow. Whoever cares how starts it before."""
    return source.startswith(TFDS)
