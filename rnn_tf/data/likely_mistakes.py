"""What is probably a mistake in a data set, though it can be trained on."""

from __future__ import annotations

import numpy as np

from rnn_tf.data.spec import SequenceData

# A class with more than this share of the training examples makes accuracy say little.
MOST_OF_ONE_CLASS = 0.9

# What a missing label becomes when it is written as text.
NO_LABEL = ("", "nan", "none", "null", "<na>")

# How many classes or features a line names.
MOST_NAMED = 5


def likely_mistakes(data: SequenceData) -> list[str]:
    """A line for each thing about `data` that its owner probably does not want.

    A few passes over the arrays: some tenths of a second for 100 MB.
    """
    found = (
        _classes_without_examples(data),
        _missing_labels(data),
        _one_class(data),
        _constant_features(data),
        _test_examples_in_train(data),
    )
    return [line for line in found if line is not None]


def _classes_without_examples(data: SequenceData) -> str | None:
    in_train = np.bincount(data.train.y, minlength=data.spec.classes)
    in_test = np.bincount(data.test.y, minlength=data.spec.classes)
    missing = np.flatnonzero(in_train == 0)
    if not missing.size:
        return None
    labels = _named([repr(data.spec.labels[i]) for i in missing])
    tested = in_test[missing].sum()
    wrong = f", but {tested:,} in test, which will all be wrong" if tested else ""
    return f"no training example of {labels}{wrong}"


def _missing_labels(data: SequenceData) -> str | None:
    missing = [label for label in data.spec.labels if label.strip().lower() in NO_LABEL]
    if not missing:
        return None
    return f"a class is called {missing[0]!r}: are these examples without a label?"


def _one_class(data: SequenceData) -> str | None:
    counts = np.bincount(data.train.y)
    share = counts.max() / counts.sum()
    if share <= MOST_OF_ONE_CLASS:
        return None
    label = data.spec.labels[int(counts.argmax())]
    return (
        f"{share:.1%} of the training examples are of class {label!r}: a model that always "
        "answers it has that accuracy. See what rnn-tf evaluate says of each class"
    )


def _constant_features(data: SequenceData) -> str | None:
    if data.spec.channels:  # the margins of pictures are often empty
        return None
    x = data.train.x
    constant = np.flatnonzero(x.min(axis=(0, 1)) == x.max(axis=(0, 1)))
    if not constant.size:
        return None
    return f"the same value in all training examples: feature {_named(list(map(str, constant)))}"


def _test_examples_in_train(data: SequenceData) -> str | None:
    # By hash: the bytes would take the memory of the data once more.
    seen = {hash(x.tobytes()) for split in (data.train, data.valid) for x in split.x}
    again = sum(hash(x.tobytes()) in seen for x in data.test.x)
    if not again:
        return None
    return (
        f"{again:,} of {len(data.test.y):,} test examples are in train or validation too: the "
        "test accuracy will be too high"
    )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
