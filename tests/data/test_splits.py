"""Held-out examples: of every class its share, the same ones each time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import phases

from rnn_tf.data import SequenceData, SequenceSpec
from rnn_tf.data.spec import Split
from rnn_tf.data.splits import (
    fold_of,
    hold_out,
    hold_out_test,
    hold_out_valid,
    with_missing_splits,
)
from rnn_tf.errors import InputError


def split_of(
    y: list[int] | np.ndarray, groups: list[int] | list[str] | np.ndarray | None = None
) -> Split:
    """Examples whose only value is their place."""
    x = np.arange(len(y), dtype=np.float32).reshape(-1, 1, 1)
    of_each = None if groups is None else np.array(groups)
    return Split(x, np.array(y, np.int32), groups=of_each)


def places(split: Split) -> list[int]:
    return split.x.ravel().astype(int).tolist()


def data_of(
    y: list[int] | np.ndarray, groups: list[int] | np.ndarray | None = None
) -> SequenceData:
    """Data whose last two examples are the validation split; there is no test example."""
    whole = split_of(y, groups)
    labels = tuple("abcdefgh"[: max(2, max(y) + 1)])
    parts = (whole.take(slice(-2)), whole.take(slice(-2, None)), whole.take(slice(0)))
    return SequenceData(SequenceSpec(1, 1, labels), *parts)


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


# --- groups ---
grouped = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=2, max_size=80)


@given(grouped, st.integers(1, 40))
def test_no_group_is_in_two_parts(examples: list[tuple[int, int]], wanted: int) -> None:
    y, groups = map(list, zip(*examples, strict=True))
    of_class = {c: {g for k, g in examples if k == c} for c in y}
    can_be_cut = [g for g in set(groups) if all(of_class[k] - {g} for k, h in examples if h == g)]
    try:
        rest, cut = hold_out(split_of(y, groups), wanted)
    except InputError:
        assert not can_be_cut
        return
    assert rest.groups is not None
    assert cut.groups is not None
    assert not set(rest.groups) & set(cut.groups)
    assert sorted(places(rest) + places(cut)) == list(range(len(y)))
    assert len(cut.y) >= 1
    assert set(rest.y) == set(y)  # no class loses its last group


def test_groups_are_cut_in_proportion() -> None:
    """100 persons of 10 examples, two in ten of which are of the rare class."""
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(100), 10)
    y = (random.random(1000) < 0.2).astype(int)
    rest, cut = hold_out(split_of(y, groups), 200)
    assert len(cut.y) == 200
    assert abs(cut.y.mean() - y.mean()) < 0.01
    assert len(rest.y) == 800


def test_which_groups_are_cut_never_changes() -> None:
    """Written down, for every machine and version."""
    y = [0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    _, cut = hold_out(split_of(y, list("aabbccddeeff")), 3)
    assert cut.groups is not None
    assert cut.groups.tolist() == ["d", "d"]
    _, again = hold_out(split_of(y, [7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12]), 3)
    assert places(again) == places(cut)  # what groups are called does not matter


def test_one_large_group_is_not_held_out() -> None:
    y = [0, 1] * 50
    _, cut = hold_out(split_of(y, [0] * 90 + [1] * 10), 10)
    assert places(cut) == list(range(90, 100))


@pytest.mark.parametrize(
    ("y", "groups", "got"),
    [([0, 1, 0, 1], [5, 5, 5, 5], "1 groups of 2"), ([0, 0, 1, 1], [1, 1, 2, 2], "2 groups of 2")],
    ids=["one group", "a group a class"],
)
def test_groups_that_leave_nothing_to_hold_out(y: list[int], groups: list[int], got: str) -> None:
    with pytest.raises(InputError, match=f"groups leave nothing to hold out; .*got {got} classes"):
        hold_out_valid(split_of(y, groups))


# --- what a source does not have ---
def test_a_test_split_is_cut_and_said() -> None:
    with pytest.warns(
        UserWarning, match=r"mine has no test split: 4 of its 20 .*those at (\d+, ){3}"
    ):
        train, valid, test = with_missing_splits("mine", split_of([0, 1] * 10), None, None, 0.2)
    assert [len(each.y) for each in (train, valid, test)] == [15, 1, 4]
    assert np.bincount(test.y).tolist() == [2, 2]
    assert sorted(places(train) + places(valid) + places(test)) == list(range(20))


def test_the_groups_of_a_test_split_are_said() -> None:
    groups = np.repeat(["Ada", "Ben", "Cid", "Dan", "Eve"], 4)
    with pytest.warns(UserWarning, match=r"all of the groups (Ada|Ben|Cid|Dan|Eve)$"):
        train, valid, test = with_missing_splits(
            "mine", split_of([0, 1] * 10, groups), None, None, 0.2
        )
    parts = [set(each.groups) for each in (train, valid, test) if each.groups is not None]
    assert [len(part) for part in parts] == [3, 1, 1]
    assert len(set.union(*parts)) == 5


def test_a_test_split_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"mine has no test split. Give one, .*--test-share 0.2"):
        with_missing_splits("mine", split_of([0, 1] * 10), None, None)


def test_a_second_test_split_is_refused() -> None:
    whole = split_of([0, 1] * 10)
    with pytest.raises(InputError, match=r"has a test split of its own; got --test-share 0.2"):
        with_missing_splits("mine", whole, None, whole, 0.2)


# --- folds ---
@given(st.lists(st.integers(0, 3), min_size=12, max_size=80), st.integers(2, 6))
def test_every_example_is_in_one_fold(y: list[int], count: int) -> None:
    data = data_of(y)
    sizes = np.bincount(y)
    if ((sizes > 0) & (sizes < count)).any():
        with pytest.raises(InputError, match="fewer examples than there are folds"):
            fold_of(data, f"1/{count}")
        return
    folds = [fold_of(data, f"{i + 1}/{count}") for i in range(count)]
    assert sorted(place for fold in folds for place in places(fold.test)) == list(range(len(y)))
    for fold in folds:
        used = places(fold.train) + places(fold.valid) + places(fold.test)
        assert sorted(used) == list(range(len(y)))
        of_class = np.bincount(fold.test.y, minlength=len(sizes))
        assert (of_class >= sizes // count).all()  # stratified
        assert (of_class <= -(-sizes // count)).all()
        assert abs(len(fold.test.y) - len(y) / count) < 1
        assert set(fold.train.y) == set(y)


@given(st.integers(2, 5), st.integers(0, 1000))
def test_no_group_is_in_two_folds(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = random.integers(0, 15, 200)
    y = random.integers(0, 3, 200)
    folds = [fold_of(data_of(y, groups), f"{i + 1}/{count}") for i in range(count)]
    assert sorted(place for fold in folds for place in places(fold.test)) == list(range(200))
    for fold in folds:
        found = [set(part.groups) for part in (fold.train, fold.valid, fold.test)
                 if part.groups is not None]  # fmt: skip
        assert sum(map(len, found)) == len(set(groups))
        assert set.union(*found) == set(groups)
        assert len(fold.test.y) > 200 / count / 2


def test_groups_of_one_class_each_are_spread() -> None:
    """Ten persons, each of one class: no fold is empty, and none has all of a class."""
    groups = np.repeat(np.arange(10), 4)
    data = data_of(groups // 2, groups)
    for i in range(5):
        test = fold_of(data, f"{i + 1}/5").test
        assert len(test.y) == 8
        assert len(set(test.y)) == 2


def test_which_examples_are_in_a_fold_never_changes() -> None:
    """Written down, for every machine and version."""
    data = data_of([0] * 6 + [1] * 6)
    assert [places(fold_of(data, f"{i}/3").test) for i in (1, 2, 3)] == [
        [3, 4, 6, 8], [0, 2, 7, 11], [1, 5, 9, 10]
    ]  # fmt: skip


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "2", "2/x", "-1/5", "1/5/5"])
def test_what_is_no_fold(fold: str) -> None:
    with pytest.raises(InputError, match=r"bad fold; expected one of two or more, as in 2/5"):
        fold_of(data_of([0, 1] * 10), fold)


def test_a_class_with_fewer_examples_than_folds() -> None:
    with pytest.raises(
        InputError,
        match=r"fewer examples than there are folds: 'b'; expected at least 4, .*got 3. "
        r"Set --folds 3.",
    ):
        fold_of(data_of([0] * 20 + [1] * 3), "1/4")


def test_fewer_groups_than_folds() -> None:
    data = data_of([0, 1] * 10, np.repeat(np.arange(4), 5))
    with pytest.raises(InputError, match=r"expected at least 5 groups, got 4. Set --folds 4"):
        fold_of(data, "1/5")


def test_a_class_in_one_group_only() -> None:
    groups = np.repeat(np.arange(6), 5)
    y = np.where(groups == 5, 1, np.arange(30) % 2 * 2)
    with pytest.raises(InputError, match="groups put all examples of class 'b' into one fold"):
        fold_of(data_of(y, groups), "1/3")


# --- labels by step ---
def test_an_example_counts_as_of_the_class_that_most_of_its_steps_have() -> None:
    y = np.repeat(np.array([0] * 80 + [1] * 20, np.int32)[:, None], 3, axis=1)
    y[:, 0], y[::2, 2] = 2, -1  # of equals, the lowest
    _, valid = hold_out(Split(np.zeros((100, 3, 1)), y), 10)
    assert valid.y.shape == (10, 3)
    assert np.bincount(valid.y[:, 1]).tolist() == [8, 2]
    by_group = Split(np.zeros((100, 3, 1)), y, None, np.arange(100) % 10)
    assert len(hold_out(by_group, 10)[1].y) == 10


def test_folds_of_labels_by_step_need_no_class_in_each() -> None:
    data = phases()
    rare = data.train.y.copy()
    rare[rare == 2] = 1
    rare[0, 0] = 2  # the only step of its class
    train = data.train._replace(y=rare)
    whole = dataclasses.replace(data, train=train, valid=train.take(slice(5, 9)))
    sizes = [len(fold_of(whole, f"{i}/3").test.y) for i in (1, 2, 3)]
    assert sum(sizes) == len(train.y) + 4
    assert max(sizes) - min(sizes) <= 1
