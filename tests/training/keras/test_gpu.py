"""Training on a real GPU; skipped where TensorFlow has none."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from export.publish import export_run
from rnn_tf import Run, TrainConfig, train
from rnn_tf.config import Precision
from rnn_tf.data import SequenceData
from rnn_tf.model.cells import Cell
from rnn_tf.training.keras.backend import KerasBackend

GPUS = tf.config.list_physical_devices("GPU")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="TensorFlow finds no GPU on this machine"),
]
CONFIG = TrainConfig(units=16, epochs=3, batch_size=16, dropout=0.0, noise=0.0, optimizer="adam")


def test_memory_grows_as_it_is_needed(small: SequenceData, tmp_path: Path) -> None:
    train(CONFIG, tmp_path / "run", data=small, progress=False)
    query = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    said = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    used, total = map(int, said.splitlines()[0].split(","))  # MiB
    assert used < total / 2, "without growth, TensorFlow takes nearly all of the card at once"


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_epochs_are_compiled_and_learn(
    cell: Cell, precision: Precision, small: SequenceData, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, cell=cell, precision=precision, epochs=10)
    assert KerasBackend().describe(config, small).startswith("each epoch one compiled program")
    run = train(config, tmp_path / "run", data=small, progress=False)
    assert run.metrics["precision"] == precision
    assert run.metrics["valid"]["accuracy"] > 0.8
    losses = [record["loss"] for record in run.history]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_what_was_trained_on_a_gpu_exports_to_machines_without(
    small: SequenceData, small_npz: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, cell="lstm", dataset=str(small_npz), fused=False)
    train(config, tmp_path / "run", progress=False)
    export_run(Run.open(tmp_path / "run"))
