"""One real input and its answer, beside the model: whoever calls it can check their own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from export import oracle
from export.network import INPUT, LENGTHS, OUTPUT, Network
from rnn_tf.files.writing import write_text

EXAMPLE, REQUEST = "example.json", "request.json"


def write(
    network: Network,
    x: np.ndarray,
    tolerance: float,
    folder: Path,
    lengths: np.ndarray | None = None,
) -> None:
    """Write `example.json` and `request.json`, for TensorFlow Serving, into `folder`.

    Both hold the first of raw `x` `(n, timesteps, features)`, and of their `lengths` `(n,)` where
    they vary; the example also what the formulas say of it, and how far float32 may be from that.
    """
    inputs = {INPUT: _numbers(x[:1])}
    if lengths is not None:
        inputs[LENGTHS] = lengths[:1].tolist()
    exact = oracle.probabilities(network, x[:1], None if lengths is None else lengths[:1])
    if network.every_step and lengths is not None:
        exact = exact[:, : lengths[0]]
    example = {
        **inputs,
        OUTPUT: _numbers(exact.astype(np.float32)),
        # Of the whole sequence: where there is an answer at every step, the last one.
        "label": network.spec.labels[int(exact.reshape(-1, network.spec.classes)[-1].argmax())],
        "tolerance": tolerance,
    }
    write_text(folder / EXAMPLE, json.dumps(example, ensure_ascii=False) + "\n")
    # TensorFlow Serving takes an only input without its name.
    instance = {name: values[0] for name, values in inputs.items()}
    instances = inputs[INPUT] if lengths is None else [instance]
    write_text(folder / REQUEST, json.dumps({"instances": instances}) + "\n")


def _numbers(values: np.ndarray) -> list[Any]:
    """Nested lists; a float32 with no more digits than tell it from its neighbours."""
    if values.dtype.kind != "f":
        return list(values.tolist())
    shortest = np.vectorize(lambda value: float(str(np.float32(value))), otypes=[object])
    return list(shortest(values).tolist())
