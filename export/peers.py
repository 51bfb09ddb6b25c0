"""What a user would run instead of a bundle: the same model in Keras, PyTorch, and other ONNX.

They are measured beside the formats and are runtimes like theirs, but nothing ships them.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import Bundle
from export.graph import Twin, read_model
from export.onnx import OPSET, by_tf2onnx
from export.runtimes import OnnxRuntime, Runtime, as_input, load_keras


class KerasPredict:
    """`model.predict`, as Keras's guides call it."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.model = load_keras(bundle.artefact("keras"))
        self.spec = bundle.spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = as_input(x, self.spec) * np.float32(self.spec.scale)
        return np.asarray(self.model.predict(scaled, batch_size=len(x), verbose=0))


class KerasOnnx:
    """The ONNX file that `model.export(format="onnx")` writes, in onnxruntime."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        model = load_keras(bundle.artefact("keras"))
        spec = bundle.spec
        # A model just loaded cannot be exported before it was called.
        model(np.zeros((1, spec.timesteps, spec.features), np.float32))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "keras.onnx"
            model.export(path, format="onnx", verbose=False)
            self.session: Any = OnnxRuntime(path, spec, threads).session
        self.input = self.session.get_inputs()[0].name
        self.spec = spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = as_input(x, self.spec) * np.float32(self.spec.scale)
        result: np.ndarray = self.session.run(None, {self.input: scaled})[0]
        return result


class Tf2Onnx:
    """The ONNX file that tf2onnx makes of the exported TensorFlow function, in onnxruntime."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnx

        twin = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tf2onnx.onnx"
            onnx.save(by_tf2onnx(twin, OPSET), path)
            self.runtime = OnnxRuntime(path, bundle.spec, threads)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.runtime.predict(x)


class TorchEager:
    """`torch.nn.RNN`, `LSTM` or `GRU` and `nn.Linear` with the same weights.

    Where `nn.RNN` lacks the activation, the loop over the time steps that a user would write.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.spec = torch, bundle.spec
        twin = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
        self.recurrent = _torch_layer(twin)
        self.dense = torch.nn.Linear(twin.units, twin.spec.classes)
        _fill(self.dense.weight, twin.dense_kernel.T)
        _fill(self.dense.bias, twin.dense_bias)

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = as_input(x, self.spec) * np.float32(self.spec.scale)
        with self.torch.inference_mode():
            logits = self.dense(self.recurrent(self.torch.from_numpy(scaled)))
            result: np.ndarray = self.torch.softmax(logits, 1).numpy()
        return result


def _torch_layer(twin: Twin) -> Callable[[Any], Any]:
    """A function from scaled `(batch, timesteps, features)` to the last state `(batch, units)`."""
    import torch

    kinds: dict[tuple[str, str], Any] = {
        ("simple_rnn", "tanh"): torch.nn.RNN,
        ("simple_rnn", "relu"): torch.nn.RNN,
        ("lstm", "tanh"): torch.nn.LSTM,
        ("gru", "tanh"): torch.nn.GRU,
    }
    kind = kinds.get((twin.cell, twin.activation))
    if kind is None or twin.recurrent_activation not in ("linear", "sigmoid"):
        return _torch_loop(twin)
    options = {"nonlinearity": twin.activation} if twin.cell == "simple_rnn" else {}
    layer = kind(twin.spec.features, twin.units, batch_first=True, **options)
    # Keras has the update gate first, PyTorch the reset gate.
    order = {"simple_rnn": [0], "lstm": [0, 1, 2, 3], "gru": [1, 0, 2]}[twin.cell]
    columns = np.concatenate([np.arange(twin.units) + gate * twin.units for gate in order])
    state_bias = twin.bias[1] if twin.cell == "gru" else np.zeros_like(twin.bias)
    _fill(layer.weight_ih_l0, twin.kernel[:, columns].T)
    _fill(layer.weight_hh_l0, twin.recurrent_kernel[:, columns].T)
    _fill(layer.bias_ih_l0, twin.input_bias[columns])
    _fill(layer.bias_hh_l0, state_bias[columns])
    return lambda x: layer(x)[0][:, -1]


def _torch_loop(twin: Twin) -> Callable[[Any], Any]:
    import torch

    if twin.cell != "simple_rnn" or not hasattr(torch.nn.functional, twin.activation):
        raise ModuleNotFoundError(f"PyTorch has no {twin.cell} with {twin.activation}")
    f = getattr(torch.nn.functional, twin.activation)
    kernel, recurrent, bias = (
        torch.from_numpy(array) for array in (twin.kernel, twin.recurrent_kernel, twin.bias)
    )

    def read(x: Any) -> Any:
        inputs = x @ kernel + bias
        state = f(inputs[:, 0])
        for step in inputs[:, 1:].unbind(1):
            state = f(step + state @ recurrent)
        return state

    return read


def _fill(parameter: Any, value: np.ndarray) -> None:
    import torch

    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


PEERS: dict[str, Callable[[Bundle, int], Runtime]] = {
    "Keras predict": KerasPredict,
    "ONNX by Keras": KerasOnnx,
    "ONNX by tf2onnx": Tf2Onnx,
    "PyTorch eager": TorchEager,
}


def installed() -> list[str]:
    """The peers that can run here: PyTorch is optional."""
    return [name for name in PEERS if name != "PyTorch eager" or importlib.util.find_spec("torch")]
