"""When to set the state of a stream to zero: what each policy does to the answers.

A model that has only seen sequences that begin at a state of zero may be lost when it is never
reset: what it holds of one sequence is still there in the next, and without bounds it grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnn_tf.data.spec import UNLABELLED, Split
from rnn_tf.streams.stream import Answers, Stream, as_stream

# A reset after every N steps knows nothing of where sequences begin. Each of so many places in a
# sequence is where the first one falls once.
PHASES = 8
# Which sequence follows which is drawn with this seed.
SEED = 0

NEVER, AT_EACH_SEQUENCE = "never", "at each sequence"

# What a model answers after each of the frames of a stream, reset at these steps.
Listen = Callable[[np.ndarray, np.ndarray], Answers]


@dataclass(frozen=True)
class PolicyScores:
    """How good the answers along a stream are under one policy."""

    policy: str
    gap: int  # steps of silence after each sequence
    accuracy: float  # share of all labelled steps whose answer is right, 0 to 1
    accuracy_at_end: float  # the same of the last labelled step of each sequence
    # Mean number of steps of a sequence until its answer is right and stays so until it ends; of
    # the sequences whose answer is right at the end. None: there is none.
    delay: float | None
    largest_state: float  # the largest size of a number in the state; inf where it overflows
    by_step: np.ndarray  # (longest,): share right after so many steps of a sequence; NaN: no label

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity and no NaN: they are null."""
        finite = math.isfinite(self.largest_state)
        return {
            "policy": self.policy,
            "gap": self.gap,
            "accuracy": self.accuracy,
            "accuracy_at_end": self.accuracy_at_end,
            "delay": self.delay,
            "largest_state": self.largest_state if finite else None,
            "accuracy_by_step": [None if math.isnan(share) else share for share in self.by_step],
        }


def compare_policies(
    listen: Listen, test: Split, *, gaps: Sequence[int], silence: np.ndarray, every: int
) -> Iterator[PolicyScores]:
    """Play the sequences of a split in a random order as one stream, under each policy.

    The policies: never reset; at each sequence; every `every` steps. With each of `gaps`, steps of
    `silence` after each sequence. The random order is the same for all.
    """
    order = np.random.default_rng(SEED).permutation(len(test.x))
    for gap in gaps:
        stream = as_stream(test.take(order), gap=gap, silence=silence)
        for policy, resets in _resets(stream, every).items():
            answers = [listen(stream.frames, each) for each in resets]
            yield _score(policy, gap, stream, answers)


def _resets(stream: Stream, every: int) -> dict[str, list[np.ndarray]]:
    """By policy, the steps at which the state is set to zero; several where they are averaged."""
    phases = sorted({phase * every // PHASES for phase in range(PHASES)})
    begin = np.zeros(1, np.int64)
    regular = [np.arange(phase or every, stream.steps, every) for phase in phases]
    return {
        NEVER: [begin],
        AT_EACH_SEQUENCE: [stream.begins],
        f"every {every} steps": [np.concatenate([begin, each]) for each in regular],
    }


def _score(policy: str, gap: int, stream: Stream, answers: Sequence[Answers]) -> PolicyScores:
    labels = stream.by_sequence(stream.labels, UNLABELLED)
    rows = [stream.by_sequence(each.labels, UNLABELLED) == labels for each in answers]
    labelled = np.tile(labels != UNLABELLED, (len(rows), 1))
    right = np.concatenate(rows) & labelled
    at_end, steps = settled(right, labelled)
    counts = labelled.sum(axis=0)
    by_step = np.divide(
        right.sum(axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0
    )
    return PolicyScores(
        policy=policy,
        gap=gap,
        accuracy=float(right.sum() / labelled.sum()),
        accuracy_at_end=float(at_end.mean()),
        delay=float(steps[at_end].mean()) if at_end.any() else None,
        largest_state=max(float(each.largest.max()) for each in answers),
        by_step=by_step,
    )


def settled(right: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the answer to each sequence is right at its end, and how many steps that took.

    `right` and `labelled`, bool `(n, longest)`: is the answer after each step right, and is there
    one to be right about. Returns bool `(n,)`, and int64 `(n,)`: the answer is right from this
    step on, counted from 1, until the end.
    """
    longest = right.shape[1]
    wrong = labelled & ~right
    # The last step that is wrong, counted from 1, 0 if none is; the first labelled one after it.
    last_wrong = np.where(wrong.any(axis=1), longest - wrong[:, ::-1].argmax(axis=1), 0)
    later = labelled & (np.arange(longest) >= last_wrong[:, None])
    return np.asarray(later.any(axis=1)), later.argmax(axis=1) + 1
