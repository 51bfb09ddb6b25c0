"""What was understood of a data set, in words: its owner sees a misunderstanding at once."""

from __future__ import annotations

import numpy as np

from rnn_tf.data.spec import UNLABELLED, SequenceData, Split

# How many classes are named, and how much of each name.
MOST_NAMED, LONGEST_NAME = 8, 30


def describe(data: SequenceData) -> str:
    """How many sequences, how long, of how many features and of which classes, then the notes.

    `270 sequences of 7 to 29 steps, 12 features, 9 classes: 1 (30), 2 (30), ...; 370 to test`. The
    sequences that are counted are those of train and valid; where steps have labels of their own,
    a class is followed by its steps.
    """
    spec = data.spec
    y = np.concatenate([data.train.y, data.valid.y])
    counts = np.bincount(y[y >= 0], minlength=spec.classes)
    classes = [
        f"{' '.join(label.split())[:LONGEST_NAME]} ({count:,})"
        for label, count in zip(spec.labels[:MOST_NAMED], counts.tolist(), strict=False)
    ]
    more = f" and {spec.classes - MOST_NAMED:,} more" if spec.classes > MOST_NAMED else ""
    line = (
        f"{_count(len(y), 'sequence')} of {_steps(data)}, "
        f"{_count(spec.features, 'feature')}, {spec.classes:,} classes{_of_steps(data)}: "
        f"{', '.join(classes)}{more}; {len(data.test.y):,} to test"
    )
    return "\n".join((line, *data.notes))


def _of_steps(data: SequenceData) -> str:
    """That labels are those of steps, and how many steps have none."""
    if not data.train.labelled_by_step:
        return ""
    labels = np.concatenate([split.y[_valid(split)] for split in (data.train, data.valid)])
    without = int((labels == UNLABELLED).sum())
    return f" of steps ({_count(without, 'step')} without)" if without else " of steps"


def _valid(split: Split) -> np.ndarray:
    return np.ones(split.y.shape, bool) if split.valid is None else split.valid


def _steps(data: SequenceData) -> str:
    if data.spec.timesteps is not None:
        return _count(data.spec.timesteps, "step")
    lengths = np.concatenate(
        [np.array(each.lengths) for each in (data.train, data.valid, data.test)]
    )
    return f"{lengths.min():,} to {_count(int(lengths.max()), 'step')}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
