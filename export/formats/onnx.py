"""ONNX: the graph that is shipped, and the one by tf2onnx that it is checked against."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.formats import onnx_graph
from export.formats.tf_function import inference_function
from export.network import INPUT, OUTPUT, Twin
from rnn_tf.errors import CheckFailed, InputError

# Low, so that old runtimes load it: onnxruntime 1.19 and 1.20 of 2024 were tried, and 1.32. From
# 22 on, activations have new versions that they do not know; below 16, operators are missing.
OPSET, OLDEST_OPSET, NEWEST_OPSET = 17, 16, 21

# float32 rounding in both; see `export.verify`.
MOST_DIFFERENCE = 1e-5


def check_opset(opset: int) -> None:
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise InputError("unknown opset", expected=f"{OLDEST_OPSET} to {NEWEST_OPSET}", got=opset)


def write(twin: Twin, path: Path, x: np.ndarray, opset: int = OPSET) -> dict[str, Any]:
    """Write the twin as ONNX; give what the manifest says about it.

    Two graphs are made, by `onnx_graph` from the weights and by tf2onnx from the TensorFlow
    function, and both answer raw `x` `(n, timesteps, features)`. The first, which is faster, is
    shipped. Raises `CheckFailed` when they differ.
    """
    model = with_metadata(onnx_graph.build(twin, opset), twin)
    onnx.checker.check_model(model, full_check=True)
    ours, theirs = _run(model, x), _run(by_tf2onnx(twin), x)
    difference = float(np.abs(ours - theirs).max())
    if not difference <= MOST_DIFFERENCE:
        raise CheckFailed(
            f"onnx: the graph differs from that of tf2onnx by {difference:.3g}, "
            f"limit {MOST_DIFFERENCE:g}"
        )
    onnx.save(model, path)
    return {
        "opset": opset,
        "ir_version": model.ir_version,
        "max_difference_from_tf2onnx": difference,
    }


def with_metadata(model: onnx.ModelProto, twin: Twin) -> onnx.ModelProto:
    """Keep labels and specification, as JSON, in the model's own metadata."""
    spec = json.loads(twin.spec.to_json())
    onnx.helper.set_model_props(
        model, {"labels": json.dumps(spec["labels"], ensure_ascii=False), "spec": json.dumps(spec)}
    )
    model.producer_name = "rnn_tf"
    return model


def by_tf2onnx(twin: Twin) -> onnx.ModelProto:
    """The same function, converted from TensorFlow, of opset 17: tf2onnx ends at 18."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = inference_function(twin)
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
