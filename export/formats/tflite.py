"""TFLite: the fastest file in float32, the smallest with its weights in int8 or float16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from export.formats.quantize import round_to_int8
from export.formats.tf_function import MOST_UNROLLED, inference_function
from export.formats.tflite_file import (
    Stored,
    compact,
    operators,
    store_matrices,
    variables,
    with_metadata,
)  # fmt: skip
from export.network import Twin
from rnn_tf.errors import CheckFailed


def write(twin: Twin, path: Path) -> dict[str, Any]:
    """Write the twin in float32 for low latency; give what the manifest says about it.

    Raises `CheckFailed` when the model needs more than TFLite's builtin operators.
    """
    return _save(_convert(twin, unroll=twin.spec.timesteps <= MOST_UNROLLED), twin, path)


def write_int8(twin: Twin, path: Path, x: np.ndarray) -> dict[str, Any]:
    """Write the twin with int8 weights, calibrated on raw `x` `(n, timesteps, features)`.

    A scale for each row; arithmetic stays float32, so that only the weights are rounded. The time
    steps are a loop, which is smaller than writing them out, and slower at batch 1.
    """
    rounded, matrices = round_to_int8(twin, x)
    stored = {
        each.matrix.T.tobytes(): Stored(each.values.T.copy(), each.scale) for each in matrices
    }
    model = _convert(rounded, unroll=False)
    return _save(store_matrices(model, lambda matrix: stored[matrix.tobytes()]), twin, path)


def write_float16(twin: Twin, path: Path) -> dict[str, Any]:
    """Write the twin with float16 weights and float32 arithmetic, the time steps as a loop."""
    model = _convert(twin, unroll=False)
    half = store_matrices(model, lambda matrix: Stored(matrix.astype(np.float16)))
    return _save(half, twin, path)


def _convert(twin: Twin, *, unroll: bool) -> bytes:
    import tensorflow as tf

    from rnn_tf.startup import stderr

    module = tf.Module()
    module.serving_default = inference_function(twin, unroll=unroll)
    concrete = module.serving_default.get_concrete_function()
    with stderr.muted():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
        return compact(converter.convert())


def _save(model: bytes, twin: Twin, path: Path) -> dict[str, Any]:
    needed = operators(model)
    # Flex operators are custom ones too: those of TensorFlow itself, which no phone has.
    foreign = [name for name in needed if name.startswith("CUSTOM")]
    if foreign:
        raise CheckFailed(f"tflite: operators that are not builtin: {', '.join(sorted(foreign))}")
    if kept := variables(model):
        raise CheckFailed(f"tflite: state between calls: {', '.join(kept)}")
    spec = json.loads(twin.spec.to_json())
    entries = {"labels": spec["labels"], "spec": spec}
    model = with_metadata(
        model,
        {name: json.dumps(value, ensure_ascii=False).encode() for name, value in entries.items()},
    )
    path.write_bytes(model)
    return {"operators": dict(sorted(needed.items()))}
