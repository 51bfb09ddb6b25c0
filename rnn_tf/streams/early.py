"""Answering before a sequence has ended: when is an answer sure enough to be final?

The answer is that of the first step at which the probability of a class reaches a threshold, and
that of the last step where none does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rnn_tf.data.spec import UNLABELLED
from rnn_tf.errors import InputError
from rnn_tf.streams.stream import Answers, Stream

# Percent of each sequence after which its answer is looked at.
SHARES = tuple(range(10, 101, 10))


@dataclass(frozen=True)
class Along:
    """What a model says along each of `n` sequences of a split."""

    confidence: np.ndarray  # (n, longest), float32: probability of the answer; 0 after the end
    right: np.ndarray  # (n, longest), bool: is the answer the label of the sequence
    lengths: np.ndarray  # (n,)

    @classmethod
    def of(cls, stream: Stream, answers: Answers) -> Along:
        labels = stream.by_sequence(stream.labels, UNLABELLED)
        return cls(
            confidence=stream.by_sequence(answers.confidence, np.float32(0)),
            right=(stream.by_sequence(answers.labels, UNLABELLED) == labels) & (labels >= 0),
            lengths=stream.lengths,
        )

    def accuracy_at(self, percent: int) -> float:
        """Share of sequences whose answer is right after so much of each, at least one step."""
        return self._accuracy(-(-self.lengths * percent // 100) - 1)

    def answering_at(self, confidence: float) -> EarlyScores:
        """How good the early answers are, and how soon they come."""
        reached = self.confidence >= np.float32(confidence)
        last = self.lengths - 1
        # A step after the end has no confidence, which a threshold of 0 accepts.
        steps = np.where(reached.any(axis=1), np.minimum(reached.argmax(axis=1), last), last)
        return EarlyScores(
            accuracy=self._accuracy(steps),
            steps=float((steps + 1).mean()),
            share=float(((steps + 1) / self.lengths).mean()),
            examples=len(steps),
        )

    def _accuracy(self, steps: np.ndarray) -> float:
        return float(self.right[np.arange(len(steps)), steps].mean())


@dataclass(frozen=True)
class EarlyScores:
    """Early answers to every example of a split. Raises `InputError` for what is no number."""

    accuracy: float  # 0 to 1
    steps: float  # mean number of steps until the answer
    share: float  # the same as a share of each sequence, 0 to 1
    examples: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not _is_number(value):
                raise InputError(f"bad {name}", expected="a number", got=repr(value))


@dataclass(frozen=True)
class EarlyRule:
    """When an answer is final: as soon as a probability reaches `confidence`.

    Raises `InputError` for what is no probability.
    """

    confidence: float  # 0 to 1
    promise: float  # the accuracy that this kept on the validation split, above 0, up to 1

    def __post_init__(self) -> None:
        check_promise(self.promise)
        if not _is_share(self.confidence):
            raise InputError(
                "bad confidence", expected="a number from 0 to 1", got=repr(self.confidence)
            )


def find_rule(valid: Along, promise: float) -> EarlyRule:
    """The rule of the smallest confidence at which early answers to `valid` keep a promise.

    Raises `InputError` for a promise that no confidence keeps, with the best that can be kept.
    """
    check_promise(promise)
    thresholds, accuracies = _accuracies(valid)
    kept = np.flatnonzero(accuracies >= promise)
    if not kept.size:
        best = math.floor(float(accuracies.max()) * 10_000) / 10_000  # down: it can be kept
        advice = f"Say --promise {best:.4f}, or train" if best else "Train"
        raise InputError(
            "the validation split does not keep this promise",
            expected=f"an accuracy of at most {best:.4f}", got=promise,
            fix=f"{advice} a better model.",
        )  # fmt: skip
    return EarlyRule(float(thresholds[kept[0]]), promise)


def _accuracies(along: Along) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds in rising order, and the accuracy of answering at each: all that there can be.

    What a sequence answers changes where the threshold passes the largest confidence so far. So
    the accuracy is constant between two such values, and one threshold in the middle of them, which
    no rounding takes beyond either, stands for all.
    """
    n, longest = along.confidence.shape
    so_far = np.maximum.accumulate(along.confidence, axis=1)
    before = np.concatenate([np.full((n, 1), -1, np.float32), so_far[:, :-1]], axis=1)
    inside = np.arange(longest) < along.lengths[:, None]
    row, step = np.nonzero((so_far > before) & inside)
    # What is answered when the threshold passes this record: at the next one, or at the end.
    follows = np.append(row[1:] == row[:-1], False)
    next_step = np.where(follows, np.append(step[1:], 0), along.lengths[row] - 1)
    change = along.right[row, next_step].astype(int) - along.right[row, step]
    at_first = int(along.right[:, 0].sum())
    values, place = np.unique(so_far[row, step], return_inverse=True)
    changes = np.bincount(place, weights=change, minlength=len(values))
    counts = at_first + np.concatenate([[0], np.cumsum(changes)])
    # Up to and with the lowest value; between two; above the highest, if that is below 1.
    low = np.concatenate([[0], values]).astype(np.float32)
    high = np.concatenate([values, [1]]).astype(np.float32)
    middle = (low + high) / 2
    thresholds = np.where(middle > low, middle, high)
    thresholds[0] = 0
    possible = np.append(np.ones(len(values), bool), values[-1] < 1)
    return thresholds[possible], counts[possible] / n


def check_promise(promise: float) -> None:
    """Raise `InputError` unless this is an accuracy that can be promised."""
    if not _is_share(promise) or promise == 0:
        percent = _is_number(promise) and 1 < promise <= 100
        raise InputError(
            "bad promise", expected="a share above 0, up to 1", got=repr(promise),
            fix=f"For {promise:g} % say --promise {promise / 100:g}." if percent else None,
        )  # fmt: skip


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class EarlyResult:
    """What `rnn-tf evaluate --early` finds: `early.json` of a run."""

    rule: EarlyRule
    valid: EarlyScores
    test: EarlyScores
    accuracy_at: dict[str, dict[int, float]]  # by split, then percent of each sequence

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EarlyResult:
        """What `to_dict` gave, also out of JSON. Raises `InputError` for anything else."""
        try:
            return cls(
                EarlyRule(values["confidence"], values["promise"]),
                EarlyScores(**values["valid"]),
                EarlyScores(**values["test"]),
                {
                    split: {int(percent): float(share) for percent, share in along.items()}
                    for split, along in values["accuracy_at_percent"].items()
                },
            )
        except (TypeError, KeyError, AttributeError) as error:
            expected = "what rnn-tf evaluate --early writes"
            raise InputError("bad early answers", expected=expected, got=str(error)) from error

    @property
    def held(self) -> bool:
        """Whether the promise held on the test split."""
        return self.test.accuracy >= self.rule.promise

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self.rule),
            "held": self.held,
            "valid": asdict(self.valid),
            "test": asdict(self.test),
            "accuracy_at_percent": self.accuracy_at,
        }


def answer_early(valid: Along, test: Along, promise: float) -> EarlyResult:
    """Find on `valid` when an answer keeps a promise, and see on `test` whether it did.

    Raises `InputError` for a promise that `valid` cannot keep.
    """
    rule = find_rule(valid, promise)
    return EarlyResult(
        rule,
        valid.answering_at(rule.confidence),
        test.answering_at(rule.confidence),
        {
            name: {percent: along.accuracy_at(percent) for percent in SHARES}
            for name, along in (("valid", valid), ("test", test))
        },
    )
