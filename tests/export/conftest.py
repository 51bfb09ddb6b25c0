"""What the tests of the export share: bundles of the real model and of small ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from extras import WITH_TORCH
from recordings import arrays

from export.bundle import Bundle
from export.formats.registry import DEFAULTS
from export.publish import export_run
from rnn_tf import Run, TrainConfig, train
from rnn_tf.data import SequenceData


@pytest.fixture(scope="session")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The default model on MNIST, all formats, default options. Read it, do not change it."""
    return export_run(run, tmp_path_factory.mktemp("bundles") / "mnist")


@pytest.fixture(scope="session")
def small_run(
    small_npz: Path, small: SequenceData, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A model of 8 units on the waves of `small_npz`. Read it, do not change it."""
    config = TrainConfig(dataset=str(small_npz), units=8, epochs=8, batch_size=16)
    path = tmp_path_factory.mktemp("runs") / "small"
    return train(config, path, data=small, progress=False)


@pytest.fixture
def run_copy(small_run: Run, tmp_path: Path) -> Run:
    """The small run, to be changed."""
    shutil.copytree(small_run.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def put_model(run_copy: Run) -> Callable[..., Run]:
    """Puts another model into the copy of the small run, given what is different in its settings.

    Its weights are those that training begins with: a training takes seconds to compile.
    """

    def change(file: Path, settings: dict[str, object]) -> None:
        known = json.loads(file.read_text())
        file.write_text(json.dumps(known | {k: v for k, v in settings.items() if k in known}))

    def put(**settings: object) -> Run:
        import keras

        from rnn_tf.model.classifier import build_model

        change(run_copy.path / "config.json", settings)
        change(run_copy.path / "spec.json", settings)
        run = Run.open(run_copy.path)
        keras.utils.set_random_seed(0)
        run.save_model(build_model(run.config, run.spec))
        return run

    return put


@pytest.fixture(scope="session")
def small_bundle(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small model with all formats. Read it, do not change it."""
    return export_run(small_run, tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture
def copy(small_bundle: Bundle, tmp_path: Path) -> Bundle:
    """The small bundle, to be damaged."""
    shutil.copytree(small_bundle.path, tmp_path / "copy")
    return Bundle.open(tmp_path / "copy")


@pytest.fixture(scope="session")
def varying_bundle(varying: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of sequences of different lengths, from a file, in every format. Only read it."""
    folder = tmp_path_factory.mktemp("varying")
    np.savez(folder / "recordings.npz", **arrays(varying))
    config = TrainConfig(
        dataset=str(folder / "recordings.npz"),
        activation="tanh", units=7, bidirectional=True, epochs=4, batch_size=16,
    )  # fmt: skip
    run = train(config, folder / "run", progress=False)
    return export_run(run, formats=(*DEFAULTS, *(["torch"] if WITH_TORCH else [])))
