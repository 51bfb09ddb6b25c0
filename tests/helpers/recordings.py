"""Sequences of different lengths, of which the last steps say the class."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnn_tf.data import SequenceData, SequenceSpec, Split

LONGEST, FEATURES = 9, 2
# As the waves of `small` in conftest.py: with a batch size of 16 the last batch holds 11.
EXAMPLES = {"train": 203, "valid": 40, "test": 50}


def recordings(seed: int = 0, longest: int = LONGEST, **examples: int) -> SequenceData:
    """Noise up to the last two steps of a sequence, which are low, in the middle or high.

    The mean of each feature is far from zero, so that padding is, once it is normalized. In each
    split one sequence has 1 step and one has `longest`.
    """
    random = np.random.default_rng(seed)

    def split(count: int) -> Split:
        lengths = random.integers(1, longest + 1, count).astype(np.int32)
        lengths[:2] = 1, longest
        y = random.integers(0, 3, count).astype(np.int32)
        x = random.normal(0, 1, (count, longest, FEATURES))
        left = lengths[:, None] - np.arange(longest)
        answers = (left > 0) & (left <= 2)
        x[answers] = random.normal(0, 0.3, (answers.sum(), FEATURES))
        x += (answers * (y - 1)[:, None] * 1.5)[..., None]
        return Split((x + np.array([5, -3])).astype(np.float32), y, lengths)

    spec = SequenceSpec(None, FEATURES, ("low", "middle", "high"), longest=longest)
    counts = EXAMPLES | examples
    train, valid, test = (split(counts[name]) for name in ("train", "valid", "test"))
    return SequenceData(spec, train, valid, test).normalized("standard")


def phases(seed: int = 0, longest: int = LONGEST, *, varies: bool = True) -> SequenceData:
    """Recordings that pass from one phase to the next, with the phase as the label of each step.

    The level says the phase, in noise. Some steps have no label; every sequence has one.
    """
    random = np.random.default_rng(seed)

    def split(count: int) -> Split:
        lengths = random.integers(1, longest + 1, count).astype(np.int32)
        lengths[:2] = 1, longest
        y = np.sort(random.integers(0, 3, (count, longest)), axis=1).astype(np.int32)
        x = (y - 1)[..., None] * 1.5 + random.normal(0, 0.4, (count, longest, FEATURES))
        y[:, 1:][random.random((count, longest - 1)) < 0.2] = -1
        x = (x + np.array([5, -3])).astype(np.float32)
        return Split(x, y, lengths if varies else None)

    spec = SequenceSpec(
        None if varies else longest, FEATURES, ("low", "middle", "high"), longest=longest,
        answer="every_step",
    )  # fmt: skip
    return SequenceData(spec, *map(split, EXAMPLES.values())).normalized("standard")


def arrays(data: SequenceData) -> dict[str, Any]:
    """The data as the arrays of an .npz file."""
    found: dict[str, Any] = {"labels": np.array(data.spec.labels)}
    for name in EXAMPLES:
        split = getattr(data, name)
        found |= {f"x_{name}": split.x, f"y_{name}": split.y, f"lengths_{name}": split.lengths}
    return found


def short(split: Split, example: int) -> np.ndarray:
    """One sequence at its own length, `(1, length, features)`."""
    assert split.lengths is not None
    sequence: np.ndarray = split.x[[example], : split.lengths[example]]
    return sequence
