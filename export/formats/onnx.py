"""ONNX: the graph that is shipped, and the one by tf2onnx that it is checked against."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.formats import onnx_readme
from export.formats.format import (
    NEWEST_OPSET,
    OLDEST_OPSET,
    OPSET,
    as_input,
    file_metadata,
)
from export.network import INPUT, OUTPUT, Network
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


def write(network: Network, path: Path, x: np.ndarray, opset: int = OPSET) -> dict[str, Any]:
    """Write the network as ONNX; give what the manifest says about it.

    Two graphs are made, by `onnx_graph` from the weights and by tf2onnx from the TensorFlow
    function, and both answer the first of raw `x` `(n, timesteps, features)`. The first graph,
    which is faster, is shipped. Raises `CheckFailed` when they differ by more than rounding.
    """
    import onnx

    from export import oracle
    from export.check import rounding
    from export.formats import onnx_graph

    model = with_metadata(onnx_graph.build(network, opset), network)
    onnx.checker.check_model(model, full_check=True)
    x = x[: min(EXAMPLES, network.most_at_once)]
    ours, theirs = _run(model, x), _run(by_tf2onnx(network), x)
    limit = rounding.limit(network, x, oracle.probabilities(network, x), ours)
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


def with_metadata(model: onnx.ModelProto, network: Network) -> onnx.ModelProto:
    """Keep labels, specification and signatures, as JSON, in the model's own metadata."""
    import onnx

    onnx.helper.set_model_props(model, file_metadata(network))
    model.producer_name = "rnn_tf"
    return model


def by_tf2onnx(network: Network) -> onnx.ModelProto:
    """The same function, converted from TensorFlow, of opset 17: tf2onnx ends at 18."""
    import tf2onnx

    from export.formats.tf_function import inference_function

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = inference_function(network)
    model: onnx.ModelProto
    model, _ = tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=OPSET
    )
    return model


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: np.ndarray = session.run([OUTPUT], {INPUT: x.astype(np.float32)})[0]
    return result


class OnnxRuntime:
    """ONNX in onnxruntime. Without TensorFlow."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.spec = spec

    def predict(self, x: np.ndarray) -> np.ndarray:
        result: np.ndarray = self.session.run([OUTPUT], {INPUT: as_input(x, self.spec)})[0]
        return result
