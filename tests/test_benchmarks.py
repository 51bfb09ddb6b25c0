"""What the benchmarks print is what they measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import accuracy, training
from benchmarks.training import Way, epoch_operations, table
from rnn_tf import Run, load


def test_the_operations_of_an_epoch_are_those_of_its_matrix_products() -> None:
    # By hand: 28 steps, 28 -> 32 and 32 -> 32, twice more backward but for the input's gradient.
    forward = 28 * (28 * 32 + 32 * 32) + 32 * 10
    backward = 28 * (28 * 32 + 2 * 32 * 32) + 2 * 32 * 10
    assert epoch_operations() == 2 * 55_000 * (forward + backward)


def test_the_table_shows_medians_and_ratios_to_the_first() -> None:
    slow = Way("slow", lambda _: ([3.0, 2.0, 4.0, 2.0], 0.5))
    fast = Way("fast", lambda _: ([1.0, 0.5, 0.25, 0.5], 0.75))
    for way in (slow, fast):
        way.measure(4)
    _, first, second, *rest = table([slow, fast]).splitlines()
    assert first.split()[:4] == ["slow", "2.000", "s", "(2.000-4.000)"]
    assert second.split()[:5] == ["fast", "0.500", "s", "(0.250-0.500)", "4.0x"]
    assert second.endswith("75.00%")
    assert "arithmetic floor: 15.1 GFLOP" in rest[1]


def test_pytorch_is_compared_with_the_loop_of_its_users() -> None:
    loop = Way(training.PLAIN_TORCH, lambda _: ([3.0, 2.0, 2.0], 0.5))
    ours = Way("rnn_tf --backend torch, best", lambda _: ([1.0, 0.5, 0.5], 0.75))
    for way in (loop, ours):
        way.measure(3)
    line = table([loop, ours]).splitlines()[-1]
    assert line.startswith("rnn_tf --backend torch, best: an epoch 4.0 times, the command ")


@pytest.mark.slow
def test_training_is_timed_as_a_user_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only_two = training.ways_to_train(tmp_path)[:2]
    monkeypatch.setattr(training, "ways_to_train", lambda folder: only_two)
    found = tmp_path / "found.json"
    assert training.main(["--rounds", "1", "--epochs", "2", "--json", str(found)]) == 0
    plain, ours = json.loads(found.read_text())
    assert len(plain["steady"]) == len(ours["steady"]) == 1
    # 80-90 % after two epochs of the tutorial's recipe; chance is 10 %.
    assert min(plain["accuracy"][0], ours["accuracy"][0]) > 0.7
    assert "plain Keras fit on arrays" in capsys.readouterr().out


def test_the_accuracy_table_has_a_row_a_recipe(run: Run) -> None:
    found = {"one": [{**run.metrics, "epoch_seconds": 1.25}] * 2}
    _, row = accuracy.table(found).splitlines()
    assert f"{run.metrics['test']['accuracy']:.2%}" in row
    assert row.split()[1] == "2,282"
    assert row.endswith("1.25")
    assert load("mnist").test.y.size == run.metrics["test"]["examples"]
