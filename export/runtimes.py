"""One way to run every format: `open_runtime(bundle, "onnx").predict(x)`.

Each runtime imports its library when it is made. TFLite, ONNX and PyTorch need no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export import oracle
from export.bundle import Bundle
from export.formats.format import Runtime, as_input, missing_package_named
from export.formats.registry import FORMATS
from export.network import Network
from export.start import start_tensorflow
from rnn_tf.data.spec import SequenceSpec


def open_runtime(bundle: Bundle, name: str, threads: int | None = None) -> Runtime:
    """The runtime of one of the bundle's formats, or of `keras`, its files checked first.

    `threads`, where it is not given, is one, and for Keras and the SavedModel what TensorFlow has
    in this process. Raises `InputError` for a format that the bundle does not have, for altered
    files, and for another number of threads than TensorFlow already has.
    """
    path = bundle.artefact(name)
    with missing_package_named(path):
        return open_file(name, path, bundle.spec, threads)


def open_file(name: str, path: Path, spec: SequenceSpec, threads: int | None = None) -> Runtime:
    """The runtime of a file of a format, or of `keras`, whatever folder it is in."""
    if name == "keras":
        return KerasRuntime(path, spec, threads)
    return FORMATS[name].open(path, spec, threads)


class OracleRuntime:
    """The float64 formulas. Not a format: what formats are held against."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def predict(self, x: np.ndarray) -> np.ndarray:
        return oracle.probabilities(self.network, as_input(x, self.network.spec))


class KerasRuntime:
    """The trained model itself, in Keras."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        self.model = load_keras(path, threads)
        self.spec = spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        normalized = self.spec.normalization(as_input(x, self.spec))
        return np.asarray(self.model.predict_on_batch(normalized))


def load_keras(path: Path, threads: int | None = None) -> Any:
    """A Keras model from a file that holds no code, TensorFlow started quietly before."""
    start_tensorflow(threads)
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)
