"""A run killed at any moment goes on, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import Killed, each_epoch_kept

from rnn_tf import Run
from rnn_tf.files.writing import write_text
from rnn_tf.train import main

EPOCHS = 60


def arguments(data: Path, run_dir: Path, *more: str) -> list[str]:
    settings = ("--units", "5", "--batch-size", "16", "--dropout", "0.1", "--preset", "tutorial")
    where = ("--dataset", str(data), "--run-dir", str(run_dir))
    return [*where, *settings, "--epochs", str(EPOCHS), *more]


def without_times(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in run.history]


@pytest.fixture(scope="module")
def unbroken(small_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("unbroken") / "run"
    assert main(arguments(small_npz, path)) == 0
    return Run.open(path)


def training(data: Path, path: Path, *more: str) -> list[str]:
    """A command that trains, and writes every epoch."""
    program = "from rnn_tf.train import main; from rnn_tf.training import recorder"
    program += "; recorder.SAVED_EVERY = 0; main()"
    return [sys.executable, "-c", program, *arguments(data, path, *more)]


def kill(command: list[str], path: Path, when: int) -> None:
    """Start a training in `path`, in a process of its own, and kill it.

    It is killed once `when` epochs are on disk.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    history = path / "history.jsonl"
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if (when == 0 and (path / "config.json").exists()) or (
            history.exists() and len(history.read_text().splitlines()) >= max(when, 1)
        ):
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


def assert_same(run: Run, unbroken: Run) -> None:
    assert without_times(run) == without_times(unbroken)
    for a, b in zip(
        run.load_model().get_weights(), unbroken.load_model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    same = ("parameters", "best_epoch", "train", "valid", "test")
    assert {k: run.metrics[k] for k in same} == {k: unbroken.metrics[k] for k in same}
    assert not run.checkpoint_file.parent.exists()
    assert not list(run.path.glob(".*")), "temporary files are left"


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(
    small_npz: Path, unbroken: Run, tmp_path: Path
) -> None:
    """Killed before its first epoch has ended, and again, resumed, in the middle."""
    path = tmp_path / "run"
    kill(training(small_npz, path), path, 0)
    kill(training(small_npz, path, "--resume"), path, 7)
    assert main(["--run-dir", str(path), "--resume"]) == 0
    assert_same(Run.open(path), unbroken)


@pytest.mark.slow
@pytest.mark.torch
def test_a_killed_run_in_pytorch_ends_as_if_it_had_not_been(
    small_npz: Path, tmp_path: Path
) -> None:
    in_torch = ("--backend", "torch", "--epochs", "120")  # an epoch is over at once
    assert main(arguments(small_npz, tmp_path / "unbroken", *in_torch)) == 0
    path = tmp_path / "run"
    kill(training(small_npz, path, *in_torch), path, 7)
    assert main(["--run-dir", str(tmp_path / "run"), "--resume"]) == 0
    assert_same(Run.open(tmp_path / "run"), Run.open(tmp_path / "unbroken"))


@pytest.mark.parametrize("torn", ["history", "temporary file"])
def test_a_kill_while_writing_loses_no_epoch(
    torn: str, small_npz: Path, unbroken: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop in the middle of the saving of epoch 5, at its two weak points."""
    path = tmp_path / "run"

    save_history, save_state = Run.save_history, Run.save_state

    def dies_before_history(run: Run, history: list[dict[str, Any]]) -> None:
        if len(history) == 5:
            raise Killed
        save_history(run, history)

    def dies_in_state(run: Run, state: dict[str, np.ndarray]) -> None:
        if len(json.loads(str(state["history"]))) == 5:
            (run.checkpoint_file.parent / ".state.1.npz").write_bytes(b"half a checkp")
            (run.path / ".history.1.jsonl").write_bytes(b"half a hist")
            raise Killed
        save_state(run, state)

    with each_epoch_kept(), monkeypatch.context() as patch:
        if torn == "history":
            patch.setattr(Run, "save_history", dies_before_history)
        else:
            patch.setattr(Run, "save_state", dies_in_state)
        with pytest.raises(Killed):
            main(arguments(small_npz, path))
    assert len(Run.open(path).history) == 4
    assert main(["--run-dir", str(path), "--resume"]) == 0
    assert_same(Run.open(path), unbroken)


def test_a_run_killed_before_it_was_one_begins(
    small_npz: Path, unbroken: Run, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "spec.json").write_text(unbroken.spec.to_json())
    (path / ".config.1.json").write_text("{")
    assert main(arguments(small_npz, path, "--resume")) == 0
    assert_same(Run.open(path), unbroken)


def test_resuming_a_finished_run_changes_nothing(
    unbroken: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in unbroken.path.iterdir() if file.is_file()}
    assert main(["--run-dir", str(unbroken.path), "--resume"]) == 0
    assert str(unbroken.path) in capsys.readouterr().out
    assert {file: file.read_bytes() for file in before} == before


def test_resuming_with_another_setting_is_refused(
    unbroken: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(unbroken.path), "--resume", "--units", "6"]) == 2
    assert "begun with another units; expected 5, got 6" in capsys.readouterr().err


def test_resuming_with_another_backend_is_refused(
    unbroken: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(unbroken.path), "--resume", "--backend", "torch"]) == 2
    assert "begun with another backend; expected 'keras', got 'torch'" in capsys.readouterr().err


def test_a_finished_run_is_not_overwritten_unless_said(
    small_npz: Path, unbroken: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    assert main(arguments(small_npz, path, "--epochs", "1")) == 0
    model = (path / "model.keras").read_bytes()
    (path / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert main(arguments(small_npz, path)) == 2
    assert "already holds a finished run" in capsys.readouterr().err
    assert (path / "model.keras").read_bytes() == model
    assert main(arguments(small_npz, path, "--overwrite")) == 0
    assert len(Run.open(path).history) == EPOCHS
    assert (path / "notes.txt").read_text() == "mine"


def test_an_unfinished_run_says_how_to_go_on(
    small_npz: Path, unbroken: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    Run.create(path, unbroken.config, unbroken.spec)
    assert main(arguments(small_npz, path)) == 2
    assert "Add --resume to go on with it" in capsys.readouterr().err


def test_bad_data_costs_the_old_run_nothing(
    unbroken: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.npz"
    assert main(arguments(missing, unbroken.path, "--overwrite")) == 2
    assert unbroken.finished
    unbroken.load_model()


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(small_npz: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "rnn_tf.train",
        *arguments(small_npz, path, "--epochs", "9999"),
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        until = time.monotonic() + 120
        while not (path / "history.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert f"--run-dir {path} --resume" in told


def test_a_changed_data_set_is_noticed(
    small_npz: Path, unbroken: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(small_npz) as file:
        arrays = dict(file)
    other = tmp_path / "other.npz"
    np.savez(other, **{**arrays, "labels": np.array(["a", "b", "c"])})
    run = Run.create(tmp_path / "run", unbroken.config, unbroken.spec)
    config = json.loads((run.path / "config.json").read_text())
    write_text(run.path / "config.json", json.dumps({**config, "dataset": str(other)}))
    assert main(["--run-dir", str(run.path), "--resume"]) == 2
    assert "not those that the run was begun with" in capsys.readouterr().err
