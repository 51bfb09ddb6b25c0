"""Which epoch is the best, and when there is no other to come."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import Killed

from rnn_tf import Run, TrainConfig, train
from rnn_tf.data import SequenceData
from rnn_tf.errors import InputError
from rnn_tf.train import main, summary
from rnn_tf.training.best_epoch import highest_epoch
from rnn_tf.training.recorder import Recorder

# val_accuracy, val_balanced_accuracy and val_loss of each epoch.
EPOCHS = [(0.5, 0.4, 2.0), (0.9, 0.5, 1.0), (0.9, 0.5, 0.8), (0.8, 0.7, 0.7), (0.7, 0.6, 0.6),
          (0.9, 0.5, 0.9)]  # fmt: skip


def recorded(small: SequenceData, path: Path, epochs: int = len(EPOCHS), **more: Any) -> Recorder:
    """A recorder that was given the epochs above until it said that it was over."""
    run = Run.create(path / "run", TrainConfig(**more), small.spec)
    recorder = Recorder(run, epochs, small.valid)
    recorder.begin()
    for accuracy, balanced, loss in EPOCHS:
        if recorder.over:
            break
        scores = {
            "loss": 1.0, "accuracy": 0.5, "val_accuracy": accuracy, "val_loss": loss,
            "val_balanced_accuracy": balanced,
        }  # fmt: skip
        recorder.end_epoch(scores, lambda: [np.zeros(1)], dict)
    recorder.end()
    return recorder


def test_the_checkpoint_is_written_now_and_then_and_in_the_end(
    small: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of epochs that come quickly, the first and the last are: a break loses those between."""
    written = []
    monkeypatch.setattr(Run, "save_history", lambda run, history: written.append(len(history)))
    recorded(small, tmp_path / "quick")
    monkeypatch.setattr("rnn_tf.training.recorder.SAVED_EVERY", 0)
    recorded(small, tmp_path / "slow")
    assert written == [1, 6, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("schedule", "objective", "best"),
    # 40 examples: 36 that are right are not told apart from 32, nor 28 from 24; 36 are from 28.
    [
        ("constant", "accuracy", 3), ("constant", "balanced_accuracy", 4), ("constant", "loss", 5),
        ("cosine", "accuracy", 6), ("linear", "balanced_accuracy", 5), ("cosine", "loss", 5),
    ],
)  # fmt: skip
def test_the_objective_says_which_epoch_is_the_best(
    schedule: str, objective: str, best: int, small: SequenceData, tmp_path: Path
) -> None:
    recorder = recorded(small, tmp_path, objective=objective, schedule=schedule)
    assert recorder.best_epoch == best
    assert recorder.over
    assert not recorder.ended_early


@pytest.mark.parametrize(
    ("objective", "patience", "epochs"),
    [("accuracy", 1, 4), ("accuracy", 2, 5), ("accuracy", 3, 6), ("balanced_accuracy", 1, 5),
     ("loss", 1, 6), ("accuracy", 0, 6)],
)  # fmt: skip
def test_patience_ends_a_training(
    objective: str, patience: int, epochs: int, small: SequenceData, tmp_path: Path
) -> None:
    recorder = recorded(small, tmp_path, objective=objective, patience=patience)
    assert len(recorder.history) == epochs
    assert recorder.over
    assert recorder.ended_early == (epochs < len(EPOCHS))


def test_a_training_that_ran_to_its_end_did_not_end_early(
    small: SequenceData, tmp_path: Path
) -> None:
    recorder = recorded(small, tmp_path, 5, patience=2)
    assert recorder.over
    assert not recorder.ended_early


@pytest.mark.parametrize(
    ("backend", "objective", "schedule"),
    [
        ("keras", "balanced_accuracy", "constant"),
        pytest.param("torch", "loss", "cosine", marks=pytest.mark.torch),
    ],
)
def test_a_run_keeps_the_epoch_that_the_objective_chooses(
    backend: Any, objective: Any, schedule: Any, small: SequenceData, tmp_path: Path
) -> None:
    config = TrainConfig(
        units=5, epochs=9, batch_size=16, objective=objective, schedule=schedule, backend=backend
    )
    run = train(config, tmp_path / "run", data=small, progress=False)
    best = run.history[run.metrics["best_epoch"] - 1]
    values = [record[f"val_{objective}"] for record in run.history]
    assert best[f"val_{objective}"] == (min if objective == "loss" else max)(values)
    # The weights are of that epoch: they give its scores again, but for float32 rounding.
    for name in {objective, "accuracy", "loss"}:
        assert run.metrics["valid"][name] == pytest.approx(best[f"val_{name}"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["keras", pytest.param("torch", marks=pytest.mark.torch)])
def test_patience_keeps_the_weights_of_the_best_epoch(
    backend: Any, small: SequenceData, tmp_path: Path
) -> None:
    """The epochs that there are, are those of a training without patience."""
    config = TrainConfig(units=5, epochs=30, batch_size=16, patience=2, backend=backend)
    run = train(config, tmp_path / "run", data=small, progress=False)
    highest = highest_epoch(run.history, "accuracy")
    assert len(run.history) == highest + 2 < 30
    assert highest <= run.metrics["best_epoch"]
    assert run.metrics["ended_early"] is True
    assert "ended by --patience 2" in summary(run)
    whole = train(
        dataclasses.replace(config, patience=0), tmp_path / "whole", data=small, progress=False
    )
    for a, b in zip(run.history, whole.history, strict=False):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert run.metrics["valid"]["loss"] == pytest.approx(
        whole.history[run.metrics["best_epoch"] - 1]["val_loss"], rel=1e-5
    )


def test_a_run_that_patience_ended_is_not_trained_on_when_it_is_resumed(
    small_npz: Path, small: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill after the last epoch, before the run is finished."""
    config = TrainConfig(str(small_npz), units=5, epochs=30, batch_size=16, patience=2)
    whole = train(config, tmp_path / "whole", data=small, progress=False)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_model", killed)
        with pytest.raises(Killed):
            train(config, tmp_path / "run", data=small, progress=False)
    assert main(["--run-dir", str(tmp_path / "run"), "--resume"]) == 0
    run = Run.open(tmp_path / "run")
    assert len(run.history) == len(whole.history)
    assert run.metrics["ended_early"] is True
    for a, b in zip(run.load_model().get_weights(), whole.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- how long ---
@pytest.mark.parametrize(
    ("examples", "batch_size", "epochs"),
    # 2,000 updates are enough for 1,000 examples: 16 an epoch.
    [(55_000, 64, 10), (36, 64, 400), (1, 64, 400), (1_000, 64, 125), (12_800, 64, 10)],
)
def test_auto_epochs_follow_the_number_of_updates(
    examples: int, batch_size: int, epochs: int
) -> None:
    assert TrainConfig(batch_size=batch_size).epochs_for(examples) == epochs
    assert TrainConfig(epochs=7).epochs_for(examples) == 7


@pytest.mark.parametrize(
    ("examples", "size"),
    [(55_000, 64), (1_024, 64), (1_023, 32), (512, 32), (511, 16), (36, 16), (1, 16)],
)
def test_auto_batches_are_smaller_where_there_are_few_examples(examples: int, size: int) -> None:
    assert TrainConfig().batch_size_for(examples) == size
    assert TrainConfig(batch_size=5).batch_size_for(examples) == 5


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "automatic", None])
def test_what_is_no_number(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"bad {name}; expected"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("backend", ["keras", pytest.param("torch", marks=pytest.mark.torch)])
def test_a_training_of_auto_epochs_says_how_many_and_trains_them(
    backend: str, small_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    line = ["--dataset", str(small_npz), "--units", "5", "--run-dir", str(path)]
    assert main([*line, "--backend", backend]) == 0
    run = Run.open(path)
    epochs = run.config.epochs_for(203)
    assert run.config.epochs == "auto"
    assert len(run.history) == epochs
    # The schedule ends where the training does.
    assert run.history[-1]["learning_rate"] < 1e-3 * run.history[epochs // 2]["learning_rate"]
    assert f"({epochs} epochs" in capsys.readouterr().err
