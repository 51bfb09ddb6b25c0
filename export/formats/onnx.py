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
    as_inputs,
    file_metadata,
)
from export.network import FRAMES, INPUT, LENGTHS, NEXT_STATE, OUTPUT, STATE, Network
from export.signatures import CLASSIFY, STEP, state_units
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import CheckFailed, InputError

if TYPE_CHECKING:
    import onnx

readme = onnx_readme.sections

# Examples that both graphs answer, at most.
EXAMPLES = 256


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
        import onnxruntime

        _refuse_external_data(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

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

    def run(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        inputs = dict(zip(self.inputs, (frames, *states), strict=True))
        probabilities, *after = self.session.run(self.outputs, inputs)
        return probabilities, after
