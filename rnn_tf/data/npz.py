"""Your own sequences, from one `.npz` file. To write one:

    import numpy as np
    x = np.random.default_rng(0).normal(size=(100, 20, 3)).astype(np.float32)
    y = np.where(x.sum(axis=(1, 2)) > 0, "rising", "falling")
    np.savez("mine.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])

| key | shape | dtype |
|---|---|---|
| `x_train`, `x_test` | (n, timesteps, features) | whole numbers, bool or floats |
| `y_train`, `y_test` | (n,) | the class of each example: text or whole numbers |
| `x_valid`, `y_valid` | optional, both or neither | like the others |
| `labels` | (classes,), optional | strings, the name of each class, in their order |
| `scale` | (), optional | a number: value * scale is what the model sees |

Without `labels` the classes are the different values in `y_train`, sorted: -1 and 1 are two
classes, 1 to 9 are nine. With `labels`, `y` holds names out of it, or places in it from 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rnn_tf.data.classes import Classes, check_y
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.data.splits import hold_out_valid
from rnn_tf.data.values import raw_values
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import ObjectArray, read_arrays

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
KNOWN = (*REQUIRED, "x_valid", "y_valid", "labels", "scale")

# What to do about an array of Python objects. Zeros come first, since the network answers at the
# end of a sequence.
PAD = (
    "Sequences of different lengths cannot be read yet; pad them to one length: "
    "longest = max(map(len, [*x_train, *x_test])); {name} = np.stack([np.pad(np.asarray(s, "
    "np.float32), [(longest - len(s), 0)] + [(0, 0)] * (np.ndim(s) - 1)) for s in {name}]), and "
    "the other splits alike."
)
AS_TEXT = "Give {name}.astype(str)."

LEAVE_OUT = (
    "Leave these examples out (keep = np.isfinite({name}).all(axis=(1, 2)), then give {name}[keep] "
    "and its y[keep]), or put 0 there: np.nan_to_num({name}, posinf=0, neginf=0)."
)


def load(path: str) -> SequenceData:
    """The sequences in the `.npz` file at `path`; the module's docstring says what is in one.

    `x` stays uint8 where all splits have that, and becomes float32 otherwise, with a
    `UserWarning` if that rounds; `y` becomes int32, places in the specification's labels.
    Without `x_valid` and `y_valid`, a tenth of train, of every class its share and at most 5,000
    examples, becomes the validation split. Without `scale` the source says nothing of
    normalization.

    Raises `InputError` for anything that is missing, unknown, unreadable or does not fit.
    """
    try:
        arrays = read_arrays(Path(path))
    except ObjectArray as error:
        advice = PAD if error.key.startswith("x_") else AS_TEXT
        raise InputError(str(error), fix=advice.format(name=error.key)) from error
    _check_keys(arrays, path)
    names = [key.removeprefix("x_") for key in arrays if key.startswith("x_")]
    for name in names:
        _check_x(arrays, name, path)
        _check_y(arrays, name, path)
    classes = Classes.of(arrays["y_train"], arrays.get("labels"), path)
    x = raw_values({f"x_{name}": arrays[f"x_{name}"] for name in names}, path, LEAVE_OUT)
    y = {name: classes.places(arrays[f"y_{name}"], f"y_{name}", path) for name in names}
    splits = {name: Split(x[f"x_{name}"], y[name]) for name in names}
    _, timesteps, features = arrays["x_train"].shape
    spec = SequenceSpec(timesteps, features, classes.labels, _normalize(arrays, path))
    train, valid = splits["train"], splits.get("valid")
    if valid is None:
        train, valid = hold_out_valid(train)
    return SequenceData(spec, train, valid, splits["test"])


def _check_keys(arrays: dict[str, np.ndarray], path: str) -> None:
    found, known = ", ".join(arrays) or "none", ", ".join(KNOWN)
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise InputError(f"{path}: missing {', '.join(missing)}", expected=known, got=found)
    unknown = [key for key in arrays if key not in KNOWN]
    if unknown:
        raise InputError(f"{path}: unknown {', '.join(unknown)}", expected=known, got=found)
    if ("x_valid" in arrays) != ("y_valid" in arrays):
        raise InputError(
            f"{path}: half a validation split",
            expected="x_valid and y_valid, or neither",
            got=found,
        )


def _check_x(arrays: dict[str, np.ndarray], name: str, path: str) -> None:
    x, shape = arrays[f"x_{name}"], arrays["x_train"].shape
    if x.ndim != 3 or 0 in x.shape:
        raise InputError(
            f"{path}: bad shape of x_{name}",
            expected="(n, timesteps, features), each at least 1",
            got=x.shape,
            fix=f"One number per time step is x_{name}[..., np.newaxis]." if x.ndim == 2 else None,
        )
    if x.shape[1:] != shape[1:]:
        raise InputError(
            f"{path}: x_{name} and x_train have different sequences",
            expected=f"(n, {shape[1]}, {shape[2]})",
            got=x.shape,
        )


def _check_y(arrays: dict[str, np.ndarray], name: str, path: str) -> None:
    y, y_train = arrays[f"y_{name}"], arrays["y_train"]
    check_y(y, len(arrays[f"x_{name}"]), f"y_{name}", path)
    if (y.dtype.kind == "U") != (y_train.dtype.kind == "U"):
        raise InputError(
            f"{path}: y_{name} and y_train name classes in different ways",
            expected="text in both, or whole numbers in both",
            got=f"{y.dtype} and {y_train.dtype}",
        )


def _normalize(arrays: dict[str, np.ndarray], path: str) -> Normalize | None:
    """What the file says; None where it says nothing."""
    if "scale" not in arrays:
        return None
    scale = arrays["scale"]
    if scale.shape != () or scale.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: bad scale",
            expected="one positive number, shape ()",
            got=f"{scale.dtype} of shape {scale.shape}",
        )
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"{path}: bad scale", expected="a positive finite number", got=scale)
    return Normalize((float(scale),))
