"""TFLite: the fastest file in float32, the smallest with its weights in int8 or float16."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.formats.format import as_inputs, file_metadata
from export.formats.quantize import round_to_int8
from export.formats.registry import file_of
from export.formats.tf_function import MOST_UNROLLED, inference_function
from export.formats.tflite_file import (
    Stored,
    compact,
    metadata,
    operators,
    store_matrices,
    variables,
    with_metadata,
)  # fmt: skip
from export.markdown import check_probabilities, code, example_inputs, given, load_example
from export.network import INPUT, OUTPUT, Network
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import CheckFailed
from rnn_tf.startup import stderr

# What the manifest and the README of a bundle say of microcontrollers.
MICRO = "TFLite Micro"
NOT_FOR_MICRO = f"the shapes inside are those of any batch, which {MICRO} does not resolve"
INT8_IN_MICRO = f"{NOT_FOR_MICRO}; patched until it loads there, its answers are wrong"


def write(network: Network, path: Path) -> dict[str, Any]:
    """Write the network in float32 for low latency; give what the manifest says about it.

    Raises `CheckFailed` when the model needs more than TFLite's builtin operators.
    """
    function = inference_function(network, unroll=network.spec.longest <= MOST_UNROLLED)
    return _save(_convert(function), network, path)


def write_int8(
    network: Network, path: Path, x: np.ndarray, lengths: np.ndarray | None = None
) -> dict[str, Any]:
    """Write the network with int8 weights, calibrated on raw `x` `(n, timesteps, features)`.

    Where they vary, `lengths` `(n,)` are those of the examples. A scale for each row; arithmetic
    stays float32, so that only the weights are rounded. The time steps are a loop, which is smaller
    than writing them out, and slower at batch 1.
    """
    rounded, matrices = round_to_int8(network, x, lengths)
    stored = {
        each.matrix.T.tobytes(): Stored(each.values.T.copy(), each.scale) for each in matrices
    }
    model = _convert(_for_rounding(rounded))
    model = store_matrices(model, lambda matrix: stored[matrix.tobytes()])
    return _save(model, network, path) | {"not_for": {MICRO: INT8_IN_MICRO}}


def write_float16(network: Network, path: Path) -> dict[str, Any]:
    """Write the network with float16 weights and float32 arithmetic, the time steps as a loop."""
    model = _convert(_for_rounding(network))
    half = store_matrices(model, lambda matrix: Stored(matrix.astype(np.float16)))
    return _save(half, network, path)


def _for_rounding(network: Network) -> Any:
    return inference_function(network, unroll=False, fold=False)


def _convert(function: Any) -> bytes:
    import tensorflow as tf

    module = tf.Module()
    module.serving_default = function
    concrete = module.serving_default.get_concrete_function()
    with stderr.muted():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
        return compact(converter.convert())


def _save(model: bytes, network: Network, path: Path) -> dict[str, Any]:
    needed = operators(model)
    # Flex operators are custom ones too: those of TensorFlow itself, which no phone has.
    foreign = [name for name in needed if name.startswith("CUSTOM")]
    if foreign:
        raise CheckFailed(f"tflite: operators that are not builtin: {', '.join(sorted(foreign))}")
    if kept := variables(model):
        raise CheckFailed(f"tflite: state between calls: {', '.join(kept)}")
    entries = file_metadata(network)
    model = with_metadata(model, {name: text.encode() for name, text in entries.items()})
    path.write_bytes(model)
    return {"operators": dict(sorted(needed.items())), "not_for": {MICRO: NOT_FOR_MICRO}}


class LiteRuntime:
    """TFLite in LiteRT. Without TensorFlow.

    Threads that share one take turns: an interpreter holds one input and one answer.
    """

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        # It says on stderr that it uses its own kernels, and nothing turns that off.
        with stderr.muted(in_any_process=True):
            self.interpreter = Interpreter(model_path=str(path), num_threads=threads or 1)
            self.interpreter.allocate_tensors()
        inputs = self.interpreter.get_input_details()
        self.inputs = {each["name"]: each["index"] for each in inputs}
        self.output = self.interpreter.get_output_details()[0]["index"]
        self.spec, self.path = spec, path
        self.batch = 1
        self.turn = threading.Lock()

    def metadata(self) -> Mapping[str, str]:
        found = metadata(self.path.read_bytes())
        return {name: text.decode() for name, text in found.items()}

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        inputs = as_inputs(x, lengths, self.spec)
        batch = len(inputs[INPUT])
        with self.turn:
            if batch != self.batch:
                for name, value in inputs.items():
                    self.interpreter.resize_tensor_input(self.inputs[name], value.shape)
                self.interpreter.allocate_tensors()
                self.batch = batch
            for name, value in inputs.items():
                self.interpreter.set_tensor(self.inputs[name], value)
            self.interpreter.invoke()
            result: np.ndarray = self.interpreter.get_tensor(self.output)
        return result


def readme(manifest: dict[str, Any]) -> list[str]:
    """How to call it, and the smaller file where there is one, from Python."""
    small = [file_of(name) for name in manifest["formats"] if name.startswith("tflite_")]
    also = f" `{small[0]}` is called in the same way." if small else ""
    text = (
        f"## TFLite from Python\n\n`pip install ai-edge-litert numpy`.{also} On a phone, the same "
        "signature is called from Kotlin, Swift or C++.\n\n"
        + code(
            "python",
            "import json",
            "",
            "import numpy as np",
            "from ai_edge_litert.interpreter import Interpreter",
            "",
            *load_example(),
            *example_inputs(manifest),
            f'interpreter = Interpreter("{file_of("tflite")}")',
            'classify = interpreter.get_signature_runner("serving_default")',
            f'probabilities = classify({given(manifest, "{name}={value}")})["{OUTPUT}"]',
            *check_probabilities(),
            "print(probabilities[0].argmax(), probabilities[0].max())",
        )
    )
    return [text, _microcontrollers(manifest)]


def _microcontrollers(manifest: dict[str, Any]) -> str:
    reasons = [
        f"- `{file_of(name)}`: {details['not_for'][MICRO]}."
        for name, details in manifest["formats"].items()
        if name.startswith("tflite")
    ]
    return "\n".join([f"On a microcontroller: not with {MICRO}.", "", *reasons, ""])
