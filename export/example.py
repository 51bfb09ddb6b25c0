"""One real input and its answer, beside the model: whoever calls it can check their own code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from export import oracle
from export.network import INPUT, OUTPUT, Network
from rnn_tf.files.writing import write_text

EXAMPLE, REQUEST = "example.json", "request.json"


def write(network: Network, x: np.ndarray, tolerance: float, folder: Path) -> None:
    """Write `example.json` and `request.json`, for TensorFlow Serving, into `folder`.

    Both hold the first of raw `x` `(n, timesteps, features)`; the example also what the formulas
    say of it, and how far float32 may be from that.
    """
    sequence = _numbers(x[:1])
    exact = oracle.probabilities(network, x[:1])
    example = {
        INPUT: sequence,
        OUTPUT: _numbers(exact.astype(np.float32)),
        "label": network.spec.labels[int(exact.argmax())],
        "tolerance": tolerance,
    }
    write_text(folder / EXAMPLE, json.dumps(example, ensure_ascii=False) + "\n")
    write_text(folder / REQUEST, json.dumps({"instances": sequence}) + "\n")


def _numbers(values: np.ndarray) -> object:
    """Nested lists; a float32 with no more digits than tell it from its neighbours."""
    if values.dtype.kind != "f":
        return values.tolist()
    return np.vectorize(lambda value: float(str(np.float32(value))), otypes=[object])(
        values
    ).tolist()
