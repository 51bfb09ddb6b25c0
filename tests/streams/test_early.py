"""The rule of early answers: the smallest confidence that keeps a promise, and no smaller."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_tf.data import Split
from rnn_tf.errors import InputError
from rnn_tf.streams.early import SHARES, Along, EarlyResult, EarlyRule, answer_early, find_rule
from rnn_tf.streams.stream import Answers, as_stream


def along(confidence: list[list[float]], right: list[list[int]]) -> Along:
    """Sequences of as many steps as each list has."""
    longest = max(map(len, confidence))
    said = np.zeros((len(confidence), longest), np.float32)
    correct = np.zeros_like(said, bool)
    for i, (row, marks) in enumerate(zip(confidence, right, strict=True)):
        said[i, : len(row)], correct[i, : len(row)] = row, marks
    return Along(said, correct, np.array(list(map(len, confidence))))


FOUR = along(
    [[0.5, 0.9, 0.7], [0.6, 0.8], [0.4, 0.3, 0.95, 0.2], [0.7]],
    [[0, 1, 1], [0, 1], [0, 0, 1, 0], [1]],
)


def test_the_answer_is_that_of_the_first_step_that_is_sure_or_of_the_last() -> None:
    # At 0.75: the second, the second, the third, and the last, which is the only one.
    early = FOUR.answering_at(0.75)
    assert early.accuracy == 1
    assert early.steps == (2 + 2 + 3 + 1) / 4
    assert early.share == pytest.approx((2 / 3 + 1 + 3 / 4 + 1) / 4)
    assert early.examples == 4
    assert FOUR.answering_at(0).accuracy == 0.25  # at once
    assert FOUR.answering_at(0.96).accuracy == 0.75  # at the end


def test_accuracy_is_that_after_a_share_of_each_sequence() -> None:
    # 50 % of 3, 2, 4 and 1 steps: 2, 1, 2, 1. A tenth of one step is that step.
    assert FOUR.accuracy_at(50) == (1 + 0 + 0 + 1) / 4
    assert FOUR.accuracy_at(10) == FOUR.answering_at(0).accuracy
    assert FOUR.accuracy_at(100) == 0.75


@pytest.mark.parametrize(
    ("promise", "between"),
    [(0.25, (0, 0)), (0.5, (0.4, 0.5)), (0.75, (0.5, 0.6)), (1.0, (0.6, 0.7))],
)
def test_the_smallest_confidence_that_keeps_a_promise(
    promise: float, between: tuple[float, float]
) -> None:
    low, high = between
    confidence = find_rule(FOUR, promise).confidence
    # In the middle of the two probabilities between which nothing changes.
    assert confidence == pytest.approx((low + high) / 2, abs=1e-7)
    assert FOUR.answering_at(confidence).accuracy >= promise


@given(st.data())
def test_no_smaller_confidence_would_do(data: st.DataObject) -> None:
    values = st.floats(0, 1, width=16)
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    confidence = [data.draw(st.lists(values, min_size=n, max_size=n)) for n in lengths]
    right = [data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in lengths]
    valid = along(confidence, right)
    every = sorted({0.0, *(value for row in confidence for value in row), 1.0})
    tried = sorted({*every, *((a + b) / 2 for a, b in itertools.pairwise(every))})
    accuracies = {each: valid.answering_at(each).accuracy for each in tried}
    promise = data.draw(st.sampled_from(sorted(set(accuracies.values()) - {0}) or [1.0]))
    if max(accuracies.values()) < promise:
        with pytest.raises(InputError, match=r"at most 0\.0000"):
            find_rule(valid, promise)
        return
    rule = find_rule(valid, promise)
    assert valid.answering_at(rule.confidence).accuracy >= promise
    smallest = min(each for each, accuracy in accuracies.items() if accuracy >= promise)
    # Nothing changes between them: no largest confidence so far lies there.
    so_far = {max(row[: i + 1]) for row in confidence for i in range(len(row))}
    low, high = sorted((rule.confidence, smallest))
    assert not [value for value in so_far if low <= value < high]


def test_a_promise_that_cannot_be_kept_says_what_can() -> None:
    hopeless = along([[0.9, 0.8], [0.7, 0.6], [0.5, 0.4]], [[1, 0], [1, 1], [0, 0]])
    with pytest.raises(InputError) as refused:
        find_rule(hopeless, 0.9)
    assert str(refused.value) == (
        "the validation split does not keep this promise; expected an accuracy of at most 0.6666, "
        "got 0.9. Say --promise 0.6666, or train a better model."
    )
    assert find_rule(hopeless, 0.6666).confidence == 0
    never = along([[0.9]], [[0]])
    with pytest.raises(InputError, match=r"at most 0\.0000, got 0\.9\. Train a better model\."):
        find_rule(never, 0.9)


@pytest.mark.parametrize("promise", [0, -0.5, 1.01, 95, float("nan"), float("inf")])
def test_a_promise_is_a_share(promise: float) -> None:
    with pytest.raises(InputError, match="bad promise; expected a share above 0, up to 1") as said:
        find_rule(FOUR, promise)
    assert ("For 95 % say --promise 0.95." in str(said.value)) == (promise == 95)


def test_neighbouring_float32_are_told_apart() -> None:
    first = float(np.float32(0.7))
    second = float(np.nextafter(np.float32(0.7), np.float32(1)))
    valid = along([[first, second], [0.9, 0.9]], [[0, 1], [1, 1]])
    rule = find_rule(valid, 1.0)
    assert valid.answering_at(rule.confidence).accuracy == 1


def test_certainty_leaves_nothing_to_wait_for() -> None:
    """Where every probability is 1, no confidence waits for another step."""
    with pytest.raises(InputError, match=r"at most 0\.0000"):
        find_rule(along([[1.0, 1.0]], [[0, 1]]), 0.5)


def test_along_a_stream_and_back() -> None:
    x = np.zeros((2, 3, 1), np.float32)
    stream = as_stream(Split(x, np.array([1, 0], np.int32), np.array([2, 3], np.int32)))
    labels = np.array([1, 0, 0, -2, 0], np.int32)
    confidence = np.array([0.9, 0.8, 0.7, 0, 0.6], np.float32)
    found = Along.of(stream, Answers(labels, confidence, confidence))
    assert found.right.tolist() == [[True, False, False], [True, False, True]]
    np.testing.assert_array_equal(
        found.confidence, np.array([[0.9, 0.8, 0], [0.7, 0, 0.6]], np.float32)
    )


def test_what_is_kept_is_read_back() -> None:
    result = answer_early(FOUR, FOUR, 0.75)
    assert result.held
    assert list(result.accuracy_at["test"]) == list(SHARES)
    written = json.dumps(result.to_dict(), allow_nan=False)
    assert EarlyResult.from_dict(json.loads(written)) == result


@pytest.mark.parametrize("confidence", [-0.1, 1.5, "0.5", None, True, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence: object) -> None:
    with pytest.raises(InputError, match="bad confidence"):
        EarlyRule(confidence, 0.9)  # type: ignore[arg-type]
