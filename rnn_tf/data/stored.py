"""The sequences of a split that lie in files and not in memory: read when they are asked for."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_tf.data import records
from rnn_tf.data.shards import Shard, check

if TYPE_CHECKING:
    import tensorflow as tf

# Examples that are read one after the other, whatever the order of an epoch: so many bytes take a
# disk longer to read than to find.
STRETCH_BYTES = 2**20
# Fewer bytes between two examples are read as well: to open a file at another place takes longer.
GAP_BYTES = 2**16


@dataclass(frozen=True, eq=False)
class StoredSequences:
    """Sequences in TFRecord shards, with the shape of an array `(n, longest, features)`.

    What is taken by an index is read, and is an array: as many as are asked for must fit into
    memory.
    """

    files: tuple[Path, ...]  # in the order of the sequences
    shards: tuple[Shard, ...]  # what is known of each file
    sizes: np.ndarray  # (n,), whole numbers: bytes of each record
    longest: int
    features: int
    dtype: np.dtype[Any]  # uint8 or float32

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self), self.longest, self.features

    @property
    def ndim(self) -> int:
        return 3

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize

    @property
    def example_bytes(self) -> int:
        """Bytes of a sequence in memory, padding included."""
        return self.longest * self.features * self.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all sequences, if they were in memory."""
        return len(self) * self.example_bytes

    @property
    def digest(self) -> str:
        """What two sets have in common if they have the same sequences in the same shards."""
        return " ".join(shard.sha256 for shard in self.shards)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Read the sequences at `rows`: indices, a mask or a slice; `(rows, longest, features)`."""
        from rnn_tf.startup import process

        if isinstance(rows, slice):
            wanted = np.arange(*rows.indices(len(self)))
        else:
            wanted = np.arange(len(self))[rows]
        if not wanted.size:
            return np.zeros((*wanted.shape, *self.shape[1:]), self.dtype)
        process.start()
        with self.damage_named():
            read = self._read(wanted.ravel()).numpy()
        sequences: np.ndarray = read.reshape(*wanted.shape, *self.shape[1:])
        return sequences

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    @contextlib.contextmanager
    def damage_named(self) -> Iterator[None]:
        """Raise `InputError` for the shard that is to blame where TensorFlow could not read one."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError:
            for file, shard in zip(self.files, self.shards, strict=True):
                check(file, shard, whole=True)
            raise

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """How many sequences each file holds, int64."""
        return np.array([shard.examples for shard in self.shards])

    @functools.cached_property
    def begins(self) -> np.ndarray:
        """The byte of its file at which each record begins, int64 `(n,)`."""
        in_all = np.cumsum(self.sizes, dtype=np.int64) - self.sizes
        before = np.cumsum([0, *(shard.size for shard in self.shards[:-1])])
        begins: np.ndarray = in_all - np.repeat(before, self.counts)
        return begins

    @functools.cached_property
    def stretches(self) -> np.ndarray:
        """Where stretches begin that are read in one go: indices of sequences, int64, from 0.

        Each lies in one shard.
        """
        size = max(1, STRETCH_BYTES // self.example_bytes)
        first = np.cumsum(self.counts) - self.counts
        return np.concatenate(
            [np.arange(a, a + n, size) for a, n in zip(first, self.counts, strict=True)]
        )

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The sequences at `rows`, indices of any shape, as a step of tf.data reads them."""
        import tensorflow as tf

        flat = tf.reshape(rows, (-1,))
        stretches = tf.numpy_function(
            self._stretches_of, [flat], (tf.string, tf.int64, tf.int64, tf.int64)
        )
        example = self.shape[1:]
        read = tf.reshape(self._at(*stretches), tf.concat([tf.shape(rows), example], 0))
        return tf.ensure_shape(read, (*rows.shape, *example))

    @functools.cached_property
    def _read(self) -> Any:
        import tensorflow as tf

        flat = tf.TensorSpec((None,), tf.int64)
        return tf.function(self.gather, input_signature=[flat], autograph=False)

    def _stretches_of(
        self, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What must be read for `rows`: file, first byte and records of each stretch.

        And where among all that is read each of `rows` is.
        """
        wanted, of_rows = np.unique(rows.astype(np.int64), return_inverse=True)
        shard = np.searchsorted(np.cumsum(self.counts), wanted, side="right")
        ends = self.begins[wanted] + self.sizes[wanted]
        apart = (self.begins[wanted[1:]] - ends[:-1] > GAP_BYTES) | (np.diff(shard) != 0)
        first = np.concatenate([[0], np.flatnonzero(apart) + 1])
        last = np.append(first[1:], len(wanted)) - 1
        counts = wanted[last] - wanted[first] + 1
        # From where it is among all sequences to where it is among those that are read.
        moved = np.cumsum(counts) - counts - wanted[first]
        place = wanted + np.repeat(moved, last - first + 1)
        files = np.array([str(file).encode() for file in self.files], object)[shard[first]]
        return files, self.begins[wanted[first]], counts, place[of_rows]

    def _at(
        self, files: tf.Tensor, begins: tf.Tensor, counts: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        import tensorflow as tf

        for each in (files, begins, counts, places):
            each.set_shape((None,))  # a Python function has lost it
        read = records.read_stretches(files, begins, counts, self.shape[1:], self.dtype)
        return tf.gather(read, places)
