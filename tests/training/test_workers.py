"""Several processes train one model, as one process would."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from recordings import arrays, recordings

from rnn_tf import Run, TrainConfig, train
from rnn_tf.data import SequenceData
from rnn_tf.training import cluster

pytestmark = [pytest.mark.multi_worker, pytest.mark.slow]

# 203 examples in batches of 16: three workers have 6, 5 and 5 of each, and 4, 4 and 3 of the last.
CONFIG = TrainConfig(units=7, epochs=2, batch_size=16, learning_rate=0.01, optimizer="adam")
CONFIGS = [
    CONFIG,  # with dropout and noise, which auto is for few examples
    dataclasses.replace(CONFIG, cell="lstm", answer="every_step", class_weights="balanced",
                        dropout=0.0, noise=0.0),
    dataclasses.replace(CONFIG, cell="gru", optimizer="adamw", clip_norm=0.1, recurrent_dropout=0.2,
                        objective="balanced_accuracy"),
]  # fmt: skip

# A worker of three: trains each configuration; has Keras alone train; is asked for too
# small a batch; disagrees; one of the three is killed.
WORKER = """
import dataclasses, json, os, signal, sys
import numpy as np
from recordings import recordings
from rnn_tf import Run, TrainConfig, train
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.startup import ownership
ownership.claim()
index, folder = int(sys.argv[1]), sys.argv[2]
for number, text in enumerate(json.loads(sys.argv[3])):
    config = dataclasses.replace(TrainConfig.from_dict(text), strategy="multi_worker")
    train(config, f"{folder}/{number}", data=recordings(), progress=False)
import keras
from rnn_tf.training.keras import workers
with workers.joined().strategy.scope():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
try:
    model.fit(np.zeros((6, 2)), np.zeros((6, 1)), batch_size=6, verbose=0)
    print("Keras alone has trained", flush=True)
except Exception as error:
    print("Keras alone:", type(error).__name__, *str(error).split(), flush=True)
try:
    small = dataclasses.replace(config, batch_size=2)
    train(small, f"{folder}/small", data=recordings(), progress=False)
except InputError as error:
    print(error, flush=True)
try:
    other = dataclasses.replace(config, seed=2 if index == 1 else 1)
    train(other, f"{folder}/other", data=recordings(), progress=False)
except InputError as error:
    print(error, flush=True)
if index == 2:
    save = Run.save_history
    Run.save_history = lambda *what: os.kill(os.getpid(), signal.SIGKILL)
try:
    train(config, f"{folder}/lost", data=recordings(), progress=False)
except CheckFailed as error:
    print(error, flush=True)
"""


def weights(run: Run) -> np.ndarray:
    return np.concatenate([each.ravel() for each in run.load_model().get_weights()])


def scores(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in run.history]


def assert_alike(run: Run, other: Run) -> None:
    # float32 rounding in another order: 1e-7 seen.
    np.testing.assert_allclose(weights(run), weights(other), atol=1e-5)
    for a, b in zip(scores(run), scores(other), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """The folder of what three workers have trained, and what each has said."""
    folder = tmp_path_factory.mktemp("three")
    temporary = tmp_path_factory.mktemp("temporary")
    configs = json.dumps([dataclasses.asdict(config) for config in CONFIGS])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(index), str(folder), configs],
            env={
                **os.environ,
                cluster.VARIABLE: text,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "TMPDIR": str(temporary),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, text in enumerate(cluster.on_this_machine(3))
    ]
    said = []
    for worker in workers:
        out, err = worker.communicate(timeout=400)
        said.append(out.splitlines())
        assert worker.returncode == (-signal.SIGKILL if worker is workers[2] else 0), err
    return folder, said


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_three_workers_train_what_one_process_does(
    number: int, three: tuple[Path, list[list[str]]], tmp_path: Path
) -> None:
    alone = train(CONFIGS[number], tmp_path / "alone", data=recordings(), progress=False)
    together = Run.open(three[0] / str(number))
    assert_alike(together, alone)
    assert together.metrics["test"]["accuracy"] == alone.metrics["test"]["accuracy"]


def test_only_the_chief_writes_and_others_leave_nothing(
    three: tuple[Path, list[list[str]]],
) -> None:
    # `small` and `other` were refused before they began.
    names = sorted(path.name for path in three[0].iterdir())
    assert names == [*map(str, range(len(CONFIGS))), "lost"]


def test_keras_alone_still_cannot_train_with_workers(
    three: tuple[Path, list[list[str]]],
) -> None:
    """When this fails, `ReplicatedSequential` need no longer go around Keras's own loop."""
    for said in three[1]:
        assert said[0].startswith("Keras alone: "), said


def test_a_batch_without_an_example_for_each_worker_is_refused(
    three: tuple[Path, list[list[str]]],
) -> None:
    for said in three[1]:
        assert said[1] == (
            "a batch of 2 is too small for 3 replicas; expected an example for each. "
            "Raise --batch-size to 3 or more."
        )


def test_workers_that_disagree_all_say_who_and_about_what(
    three: tuple[Path, list[list[str]]],
) -> None:
    _, (chief, first, second) = three
    assert chief[2] == first[2] == second[2]
    assert chief[2].startswith("worker 1 (127.0.0.1:")
    assert "has another seed than the chief; expected 1, got 2" in chief[2]


def test_the_others_name_a_worker_that_is_lost(three: tuple[Path, list[list[str]]]) -> None:
    _, (chief, first, _) = three
    for said in (chief[3], first[3]):
        assert said.startswith("lost worker 2 (127.0.0.1:"), said
        assert said.endswith("start them again with --resume")


# --- rnn-tf train --workers N ---
EPOCHS = 40


@pytest.fixture(scope="module")
def varying_npz(varying: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("varying") / "recordings.npz"
    np.savez(path, **arrays(varying))
    return path


def command(data: Path, path: Path, *more: str) -> list[str]:
    settings = ["--units", "5", "--batch-size", "16", "--epochs", str(EPOCHS)]
    where = ["--workers", "2", "--dataset", str(data), "--run-dir", str(path)]
    return [sys.executable, "-m", "rnn_tf.train", *where, *settings, *more]


# Trainings on two devices of one process.
TWO_DEVICES = """
import dataclasses, json, sys
import tensorflow as tf
from rnn_tf import train, TrainConfig
from rnn_tf.startup import ownership
ownership.claim()
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
for path, text in json.loads(sys.argv[1]).items():
    config = dataclasses.replace(TrainConfig.from_dict(text), strategy="mirrored")
    train(config, path, progress=False)
"""


def begun(job: list[str], path: Path, epochs: int) -> tuple[subprocess.Popen[str], list[Any]]:
    """A job that has so many epochs behind it, and its workers; the chief comes first."""
    process = subprocess.Popen(
        job,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start what runs in the background deaf to it, and so would this be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    history, until = path / "history.jsonl", time.monotonic() + 200
    while not (history.exists() and len(history.read_text().splitlines()) >= epochs):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return process, sorted(workers, key=lambda worker: worker.pid)


def test_a_job_that_was_ended_goes_on_as_if_it_had_not(varying_npz: Path, tmp_path: Path) -> None:
    """By the loss of a worker, and by Ctrl-C.

    With the default optimizer, beside two devices of one process, which add up the same; those
    beside a single device, with one that does not amplify how sums are rounded.
    """
    path = tmp_path / "run"
    job, (chief, other) = begun(command(varying_npz, path), path, 2)
    other.kill()
    _, err = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "worker 1 of 2 died (signal 9) and the others were ended" in err
    assert f"--workers 2 --run-dir {path} --resume" in err.splitlines()[-1]
    assert not chief.is_running()
    done = len(Run.open(path).history)
    assert 2 <= done < EPOCHS

    job, workers = begun(command(varying_npz, path, "--resume"), path, done + 1)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130
    assert f"--workers 2 --run-dir {path} --resume" in err.splitlines()[-1]
    assert not any(worker.is_running() for worker in workers)
    assert done < len(Run.open(path).history) < EPOCHS

    again = subprocess.run(
        command(varying_npz, path, "--resume"), capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("accuracy  ") == 1, "only the chief prints"
    same = TrainConfig(str(varying_npz), units=5, batch_size=16, epochs=EPOCHS)
    adam = dataclasses.replace(CONFIGS[0], dataset=str(varying_npz))
    devices, two = tmp_path / "devices", tmp_path / "two"
    configs = json.dumps({str(devices): vars(same), str(two): vars(adam)})
    subprocess.run([sys.executable, "-c", TWO_DEVICES, configs], check=True, timeout=300)
    assert_alike(Run.open(path), Run.open(devices))
    assert_alike(Run.open(two), train(adam, tmp_path / "one", progress=False))
