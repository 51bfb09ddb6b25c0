"""Scores against a loop that counts one example at a time."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from rnn_tf.data.spec import Split
from rnn_tf.scores import StepScores, pooled, score, score_split, score_steps


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    classes = draw(st.integers(2, 6))
    examples = draw(st.integers(1, 40))
    values = st.floats(0, 1, width=32)
    probabilities = draw(hnp.arrays(np.float32, (examples, classes), elements=values))
    return probabilities, draw(hnp.arrays(np.int32, examples, elements=st.integers(0, classes - 1)))


@given(predictions())
def test_scores_agree_with_counting_one_by_one(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, y = drawn
    classes = probabilities.shape[1]
    confusion = [[0] * classes for _ in range(classes)]
    losses = []
    for row, truth in zip(probabilities.tolist(), y.tolist(), strict=True):
        called = max(range(classes), key=row.__getitem__)  # of equals, the first
        confusion[truth][called] += 1
        losses.append(-math.log(max(row[truth], 1e-7)))
    scores = score(probabilities, y)
    assert scores.confusion.tolist() == confusion
    assert scores.examples == len(y)
    right = sum(confusion[i][i] for i in range(classes))
    assert scores.accuracy == right / len(y)
    # Both are float64; NumPy only adds in another order.
    assert scores.loss == pytest.approx(sum(losses) / len(y), rel=1e-12, abs=1e-12)
    for i in range(classes):
        called = sum(row[i] for row in confusion)
        actual = sum(confusion[i])
        precision = confusion[i][i] / called if called else 0
        recall = confusion[i][i] / actual if actual else 0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert scores.precision[i] == precision
        assert scores.recall[i] == recall
        assert scores.f1[i] == pytest.approx(f1, rel=1e-15)


@given(predictions())
def test_classes_that_count_alike_are_those_of_scikit_learn(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, y = drawn
    called = probabilities.argmax(axis=1)
    scores = score(probabilities, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes called that do not occur
        balanced = metrics.balanced_accuracy_score(y, called)
    # Both add up a few float64 numbers.
    assert scores.balanced_accuracy == pytest.approx(balanced, abs=1e-12)
    macro = metrics.f1_score(y, called, average="macro", zero_division=0)
    assert scores.macro_f1 == pytest.approx(macro, abs=1e-12)


def test_a_rare_class_counts_as_much_in_balanced_accuracy() -> None:
    scores = score(np.eye(2)[[0] * 10], np.array([0] * 9 + [1]))
    assert (scores.accuracy, scores.balanced_accuracy) == (0.9, 0.5)
    assert scores.macro_f1 == pytest.approx(2 * 0.9 / 1.9 / 2)


def test_a_small_example_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.4, 0]])
    scores = score(probabilities, np.array([0, 1, 1, 0]))
    assert scores.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert scores.accuracy == 3 / 4
    # ln is worked out to seven digits here.
    assert scores.loss == pytest.approx((0.3566749 + 1.2039728 + 0.2231436 + 0.5108256) / 4, 1e-6)
    assert scores.precision.tolist() == [2 / 3, 1, 0]
    assert scores.recall.tolist() == [1, 1 / 2, 0]
    assert scores.f1.tolist() == pytest.approx([0.8, 2 / 3, 0])


def test_certainty_of_the_wrong_class_is_a_finite_loss() -> None:
    scores = score(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert scores.loss == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize("one", [1.0, np.nextafter(np.float32(1), np.float32(2))])
def test_certainty_of_the_right_class_is_no_loss_below_zero(one: float) -> None:
    scores = score(np.full((3, 1), one, np.float32), np.zeros(3, np.int32))
    assert math.copysign(1, scores.loss) == 1
    assert f"{scores.loss}" == "0.0"


def test_the_summary_is_plain_numbers() -> None:
    summary = score(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32)).summary()
    assert summary == {
        "accuracy": 1.0,
        "balanced_accuracy": 1.0,
        "macro_f1": 1.0,
        "loss": 0.0,
        "examples": 3,
        "most_frequent_class": 0,
        "most_frequent_share": 1 / 3,
    }
    assert [type(value) for value in summary.values()] == [
        float, float, float, float, int, int, float
    ]  # fmt: skip


def test_the_most_frequent_class_is_that_of_the_truth() -> None:
    # Everything is called class 0; three of four are class 2.
    summary = score(np.eye(3)[[0, 0, 0, 0]], np.array([2, 2, 0, 2], np.int32)).summary()
    assert (summary["most_frequent_class"], summary["most_frequent_share"]) == (2, 0.75)


def test_labels_of_few_bits_do_not_overflow() -> None:
    # Class 200 * 201 classes + 200 does not fit the uint8 in which the labels come.
    probabilities = np.eye(201, dtype=np.float32)[[200, 0]]
    scores = score(probabilities, np.array([200, 0], np.uint8))
    assert scores.confusion[200, 200] == 1
    assert scores.confusion[0, 0] == 1
    assert scores.examples == 2


@pytest.mark.parametrize("sure", [1.0, np.float32(1.0000001)])
def test_a_model_that_is_sure_and_right_has_a_loss_of_zero_without_a_sign(sure: float) -> None:
    scores = score(np.array([[sure, 0], [0, sure]]), np.array([0, 1]))
    assert scores.loss == 0
    assert f"{scores.loss:.4f}" == "0.0000"


# --- answers at every step ---
@st.composite
def steps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    values = st.floats(0, 1, width=32)
    y = draw(hnp.arrays(np.int32, shape, elements=st.integers(-1, 2)))
    y[np.arange(len(y)), draw(st.integers(0, shape[1] - 1))] = 1
    return draw(hnp.arrays(np.float32, (*shape, 3), elements=values)), y


@given(steps())
def test_scores_of_steps_agree_with_counting_sequence_by_sequence(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, y = drawn
    last = every = right = labelled = 0
    for row, truth in zip(probabilities, y, strict=True):
        answers = [(int(p.argmax()), t) for p, t in zip(row, truth.tolist(), strict=True) if t >= 0]
        last += answers[-1][0] == answers[-1][1]
        every += all(said == is_ for said, is_ in answers)
        right += sum(said == is_ for said, is_ in answers)
        labelled += len(answers)
    scores = score_steps(probabilities, y, own=True)
    assert scores.examples == labelled
    assert scores.accuracy == right / labelled
    assert scores.last_step_accuracy == last / len(y)
    assert scores.sequence_accuracy == every / len(y)
    assert scores.loss == score(probabilities[y >= 0], y[y >= 0]).loss
    assert scores.summary()["sequences"] == len(y)


def test_a_label_for_all_steps_says_nothing_of_whole_sequences() -> None:
    split = Split(np.zeros((2, 3, 1)), np.array([0, 1], np.int32), np.array([1, 3]))
    said = np.zeros((2, 3, 2), np.float32)
    said[0, :, 1] = said[1, 2, 1] = 1  # at the only step of the first, and at the last
    scores = score_split(said, split)
    assert isinstance(scores, StepScores)
    assert scores.confusion.tolist() == [[0, 1], [2, 1]]
    assert scores.last_step_accuracy == 0.5
    assert scores.sequence_accuracy is None
    assert "sequence_accuracy" not in scores.summary()


@given(steps(), steps())
def test_scores_of_parts_together_are_those_of_the_whole(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> None:
    width = min(first[1].shape[1], second[1].shape[1])
    parts = [(p[:, :width], np.maximum(y[:, :width], 0)) for p, y in (first, second)]
    both = [np.concatenate(each) for each in zip(*parts, strict=True)]
    whole = score_steps(*both, own=True)
    together = pooled([score_steps(*part, own=True) for part in parts])
    assert isinstance(together, StepScores)
    assert together.summary() == pytest.approx(whole.summary(), rel=1e-12)
    flat = [(p.reshape(-1, 3), y.ravel()) for p, y in parts]
    assert pooled([score(*part) for part in flat]).summary() == pytest.approx(
        score(both[0].reshape(-1, 3), both[1].ravel()).summary(), rel=1e-12
    )
