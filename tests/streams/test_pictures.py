"""Pictures of streams and of early answers: each is opened again, and shows what it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rnn_tf.streams.early import SHARES, EarlyResult, EarlyRule, EarlyScores
from rnn_tf.streams.pictures import plot_answers, plot_early, plot_policies
from rnn_tf.streams.resets import PolicyScores

BLUE, RED, GREEN = (0x4C, 0x78, 0xA8), (0xE4, 0x57, 0x56), (0x54, 0xA2, 0x4B)


def count(path: Path, colour: tuple[int, int, int]) -> int:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return int((np.asarray(picture.convert("RGB")) == colour).all(axis=-1).sum())


def test_each_policy_has_a_line_in_each_panel(tmp_path: Path) -> None:
    def scores(gap: int) -> list[PolicyScores]:
        names = ("never", "at each sequence", "every 3 steps")
        by_step = np.array([0.1, np.nan, 0.5, 0.9])
        return [PolicyScores(each, gap, 0.5, 0.5, None, 1.0, by_step + 0.02) for each in names]

    plot_policies(scores(0), tmp_path / "one.png")
    plot_policies([*scores(0), *scores(7)], tmp_path / "two.png")
    for colour in (RED, BLUE, GREEN):
        one, two = (count(tmp_path / f"{name}.png", colour) for name in ("one", "two"))
        assert 10 < one < two


def test_early_answers_lie_beside_the_accuracy_along_sequences(tmp_path: Path) -> None:
    along = {percent: percent / 100 for percent in SHARES}
    scores = EarlyScores(0.9, 5.0, 0.5, 100)
    found = EarlyResult(EarlyRule(0.8, 0.9), scores, scores, {"valid": along, "test": along})
    plot_early(found, tmp_path / "early.png")
    assert count(tmp_path / "early.png", BLUE) > 100


def test_rows_go_by_until_an_answer_is_final(tmp_path: Path) -> None:
    rows = np.zeros((28, 28), np.float32)
    rows[:, 10:12] = 1
    probabilities = np.linspace([0.9, 0.1], [0.05, 0.95], 28)
    for name, confidence in (("final", 0.8), ("never", 0.99)):
        path = tmp_path / f"{name}.png"
        plot_answers(rows, probabilities, ("a", "b"), EarlyRule(confidence, 0.9), path)
        # The ink that has been read, and where reading has come to.
        assert count(path, (0, 0, 0)) > 1000
        assert count(path, BLUE) > 500
