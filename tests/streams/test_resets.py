"""What reset policies are given, and how their answers are counted."""

from __future__ import annotations

import json
import math

import numpy as np

from rnn_tf.data import Split
from rnn_tf.streams.resets import PolicyScores, compare_policies, settled
from rnn_tf.streams.stream import Answers

T, F = True, False


def test_an_answer_is_settled_when_it_is_right_until_the_end() -> None:
    right = np.array([[T, T, T, T], [F, T, F, T], [T, T, T, F], [F, F, T, T], [F, T, F, F]])
    labelled = np.ones_like(right)
    labelled[4] = [T, T, F, F]  # its end is at the second step
    at_end, steps = settled(right & labelled, labelled)
    assert at_end.tolist() == [T, T, F, T, T]
    assert steps[at_end].tolist() == [1, 4, 3, 2]


class Counts:
    """Listens, and answers how many steps ago the last reset was, up to 2."""

    def __init__(self) -> None:
        self.heard: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, frames: np.ndarray, resets: np.ndarray) -> Answers:
        self.heard.append((frames, resets))
        since = np.arange(len(frames)) - np.repeat(resets, np.diff(resets, append=len(frames)))
        return Answers(
            np.minimum(since, 2).astype(np.int32),
            np.ones(len(frames), np.float32),
            since.astype(np.float32),
        )


def of(n: int, steps: int = 4) -> Split:
    """Sequences that are right to be answered by 2, each with a number of its own in it."""
    x = np.repeat(np.arange(n, dtype=np.float32), steps).reshape(n, steps, 1)
    return Split(x, np.full(n, 2, np.int32))


def test_each_policy_resets_where_it_says() -> None:
    listen = Counts()
    silence = np.array([-1], np.float32)
    found = list(compare_policies(listen, of(5), gaps=(0, 3), silence=silence, every=4))
    names = ("never", "at each sequence", "every 4 steps")
    assert [(each.gap, each.policy) for each in found] == [(g, n) for g in (0, 3) for n in names]
    # Never; at each sequence; every 4 steps, on each place in a sequence once.
    assert [resets.tolist() for _, resets in listen.heard[:6]] == [
        [0], [0, 4, 8, 12, 16], [0, 4, 8, 12, 16], [0, 1, 5, 9, 13, 17], [0, 2, 6, 10, 14, 18],
        [0, 3, 7, 11, 15, 19],
    ]  # fmt: skip
    order = listen.heard[0][0][::4, 0]
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order.tolist() != [0, 1, 2, 3, 4]
    with_gaps = listen.heard[6][0].reshape(5, 7)
    np.testing.assert_array_equal(with_gaps[:, :4], np.repeat(order[:, None], 4, axis=1))
    assert (with_gaps[:, 4:] == -1).all()
    assert listen.heard[7][1].tolist() == [0, 7, 14, 21, 28]
    never, at_each, every = found[:3]
    # Right from the third step after a reset on.
    assert (never.accuracy, at_each.accuracy) == (18 / 20, 2 / 4)
    assert (never.delay, at_each.delay) == ((1 * 4 + 3) / 5, 3)
    assert (never.largest_state, at_each.largest_state) == (19, 3)
    assert at_each.by_step.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(never.by_step, [0.8, 0.8, 1, 1])
    assert at_each.accuracy_at_end == 1
    # The mean over where a reset falls: at the first step 0011, at the second 1001, 1100, 0110;
    # of the first sequence, which begins at zero, 0011, 0001, 0000, 0010.
    np.testing.assert_allclose(every.by_step, [0.4, 0.4, 0.5, 0.5])


def test_what_json_cannot_say_is_null() -> None:
    by_step = np.array([0.5, np.nan])
    scores = PolicyScores("never", 0, 0.5, 0.0, None, math.inf, by_step)
    assert json.loads(json.dumps(scores.to_dict(), allow_nan=False)) == {
        "policy": "never", "gap": 0, "accuracy": 0.5, "accuracy_at_end": 0.0, "delay": None,
        "largest_state": None, "accuracy_by_step": [0.5, None],
    }  # fmt: skip
