"""How good predicted probabilities are: accuracy, plain and balanced, loss, and class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rnn_tf.data.spec import SequenceSpec, Split

# Probabilities below this count as this in the loss, as in Keras (keras.config.epsilon()).
LEAST_PROBABILITY = 1e-7
# Sequences that lie in files are scored so many bytes at a time.
PART_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Scores:
    """Scores over every example of a split."""

    confusion: np.ndarray  # (classes, classes) int64 counts: row = true class, column = predicted
    loss: float  # mean cross-entropy, nats
    unit: ClassVar = "examples"  # what is scored

    @property
    def examples(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of examples whose most probable class is the true one, 0 to 1."""
        return float(np.trace(self.confusion) / self.examples)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have examples, 0 to 1: each counts as much."""
        return float(self.recall[self.confusion.sum(axis=1) > 0].mean())

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have examples or are predicted, 0 to 1."""
        occurs = (self.confusion.sum(axis=1) > 0) | (self.confusion.sum(axis=0) > 0)
        return float(self.f1[occurs].mean())

    @property
    def most_frequent(self) -> int:
        """The class that most examples are of. To answer it for all takes no model."""
        return int(self.confusion.sum(axis=1).argmax())

    @property
    def precision(self) -> np.ndarray:
        """`(classes,)`: of the examples called this class, the share that are. 0 if none are."""
        return _share(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def recall(self) -> np.ndarray:
        """`(classes,)`: of the examples of this class, the share called so. 0 if there are none."""
        return _share(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def f1(self) -> np.ndarray:
        """`(classes,)`: the harmonic mean of precision and recall."""
        return _share(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def most_frequent_share(self) -> float:
        """The accuracy of answering the most frequent class for all, 0 to 1."""
        return int(self.confusion[self.most_frequent].sum()) / self.examples

    def summary(self) -> dict[str, Any]:
        """What `metrics.json` says of a split."""
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            "examples": self.examples,
            "most_frequent_class": self.most_frequent,
            "most_frequent_share": self.most_frequent_share,
        }


@dataclass(frozen=True)
class StepScores(Scores):
    """Scores over every labelled step of a split: what is an example above, is a step here."""

    sequences: int
    last_right: int  # sequences whose last labelled step is right
    # Sequences without an error; None where steps have the label of their sequence.
    all_right: int | None = None
    unit: ClassVar = "steps"

    @property
    def last_step_accuracy(self) -> float:
        """Share of sequences whose last labelled step is right, 0 to 1."""
        return self.last_right / self.sequences

    @property
    def sequence_accuracy(self) -> float | None:
        """Share of sequences whose labelled steps are all right, 0 to 1, where each has its own."""
        return None if self.all_right is None else self.all_right / self.sequences

    def summary(self) -> dict[str, Any]:
        whole = self.sequence_accuracy
        return {
            **super().summary(),
            "last_step_accuracy": self.last_step_accuracy,
            **({} if whole is None else {"sequence_accuracy": whole}),
            "sequences": self.sequences,
        }


def score_split(probabilities: np.ndarray, split: Split) -> Scores:
    """Score what was said of the examples of a split.

    `probabilities` are `(n, classes)`, or `(n, timesteps, classes)` for `StepScores`.
    """
    if probabilities.ndim == 2:
        return score(probabilities, split.y)
    return score_steps(probabilities, split.step_labels, own=split.labelled_by_step)


def score_in_parts(score: Callable[[Split], Scores], split: Split, spec: SequenceSpec) -> Scores:
    """Score a split of `spec` as `score` does, a part at a time if it lies in files."""
    if split.stored is None:
        return score(split)
    numbers = spec.classes * (spec.longest if spec.every_step else 1)
    example_bytes = 4 * max(spec.longest * spec.features, numbers)  # as the model reads it
    return pooled([score(part) for part in split.parts(max(1, PART_BYTES // example_bytes))])


def score(probabilities: np.ndarray, y: np.ndarray) -> Scores:
    """Score `probabilities` `(n, classes)` against class indices `y` `(n,)`. Drops no example."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    pairs = np.bincount(y.astype(np.int64) * classes + predicted, minlength=classes * classes)
    of_truth = probabilities[np.arange(len(y)), y].astype(np.float64)
    loss = -np.log(np.maximum(of_truth, LEAST_PROBABILITY)).mean()
    # No loss is below 0, but rounding takes one that is 0 to -0, or a probability above 1.
    return Scores(pairs.reshape(classes, classes), max(0.0, float(loss)))


def score_steps(probabilities: np.ndarray, y: np.ndarray, *, own: bool) -> StepScores:
    """Score `probabilities` `(n, timesteps, classes)` against classes `y` `(n, timesteps)`.

    Every sequence has a labelled step; one without a label, below 0, does not count. `own`: whether
    the labels are the steps' own, and not those of their sequences.
    """
    labelled = y >= 0
    steps = score(probabilities[labelled], y[labelled])
    right = probabilities.argmax(axis=2) == y
    last = y.shape[1] - 1 - labelled[:, ::-1].argmax(axis=1)
    return StepScores(
        steps.confusion,
        steps.loss,
        len(y),
        int(right[np.arange(len(y)), last].sum()),
        int((right | ~labelled).all(axis=1).sum()) if own else None,
    )


def pooled(parts: Sequence[Scores]) -> Scores:
    """The scores over the examples of all parts together."""
    confusion = np.sum([part.confusion for part in parts], axis=0)
    loss = float(np.average([p.loss for p in parts], weights=[p.examples for p in parts]))
    of_steps = [part for part in parts if isinstance(part, StepScores)]
    if not of_steps:
        return Scores(confusion, loss)
    whole = [part.all_right for part in of_steps if part.all_right is not None]
    return StepScores(
        confusion,
        loss,
        sum(part.sequences for part in of_steps),
        sum(part.last_right for part in of_steps),
        sum(whole) if whole else None,
    )


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return shares
