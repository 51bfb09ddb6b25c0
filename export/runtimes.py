"""One way to run every format: `open_runtime(bundle, "onnx").predict(x)`.

Where the lengths of sequences vary, `predict(x, lengths)`.

Each runtime imports its library when it is made. TFLite, ONNX and PyTorch need no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import Bundle
from export.formats.format import (
    Runtime,
    StepRuntime,
    as_inputs,
    missing_package_named,
    naming,
)  # fmt: skip
from export.formats.registry import FORMATS
from export.network import INPUT, LENGTHS
from export.signatures import STEP
from export.start import start_tensorflow
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError


def open_runtime(bundle: Bundle, name: str, threads: int | None = None) -> Runtime:
    """The runtime of one of the bundle's formats, or of `keras`, its files checked first.

    `threads`, where it is not given, is one, and for Keras and the SavedModel what TensorFlow has
    in this process. Raises `InputError` for a format that the bundle does not have, for altered
    files, for files that cannot be loaded or are of another model than the manifest, and for
    another number of threads than TensorFlow already has.
    """
    path = bundle.artefact(name)
    with missing_package_named(path), naming(path):
        if name == "keras":
            return KerasRuntime(path, bundle.spec, threads)
        runtime = FORMATS[name].open(path, bundle.spec, threads)
        bundle.check_metadata(name, runtime.metadata())
        return runtime


def open_step(bundle: Bundle, name: str, threads: int | None = None) -> StepRuntime:
    """The step of one of the bundle's formats, its files checked first.

    `threads` and errors are those of `open_runtime`; raises `InputError`, too, where there is none.
    """
    path = bundle.artefact(name, STEP)
    with missing_package_named(path), naming(path):
        runtime = open_step_file(name, path, bundle.spec, threads)
        bundle.check_metadata(name, runtime.metadata(), STEP)
        return runtime


def open_step_file(
    name: str, path: Path, spec: SequenceSpec, threads: int | None = None
) -> StepRuntime:
    """The step of a format from a file, wherever it lies. Raises `InputError` if it has none."""
    step = FORMATS[name].step
    if step is None:
        raise InputError(f"the format {name} has no step")
    return step.open(path, spec, threads)


def open_file(name: str, path: Path, spec: SequenceSpec, threads: int | None = None) -> Runtime:
    """The runtime of a file of a format, or of `keras`, whatever folder it is in."""
    if name == "keras":
        return KerasRuntime(path, spec, threads)
    return FORMATS[name].open(path, spec, threads)


class KerasRuntime:
    """The trained model itself, in Keras."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        self.model, self.spec = load_keras(path, threads), spec
        if spec.varies:
            self.model = masked(self.model)

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        return np.asarray(self.model.predict_on_batch(keras_inputs(x, lengths, self.spec)))


def masked(model: Any) -> Any:
    """The Keras model as one of sequences and lengths."""
    from rnn_tf.model.classifier import MaskedSequential

    return MaskedSequential(model.layers)


def keras_inputs(
    x: np.ndarray, lengths: np.ndarray | None, spec: SequenceSpec
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """What the trained model reads: normalized float32, and the lengths where they vary."""
    inputs = as_inputs(x, lengths, spec)
    normalized = spec.normalization(inputs[INPUT])
    return (normalized, inputs[LENGTHS]) if spec.varies else normalized


def load_keras(path: Path, threads: int | None = None) -> Any:
    """A Keras model from a file that holds no code, TensorFlow started quietly before."""
    start_tensorflow(threads)
    import keras

    with naming(path):
        return keras.saving.load_model(path, compile=False, safe_mode=True)
