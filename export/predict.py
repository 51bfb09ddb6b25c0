"""`rnn-tf predict BUNDLE FILE...`: what a bundle says of pictures and sequences.

`rnn-tf predict` comes here when it is given a bundle. TensorFlow is imported for a SavedModel only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from export.bundle import Bundle, find_bundle
from export.formats.format import Runtime, naming
from export.runtimes import open_runtime
from rnn_tf.command import arguments, parse
from rnn_tf.errors import one_line_errors
from rnn_tf.predict import Classifier, InputOptions, answer

# The first of these that a bundle has answers: the fastest to start.
PREFERRED = ("onnx", "tflite", "saved_model", "torch")


@dataclass(frozen=True)
class Command(InputOptions):
    """Classify pictures (PNG, JPEG) or sequences (arrays, tables, .ts files) with a bundle.

    Beside its probability, an answer says how unusual the input is: a network answers anything,
    also what is like nothing that it was trained on.
    """

    bundle: tyro.conf.Positional[Path]
    """A bundle, or a run that has one."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures, arrays (.npy, .npz with one), tables (.csv, .tsv, .parquet: a row a time step)
    or .ts files, in the raw units of the training data, or folders of them."""
    format: str = "auto"
    """Which format answers: onnx, tflite, tflite_int8, tflite_float16, saved_model,
    torch. auto: the first of onnx, tflite, saved_model and torch that there is."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m export.predict") -> int:
    command = parse(Command, arguments(argv), prog)
    bundle = find_bundle(command.bundle)
    inputs = command.inputs(command.files, bundle.spec, bundle.profile, bundle.source)
    classify = _classifier(bundle, _choose(bundle, command.format))
    return answer(inputs, classify, as_json=command.json)


def _classifier(bundle: Bundle, name: str) -> Classifier:
    """A format of the bundle as a function of raw sequences; its runtime starts at the first call.

    Raises `InputError` for a format that the bundle does not have, and for altered files.
    """
    path = bundle.artefact(name)
    runtimes: list[Runtime] = []

    def classify(x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        if not runtimes:
            runtimes.append(open_runtime(bundle, name))
        with naming(path):
            return runtimes[0].predict(x, lengths)

    return classify


def _choose(bundle: Bundle, name: str) -> str:
    if name != "auto":
        return name
    found = [preferred for preferred in PREFERRED if preferred in bundle.formats]
    return found[0] if found else PREFERRED[0]


if __name__ == "__main__":
    raise SystemExit(main())
