"""Cross-validation: each fold an ordinary run, all of them together one answer."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, refusal
from killed import Killed, each_epoch_kept
from recordings import arrays

from rnn_tf import Run, TrainConfig
from rnn_tf.data import SequenceData, load
from rnn_tf.evaluate import evaluate
from rnn_tf.train import main
from rnn_tf.training.folds import train_folds


@pytest.fixture(scope="module")
def no_test_npz(small_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The waves without a test split and without a validation split: 203 examples."""
    with np.load(small_npz) as file:
        kept = {key: file[key] for key in ("x_train", "y_train", "labels")}
    path = tmp_path_factory.mktemp("data") / "waves.npz"
    np.savez(path, **kept)
    return path


def arguments(data: Path, folder: Path, *more: str) -> list[str]:
    line = ["--dataset", str(data), "--run-dir", str(folder), "--folds", "3"]
    return [*line, "--units", "5", "--batch-size", "16", "--epochs", "4", *more]


@pytest.fixture(scope="module")
def folds(no_test_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds") / "folds"
    assert main(arguments(no_test_npz, folder)) == 0
    return folder


def test_the_summary_is_that_of_the_folds(folds: Path) -> None:
    summary = json.loads((folds / "folds.json").read_text())
    runs = [Run.open(folds / f"fold_{i}") for i in (1, 2, 3)]
    accuracies = [run.metrics["test"]["accuracy"] for run in runs]
    assert [fold["accuracy"] for fold in summary["folds"]] == accuracies
    assert summary["accuracy"] == {
        "mean": statistics.fmean(accuracies),
        "std": statistics.stdev(accuracies),
        "min": min(accuracies),
        "max": max(accuracies),
    }
    confusion = np.array(summary["confusion"])
    assert confusion.sum() == summary["pooled"]["examples"] == 203
    assert np.trace(confusion) / 203 == summary["pooled"]["accuracy"]
    assert summary["labels"] == ["falls", "flat", "rises"]
    assert (folds / "confusion.png").stat().st_size > 1000


def test_every_example_is_tested_once(folds: Path, no_test_npz: Path) -> None:
    with np.load(no_test_npz) as file:
        whole = file["x_train"]
    parts = [load(Run.open(folds / f"fold_{i}").config) for i in (1, 2, 3)]
    tested = np.concatenate([data.test.x for data in parts])
    assert sorted(map(bytes, tested)) == sorted(map(bytes, whole))
    for data in parts:
        used = np.concatenate([data.train.x, data.valid.x, data.test.x])
        assert sorted(map(bytes, used)) == sorted(map(bytes, whole))


def test_a_fold_is_an_ordinary_run(folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.open(folds / "fold_2")
    assert run.config.fold == "2/3"
    assert evaluate(run).summary() == pytest.approx(run.metrics["test"])
    assert main(["--run-dir", str(run.path), "--resume"]) == 0
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_a_fold_is_exported_and_verified(
    folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from export.__main__ import main as export
    from export.verify import main as verify

    bundle = tmp_path / "bundle"
    assert export([str(folds / "fold_1"), "--formats", "onnx", "--out", str(bundle)]) == 0
    assert verify([str(bundle)]) == 0
    examples = Run.open(folds / "fold_1").metrics["test"]["examples"]
    assert examples == 68
    assert "onnx" in capsys.readouterr().out


def test_a_single_fold_is_the_same_run(folds: Path, no_test_npz: Path, tmp_path: Path) -> None:
    line = arguments(no_test_npz, tmp_path / "alone")
    at = line.index("--folds")
    assert main([*line[:at], "--fold", "2/3", *line[at + 2 :]]) == 0
    alone, among = Run.open(tmp_path / "alone"), Run.open(folds / "fold_2")
    assert alone.config == among.config
    for a, b in zip(
        alone.load_model().get_weights(), among.load_model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_command_says_mean_spread_and_range(
    folds: Path, no_test_npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed, all folds are finished and none is trained again."""
    before = {file: file.read_bytes() for file in folds.glob("fold_*/*") if file.is_file()}
    assert main(["--run-dir", str(folds), "--folds", "3", "--resume"]) == 0
    out = capsys.readouterr().out
    of = json.loads((folds / "folds.json").read_text())["accuracy"]
    assert out.splitlines()[0] == (
        f"accuracy    {of['mean']:.2%} ± {of['std']:.2%} ({of['min']:.2%} to {of['max']:.2%})"
    )
    assert "folds       3, of 203 examples in all" in out
    assert {file: file.read_bytes() for file in before} == before


def without_times(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "folds.json").read_text())
    for fold in summary["folds"]:
        del fold["seconds"]
    return summary


@pytest.mark.slow
def test_folds_killed_in_the_middle_go_on(
    folds: Path, no_test_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "killed"
    save_history = Run.save_history

    def dies_in_the_second(run: Run, history: list[dict[str, Any]]) -> None:
        if run.path.name == "fold_2" and len(history) == 2:
            raise Killed
        save_history(run, history)

    with each_epoch_kept(), monkeypatch.context() as patch:
        patch.setattr(Run, "save_history", dies_in_the_second)
        with pytest.raises(Killed):
            main(arguments(no_test_npz, folder))
    assert len(Run.open(folder / "fold_2").history) == 1
    assert not (folder / "folds.json").exists()
    assert main(["--run-dir", str(folder), "--folds", "3", "--resume"]) == 0
    assert without_times(folder) == without_times(folds)
    for i in (1, 2, 3):
        killed, whole = (Run.open(each / f"fold_{i}") for each in (folder, folds))
        for a, b in zip(
            killed.load_model().get_weights(), whole.load_model().get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_test_split_is_not_read(small_npz: Path, tmp_path: Path) -> None:
    """One whose values would end any training, and whose scores would show."""
    with np.load(small_npz) as file:
        mine = dict(file)
    mine["x_test"] = np.full_like(mine["x_test"], 1e30)
    # As many examples as above: what is compiled for those serves here.
    mine |= {key: mine[key][:163] for key in ("x_train", "y_train")}
    np.savez(tmp_path / "mine.npz", **mine)
    config = TrainConfig(str(tmp_path / "mine.npz"), units=5, batch_size=16, epochs=2)
    found = train_folds(3, config, tmp_path / "folds", progress=False)
    assert found.summary["pooled"]["examples"] == 203  # train and validation
    assert max(run.metrics["test"]["loss"] for run in found.runs) < 3


@pytest.mark.torch
def test_folds_in_pytorch(no_test_npz: Path, tmp_path: Path) -> None:
    config = TrainConfig(str(no_test_npz), units=5, batch_size=16, epochs=2, backend="torch")
    found = train_folds(2, config, tmp_path / "folds", progress=False)
    for run, fold in zip(found.runs, found.summary["folds"], strict=True):
        assert fold["accuracy"] == run.metrics["test"]["accuracy"]


# --- what is refused ---
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--folds", "1"], "bad fold; expected one of two or more, as in 2/5, got '1/1'"),
        (
            ["--folds", "300"],
            "a class has fewer examples than there are folds: 'falls'; expected at least 300",
        ),
        (["--fold", "1/3"], "--folds trains every fold; got --fold 1/3"),
        (["--test-share", "1"], "bad test_share; expected 0 <= value < 1, got 1.0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    more: list[str], message: str, no_test_npz: Path, tmp_path: Path, capsys: Capture
) -> None:
    line = arguments(no_test_npz, tmp_path / "folds")
    assert message in refusal(main, [*line, *more], capsys)
    assert not (tmp_path / "folds").exists()


def test_folds_are_not_replaced_unless_said(
    folds: Path, no_test_npz: Path, capsys: Capture
) -> None:
    message = refusal(main, [*arguments(no_test_npz, folds)], capsys)
    assert f"the folder already holds a finished run: {folds / 'fold_1'}" in message
    message = refusal(main, [*arguments(no_test_npz, folds, "--resume", "--units", "6")], capsys)
    assert "begun with another units" in message
    message = refusal(main, [*arguments(no_test_npz, folds / "fold_1")], capsys)
    assert "the folder holds a run" in message


def test_a_source_without_a_test_split_is_refused_with_advice(
    no_test_npz: Path, small_npz: Path, tmp_path: Path, capsys: Capture
) -> None:
    line = ["--run-dir", str(tmp_path / "run"), "--epochs", "1", "--units", "3"]
    message = refusal(main, ["--dataset", str(no_test_npz), *line], capsys)
    assert "has no test split" in message
    assert "--test-share 0.2" in message
    with pytest.warns(UserWarning, match="41 of its 203 training examples are the test"):
        assert main(["--dataset", str(no_test_npz), *line, "--test-share", "0.2"]) == 0
    run = Run.open(tmp_path / "run")
    assert run.metrics["test"]["examples"] == 41
    with pytest.warns(UserWarning, match="41 of its 203"):
        assert evaluate(run).accuracy == run.metrics["test"]["accuracy"]
    capsys.readouterr()
    message = refusal(
        main, ["--dataset", str(small_npz), *line, "--overwrite", "--test-share", "0.2"], capsys
    )
    assert "has a test split of its own; got --test-share 0.2" in message
    message = refusal(
        main, ["--dataset", "mnist", *line, "--overwrite", "--test-share", "0.2"], capsys
    )
    assert "mnist has a test split of its own" in message


@pytest.mark.slow
def test_folds_of_answers_at_every_step(labelled_steps: SequenceData, tmp_path: Path) -> None:
    np.savez(tmp_path / "phases.npz", **arrays(labelled_steps))
    config = TrainConfig(
        str(tmp_path / "phases.npz"), answer="every_step", units=3, epochs=1, batch_size=16,
        optimizer="adam",
    )  # fmt: skip
    folds = train_folds(2, config, tmp_path / "folds", progress=False)
    pooled = folds.summary["pooled"]
    assert pooled["sequences"] == 243
    parts = [run.metrics["test"] for run in folds.runs]
    for name, weight in (("accuracy", "examples"), ("last_step_accuracy", "sequences"),
                         ("sequence_accuracy", "sequences")):  # fmt: skip
        mean = np.average([p[name] for p in parts], weights=[p[weight] for p in parts])
        assert pooled[name] == pytest.approx(mean)
        assert folds.summary[name]["mean"] == pytest.approx(np.mean([p[name] for p in parts]))
    said = folds.as_text()
    assert "\nlast step   " in said
    assert "\nsequences   " in said
    assert f"of {pooled['examples']:,} steps in all" in said
