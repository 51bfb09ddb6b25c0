"""What is probably a mistake in a data set, though it can be trained on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rnn_tf.data.spec import SequenceData, Split

# A class with more than this share of the training examples makes accuracy say little.
MOST_OF_ONE_CLASS = 0.9

# What a missing label becomes when it is written as text.
NO_LABEL = ("", "nan", "none", "null", "<na>")

# How many classes or features a line names.
MOST_NAMED = 5

# Examples by which it is judged whether the axes are swapped.
EXAMPLES_LOOKED_AT = 1_000
# Time is the axis along which values change little, and there is more time than features. Where
# there are more than twice as many features as steps, and the way to the next feature is less than
# this share of that to the next step, the features are times. Noise has 1; BasicMotions, 6 features
# and 100 steps, 1.7, and 0.58 with its axes swapped.
SMOOTHER = 0.75


def likely_mistakes(data: SequenceData) -> list[str]:
    """A line for each thing about `data` that its owner probably does not want.

    A few passes over the arrays: some tenths of a second for 100 MB.
    """
    found = (
        _axes_swapped(data),
        _classes_without_examples(data),
        _missing_labels(data),
        _one_class(data),
        _cut_from_a_sorted_file(data),
        _constant_features(data),
        _test_examples_in_train(data),
    )
    return [line for line in found if line is not None]


def _axes_swapped(data: SequenceData) -> str | None:
    if data.spec.channels:
        return None
    x = data.train.x[:EXAMPLES_LOOKED_AT].astype(np.float64)
    valid = data.train.take(slice(EXAMPLES_LOOKED_AT)).valid
    valid = np.ones(x.shape[:2], bool) if valid is None else valid
    steps, features = int(valid.sum(axis=1).max()), data.spec.features
    if features <= 2 * steps:
        return None
    what = f"sequences of {steps} time step{'' if steps == 1 else 's'} and {features} features"
    fix = "are the axes swapped? Expected (n, timesteps, features): x.transpose(0, 2, 1)"
    if steps == 1:
        return f"{what}: {fix}"
    both = valid[:, 1:] & valid[:, :-1]
    to_the_next_step = np.abs(np.diff(x, axis=1))[both].mean()
    to_the_next_feature = np.abs(np.diff(x, axis=2))[valid].mean()
    if to_the_next_feature >= SMOOTHER * to_the_next_step:
        return None
    return f"{what}, and a value is nearer to the next feature's than to the next step's: {fix}"


def _classes_without_examples(data: SequenceData) -> str | None:
    in_train, in_test = (_counts(split, data.spec.classes) for split in (data.train, data.test))
    missing = np.flatnonzero(in_train == 0)
    if not missing.size:
        return None
    labels = _named([repr(data.spec.labels[i]) for i in missing])
    tested = in_test[missing].sum()
    wrong = f", but {tested:,} in test, which will all be wrong" if tested else ""
    example = "step" if data.train.labelled_by_step else "example"
    return f"no training {example} of {labels}{wrong}"


def _counts(split: Split, classes: int) -> np.ndarray:
    """How many examples each class has; of labels by step, how many steps."""
    counts: np.ndarray = np.bincount(split.y[split.y >= 0], minlength=classes)
    return counts


def _missing_labels(data: SequenceData) -> str | None:
    missing = [label for label in data.spec.labels if label.strip().lower() in NO_LABEL]
    if not missing:
        return None
    return f"a class is called {missing[0]!r}: are these examples without a label?"


def _one_class(data: SequenceData) -> str | None:
    counts = _counts(data.train, data.spec.classes)
    share = counts.max() / counts.sum()
    if share <= MOST_OF_ONE_CLASS:
        return None
    label = data.spec.labels[int(counts.argmax())]
    examples = "steps" if data.train.labelled_by_step else "examples"
    return (
        f"{share:.1%} of the training {examples} are of class {label!r}: a model that always "
        "answers it has that accuracy. See what rnn-tf evaluate says of each class"
    )


def _cut_from_a_sorted_file(data: SequenceData) -> str | None:
    for name, split in (("validation", data.valid), ("test", data.test)):
        cut = split.sequence_labels
        y = np.concatenate([data.train.sequence_labels, cut])
        if (np.diff(y) >= 0).all() and len(np.unique(cut)) < len(np.unique(y)):
            labels = _named([repr(data.spec.labels[i]) for i in np.unique(cut)])
            return (
                f"the labels are in sorted order, and {name} has only {labels}: was it cut off the "
                "end of a sorted file? Shuffle the examples first"
            )
    return None


def _constant_features(data: SequenceData) -> str | None:
    if data.spec.channels:  # the margins of pictures are often empty
        return None
    x, valid = data.train.x, data.train.valid
    steps = x.reshape(-1, x.shape[2]) if valid is None else x[valid]
    constant = np.flatnonzero(steps.min(axis=0) == steps.max(axis=0))
    if not constant.size:
        return None
    names = data.spec.feature_names or range(data.spec.features)
    named = _named([str(names[i]) for i in constant])
    return f"the same value in all training examples: feature {named}"


def _test_examples_in_train(data: SequenceData) -> str | None:
    # By hash: the bytes would take the memory of the data once more.
    seen = {of for split in (data.train, data.valid) for of in _hashes(split)}
    again = sum(of in seen for of in _hashes(data.test))
    if not again:
        return None
    return (
        f"{again:,} of {len(data.test.y):,} test examples are in train or validation too: the "
        "test accuracy will be too high"
    )


def _hashes(split: Split) -> Iterator[int]:
    """One number for each sequence, whatever its padding."""
    steps = split.x.shape[1]
    lengths = [steps] * len(split.x) if split.lengths is None else split.lengths.tolist()
    for x, length in zip(split.x, lengths, strict=True):
        yield hash(x[:length].tobytes())


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
