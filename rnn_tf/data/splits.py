"""Splits that a source does not have, cut from its training examples."""

from __future__ import annotations

import numpy as np

from rnn_tf.data.spec import Split
from rnn_tf.errors import InputError

# A tenth of a large set is more than choosing a model needs, a fifth more than scoring one.
MOST_VALID_EXAMPLES = 5_000
MOST_TEST_EXAMPLES = 10_000

# One seed for all: which examples are held out depends on the labels and on nothing else.
SEED = 0


def hold_out_valid(train: Split) -> tuple[Split, Split]:
    """Cut a tenth, at least 1 and at most 5,000 examples, off `train` for validation.

    Raises `InputError` when no class has two examples.
    """
    return hold_out(train, min(max(len(train.y) // 10, 1), MOST_VALID_EXAMPLES))


def hold_out_test(train: Split) -> tuple[Split, Split]:
    """Cut a fifth, at least 1 and at most 10,000 examples, off `train` for the test.

    Raises `InputError` when no class has two examples.
    """
    return hold_out(train, min(max(len(train.y) // 5, 1), MOST_TEST_EXAMPLES))


def hold_out(train: Split, examples: int) -> tuple[Split, Split]:
    """Cut `examples` off `train`, from every class in proportion to its size.

    Both parts keep the order of `train`. Of every class one example stays, so that fewer may be
    cut than are asked for; as long as `examples` reach, one of every other class is cut. The
    choice is a pure function of the labels, the same for every machine and library version.

    Raises `InputError` when nothing can be cut.
    """
    cut = np.sort(_proportional(train.y, examples))
    if not cut.size:
        raise InputError(
            "too few training examples to hold some out",
            expected="a class with two examples or more",
            got=f"{len(train.y)} of {len(np.unique(train.y))} classes",
            fix="Add examples, or give a validation split.",
        )
    stays = np.ones(len(train.y), bool)
    stays[cut] = False
    return train.take(stays), train.take(cut)


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
