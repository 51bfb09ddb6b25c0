"""Sets of TensorFlow Datasets read a block at a time, where `tfds` reads them whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rnn_tf.data import tfds, tfds_arrays
from rnn_tf.data.spec import SequenceData, Split
from rnn_tf.data.tfds_features import Columns
from rnn_tf.data.values import raw_values

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder


@dataclass(frozen=True, eq=False)
class SetSequences:
    """Sequences of a prepared set: a slice decodes those, and stands for an array of them.

    They lie in the split `key` of the set, in the places `rows`, int64 `(n,)`, in rising order.
    """

    builder: DatasetBuilder
    columns: Columns
    key: str
    rows: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self), self.columns.timesteps, self.columns.features

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.columns.dtype == np.uint8 else np.float32)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return len(self) * self.columns.example_bytes

    def __getitem__(self, some: slice) -> np.ndarray:
        """Decode the sequences of a slice, `(rows, timesteps, features)`."""
        rows = self.rows[some]
        if not rows.size:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        first, last = int(rows[0]), int(rows[-1])
        with tfds.quiet():
            key = f"{self.key}[{first}:{last + 1}]"
            block = tfds_arrays.read_split(self.builder, self.columns, key, last + 1 - first)
        read = raw_values({self.key: block.x[rows - first]}, self.source, tfds_arrays.LEAVE_OUT)
        return read[self.key]


def load(name: str) -> SequenceData | None:
    """A set by the name that `tfds.load` takes, its sequences not in memory.

    The splits, their order and what is said of them are those of `tfds.load`, whatever the set
    takes. None for MNIST, whose order is that of its official files: it is small. Raises
    `InputError` as `tfds.load` does.
    """
    with tfds.quiet():
        builder, columns = tfds.prepared(name, in_memory=False)
        if tfds_arrays.is_mnist(builder, columns):
            return None
        source = f"tfds:{name}"
        labels = tfds_arrays.read_labels(builder, columns)
    # Which examples are in which split depends on labels alone: in place of sequences, splits have
    # the numbers of their examples.
    numbers = {key: Split(np.arange(len(y))[:, None, None], y) for key, y in labels.items()}
    numbers, notes = tfds_arrays.labelled(numbers, source)
    cut, more = tfds_arrays.with_missing_splits(numbers)
    splits = []
    for key in tfds_arrays.SPLITS:
        x = SetSequences(
            builder, columns, key if key in numbers else "train", cut[key].x.ravel(), source
        )
        splits.append(Split(cast(np.ndarray, x), cut[key].y))
    notes = [*tfds_arrays.size_notes(columns, source), *notes, *more]
    tfds.say(notes, name)
    return SequenceData(tfds_arrays.spec_of(builder, columns), *splits)
