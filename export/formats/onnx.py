"""ONNX: the graph that is shipped, and the one by tf2onnx that it is checked against."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.formats import onnx_readme
from export.formats.format import (
    AGAIN,
    NEWEST_OPSET,
    OLDEST_OPSET,
    OPSET,
    CheckedStep,
    Run,
    as_inputs,
    file_metadata,
)
from export.network import FRAMES, INPUT, LENGTHS, NEXT_STATE, OUTPUT, STATE, Network
from export.signatures import BATCH, CLASSIFY, STEP, STEPS, state_units
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import CheckFailed, InputError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

readme = onnx_readme.sections

# Examples that both graphs answer, at most.
EXAMPLES = 256
# Numbers of streams for which a session of onnxruntime is kept, about a megabyte each. Streams of
# any other number run in the one that takes any.
MOST_BOUND = 16


def check_opset(opset: int) -> None:
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise InputError("unknown opset", expected=f"{OLDEST_OPSET} to {NEWEST_OPSET}", got=opset)


def write(
    network: Network,
    path: Path,
    x: np.ndarray,
    opset: int = OPSET,
    lengths: np.ndarray | None = None,
) -> dict[str, Any]:
    """Write the network as ONNX; give what the manifest says about it.

    Two graphs are made, by `onnx_graph` from the weights and by tf2onnx from the TensorFlow
    function, and both answer the first of raw `x` `(n, timesteps, features)`, whose lengths, where
    they vary, are `lengths` `(n,)`. The first graph, which is faster, is shipped. Raises
    `CheckFailed` when they differ by more than rounding.
    """
    import onnx

    from export import oracle
    from export.check import rounding
    from export.formats import onnx_graph

    model = with_metadata(onnx_graph.build(network, opset), network)
    onnx.checker.check_model(model, full_check=True)
    few = slice(min(EXAMPLES, network.most_at_once))
    x, lengths = x[few], None if lengths is None else lengths[few]
    inputs = {INPUT: x.astype(np.float32)}
    if lengths is not None:
        inputs[LENGTHS] = lengths
    ours, theirs = _run(model, inputs), _run(by_tf2onnx(network), inputs)
    limit = rounding.limit(network, x, oracle.probabilities(network, x, lengths), ours, lengths)
    difference = float(np.abs(ours - theirs).max())
    if not difference <= limit:
        raise CheckFailed(
            f"onnx: the graph differs from that of tf2onnx by {difference:.3g}, limit {limit:.3g}"
        )
    onnx.save(model, path)
    return {
        "opset": opset,
        "ir_version": model.ir_version,
        "max_difference_from_tf2onnx": difference,
        "limit": limit,
    }


def write_step(network: Network, path: Path, opset: int = OPSET) -> dict[str, Any]:
    """Write the step of a network that reads forward; give what the manifest says about it."""
    import onnx

    from export.formats import onnx_graph

    model = with_metadata(onnx_graph.build_step(network, opset), network, STEP)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return {}


def with_metadata(
    model: onnx.ModelProto, network: Network, signature: str = CLASSIFY
) -> onnx.ModelProto:
    """Keep labels, specification and signature, as JSON, in the model's own metadata."""
    import onnx

    onnx.helper.set_model_props(model, file_metadata(network, (signature,)))
    model.producer_name = "rnn_tf"
    return model


def by_tf2onnx(network: Network) -> onnx.ModelProto:
    """The same function, converted from TensorFlow, of opset 17: tf2onnx ends at 18.

    Where lengths vary, only of padding that is finite: tf2onnx selects by products with 0 and 1.
    """
    import tf2onnx

    from export.formats.tf_function import inference_function

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = inference_function(network)
    model: onnx.ModelProto
    model, _ = tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=OPSET
    )
    return model


def _run(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: np.ndarray = session.run([OUTPUT], inputs)[0]
    return result


def _refuse_external_data(path: Path) -> None:
    """Raise `InputError` when a model keeps weights in other files, which ours never do.

    onnxruntime would read them from wherever the model says.
    """
    # Such a tensor has an entry of this name. Most models have the word nowhere, and onnx, which is
    # slow to import, is not needed to see that.
    if b"location" not in path.read_bytes():
        return
    import onnx

    model = onnx.load(path, load_external_data=False)
    outside = [each.name for each in _tensors(model.graph) if each.external_data]
    if outside:
        raise InputError(
            f"cannot run {path}: it keeps weights in other files",
            got=", ".join(outside)[:100],
            fix=AGAIN,
        )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


class _Loaded:
    """ONNX in onnxruntime. Without TensorFlow."""

    def __init__(self, path: Path, threads: int | None) -> None:
        _refuse_external_data(path)
        self.model, self.threads = path.read_bytes(), threads
        self.session = self.open()

    def open(self, **axes: int) -> onnxruntime.InferenceSession:
        """A session of the file, for inputs whose `axes` have these sizes; the others may vary."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or 1
        options.inter_op_num_threads = 1
        for axis, size in axes.items():
            options.add_free_dimension_override_by_name(axis, size)
        return onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def metadata(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        return found


class OnnxRuntime(_Loaded):
    """An ONNX file that classifies whole sequences."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        super().__init__(path, threads)
        self.spec = spec

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        inputs = as_inputs(x, lengths, self.spec)
        result: np.ndarray = self.session.run([OUTPUT], inputs)[0]
        return result


class OnnxStep(_Loaded, CheckedStep):
    """An ONNX file of a step."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        super().__init__(path, threads)
        self.spec, self.units = spec, state_units(self.metadata().get("signatures", ""))
        number = range(len(self.units))
        self.inputs = [FRAMES, *(STATE.format(i) for i in number)]
        self.outputs = [OUTPUT, *(NEXT_STATE.format(i) for i in number)]
        self.of_one_frame: dict[int, onnxruntime.InferenceSession] = {}

    def bind(self, sessions: int) -> Run:
        if sessions not in self.of_one_frame:
            if len(self.of_one_frame) == MOST_BOUND:
                return self.run
            self.of_one_frame[sessions] = self.open(**{BATCH: sessions, STEPS: 1})
        return _Frame(self.of_one_frame[sessions], self.inputs, self.outputs, sessions).run

    def run(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        inputs = dict(zip(self.inputs, (frames, *states), strict=True))
        probabilities, *after = self.session.run(self.outputs, inputs)
        return probabilities, after


class _Frame:
    """One frame of so many sessions, in half the time that onnxruntime takes for any number.

    onnxruntime drops the choices of a graph whose axes it knows, and looks once at arrays that it
    is given for good. There are two of each state: the call that reads the first writes the second,
    and the next call the other way round, so that none is copied.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Sequence[str],
        outputs: Sequence[str],
        sessions: int,
    ) -> None:
        self.session = session
        shapes = {
            end.name: [sessions, *([1] * (len(end.shape) - 2)), end.shape[-1]]
            for end in (*session.get_inputs(), *session.get_outputs())
        }
        self.frame, self.answer = (
            np.zeros(shapes[name], np.float32) for name in (inputs[0], outputs[0])
        )
        self.states = [[np.zeros(shapes[name], np.float32) for name in inputs[1:]] for _ in "ab"]
        self.bindings = []
        for before, after in (self.states, self.states[::-1]):
            binding = session.io_binding()
            for bind, names, arrays in (
                (binding.bind_input, inputs, (self.frame, *before)),
                (binding.bind_output, outputs, (self.answer, *after)),
            ):
                for name, array in zip(names, arrays, strict=True):
                    bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self.bindings.append(binding)

    def run(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """See `StepRuntime.bind`."""
        self.frame[...] = frames
        place = 1 if states is self.states[1] else 0
        if states is not self.states[place]:
            for array, state in zip(self.states[0], states, strict=True):
                array[...] = state
        self.session.run_with_iobinding(self.bindings[place])
        return self.answer.copy(), self.states[1 - place]
