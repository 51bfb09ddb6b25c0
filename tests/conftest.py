"""What tests share: data, one trained run, and a way to run commands as a user does."""

from __future__ import annotations

import builtins
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from commands import Command
from extras import WITH_TORCH
from hypothesis import settings
from recordings import arrays, phases, recordings

from rnn_tf import Run, TrainConfig, load, train
from rnn_tf.data import SequenceData, SequenceSpec
from rnn_tf.startup import ownership, process, xla_flags

# No time limit for one example of a property: a busy machine must not fail a test.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Tests neither use nor fill the caches of the person who runs them; commands inherit this.
_CACHE = tempfile.TemporaryDirectory(prefix="rnn-tf-tests-")
os.environ["RNN_TF_CACHE"] = _CACHE.name
# So do these, whether TensorFlow has been started here by then or not: XLA's flags, and silence of
# TensorFlow's own log.
xla_flags.offer(True)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ownership.claim()


def start_tensorflow() -> None:
    """Start TensorFlow as the command does, so that a training gives the same bits here and there.

    XLA settles its flags once in a process: they are those of a small layer for all tests.
    """
    process.start(whole_loops=True)


def _start_tensorflow_when_imported() -> None:
    """Put the start off until something imports TensorFlow or Keras; most tests never do.

    A test module may import them at its top, and so may the code under test: nobody lists who
    does. The import statement is where all of them pass. A finder in `sys.meta_path` would not do:
    Python would load the module that it asks for a second time after the start.
    """
    import_module = builtins.__import__

    def start_first(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0 and name.partition(".")[0] in ("keras", "tensorflow"):
            builtins.__import__ = import_module
            start_tensorflow()
        return import_module(name, globals, locals, fromlist, level)

    builtins.__import__ = start_first


_start_tensorflow_when_imported()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("torch") and not WITH_TORCH:
        pytest.skip("PyTorch is the extra `torch`")


def pytest_collection_finish() -> None:
    # The tests stay to the end: no collection need look through them, and a search has one a trial.
    gc.freeze()


def pytest_unconfigure() -> None:
    _CACHE.cleanup()


@pytest.fixture(scope="session")
def tensorflow() -> None:
    """For a test that imports neither TensorFlow nor Keras and asks how they were started."""
    start_tensorflow()


@pytest.fixture(scope="session")
def mnist() -> SequenceData:
    return load("mnist")


@pytest.fixture(scope="session")
def digit(mnist: SequenceData) -> np.ndarray:
    """The first test digit, a 7: uint8 (28, 28), light on dark."""
    picture: np.ndarray = mnist.test.x[0]
    return picture


@pytest.fixture(scope="session")
def spec(mnist: SequenceData) -> SequenceSpec:
    """What MNIST's sequences are."""
    return mnist.spec


@pytest.fixture(scope="session")
def run(mnist: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The real job for one epoch: all of MNIST, the default model. Read it, do not change it."""
    return train(
        TrainConfig(epochs=1), tmp_path_factory.mktemp("runs") / "mnist", data=mnist, progress=False
    )


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learnable set of the user's own: does a noisy wave of 12 steps rise or fall, or neither?

    203 training examples: with a batch size of 16 the last batch holds 11.
    """
    random = np.random.default_rng(0)
    waves: dict[str, Any] = {}
    for split, examples in (("train", 203), ("valid", 40), ("test", 50)):
        y = random.integers(0, 3, examples)
        slope = (y - 1)[:, None, None] * np.linspace(-1, 1, 12)[None, :, None]
        noise = random.normal(0, 0.3, (examples, 12, 2))
        waves[f"x_{split}"] = (slope + noise).astype(np.float32)
        waves[f"y_{split}"] = y
    path = tmp_path_factory.mktemp("data") / "waves.npz"
    np.savez(path, labels=np.array(["falls", "flat", "rises"]), **waves)
    return path


@pytest.fixture(scope="session")
def small(small_npz: Path) -> SequenceData:
    return load(str(small_npz))


@pytest.fixture(scope="session")
def varying() -> SequenceData:
    """Sequences of different lengths."""
    return recordings()


@pytest.fixture(scope="session")
def labelled_steps() -> SequenceData:
    """Sequences of different lengths, each step with a label of its own, or none."""
    return phases()


@pytest.fixture(scope="session")
def varying_run(varying: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model of sequences of different lengths. Read it, do not change it."""
    config = TrainConfig(cell="gru", units=7, bidirectional=True, epochs=2, batch_size=16)
    path = tmp_path_factory.mktemp("runs") / "varying"
    return train(config, path, data=varying, progress=False)


@pytest.fixture(scope="session")
def every_step_run(labelled_steps: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model that answers at every step, of sequences of different lengths. Only read it."""
    folder = tmp_path_factory.mktemp("every_step")
    np.savez(folder / "phases.npz", **arrays(labelled_steps))
    dataset = str(folder / "phases.npz")
    config = TrainConfig(dataset, answer="every_step", units=7, epochs=4, batch_size=16)
    return train(config, folder / "run", progress=False)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `python -m <module> <arguments>` in an empty folder, as a user would."""

    def call(
        module: str, *arguments: object, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call
