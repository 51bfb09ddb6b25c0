"""Several workers: all trials done, none run twice, no process left. Real processes and kills."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from keras_tuner.src.distribute.oracle_client import OracleClient

from rnn_tf.data import SequenceSpec
from rnn_tf.errors import CheckFailed, InputError
from tuning.oracles import Durable, build_oracle
from tuning.search import main
from tuning.settings import Settings
from tuning.space import Choice, Range, Space, hyperparameters
from tuning.tuner import no_oracle
from tuning.workers import ChiefCrew, address_of, served

SPACE = {"learning_rate": {"low": 0.001, "high": 0.01, "sampling": "log"}}


def arguments(data: Path, directory: Path, *more: str, trials: int = 6) -> list[str]:
    directory.parent.mkdir(exist_ok=True)
    space = directory.parent / "space.json"
    space.write_text(json.dumps(SPACE))
    line = ["--dataset", str(data), "--dir", str(directory), "--space", str(space)]
    line += ["--tuner", "random", "--trials", str(trials), "--epochs", "40", "--seed", "0"]
    return [*line, "--preset", "tutorial", *more]


def start(*line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tuning.search", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def rows(directory: Path) -> list[dict[str, Any]]:
    table = json.loads((directory / "leaderboard.json").read_text())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table]


def wait(condition: Callable[[], bool], seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.02)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return children


def alive(process: psutil.Process) -> bool:
    """Also no zombie: one that has ended, and whose parent, here process 1, has not asked yet."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def ended(processes: list[psutil.Process]) -> bool:
    return not any(map(alive, processes))


def training(directory: Path, trial: str) -> bool:
    return (directory / f"trial_{trial}" / "history.jsonl").exists()


@pytest.fixture(scope="module")
def unbroken(small_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The leaderboard of the search by one process, undisturbed."""
    directory = tmp_path_factory.mktemp("unbroken") / "d"
    assert main(arguments(small_npz, directory)) == 0
    assert len(rows(directory)) == 6
    return rows(directory)


@pytest.mark.slow
def test_two_workers_find_what_one_finds_though_one_of_them_is_killed(
    unbroken: list[dict[str, Any]], small_npz: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "d"
    with start(*arguments(small_npz, directory, "--workers", "2")) as process:
        wait(lambda: training(directory, "1"))
        children = family(process)
        tracker = "resource_tracker"  # multiprocessing's own process
        next(child for child in children if tracker not in str(child.cmdline())).kill()
        told, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    assert complaint.count("died (signal 9); starting it again") == 1
    assert str(directory / "best") in told
    # multiprocessing's tracker goes when it sees that its parent has gone.
    wait(partial(ended, children), 10)
    workers = json.loads((directory / "oracle.json").read_text())["workers"]
    assert set(workers.values()) == {"tuner0", "tuner1"}
    assert rows(directory) == unbroken


@pytest.mark.slow
def test_however_it_ends_no_worker_is_left_and_it_can_go_on(
    unbroken: list[dict[str, Any]], small_npz: Path, tmp_path: Path
) -> None:
    """Ended by the system's polite request, which is handled as Ctrl-C is, and then by force."""
    directory = tmp_path / "d"
    line = arguments(small_npz, directory, "--workers", "2")
    for end, trial in ((signal.SIGTERM, "1"), (signal.SIGKILL, "3")):
        with start(*line) as process:
            wait(partial(training, directory, trial))
            children = family(process)
            assert len(children) >= 2
            process.send_signal(end)
            _, complaint = process.communicate(timeout=60)
        if end == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130
            assert f"--dir {directory} --resume" in complaint
        wait(partial(ended, children), 20)
        line = ["--dir", str(directory), "--resume", "--workers", "2"]
    assert main(["--dir", str(directory), "--resume"]) == 0
    assert rows(directory) == unbroken


@pytest.mark.slow
def test_others_join(unbroken: list[dict[str, Any]], small_npz: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    directory = tmp_path / "d"
    with start(*arguments(small_npz, directory, "--listen", address)) as process:
        wait(lambda: training(directory, "0"))
        # Or these would have ended before the others have begun.
        own = family(process)
        for each in own:
            each.suspend()
        with start("--chief", address, "--dir", str(tmp_path / "elsewhere")) as other:
            wait(lambda: any((tmp_path / "elsewhere").glob("trial_*")))
            for each in own:
                each.resume()
            _, complaint = process.communicate(timeout=300)
            other.communicate(timeout=90)
    assert process.returncode == 0, complaint
    assert other.returncode == 0
    assert rows(directory) == unbroken
    workers = set(json.loads((directory / "oracle.json").read_text())["workers"].values())
    assert len(workers) == 2
    assert list((tmp_path / "elsewhere").glob("trial_*/metrics.json"))


# --- in this process ---
@pytest.fixture
def oracle(tmp_path: Path) -> Durable:
    spec = SequenceSpec(4, 2, ("a", "b", "c"))
    space = hyperparameters({"learning_rate": Range(0.001, 0.1)}, Settings().base(), spec)
    return build_oracle("random", space, spec, trials=4, epochs=1, seed=0, file=tmp_path / "o.json")


def test_a_port_in_use_is_refused(oracle: Durable) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = pytest.raises(InputError, match=f"cannot listen on {address}; got a port in use")
        with refused, served(oracle, address):
            pass


def test_two_searches_do_not_share_a_port(oracle: Durable) -> None:
    refused = pytest.raises(InputError, match="a port in use")
    with served(oracle, None) as address, refused, served(oracle, address):
        pass


def test_a_space_with_conditions_is_served_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = SequenceSpec(4, 2, ("a", "b", "c"))
    varied: Space = {"cell": Choice(("lstm", "gru")), "units": Range(2, 9)}
    space = hyperparameters(varied, Settings().base(), spec, max_parameters=400)
    oracle = build_oracle("random", space, spec, trials=1, epochs=1, seed=0, file=tmp_path / "o")
    with served(oracle, None) as address:
        for name, value in zip(("IP", "PORT"), address.split(":"), strict=True):
            monkeypatch.setenv(f"KERASTUNER_ORACLE_{name}", value)
        monkeypatch.setenv("KERASTUNER_TUNER_ID", "tuner0")
        trial = OracleClient(no_oracle()).create_trial("tuner0")
        trial.to_proto()
    assert trial.hyperparameters.values["cell"] in ("lstm", "gru")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("text", ["8470", "host:", "host:x", ":80", "host:70000"])
def test_a_bad_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="bad address; expected HOST:PORT"):
        address_of(text)


def test_a_trial_that_kills_its_workers_has_failed(oracle: Durable, tmp_path: Path) -> None:
    crew = ChiefCrew(oracle, "127.0.0.1:1", tmp_path, 1)
    trial = oracle.create_trial("tuner0")
    crew.on_death("tuner0", "signal 9")
    assert oracle.create_trial("tuner0") is trial
    crew.on_death("tuner0", "signal 9")
    assert trial.status == "FAILED"
    assert trial.message == "its process died 2 times (signal 9); out of memory?"
    assert oracle.create_trial("tuner0").trial_id != trial.trial_id


def test_workers_that_die_at_once_end_the_search(oracle: Durable, tmp_path: Path) -> None:
    crew = ChiefCrew(oracle, "127.0.0.1:1", tmp_path, 1)
    for _ in range(2):
        crew.on_death("tuner0", "exit code 1")
    with pytest.raises(CheckFailed, match="3 workers died before they had a trial"):
        crew.on_death("tuner0", "exit code 1")


def test_the_trial_of_a_silent_worker_is_run_again_and_counts_once(
    oracle: Durable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = ChiefCrew(oracle, "127.0.0.1:1", tmp_path, 1)
    crew.processes = {"tuner0": SimpleNamespace()}  # type: ignore[dict-item]
    trial = oracle.create_trial("elsewhere-1")
    crew.check()
    assert "elsewhere-1" in oracle.ongoing_trials
    oracle.seen["elsewhere-1"] -= 1000
    crew.check()
    assert oracle.create_trial("tuner0") is trial
    for _ in range(2):  # the silent one comes back after the other has ended
        oracle.update_trial(trial.trial_id, {"val_accuracy": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert oracle.end_order == [trial.trial_id]
    crew.processes.clear()
