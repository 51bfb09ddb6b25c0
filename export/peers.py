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
from export.formats.format import Runtime, as_input
from export.formats.onnx import OnnxRuntime
from export.network import read_model
from export.runtimes import load_keras


class KerasPredict:
    """`model.predict`, as Keras's guides call it."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.model = load_keras(bundle.artefact("keras"))
        self.spec = bundle.spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = self.spec.normalization(as_input(x, self.spec))
        return np.asarray(self.model.predict(scaled, batch_size=len(x), verbose=0))


class KerasFunction:
    """`model(x)` in a `tf.function` of any batch, traced once."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        model = load_keras(bundle.artefact("keras"))
        import tensorflow as tf

        spec = bundle.spec
        signature = [tf.TensorSpec((None, spec.longest, spec.features), tf.float32)]
        self.call = tf.function(model, input_signature=signature)
        self.spec = spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = self.spec.normalization(as_input(x, self.spec))
        result: np.ndarray = self.call(scaled).numpy()
        return result


class KerasOnnx:
    """The ONNX file that `model.export(format="onnx")` writes, in onnxruntime."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
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

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = self.spec.normalization(as_input(x, self.spec))
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

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.runtime.predict(x)


class TorchEager:
    """`torch.nn.RNN`, `LSTM` or `GRU` and `nn.Linear` with the same weights."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        model = load_keras(bundle.artefact("keras"))
        import torch

        from rnn_tf.training.torch.module import to_torch

        torch.set_num_threads(threads)
        self.torch, self.spec = torch, bundle.spec
        self.classify: Any = torch.nn.Sequential(to_torch(model), torch.nn.Softmax(1)).eval()

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = self.spec.normalization(as_input(x, self.spec))
        with self.torch.inference_mode():
            result: np.ndarray = self.classify(self.torch.from_numpy(scaled)).numpy()
        return result


class TorchCompiled(TorchEager):
    """The same through `torch.compile`, which needs a C++ compiler."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, threads)
        self.classify = self.torch.compile(self.classify)


class TorchOnnx(TorchEager):
    """The ONNX file that `torch.onnx.export` makes of it, in onnxruntime. Needs onnxscript."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, threads)
        torch, spec = self.torch, self.spec
        example = (torch.zeros(2, spec.longest, spec.features),)
        any_batch = ({0: torch.export.Dim("batch")},)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder) / "torch.onnx"
            torch.onnx.export(
                self.classify, example, path, dynamo=True, dynamic_shapes=any_batch, verbose=False
            )
            self.session: Any = OnnxRuntime(path, spec, threads).session
        self.input = self.session.get_inputs()[0].name

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = self.spec.normalization(as_input(x, self.spec))
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
