"""What a user would run instead of a bundle: the same model in Keras, PyTorch, and other ONNX.

They are measured beside the formats and are runtimes like theirs, but nothing ships them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import Bundle
from export.formats.format import Runtime
from export.formats.onnx import OnnxRuntime
from export.network import read_model
from export.runtimes import keras_inputs, load_keras, masked
from rnn_tf.errors import InputError


class KerasPredict:
    """`model.predict`, as Keras's guides call it; with a mask where lengths vary."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.spec = bundle.spec
        self.model = _keras(bundle)

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        scaled = keras_inputs(x, lengths, self.spec)
        return np.asarray(self.model.predict(scaled, batch_size=len(x), verbose=0))


def _keras(bundle: Bundle) -> Any:
    """The trained model; where lengths vary, it takes them as a mask."""
    model = load_keras(bundle.artefact("keras"))
    return masked(model) if bundle.spec.varies else model


def _refuse_lengths(bundle: Bundle, why: str) -> None:
    """Raise `InputError` where lengths vary."""
    if bundle.spec.varies:
        raise InputError(f"it takes no lengths: {why}")


class KerasFunction:
    """`model(x)` in a `tf.function` of any batch, traced once."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        model = _keras(bundle)
        import tensorflow as tf

        spec = bundle.spec
        sequence = tf.TensorSpec((None, spec.longest, spec.features), tf.float32)
        inputs = (sequence, tf.TensorSpec((None,), tf.int32)) if spec.varies else sequence
        self.call = tf.function(model, input_signature=[inputs])
        self.spec = spec

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        result: np.ndarray = self.call(keras_inputs(x, lengths, self.spec)).numpy()
        return result


class KerasOnnx:
    """The ONNX file that `model.export(format="onnx")` writes, in onnxruntime."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        _refuse_lengths(bundle, "the mask is no input of the model that Keras exports")
        model = load_keras(bundle.artefact("keras"))
        spec = bundle.spec
        # A model just loaded cannot be exported before it was called.
        model(np.zeros((1, spec.longest, spec.features), np.float32))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "keras.onnx"
            model.export(path, format="onnx", verbose=False)
            self.session: Any = OnnxRuntime(path, spec, threads).session
        self.input = self.session.get_inputs()[0].name
        self.spec = spec

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        scaled = keras_inputs(x, lengths, self.spec)
        result: np.ndarray = self.session.run(None, {self.input: scaled})[0]
        return result


class Tf2Onnx:
    """The ONNX file that tf2onnx makes of the exported TensorFlow function, in onnxruntime."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        # Not above: the memory of a format that needs no onnx should not hold it.
        import onnx

        from export.formats.onnx import by_tf2onnx

        network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tf2onnx.onnx"
            onnx.save(by_tf2onnx(network), path)
            self.runtime = OnnxRuntime(path, bundle.spec, threads)

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        return self.runtime.predict(x, lengths)


class TorchEager:
    """`torch.nn.RNN`, `LSTM` or `GRU` and `nn.Linear` with the same weights.

    Where lengths vary, of padded sequences, and of packed ones in both directions.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        model = load_keras(bundle.artefact("keras"))
        import torch

        from rnn_tf.training.torch.module import to_torch

        torch.set_num_threads(threads)
        self.torch, self.spec = torch, bundle.spec
        self.module: Any = to_torch(model).eval()
        self.classify: Any = torch.nn.Sequential(self.module, torch.nn.Softmax(-1)).eval()

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        torch, scaled = self.torch, keras_inputs(x, lengths, self.spec)
        with torch.inference_mode():
            if isinstance(scaled, tuple):
                steps = torch.tensor(scaled[1], dtype=torch.int64)
                answer = torch.softmax(self.module(torch.from_numpy(scaled[0]), steps), -1)
            else:
                answer = self.classify(torch.from_numpy(scaled))
        result: np.ndarray = answer.numpy()
        return result


class TorchCompiled(TorchEager):
    """The same through `torch.compile`, which needs a C++ compiler."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        _refuse_lengths(bundle, "torch.compile does not compile packed sequences")
        super().__init__(bundle, threads)
        self.classify = self.torch.compile(self.classify)


class TorchOnnx(TorchEager):
    """The ONNX file that `torch.onnx.export` makes of it, in onnxruntime. Needs onnxscript."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        _refuse_lengths(bundle, "torch.onnx.export takes those of its example for all")
        super().__init__(bundle, threads)
        torch, spec = self.torch, self.spec
        example = (torch.zeros(2, spec.longest, spec.features),)
        any_batch = ({0: torch.export.Dim("batch")},)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder) / "torch.onnx"
            torch.onnx.export(
                self.classify, example, path, dynamo=True, dynamic_shapes=any_batch, verbose=False,
                external_data=False,
            )  # fmt: skip
            self.session: Any = OnnxRuntime(path, spec, threads).session
        self.input = self.session.get_inputs()[0].name

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        scaled = keras_inputs(x, lengths, self.spec)
        result: np.ndarray = self.session.run(None, {self.input: scaled})[0]
        return result


PEERS: dict[str, Callable[[Bundle, int], Runtime]] = {
    "Keras predict": KerasPredict,
    "Keras tf.function": KerasFunction,
    "ONNX by Keras": KerasOnnx,
    "ONNX by tf2onnx": Tf2Onnx,
    "PyTorch eager": TorchEager,
    "PyTorch compiled": TorchCompiled,
    "ONNX by PyTorch": TorchOnnx,
}
# What `export.benchmark` measures; the others take long to load, and `benchmarks.inference` has
# them all.
USUAL = ("Keras predict", "ONNX by Keras", "ONNX by tf2onnx", "PyTorch eager")


def installed() -> list[str]:
    """The usual peers that can run here: PyTorch is optional."""
    return [name for name in USUAL if name != "PyTorch eager" or importlib.util.find_spec("torch")]
