"""One way to run every format: `open_runtime(bundle, "onnx").predict(x)`.

Each runtime imports its library when it is made. TFLite, ONNX and PyTorch need no TensorFlow.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from export import oracle
from export.bundle import SERVING_VERSION, Bundle
from export.network import INPUT, OUTPUT, Twin
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.startup import process, stderr


class Runtime(Protocol):
    """Something that runs one format."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The probabilities `(batch, classes)` of raw `x` `(batch, timesteps, features)`.

        Any number type that float32 holds; the batch may change from call to call. Raises
        `InputError` for another shape or type, and for values that are not finite.
        """


def open_runtime(bundle: Bundle, name: str, threads: int = 1) -> Runtime:
    """The runtime of one of the bundle's formats, its files checked first.

    Raises `InputError` for a format that the bundle does not have, and for altered files.
    """
    path = bundle.artefact(name)
    make: Callable[[Path, SequenceSpec, int], Runtime] = RUNTIMES[name]
    with _loading(path):
        return make(path, bundle.spec, threads)


def as_input(x: np.ndarray, spec: SequenceSpec) -> np.ndarray:
    """`x` as float32 `(batch, timesteps, features)`, without a copy if it is that already."""
    x = np.asarray(x)
    if x.ndim != 3 or x.shape[1:] != (spec.timesteps, spec.features) or not len(x):
        raise InputError(
            "the input does not fit the model",
            expected=f"shape (batch, {spec.timesteps}, {spec.features})",
            got=x.shape,
        )
    if x.dtype.kind not in "buif":
        raise InputError("the input is not numbers", expected="float32", got=x.dtype)
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, np.float32)
    # The sum of squares is finite unless something is not, or is beyond 1e19: a microsecond for
    # what looking at every value takes three.
    if not math.isfinite(np.vdot(x, x)) and not np.isfinite(x).all():
        raise InputError("the input is not finite", got="NaN or infinity")
    return x


class OracleRuntime:
    """The float64 formulas. Not a format: what formats are held against."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin

    def predict(self, x: np.ndarray) -> np.ndarray:
        return oracle.probabilities(self.twin, as_input(x, self.twin.spec))


class KerasRuntime:
    """The trained model itself, in Keras."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int = 1) -> None:
        self.model = load_keras(path)
        self.spec = spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = as_input(x, self.spec) * np.float32(self.spec.scale)
        return np.asarray(self.model.predict_on_batch(scaled))


class SavedModelRuntime:
    """A SavedModel in TensorFlow, through its `serving_default` signature."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int = 1) -> None:
        tf = _tensorflow(threads)
        # The signature lives only as long as what was loaded.
        self.loaded = tf.saved_model.load(str(path / SERVING_VERSION))
        self.call = self.loaded.signatures["serving_default"]
        self.tensor = functools.partial(tf.constant, dtype=tf.float32)
        self.spec = spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        answer = self.call(**{INPUT: self.tensor(as_input(x, self.spec))})
        result: np.ndarray = answer[OUTPUT].numpy()
        return result


class LiteRuntime:
    """TFLite in LiteRT. Without TensorFlow."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        # It says on stderr that it uses its own kernels, and nothing turns that off.
        with stderr.muted():
            self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.output = self.interpreter.get_output_details()[0]["index"]
        self.spec = spec
        self.batch = 1

    def predict(self, x: np.ndarray) -> np.ndarray:
        x = as_input(x, self.spec)
        if len(x) != self.batch:
            self.interpreter.resize_tensor_input(self.input, x.shape)
            self.interpreter.allocate_tensors()
            self.batch = len(x)
        self.interpreter.set_tensor(self.input, x)
        self.interpreter.invoke()
        result: np.ndarray = self.interpreter.get_tensor(self.output)
        return result


class OnnxRuntime:
    """ONNX in onnxruntime. Without TensorFlow."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.spec = spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        result: np.ndarray = self.session.run([OUTPUT], {INPUT: as_input(x, self.spec)})[0]
        return result


class TorchRuntime:
    """The weights of `model.safetensors` in PyTorch. Without TensorFlow."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int = 1) -> None:
        import torch

        from export.formats import pytorch

        torch.set_num_threads(threads)
        self.torch, self.module, self.spec = torch, pytorch.load(path), spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        x = as_input(x, self.spec)
        # PyTorch has no tensors that must not be written to, and warns of such arrays.
        x = x if x.flags.writeable else x.copy()
        with self.torch.inference_mode():
            result: np.ndarray = self.module(self.torch.from_numpy(x)).numpy()
        return result


def load_keras(path: Path) -> Any:
    """A Keras model from a file that holds no code, TensorFlow started quietly before."""
    process.start()
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _tensorflow(threads: int) -> Any:
    process.start()
    import tensorflow as tf

    return tf


@contextlib.contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Name the runtime that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0].replace("_", "-")
        raise InputError(
            f"running {path.name} needs {package}", fix=f"Install it: pip install {package}"
        ) from error


RUNTIMES: dict[str, Any] = {
    "keras": KerasRuntime,
    "saved_model": SavedModelRuntime,
    "tflite": LiteRuntime,
    "tflite_int8": LiteRuntime,
    "tflite_float16": LiteRuntime,
    "onnx": OnnxRuntime,
    "torch": TorchRuntime,
}
