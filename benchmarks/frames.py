"""One frame at a time, the state kept between: our streams beside what a user would write instead.

Each way runs in a process of its own on one thread, in turn, round after round. A call takes one
frame of every session, a NumPy array, and gives the probabilities, a NumPy array; the first ten
answers of all must agree. Models of one layer: `benchmarks.inference` calls it for each of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import documents
from export.benchmark import THREAD_VARIABLES
from export.bundle import Bundle, load_test
from export.network import Network, read_model
from export.runtimes import load_keras, open_step
from export.stream import open_stream
from rnn_tf.errors import CheckFailed
from rnn_tf.model.cells import CELLS
from rnn_tf.startup import stderr

SESSIONS = (1, 64)
# Answers that must agree, and how nearly: float32 rounding, in any order.
AGREEING, NEARLY = 10, 1e-4

# Takes (sessions, 1, features), gives the probabilities, (sessions, classes) or (sessions, 1, ...).
Push = Callable[[np.ndarray], np.ndarray]
# And begins a new sequence.
Way = tuple[Push, Callable[[], None]]


@dataclass
class Timed:
    """One way, and what a call took."""

    name: str
    seconds: dict[int, list[float]] = field(default_factory=dict)  # sessions -> medians of rounds

    def median(self, sessions: int) -> float:
        return statistics.median(self.seconds[sessions])


def compare(bundle: Bundle, rounds: int, seconds: float) -> list[Timed]:
    """Time every way that can run here, with a frame of one session and of 64.

    Of our formats, those that the bundle has; without any, nothing.
    """
    ours = [name for name in OURS if name in bundle.steppers]
    if not ours:
        return []
    x = load_test(bundle).take(slice(max(SESSIONS))).x.astype(np.float32)
    others = [name for name in WAYS if name not in OURS]
    names = [*ours, *(name for name in others if _can_run(name))]
    timed = {name: Timed(name) for name in names}
    for sessions in SESSIONS:
        workers = [_Worker(name, bundle.path, x[:sessions]) for name in names]
        try:
            for worker in workers:
                if not np.abs(worker.first - workers[0].first).max() <= NEARLY:
                    raise CheckFailed(f"{worker.name} does not say what {workers[0].name} says")
            for _ in range(rounds):
                for worker in workers:
                    took = worker.measure(seconds)
                    timed[worker.name].seconds.setdefault(sessions, []).append(took)
        finally:
            for worker in workers:
                worker.process.kill()
    return list(timed.values())


def _can_run(name: str) -> bool:
    package = WAYS[name][1]
    return package is None or find_spec(package) is not None


def rows(timed: Sequence[Timed]) -> list[list[str]]:
    """A row for each way: microseconds of a call, and times that of the faster of our formats."""
    best = {s: min(each.median(s) for each in timed if each.name in OURS) for s in SESSIONS}
    return [
        [
            each.name,
            *(f"{1e6 * each.median(s):,.1f} us" for s in SESSIONS),
            *(f"{each.median(s) / best[s]:.2f}" for s in SESSIONS),
        ]
        for each in timed
    ]


def markdown(model: str, timed: Sequence[Timed]) -> str:
    """The table of a model."""
    sessions = ["1 session" if s == 1 else f"{s} sessions" for s in SESSIONS]
    head = [f"{model}: one frame", *sessions, *(f"x at {s}" for s in SESSIONS)]
    return documents.table(head, rows(timed))


class _Worker:
    """A process that pushes frames in one way."""

    def __init__(self, name: str, path: Path, x: np.ndarray) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, name, path, x), daemon=True)
        self.process.start()
        theirs.close()
        self.first: np.ndarray = self._receive()

    def measure(self, seconds: float) -> float:
        self.pipe.send(seconds)
        took: float = self._receive()
        return took

    def _receive(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise CheckFailed(f"{self.name}: its process died") from None
        if isinstance(answer, Exception):
            raise CheckFailed(f"{self.name}: {answer}") from answer
        return answer


def _serve(pipe: Connection, name: str, path: Path, x: np.ndarray) -> None:
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    frames = [np.ascontiguousarray(x[:, t : t + 1]) for t in range(x.shape[1])]
    try:
        with stderr.muted():
            push, reset = WAYS[name][0](Bundle.open(path), len(x))
            first = [np.asarray(push(frame)) for frame in frames[:AGREEING]]
            pipe.send(np.stack([each.reshape(len(x), -1) for each in first]))
            while True:
                pipe.send(_median(push, reset, frames, pipe.recv()))
    except EOFError:  # nobody asks any more
        return
    except Exception as error:
        pipe.send(CheckFailed(str(error) or type(error).__name__))


def _median(
    push: Push, reset: Callable[[], None], frames: Sequence[np.ndarray], seconds: float
) -> float:
    """Seconds of a call; sequence after sequence, the first of them to warm up."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) <= len(frames):
        reset()
        for frame in frames:
            began = time.perf_counter()
            push(frame)
            times.append(time.perf_counter() - began)
    return statistics.median(times[len(frames) :])


# --- the ways ---
def _onnx(bundle: Bundle, sessions: int) -> Way:
    stream = open_stream(bundle, "onnx", sessions)
    return stream.push, stream.reset


def _tflite(bundle: Bundle, sessions: int) -> Way:
    stream = open_stream(bundle, "tflite", sessions)
    return stream.push, stream.reset


def _unchecked(name: str) -> Callable[[Bundle, int], Way]:
    """The file of a format without the stream, which looks at frames and keeps their states."""

    def open_(bundle: Bundle, sessions: int) -> Way:
        runtime = open_step(bundle, name, 1)
        run = runtime.bind(sessions)
        begin = [np.zeros((sessions, units), np.float32) for units in runtime.units]
        states = begin

        def push(x: np.ndarray) -> np.ndarray:
            nonlocal states
            answer, states = run(x, states)
            return answer

        def reset() -> None:
            nonlocal states
            states = begin

        return push, reset

    return open_


def _network(bundle: Bundle) -> Network:
    network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
    if len(network.layers) > 1 or network.bidirectional:
        raise CheckFailed("written by hand for one layer that reads forward")
    return network


def _onnx_by_hand(bundle: Bundle, sessions: int) -> Way:
    """The formula in ONNX's operators, or ONNX's LSTM or GRU, in onnxruntime."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from export.formats.onnx_graph import _operator_weights

    network = _network(bundle)
    weights, kind = network.raw_layers[0].forward, CELLS[network.cell]
    arrays = {"dk": network.dense_kernel, "db": network.dense_bias}
    before = [f"s{i}" for i in range(len(kind.states))]
    after = [f"n{i}" for i in range(len(kind.states))]
    if network.cell == "simple_rnn":
        activation = {"elu": "Elu", "tanh": "Tanh", "relu": "Relu"}[weights.activation]
        arrays |= {"w": weights.kernel, "b": weights.bias, "u": weights.recurrent_kernel}
        nodes = [
            helper.make_node("Gemm", ["x", "w", "b"], ["xw"]),
            helper.make_node("Gemm", ["s0", "u", "xw"], ["sum"]),
            helper.make_node(activation, ["sum"], ["n0"]),
        ]
        frame: list[Any] = ["n", bundle.spec.features]
        state: list[Any] = ["n", weights.units]
        top = "n0"
    else:
        arrays |= {
            name: each[None] for name, each in zip("wub", _operator_weights(weights), strict=True)
        }
        options: dict[str, Any] = {"linear_before_reset": 1} if network.cell == "gru" else {}
        nodes = [
            helper.make_node(
                kind.onnx_operator, ["x", "w", "u", "b", "", *before], ["", *after],
                hidden_size=weights.units, **options,
            ),
            helper.make_node("Squeeze", ["n0", "first"], ["top"]),
        ]  # fmt: skip
        arrays["first"] = np.array([0])
        frame, state = [1, "n", bundle.spec.features], [1, "n", weights.units]
        top = "top"
    nodes += [
        helper.make_node("Gemm", [top, "dk", "db"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["p"], axis=-1),
    ]

    def end(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, "step", [end("x", frame), *(end(each, state) for each in before)],
        [end("p", ["n", bundle.spec.classes]), *(end(each, state) for each in after)],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options_ = onnxruntime.SessionOptions()
    options_.intra_op_num_threads = options_.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options_, providers=["CPUExecutionProvider"]
    )
    shape = [sessions if each == "n" else each for each in frame]
    zeros = np.zeros([sessions if each == "n" else each for each in state], np.float32)
    states = dict.fromkeys(before, zeros)

    def push(x: np.ndarray) -> np.ndarray:
        nonlocal states
        p, *new = session.run(None, {"x": x.reshape(shape), **states})
        states = dict(zip(before, new, strict=True))
        result: np.ndarray = p
        return result

    def reset() -> None:
        nonlocal states
        states = dict.fromkeys(before, zeros)

    return push, reset


def _tflite_by_hand(bundle: Bundle, sessions: int) -> Way:
    """Keras's own cell and Dense in a function, through TensorFlow's converter, in LiteRT."""
    keras_model = load_keras(bundle.artefact("keras"))
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    network = _network(bundle)
    recurrent, dense = keras_model.layers
    count, units = len(network.state_units), network.units
    scale, shift = bundle.spec.normalization.arrays()

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec((sessions, bundle.spec.features)),
            *[tf.TensorSpec((sessions, units))] * count,
        ]
    )
    def step(frame: Any, *states: Any) -> Any:
        raw = frame * scale
        top, after = recurrent.cell(raw if shift is None else raw + shift, list(states))
        return (dense(top), *after)

    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    frozen = convert_variables_to_constants_v2(step.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    interpreter.allocate_tensors()
    frame, *inputs = [each["index"] for each in interpreter.get_input_details()]
    answer, *outputs = [each["index"] for each in interpreter.get_output_details()]
    zeros = [np.zeros((sessions, units), np.float32)] * count
    states = zeros

    def push(x: np.ndarray) -> np.ndarray:
        nonlocal states
        interpreter.set_tensor(frame, x[:, 0])
        for index, state in zip(inputs, states, strict=True):
            interpreter.set_tensor(index, state)
        interpreter.invoke()
        states = [interpreter.get_tensor(index) for index in outputs]
        result: np.ndarray = interpreter.get_tensor(answer)
        return result

    def reset() -> None:
        nonlocal states
        states = zeros

    return push, reset


def _torch(bundle: Bundle, sessions: int, *, compiled: bool = False) -> Way:
    """PyTorch's layer, or the formula where it has none, called with the state of the last call."""
    import torch
    from torch import nn

    from export.formats.pytorch import tensors
    from rnn_tf.training.torch.module import ACTIVATIONS

    torch.set_num_threads(1)
    network = _network(bundle)
    weights = {name: torch.from_numpy(each) for name, each in tensors(network).items()}
    kernel, recurrent, bias, other = (
        weights[f"recurrent.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    cell: Any
    if network.cell == "simple_rnn":
        activation, both = ACTIVATIONS[network.activation], bias + other

        def simple(frame: Any, h: Any) -> Any:
            return activation(frame @ kernel.t() + h @ recurrent.t() + both)

        cell = simple

    else:
        made = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[network.cell]
        cell = made(bundle.spec.features, network.units)
        named = {"weight_ih": kernel, "weight_hh": recurrent, "bias_ih": bias, "bias_hh": other}
        cell.load_state_dict(named)
    dense, dense_bias = weights["dense.weight"], weights["dense.bias"]
    pair = network.cell == "lstm"

    def step(frame: Any, state: Any) -> Any:
        new = cell(frame, state)
        return torch.softmax((new[0] if pair else new) @ dense.t() + dense_bias, 1), new

    called: Any = torch.compile(step) if compiled else step
    zero = torch.zeros(sessions, network.units)
    begin: Any = (zero, zero) if pair else zero
    state = begin

    def push(x: np.ndarray) -> np.ndarray:
        nonlocal state
        with torch.inference_mode():
            answer, state = called(torch.from_numpy(x[:, 0]), state)
            result: np.ndarray = answer.numpy()
        return result

    def reset() -> None:
        nonlocal state
        state = begin

    return push, reset


def _torch_compiled(bundle: Bundle, sessions: int) -> Way:
    return _torch(bundle, sessions, compiled=True)


def _keras_stateful(bundle: Bundle, sessions: int) -> Way:
    """`stateful=True`, and `predict_on_batch` of a batch of one frame each."""
    trained = load_keras(bundle.artefact("keras"))
    import keras

    recurrent, dense = trained.layers
    options = {**recurrent.get_config(), "stateful": True, "return_sequences": False}
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(sessions, 1, bundle.spec.features)),
            type(recurrent).from_config(options),
            type(dense).from_config(dense.get_config()),
        ]
    )
    model.set_weights(trained.get_weights())
    normalize = bundle.spec.normalization

    def push(x: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_on_batch(normalize(x)))

    return push, model.layers[0].reset_states


OURS = ("onnx", "tflite")
# What opens a way, and the package that it needs beside this one's.
WAYS: dict[str, tuple[Callable[[Bundle, int], Way], str | None]] = {
    "onnx": (_onnx, None),
    "tflite": (_tflite, None),
    "onnx, unchecked": (_unchecked("onnx"), None),
    "tflite, unchecked": (_unchecked("tflite"), None),
    "ONNX by hand": (_onnx_by_hand, None),
    "TFLite by hand": (_tflite_by_hand, None),
    "PyTorch eager": (_torch, "torch"),
    "PyTorch compiled": (_torch_compiled, "torch"),
    "Keras stateful": (_keras_stateful, None),
}
