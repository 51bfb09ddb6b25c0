"""TFLite: the fastest file in float32, the smallest with its weights in int8 or float16."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.formats.format import CheckedStep, Run, as_inputs, file_metadata
from export.formats.quantize import round_to_int8
from export.formats.registry import file_of
from export.formats.tf_function import MOST_UNROLLED, inference_function, step_function
from export.formats.tflite_file import (
    Stored,
    compact,
    metadata,
    operators,
    store_matrices,
    variables,
    with_metadata,
)  # fmt: skip
from export.markdown import (
    check_last,
    check_probabilities,
    code,
    each_frame,
    example_inputs,
    given,
    last_answer,
    load_example,
    next_states,
    zero_states,
)  # fmt: skip
from export.network import FRAMES, NEXT_STATE, OUTPUT, STATE, Network
from export.signatures import CLASSIFY, STEP, state_units
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
    rounded, stored = _rounded_to_int8(network, x, lengths)
    model = store_matrices(_convert(_for_rounding(rounded)), stored)
    return _save(model, network, path) | {"not_for": {MICRO: INT8_IN_MICRO}}


def write_float16(network: Network, path: Path) -> dict[str, Any]:
    """Write the network with float16 weights and float32 arithmetic, the time steps as a loop."""
    model = store_matrices(_convert(_for_rounding(network)), _as_float16)
    return _save(model, network, path)


def write_step(network: Network, path: Path) -> dict[str, Any]:
    """Write one step of the network in float32."""
    return _save(_convert(step_function(network, one=True)), network, path, STEP)


def write_int8_step(
    network: Network, path: Path, x: np.ndarray, lengths: np.ndarray | None = None
) -> dict[str, Any]:
    """Write one step with the same int8 weights that `write_int8` gives the whole."""
    rounded, stored = _rounded_to_int8(network, x, lengths)
    model = _convert(step_function(rounded, one=True, fold=False))
    return _save(store_matrices(model, stored), network, path, STEP)


def write_float16_step(network: Network, path: Path) -> dict[str, Any]:
    """Write one step with float16 weights and float32 arithmetic."""
    model = _convert(step_function(network, one=True, fold=False))
    return _save(store_matrices(model, _as_float16), network, path, STEP)


def _rounded_to_int8(
    network: Network, x: np.ndarray, lengths: np.ndarray | None
) -> tuple[Network, Callable[[np.ndarray], Stored]]:
    """The network of rounded weights, and how a file stores each of its matrices."""
    rounded, matrices = round_to_int8(network, x, lengths)
    stored = {
        each.matrix.T.tobytes(): Stored(each.values.T.copy(), each.scale) for each in matrices
    }
    return rounded, lambda matrix: stored[matrix.tobytes()]


def _as_float16(matrix: np.ndarray) -> Stored:
    return Stored(matrix.astype(np.float16))


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


def _save(model: bytes, network: Network, path: Path, signature: str = CLASSIFY) -> dict[str, Any]:
    needed = operators(model)
    # Flex operators are custom ones too: those of TensorFlow itself, which no phone has.
    foreign = [name for name in needed if name.startswith("CUSTOM")]
    if foreign:
        raise CheckFailed(f"tflite: operators that are not builtin: {', '.join(sorted(foreign))}")
    if kept := variables(model):
        raise CheckFailed(f"tflite: state between calls: {', '.join(kept)}")
    entries = file_metadata(network, (signature,), steps=1)
    model = with_metadata(model, {name: text.encode() for name, text in entries.items()})
    path.write_bytes(model)
    return {"operators": dict(sorted(needed.items())), "not_for": {MICRO: NOT_FOR_MICRO}}


class _Loaded:
    """TFLite in LiteRT. Without TensorFlow.

    Threads that share one take turns: an interpreter holds one input and one answer.
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        # It says on stderr that it uses its own kernels, and nothing turns that off.
        with stderr.muted(in_any_process=True):
            self.interpreter = Interpreter(model_path=str(path), num_threads=threads or 1)
            self.interpreter.allocate_tensors()
        self.inputs, self.outputs = (
            {each["name"]: each["index"] for each in details}
            for details in (
                self.interpreter.get_input_details(), self.interpreter.get_output_details()
            )
        )  # fmt: skip
        self.path = path
        self.batch = 1
        self.turn = threading.Lock()

    def metadata(self) -> Mapping[str, str]:
        found = metadata(self.path.read_bytes())
        return {name: text.decode() for name, text in found.items()}

    def resize(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Make room for as many sequences as there are in `inputs`."""
        batch = len(next(iter(inputs.values())))
        if batch != self.batch:
            for name, value in inputs.items():
                self.interpreter.resize_tensor_input(self.inputs[name], value.shape)
            self.interpreter.allocate_tensors()
            self.batch = batch


class LiteRuntime(_Loaded):
    """A TFLite file that classifies whole sequences."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        super().__init__(path, threads)
        self.spec = spec

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        inputs = as_inputs(x, lengths, self.spec)
        with self.turn:
            self.resize(inputs)
            for name, value in inputs.items():
                self.interpreter.set_tensor(self.inputs[name], value)
            self.interpreter.invoke()
            result: np.ndarray = self.interpreter.get_tensor(self.outputs[OUTPUT])
        return result


class LiteStep(_Loaded, CheckedStep):
    """A TFLite file of one step."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        super().__init__(path, threads)
        self.spec, self.units = spec, state_units(self.metadata().get("signatures", ""))
        number = range(len(self.units))
        names = [FRAMES, *(STATE.format(i) for i in number)]
        self.inputs_in_order = [self.inputs[name] for name in names]
        names = [OUTPUT, *(NEXT_STATE.format(i) for i in number)]
        self.outputs_in_order = [self.outputs[name] for name in names]

    def bind(self, sessions: int) -> Run:
        # All that a call looks up, looked up once: the model itself takes a microsecond.
        set_, get, invoke = (
            self.interpreter.set_tensor, self.interpreter.get_tensor, self.interpreter.invoke
        )  # fmt: skip
        (frame, *before), (answer, *after) = self.inputs_in_order, self.outputs_in_order
        turn = self.turn

        def run(
            frames: np.ndarray, states: Sequence[np.ndarray]
        ) -> tuple[np.ndarray, list[np.ndarray]]:
            with turn:
                if self.batch != sessions:
                    self._make_room(frames, states)
                set_(frame, frames)
                for index, state in zip(before, states, strict=True):
                    set_(index, state)
                invoke()
                return get(answer), [get(index) for index in after]

        return run

    def run(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        run = self.bind(len(frames))
        if frames.shape[1] == 1:
            return run(frames, states)
        answers = []
        for frame in np.split(frames, frames.shape[1], axis=1):
            answer, states = run(frame, states)
            answers.append(answer)
        return np.concatenate(answers, axis=1), list(states)

    def _make_room(self, frames: np.ndarray, states: Sequence[np.ndarray]) -> None:
        before = {STATE.format(i): state for i, state in enumerate(states)}
        self.resize({FRAMES: frames, **before})


def readme(manifest: dict[str, Any]) -> list[str]:
    """How to call it, and the smaller file where there is one, from Python."""
    small = [
        f"`{file}`"
        for name, details in manifest["formats"].items()
        if name.startswith("tflite_")
        for file in details["answers"].values()
    ]
    also = f" {' and '.join(small)} {'is' if len(small) == 1 else 'are'} called in the same way."
    also = also if small else ""
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
            *check_probabilities(manifest),
            f"last = {last_answer(manifest)}",
            "print(last.argmax(), last.max())",
            *(_step(manifest) if next_states(manifest) else []),
        )
    )
    return [text, _microcontrollers(manifest)]


def _step(manifest: dict[str, Any]) -> list[str]:
    file = manifest["formats"]["tflite"]["answers"][STEP]
    return [
        "",
        f'stepper = Interpreter("{file}")  # a frame a call',
        'step = stepper.get_signature_runner("serving_default")',
        *zero_states(manifest, "np.zeros((1, {}), np.float32)"),
        each_frame(manifest),
        f"    answer = step({FRAMES}=x[:, t : t + 1], **states)",
        '    states = {name: answer[f"next_{name}"] for name in states}',
        *check_last(manifest, f'answer["{OUTPUT}"][0, -1]'),
    ]


def _microcontrollers(manifest: dict[str, Any]) -> str:
    reasons = [
        f"- `{file_of(name)}`: {details['not_for'][MICRO]}."
        for name, details in manifest["formats"].items()
        if name.startswith("tflite")
    ]
    return "\n".join([f"On a microcontroller: not with {MICRO}.", "", *reasons, ""])
