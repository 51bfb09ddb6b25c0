"""The order in which a training meets its examples, whatever computes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rnn_tf.data.spec import Split

# Where lengths vary, so many batches share out their examples by length. More would leave less
# padding in a batch, but its examples would be less of a random draw.
WINDOW = 8

# A fused epoch holds the training split three times: as loaded, this epoch, the next. Of more
# bytes, and of what lies in files, an epoch is trained in pieces: one while the next is read.
EPOCH_BYTES = 2 * 2**30
# A piece has at most so many batches, and so many bytes, but at least one batch. In memory are four
# at a time: in training, ready, and as it is read and put in order.
PIECE_BATCHES, PIECE_BYTES = 1_000, 64 * 2**20

# Of data in files, a piece is read in so many parts, and each fills its own places of every batch.
# Of several replicas each has its own places too, every second or every third: it reads the parts
# that fill them, and no others where the number of replicas divides this one. With more parts,
# batches of like length would be less alike: the longest of 64 would be 1.25 times the mean with
# 24 parts, where it is 1.18 times with 12, and 1.08 times with one.
LANES = 12


def epoch_order(
    examples: int,
    batch_size: int,
    seed: int,
    epoch: int,
    lengths: np.ndarray | None = None,
    *,
    piece: int = 0,
    lanes: int = 1,
) -> np.ndarray:
    """The examples of each batch of one epoch, as indices: int32 `(steps, batch_size)`.

    A pure function of its arguments: an epoch's order needs none of the epochs before it, so a
    run that was interrupted goes on with the order it would have had. -1 fills the last batch.
    Given the `lengths` of the examples, `(examples,)`, a batch has sequences of like length, so
    that few wait for the longest; which are in it, and when it comes, is left to chance. Where
    `examples` are those of one `piece` of an epoch, each has an order of its own. With `lanes`,
    the examples are cut into so many parts, and the n-th place of every batch is filled from part
    n modulo `lanes`.
    """
    steps = -(-examples // batch_size)
    order = np.full((steps, batch_size), -1, np.int32)
    places = np.arange(order.size).reshape(order.shape)
    random = np.random.default_rng([seed, epoch, piece] if piece else [seed, epoch])
    lanes = min(lanes, batch_size)
    begin = 0
    for lane in range(lanes):
        filled = places[:, lane::lanes].ravel()
        filled = filled[filled < examples]
        order.flat[filled] = begin + random.permutation(len(filled))
        begin += len(filled)
    if lengths is not None:
        # The last batch, if it is not full, stays the last, and as it was drawn.
        batches = order[: examples // batch_size]
        for start in range(0, len(batches), WINDOW):
            for lane in range(lanes):
                window = batches[start : start + WINDOW, lane::lanes]
                drawn = window.ravel()
                window[:] = drawn[np.argsort(lengths[drawn], kind="stable")].reshape(window.shape)
        random.shuffle(batches)
    return order


@dataclass(frozen=True, eq=False)
class Order:
    """The order of every epoch of a training, in pieces, each a pure function of seed and epoch.

    Of examples in memory it is `epoch_order`, cut into pieces. Of those in files it is shuffled in
    two ways, so that they are read in stretches of about a megabyte. First the stretches of all
    files are put into random order, and that is cut into pieces; a piece has `batches` batches, so
    its examples come from many places, also in files that are sorted by class. Then the examples of
    a piece are put into the order that `epoch_order` gives them, in `LANES`: each batch has some
    from every place of the piece, and a replica reads from its own. What fits into one piece has
    the same order from files as from memory.
    """

    split: Split
    batch_size: int
    seed: int
    batches: int  # in a piece; the last piece may have fewer
    # The last epoch that was asked for, of examples in memory.
    _last: dict[int, np.ndarray] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, split: Split, batch_size: int, seed: int = 0, *, every_step: bool = False) -> Order:
        """The order with pieces as large as they may be, and as equal.

        `every_step`: each step has a label and a weight in memory too.
        """
        _, steps, features = split.x.shape
        example_bytes = steps * (features * split.x.itemsize + (8 if every_step else 0))
        bytes_a_batch = batch_size * example_bytes
        updates = most = -(-len(split.y) // batch_size)
        if split.stored is not None or updates * bytes_a_batch > EPOCH_BYTES:
            most = max(1, min(PIECE_BATCHES, PIECE_BYTES // bytes_a_batch))
        pieces = -(-updates // most)
        return cls(split, batch_size, seed, -(-updates // pieces))

    @property
    def updates(self) -> int:
        """The batches of an epoch."""
        return -(-len(self.split.y) // self.batch_size)

    @property
    def pieces(self) -> int:
        """The pieces of an epoch."""
        return -(-self.updates // self.batches)

    def piece(self, epoch: int, number: int) -> np.ndarray:
        """The examples of one piece, `number` counted from 0: int32 `(batches, batch_size)`."""
        if self.split.stored is None:
            return self._in_memory(epoch)[number * self.batches :][: self.batches]
        rows = self._read(epoch, number)
        lengths = None if self.split.lengths is None else self.split.lengths[rows]
        order = epoch_order(
            len(rows), self.batch_size, self.seed, epoch, lengths,
            piece=number, lanes=LANES if self.pieces > 1 else 1,
        )  # fmt: skip
        return np.where(order < 0, -1, rows[order]).astype(np.int32)

    def epoch(self, epoch: int) -> np.ndarray:
        """The examples of all batches of an epoch, int32 `(updates, batch_size)`."""
        return np.concatenate([self.piece(epoch, number) for number in range(self.pieces)])

    def _in_memory(self, epoch: int) -> np.ndarray:
        if epoch not in self._last:
            of = self.split
            order = epoch_order(len(of.y), self.batch_size, self.seed, epoch, of.lengths)
            self._last.clear()
            self._last[epoch] = order
        return self._last[epoch]

    def _read(self, epoch: int, number: int) -> np.ndarray:
        """The examples that a piece reads from files, stretch by stretch as they are drawn."""
        if self.pieces == 1:
            return np.arange(len(self.split.y))
        begins = self.split.stored.stretches  # type: ignore[union-attr]
        sizes = np.diff(begins, append=len(self.split.y))
        # Another stream of random numbers than those that are drawn for pieces.
        drawn = np.random.default_rng([self.seed, epoch, self.pieces]).permutation(len(begins))
        ends = np.cumsum(sizes[drawn])
        first = number * self.batches * self.batch_size
        last = min(first + self.batches * self.batch_size, len(self.split.y))
        here = slice(np.searchsorted(ends, first, "right"), np.searchsorted(ends, last, "left") + 1)
        rows = np.concatenate([np.arange(begins[s], begins[s] + sizes[s]) for s in drawn[here]])
        skipped = first - (ends[here.start] - sizes[drawn[here.start]])
        return rows[skipped:][: last - first]
