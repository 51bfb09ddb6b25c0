"""Splits that a source does not have, cut from its training examples, and folds of them.

Every class gives its share, and where examples come in groups (a person, a device, a recording)
no group lies in two parts. An example whose steps have labels of their own counts as one of the
class that most of them have. Which examples are in which part is a pure function of labels and
groups, in whole numbers: the same on every machine and for every version of a library. That is
why scikit-learn's splitters, which promise neither, are not used.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import NoReturn

import numpy as np

from rnn_tf.config import parse_fold
from rnn_tf.data.spec import SequenceData, Split
from rnn_tf.errors import InputError

# A tenth of a large set is more than choosing a model needs, a fifth more than scoring one.
MOST_VALID_EXAMPLES = 5_000
MOST_TEST_EXAMPLES = 10_000

# One seed for all: which examples are held out depends on labels and groups and on nothing else.
SEED = 0
# Weights of classes are whole numbers: rounding, which differs between machines, decides nothing.
PRECISION = 2**64
# How many places or groups of a test split that was cut are named.
MOST_NAMED = 10


# --- what a source does not have ---
def with_missing_splits(
    source: str,
    train: Split,
    valid: Split | None,
    test: Split | None,
    test_share: float = 0.0,
    *,
    to_fold: bool = False,
) -> tuple[Split, Split, Split]:
    """Train, valid and test of a source, those that it does not have cut from `train`.

    A test split is cut where `test_share`, 0 to below 1, asks for it, with a `UserWarning` that
    says which examples it is; it may be empty where folds of train will be that (`to_fold`).
    Raises `InputError` when there is none and nobody asks, when there is one and somebody does,
    and when nothing can be cut.
    """
    if test is not None and test_share:
        refuse_test_share(source, test_share)
    if test is None and test_share:
        examples = min(max(round(len(train.y) * test_share), 1), max(len(train.y) - 1, 1))
        cut = _held_out(train, examples)
        warnings.warn(f"{source} has no test split: {_said(train, cut)}", stacklevel=2)
        train, test = _apart(train, cut)
    elif test is None and to_fold:
        test = train.take(slice(0))
    elif test is None:
        raise InputError(
            f"{source} has no test split",
            fix="Give one, or have a share of the training examples held out: --test-share 0.2.",
        )
    if valid is None:
        train, valid = hold_out_valid(train)
    return train, valid, test


def refuse_test_share(source: str, test_share: float) -> NoReturn:
    """Raise `InputError`: the source has a test split."""
    raise InputError(
        f"{source} has a test split of its own", got=f"--test-share {test_share}",
        fix="Leave --test-share out.",
    )  # fmt: skip


def _said(train: Split, cut: np.ndarray) -> str:
    """Which examples are the test split."""
    if train.groups is None:
        which = f"those at {_named(cut.tolist())} in train, counted from 0"
    else:
        which = f"all of the groups {_named(np.unique(train.groups[cut]).tolist())}"
    return (
        f"{len(cut):,} of its {len(train.y):,} training examples are the test and not trained on, "
        f"{which}"
    )


def _named(values: Sequence[object]) -> str:
    more = f" and {len(values) - MOST_NAMED:,} more" if len(values) > MOST_NAMED else ""
    return ", ".join(map(str, values[:MOST_NAMED])) + more


def hold_out_valid(train: Split) -> tuple[Split, Split]:
    """Cut a tenth, at least 1 and at most 5,000 examples, off `train` for validation.

    Raises `InputError` when nothing can be cut.
    """
    return hold_out(train, min(max(len(train.y) // 10, 1), MOST_VALID_EXAMPLES))


def hold_out_test(train: Split) -> tuple[Split, Split]:
    """Cut a fifth, at least 1 and at most 10,000 examples, off `train` for the test.

    Raises `InputError` when nothing can be cut.
    """
    return hold_out(train, min(max(len(train.y) // 5, 1), MOST_TEST_EXAMPLES))


def hold_out(train: Split, examples: int) -> tuple[Split, Split]:
    """Cut `examples` off `train`, from every class in proportion to its size.

    Both parts keep the order of `train`. Of every class one example stays, so that fewer may be
    cut than are asked for; as long as `examples` reach, one of every other class is cut.

    Groups are cut as a whole: about as many examples, and the classes about in proportion. Of
    every class one group stays.

    Raises `InputError` when nothing can be cut.
    """
    return _apart(train, _held_out(train, examples))


def _apart(split: Split, rows: np.ndarray) -> tuple[Split, Split]:
    """The examples that are not at `rows`, and those that are."""
    stays = np.ones(len(split.y), bool)
    stays[rows] = False
    return split.take(stays), split.take(rows)


def _held_out(train: Split, examples: int) -> np.ndarray:
    """The places of the examples that `hold_out` cuts, in rising order."""
    labels = train.sequence_labels
    if train.groups is not None:
        return _held_out_groups(labels, train.groups, examples)
    cut = np.sort(_proportional(labels, examples))
    if not cut.size:
        raise InputError(
            "too few training examples to hold some out",
            expected="a class with two examples or more",
            got=f"{len(labels)} of {len(np.unique(labels))} classes",
            fix="Add examples, or give a validation split.",
        )
    return cut


def _proportional(y: np.ndarray, examples: int) -> np.ndarray:
    """At most `examples` indices of `y`, classes in proportion.

    Each class queues up in random order. The k-th of n in its queue, counted from 0, comes at
    the time k/n, the last of it never; those that come first are chosen (Adams's apportionment).
    """
    # NumPy promises never to change what this generator draws, unlike newer ones (its NEP 19).
    order = np.random.RandomState(SEED).permutation(len(y))
    queues = np.argsort(y[order], kind="stable")  # one class after the other
    _, first, counts = np.unique(y[order][queues], return_index=True, return_counts=True)
    size = np.repeat(counts, counts)
    place = np.arange(len(y)) - np.repeat(first, counts)
    time = np.where(place < size - 1, place / size, np.inf)
    came = np.lexsort((queues, time))[: min(examples, len(y) - len(counts))]
    return order[queues[came]]


# --- groups ---
def _held_out_groups(y: np.ndarray, groups: np.ndarray, examples: int) -> np.ndarray:
    """The places of about `examples` examples: all of some groups."""
    group, counts = _by_group(y, groups)
    remaining = (counts > 0).sum(axis=0)  # groups of each class that are not cut

    def may_be_cut(g: int) -> bool:
        return bool((remaining[counts[g] > 0] > 1).all())

    parts = _Parts(counts.sum(axis=0), [len(y) - examples, examples])
    cut = []
    for g in _large_first(counts):
        if parts.add(counts[g], range(2 if may_be_cut(g) else 1)):
            cut.append(g)
            remaining -= counts[g] > 0
    if not cut:  # groups are large: the smallest that may be
        cut = [g for g in _large_first(counts)[::-1] if may_be_cut(g)][:1]
    if not cut:
        raise InputError(
            "groups leave nothing to hold out",
            expected="a group of which every class is in another group too",
            got=f"{len(counts)} groups of {counts.shape[1]} classes",
            fix="Add groups, give the split that is missing, or leave the groups out.",
        )
    return np.flatnonzero(np.isin(group, cut))


class _Parts:
    """Examples counted by part and class while groups are dealt out, the large ones first."""

    def __init__(self, classes: np.ndarray, sizes: Sequence[int]) -> None:
        self.sizes = sizes  # how many examples each part shall have
        # The last is for all classes together: parts are to have their sizes too.
        totals = [*map(int, classes), int(classes.sum())]
        self.weights = [PRECISION // total for total in totals]
        self.counts = [[0] * len(totals) for _ in sizes]

    def add(self, group: np.ndarray, among: Iterable[int]) -> int:
        """Put a group, counts by class, into the one of some parts that it suits best.

        The one for which the chi-squared statistic, of the counts by part and class against those
        of parts that are proportional, becomes smallest. Returns its number.
        """
        found = [(int(c), int(group[c])) for c in np.flatnonzero(group)]
        found.append((-1, int(group.sum())))

        def rises(part: int) -> int:
            have = self.counts[part]
            squares = sum(n * (2 * have[c] + n) * self.weights[c] for c, n in found)
            return squares * sum(self.sizes) // max(1, self.sizes[part])

        best = min(among, key=rises)
        for c, n in found:
            self.counts[best][c] += n
        return best


def _by_group(y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of each example's group, and int64 counts `(groups, classes)`."""
    names, group = np.unique(groups, return_inverse=True)
    _, place = np.unique(y, return_inverse=True)
    classes = int(place.max()) + 1
    counts = np.bincount(group * classes + place, minlength=len(names) * classes)
    return group, counts.reshape(len(names), classes)


def _large_first(counts: np.ndarray) -> np.ndarray:
    """The groups, the largest first; those of a size in random order."""
    order = np.random.RandomState(SEED).permutation(len(counts))
    largest_first: np.ndarray = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    return largest_first


# --- folds ---
def fold_of(data: SequenceData, fold: str) -> SequenceData:
    """The data in which one fold of the training and validation examples is the test split.

    `fold` is `"2/5"` for the second of five. Validation, which chooses the model, is held out of
    the other folds; the test split of the data itself is not read. Every example is in one fold;
    folds are stratified by class, and groups stay together. Raises `InputError` when a class has
    fewer examples than there are folds (unless steps have labels of their own: there, an example
    of one class has steps of others), and when groups cannot be dealt out.
    """
    number, count = parse_fold(fold)
    if (data.train.groups is None) != (data.valid.groups is None):
        raise InputError(
            "folds of train and validation need the groups of both",
            got=f"those of {'valid' if data.train.groups is None else 'train'} only",
            fix="Give both, or neither.",
        )
    whole = _joined(data.train, data.valid)
    part = _dealt(whole, count, data.spec.labels)
    train, test = _apart(whole, np.flatnonzero(part == number - 1))
    train, valid = hold_out_valid(train)
    return dataclasses.replace(data, train=train, valid=valid, test=test)


def _joined(first: Split, second: Split) -> Split:
    """The examples of both, one after the other."""
    more = (
        None if a is None else np.concatenate([a, b])
        for a, b in zip(first[2:], second[2:], strict=True)
    )
    x, y = (np.concatenate(both) for both in zip(first[:2], second[:2], strict=True))
    return Split(x, y, *more)


def _dealt(split: Split, folds: int, labels: Sequence[str]) -> np.ndarray:
    """The fold of each example, int64 from 0."""
    y, every_class = split.sequence_labels, not split.labelled_by_step
    sizes = np.bincount(y, minlength=len(labels))
    few = np.flatnonzero((sizes > 0) & (sizes < folds))
    if few.size and every_class:
        least = int(sizes[few].min())
        label = labels[int(few[sizes[few].argmin()])]
        raise InputError(
            f"a class has fewer examples than there are folds: {label!r}",
            expected=f"at least {folds}, in train and validation", got=least,
            fix=f"Set --folds {least}." if least > 1 else "Add examples of it, or leave it out.",
        )  # fmt: skip
    if split.groups is not None:
        return _dealt_groups(y, split.groups, folds, labels, every_class=every_class)
    # One class after the other, each in random order, dealt out as cards are.
    order = np.random.RandomState(SEED).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    dealt = np.empty(len(order), np.int64)
    dealt[order] = np.arange(len(order)) % folds
    return dealt


def _dealt_groups(
    y: np.ndarray, groups: np.ndarray, folds: int, labels: Sequence[str], *, every_class: bool
) -> np.ndarray:
    """The fold of each example. `every_class`: raises unless each class is in two folds or more."""
    group, counts = _by_group(y, groups)
    if len(counts) < folds:
        raise InputError(
            "fewer groups than folds", expected=f"at least {folds} groups", got=len(counts),
            fix=f"Set --folds {len(counts)}." if len(counts) > 1 else "Leave the groups out.",
        )  # fmt: skip
    parts = _Parts(counts.sum(axis=0), [1] * folds)
    of_group = np.empty(len(counts), np.int64)
    for g in _large_first(counts):
        of_group[g] = parts.add(counts[g], range(folds))
    dealt: np.ndarray = of_group[group]
    for c in np.unique(y) if every_class else ():
        if len(np.unique(dealt[y == c])) == 1:
            raise InputError(
                f"groups put all examples of class {labels[c]!r} into one fold, whose model would "
                "not learn it",
                expected="each class in two groups or more",
                fix="Add groups of that class, or leave the groups out.",
            )
    return dealt
