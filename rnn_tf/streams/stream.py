"""Sequences as one stream, one after the other, and what a model answers along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnn_tf.data.spec import UNLABELLED, Split, valid_steps

# The label of an answer that is none: its probabilities are not finite.
NO_ANSWER = -2
# Training steps of which silence is the median, at most.
STEPS_OF_SILENCE = 2**18


@dataclass(frozen=True)
class Stream:
    """Sequences played one after the other; each may be followed by a gap."""

    frames: np.ndarray  # (steps, features), raw values
    # (steps,), int32: the class that is right after each step, UNLABELLED in gaps.
    labels: np.ndarray
    begins: np.ndarray  # (n,), int64: where each sequence begins, the first at 0
    lengths: np.ndarray  # (n,), int64: how many steps each has, without its gap

    @property
    def steps(self) -> int:
        return len(self.frames)

    def by_sequence(self, values: np.ndarray, fill: float | np.generic) -> np.ndarray:
        """Values of each step, `(steps,)`, as `(n, longest)`: a row a sequence, its steps only."""
        longest = int(self.lengths.max())
        steps = np.minimum(self.begins[:, None] + np.arange(longest), self.steps - 1)
        rows: np.ndarray = np.where(valid_steps(self.lengths, longest), values[steps], fill)
        return rows


class Answers(NamedTuple):
    """The answer after each step of a stream."""

    labels: np.ndarray  # (steps,), int32: the most probable class, or NO_ANSWER
    confidence: np.ndarray  # (steps,), float32: its probability; 0 where there is no answer
    largest: np.ndarray  # (steps,), float32: the largest size of a number in the state


def as_stream(split: Split, *, gap: int = 0, silence: np.ndarray | float = 0.0) -> Stream:
    """Play the sequences of a split one after the other, each at its own length.

    After each come `gap` frames of `silence`, raw values `(features,)`.
    """
    n, longest, features = split.x.shape
    lengths = np.full(n, longest) if split.lengths is None else split.lengths.astype(np.int64)
    begins = np.concatenate([[0], np.cumsum(lengths + gap)[:-1]])
    total = int((lengths + gap).sum())
    frames = np.empty((total, features), split.x.dtype)
    frames[:] = silence
    labels = np.full(total, UNLABELLED, np.int32)
    valid = valid_steps(lengths, longest)
    places = (begins[:, None] + np.arange(longest))[valid]
    frames[places], labels[places] = split.x[valid], split.step_labels[valid]
    return Stream(frames, labels, begins, lengths)


def silence(split: Split) -> np.ndarray:
    """The frame that stands for silence, raw `(features,)`: the median of each feature.

    Of the training examples, `split`. A sensor that is at rest most of the time rests there; of
    drawings it is the paper. Taken of `STEPS_OF_SILENCE` steps where there are more.
    """
    every = -(-len(split.x) * split.x.shape[1] // STEPS_OF_SILENCE)
    some = split.take(slice(None, None, every))
    steps = some.x.reshape(-1, some.x.shape[2]) if some.valid is None else some.x[some.valid]
    median: np.ndarray = np.median(steps, axis=0).astype(steps.dtype)
    return median
