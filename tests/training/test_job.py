"""The whole job: what it refuses before it writes, and who may train in a folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Capture, refusal

from rnn_tf import Run, TrainConfig, train
from rnn_tf.data import SequenceData
from rnn_tf.errors import InputError
from rnn_tf.run import lock_run
from rnn_tf.train import main
from rnn_tf.training.backend import Backend, choose_backend

SMALL = TrainConfig(epochs=1, units=3, batch_size=16)


def start(*line: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rnn_tf.train", *map(str, line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.02)


# --- two at once ---
@pytest.mark.slow
def test_of_two_trainings_started_together_one_is_refused_and_so_are_later_ones(
    small_npz: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Until the one that trains is gone."""
    path = tmp_path / "run"
    line = ("--dataset", small_npz, "--run-dir", path, "--epochs", 100_000, "--overwrite")
    with start(*line, "--units", 4) as four, start(*line, "--units", 6) as six:
        wait(lambda: four.poll() is not None or six.poll() is not None)
        refused, trains = (four, six) if four.poll() is not None else (six, four)
        assert refused.communicate()[1].splitlines()[-1] == (
            f"error: another process is training in {path}; got process {trains.pid} on "
            f"{socket.gethostname()}. Wait until it has ended, or choose another --run-dir."
        )
        assert refused.returncode == 2
        wait(lambda: (path / "history.jsonl").exists())
        for more in (["--resume"], ["--overwrite"], []):
            said = refusal(main, ["--run-dir", path, *more], capsys)
            assert f"another process is training in {path}; got process {trains.pid} on " in said
        trains.send_signal(signal.SIGKILL)
    with lock_run(path) as alone:
        assert alone
    assert not (path / ".lock").exists()
    run, units = Run.open(path), 4 if trains is four else 6
    state = run.load_state()
    assert run.history
    assert state is not None
    assert run.config.units == units
    assert (units, units) in {each.shape for each in state.values()}  # the recurrent kernel


def test_the_lock_of_a_process_in_this_one_counts_too(small: SequenceData, tmp_path: Path) -> None:
    with lock_run(tmp_path / "run"):
        for resume in (True, False):
            with pytest.raises(InputError, match=f"got process {os.getpid()} on "):
                train(SMALL, tmp_path / "run", data=small, resume=resume)
    assert not (tmp_path / "run").exists()


def test_what_a_kill_has_left_is_no_obstacle(small: SequenceData, tmp_path: Path) -> None:
    for name, content in (("a", {".lock": "process 1 on elsewhere"}), ("b", {".lock": ""})):
        (tmp_path / name).mkdir()
        for file, text in content.items():
            (tmp_path / name / file).write_text(text)
        run = train(SMALL, tmp_path / name, data=small, progress=False)
        assert run.complete
        assert not (run.path / ".lock").exists()


# --- resume ---
def test_a_run_to_resume_that_is_not_there_begins_and_says_so(
    small_npz: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "new" / "run"
    settings = ["--epochs", "1", "--units", "3", "--batch-size", "16"]  # as in `SMALL`
    line = ["--dataset", str(small_npz), "--run-dir", str(path), *settings, "--resume"]
    said = f"nothing to resume in {path}: a new run begins"
    assert main(line) == 0
    assert said in capsys.readouterr().err.splitlines()
    before = (path / "model.keras").read_bytes()
    assert main(line) == 0
    assert said not in capsys.readouterr().err
    assert (path / "model.keras").read_bytes() == before


def test_resume_trains_a_run_again_whose_model_is_gone(
    small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    run = train(SMALL, tmp_path / "run", data=small, progress=False)
    metrics, weights = run.metrics, run.load_model().get_weights()
    run.model_file.unlink()
    with pytest.raises(InputError) as caught:
        run.load_model()
    told = str(caught.value)
    assert told.startswith(f"cannot read {run.model_file}; got no such file. Train it again with: ")
    advice = told.partition("python -m rnn_tf.train ")[2].split()
    assert advice == ["--run-dir", str(run.path), "--resume"]
    again = train(None, run.path, data=small, resume=True, progress=False)
    assert again.metrics["test"] == metrics["test"]
    for a, b in zip(again.load_model().get_weights(), weights, strict=True):
        assert (a == b).all()


# --- what is refused ---
@pytest.mark.parametrize("where", ["new/run", "empty"])
@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(activation="rely"),
        TrainConfig(recurrent_initializer="identty"),
        TrainConfig(dataset="nowhere.npz"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing_behind(
    config: TrainConfig, where: str, small: SequenceData, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    data = None if config.dataset == "nowhere.npz" else small
    for resume in (False, True):
        with pytest.raises(InputError):
            train(config, tmp_path / where, data=data, resume=resume, progress=False)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["empty"]


# --- another backend ---
class Counting:
    """Trains as another backend does, and counts what it is asked."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.asked.append(name)
        return getattr(self.backend, name)


def test_a_run_is_trained_and_scored_by_the_backend_that_is_given(
    small: SequenceData, tmp_path: Path
) -> None:
    backend = Counting(choose_backend("keras"))
    run = train(SMALL, tmp_path / "run", data=small, progress=False, backend=backend)  # type: ignore[arg-type]
    assert backend.asked.count("fit") == 1
    assert backend.asked.count("probabilities") == 3
    assert run.metrics["precision"] == "float32"
