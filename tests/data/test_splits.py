"""Held-out examples: of every class its share, the same ones each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_tf.data.spec import Split
from rnn_tf.data.splits import hold_out, hold_out_test, hold_out_valid
from rnn_tf.errors import InputError


def split_of(y: list[int] | np.ndarray) -> Split:
    """Examples whose only value is their place."""
    x = np.arange(len(y), dtype=np.float32).reshape(-1, 1, 1)
    return Split(x, np.array(y, np.int32))


labels = st.lists(st.integers(0, 5), min_size=2, max_size=80)


@given(labels, st.integers(1, 100))
def test_every_example_is_in_one_part(y: list[int], examples: int) -> None:
    try:
        rest, cut = hold_out(split_of(y), examples)
    except InputError:
        assert len(set(y)) == len(y)
        return
    places = [part.x.ravel().astype(int).tolist() for part in (rest, cut)]
    assert sorted(places[0] + places[1]) == list(range(len(y)))
    for part, found in zip((rest, cut), places, strict=True):
        assert found == sorted(found)  # the order of the source
        assert part.y.tolist() == [y[i] for i in found]
    assert len(cut.y) == min(examples, len(y) - len(set(y)))
    assert set(rest.y) == set(y)  # no class loses its last example


@given(labels, st.integers(1, 40))
def test_classes_give_in_proportion(y: list[int], examples: int) -> None:
    """Every class gives its share of what is cut, up to the next whole one, and first one each."""
    counts = np.bincount(y)
    can_give = np.maximum(counts - 1, 0)
    if not can_give.any():
        return
    _, cut = hold_out(split_of(y), examples)
    given = np.bincount(cut.y, minlength=len(counts))
    if examples >= (can_give > 0).sum():
        assert (given[can_give > 0] >= 1).all()
    assert (given <= can_give).all()
    if examples <= len(y) // 2:
        share = counts * min(examples, can_give.sum()) / len(y)
        assert (given <= np.ceil(share) + 1).all()


def test_which_examples_are_cut_never_changes() -> None:
    """Written down, for every machine and version."""
    rest, cut = hold_out(split_of([0] * 10 + [1] * 5 + [2] * 1 + [0] * 5), 6)
    assert cut.x.ravel().tolist() == [1, 8, 11, 13, 18, 20]
    again, _ = hold_out(split_of([7] * 10 + [8] * 5 + [9] * 1 + [7] * 5), 6)
    np.testing.assert_array_equal(again.x, rest.x)  # the names of classes do not matter


def test_more_classes_than_examples_to_cut() -> None:
    """Classes are then drawn, and not the first ones taken."""
    y = np.repeat(np.arange(100), 5)
    _, cut = hold_out(split_of(y), 50)
    assert len(set(cut.y)) == 50
    assert cut.y.max() > 60


def test_a_rare_class_is_in_both_parts() -> None:
    y = [0] * 990 + [1] * 10
    train, valid = hold_out_valid(split_of(y))
    assert np.bincount(valid.y).tolist() == [99, 1]
    train, test = hold_out_test(train)
    assert np.bincount(test.y).tolist() == [178, 2]


@pytest.mark.parametrize(
    ("examples", "valid", "test"), [(3, 1, 1), (30, 3, 6), (40_000, 4_000, 8_000),
                                    (80_000, 5_000, 10_000)]
)  # fmt: skip
def test_sizes(examples: int, valid: int, test: int) -> None:
    split = split_of(np.arange(examples) % 2)
    assert len(hold_out_valid(split)[1].y) == valid
    assert len(hold_out_test(split)[1].y) == test


def test_a_class_of_one_example_is_never_cut() -> None:
    with pytest.raises(InputError, match=r"too few .*; expected a class with two .*got 3 of 3 cla"):
        hold_out(split_of([0, 1, 2]), 1)
