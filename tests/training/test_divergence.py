"""A training that diverges says so while it does, and its advice works."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rnn_tf import Run, TrainConfig, train
from rnn_tf.data import SequenceData, SequenceSpec, Split
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.evaluate import evaluate
from rnn_tf.predict import predict
from rnn_tf.train import main
from rnn_tf.training.divergence import DivergenceWarning, advice, warning

SPEC = SequenceSpec(timesteps=500, features=1, labels=("below", "above"))
# What every length had once: far too much for 500 time steps.
TOO_FAST = TrainConfig(learning_rate=5e-3, units=16, epochs=40)
AT_ONCE = TrainConfig(learning_rate=1e30, activation="linear", optimizer="adam", clip_norm=0.0)


@pytest.fixture(scope="module")
def long() -> SequenceData:
    """Noise around +0.3 or -0.3, for 500 time steps."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 300).astype(np.int32)
    x = random.normal(size=(300, 500, 1)) + np.where(y == 1, 0.3, -0.3)[:, None, None]
    every = Split(x.astype(np.float32), y)
    cuts = (slice(200), slice(200, 250), slice(250, None))
    return SequenceData(SPEC, *(every.take(cut) for cut in cuts))


@pytest.fixture(scope="module")
def long_npz(long: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "long.npz"
    splits = {"train": long.train, "valid": long.valid, "test": long.test}
    arrays = {f"{part}_{name}": getattr(s, part) for name, s in splits.items() for part in "xy"}
    np.savez(path, labels=np.array(SPEC.labels), **arrays)
    return path


# --- what is said ---
@pytest.mark.parametrize(("name", "said"), [("loss", "loss"), ("val_loss", "validation loss")])
def test_either_loss_far_beyond_guessing_is_said(name: str, said: str) -> None:
    scores = {"loss": 1.0, "val_loss": 1.0}
    limit = 100 * math.log(2)
    assert warning(3, {**scores, name: 0.99 * limit}, TOO_FAST, SPEC) == ""
    assert warning(3, {**scores, name: 10 * limit}, TOO_FAST, SPEC).startswith(
        f"training diverges: the {said} of epoch 3 is 693, 1,000 times that of guessing."
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TOO_FAST, "set --learning-rate auto, which is 0.00032 here"),
        (TrainConfig(), "set --activation tanh"),
        (TrainConfig(normalize="none"), "set --normalize standard"),
        (TrainConfig(cell="lstm"), "set --learning-rate 0.0005"),
        (TrainConfig(cell="lstm", activation="relu"), "set --activation tanh"),
        (TrainConfig(activation="tanh", clip_norm=0.0), "set --learning-rate 0.0005"),
        (TrainConfig(activation="tanh", learning_rate=1e-3), "set --learning-rate 0.0001"),
    ],
)
def test_the_advice_is_a_setting_that_is_not_set(config: TrainConfig, expected: str) -> None:
    assert advice(config, SPEC).startswith(expected)


# --- while it happens ---
@pytest.mark.slow
def test_a_diverging_loss_is_said_once_and_the_advice_helps(
    long: SequenceData, tmp_path: Path
) -> None:
    # NaN after some epochs is well as long as it has been announced.
    with pytest.warns(DivergenceWarning, match="set --learning-rate auto") as found:
        train(TOO_FAST, tmp_path / "diverges", data=long, progress=False)
    assert [each.category for each in found].count(DivergenceWarning) == 1
    helped = replace(TOO_FAST, learning_rate="auto")
    run = train(helped, tmp_path / "run", data=long, progress=False)  # a warning is an error
    assert run.metrics["test"]["accuracy"] > 0.9


# --- a run without a model ---
@pytest.fixture(scope="module")
def failed(long: SequenceData, long_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "failed"
    config = replace(AT_ONCE, dataset=str(long_npz))
    with pytest.raises(
        CheckFailed, match=r"^the loss became NaN or infinite in epoch 1; set --learning-rate auto"
    ):
        train(config, path, data=long, progress=False)
    return Run.open(path)


def test_no_command_advises_to_repeat_what_failed(failed: Run) -> None:
    from export.publish import export_run

    said = (
        rf"^training ended without a model in {re.escape(str(failed.path))}: the loss became NaN "
        r"or infinite in epoch 1\. Train it again with --overwrite, and set --learning-rate auto"
    )
    for ask in (
        lambda: train(run_dir=failed.path, resume=True),
        lambda: evaluate(failed),
        lambda: predict(failed, np.zeros((1, 12, 2))),
        lambda: export_run(failed),
        failed.load_model,
    ):
        with pytest.raises(InputError, match=said):
            ask()


def test_resuming_what_failed_is_refused_before_other_settings_are(
    failed: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(failed.path), "--resume", "--learning-rate", "auto"]) == 2
    assert "training ended without a model" in capsys.readouterr().err


def test_a_failed_run_is_replaced_only_when_said(
    long_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "run")
    fast = ["--dataset", str(long_npz), "--run-dir", path, "--activation", "linear"]
    fast += ["--optimizer", "adam", "--epochs", "2"]
    assert main([*fast, "--learning-rate", "1e30"]) == 1
    assert "set --learning-rate auto" in capsys.readouterr().err
    assert main(fast) == 2
    error = capsys.readouterr().err
    assert "already holds a run that ended without a model" in error
    assert "--resume" not in error
    assert main([*fast, "--learning-rate", "auto", "--overwrite"]) == 0
    assert Run.open(path).finished
    assert not Run.open(path).failed


# --- no better than one answer for all ---
def test_a_model_at_chance_is_not_passed_off_as_a_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 6, 1)).astype(np.float32)
    y = (np.arange(100) % 4 == 0).astype(np.int32)  # of no relation to x
    path = tmp_path / "noise.npz"
    np.savez(path, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:],
             labels=np.array(["usual", "rare"]))  # fmt: skip
    command = ["--dataset", str(path), "--run-dir", str(tmp_path / "run"), "--epochs", "1"]
    assert main([*command, "--learning-rate", "1e-6"]) == 0
    out, err = capsys.readouterr()
    always = "the model is no better on the test split than always answering 'usual' (75.00%)"
    assert always in err
    assert "accuracy" in out
