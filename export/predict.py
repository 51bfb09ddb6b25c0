"""`python -m export.predict BUNDLE FILE...`: what a bundle says of pictures and sequences.

`rnn-tf predict` comes here when it is given a bundle. TensorFlow is imported for a SavedModel only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from export.bundle import Bundle, find_bundle
from export.runtimes import open_runtime
from rnn_tf.command import arguments, parse
from rnn_tf.errors import one_line_errors
from rnn_tf.predict import named, read_all, show

# The first of these that a bundle has answers: the fastest to start.
PREFERRED = ("onnx", "tflite", "saved_model", "torch")


@dataclass(frozen=True)
class Command:
    """Classify pictures (PNG, JPEG) or sequences (.npy, .npz with one array) with a bundle."""

    bundle: tyro.conf.Positional[Path]
    """A bundle, or a run that has one."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures or arrays, in the raw units of the training data."""
    format: str = "auto"
    """Which format answers: onnx, tflite, tflite_int8, tflite_float16, saved_model,
    torch. auto: the first of onnx, tflite, saved_model and torch that there is."""
    invert: bool = False
    """Turn light pictures dark and dark ones light: MNIST digits are light on dark."""
    json: bool = False
    """Print one JSON object a sequence, with the probability of every label."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m export.predict") -> int:
    command = parse(Command, arguments(argv), prog)
    bundle = find_bundle(command.bundle)
    files = read_all(command.files, bundle.spec, invert=command.invert)
    runtime = open_runtime(bundle, _choose(bundle, command.format))
    probabilities = runtime.predict(np.concatenate([file.x for file in files]))
    show(named(probabilities, files, bundle.spec), as_json=command.json)
    return 0


def _choose(bundle: Bundle, name: str) -> str:
    if name != "auto":
        return name
    found = [preferred for preferred in PREFERRED if preferred in bundle.formats]
    return found[0] if found else PREFERRED[0]


if __name__ == "__main__":
    raise SystemExit(main())
