"""Your own sequences, from one `.npz` file. To write one:

    import numpy as np
    x = np.random.default_rng(0).normal(size=(100, 20, 3)).astype(np.float32)
    y = (x.sum(axis=(1, 2)) > 0).astype(np.int32)
    np.savez("mine.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:],
             labels=np.array(["falling", "rising"]))

| key | shape | dtype |
|---|---|---|
| `x_train`, `x_test` | (n, timesteps, features) | whole numbers, bool or floats |
| `y_train`, `y_test` | (n,) | whole numbers from 0, the class of each example |
| `x_valid`, `y_valid` | optional, both or neither | like the others |
| `labels` | (classes,), optional | strings, the name of each class |
| `scale` | (), optional | a number: value * scale is what the model sees |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split, hold_out_tenth, raw_values
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import read_arrays

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
KNOWN = (*REQUIRED, "x_valid", "y_valid", "labels", "scale")

# Without labels the classes are counted from the largest in y_train. More than this is a mistake,
# such as an identifier or a time in the place of a class.
MOST_CLASSES = 65_536


def load(path: str) -> SequenceData:
    """The sequences in the `.npz` file at `path`; the module's docstring says what is in one.

    `x` stays uint8 where all splits have that, and becomes float32 otherwise, with a
    `UserWarning` if that rounds; `y` becomes int32. Without `x_valid` and `y_valid` the last tenth
    of train, at least 1 and at most 5,000 examples, is the validation split. Without `labels` the
    classes are named "0", "1", …, as many as the largest in `y_train` says. Without `scale` the
    source says nothing of normalization.

    Raises `InputError` for anything that is missing, unknown, unreadable or does not fit.
    """
    arrays = read_arrays(Path(path))
    _check_keys(arrays, path)
    names = [key.removeprefix("x_") for key in arrays if key.startswith("x_")]
    for name in names:
        _check_x(arrays, name, path)
        _check_y(arrays, name, path)
    labels = _labels(arrays, path)
    x = raw_values({f"x_{name}": arrays[f"x_{name}"] for name in names}, path)
    splits = {}
    for name in names:
        _check_classes(arrays[f"y_{name}"], len(labels), f"{path}: y_{name}")
        splits[name] = Split(x[f"x_{name}"], arrays[f"y_{name}"].astype(np.int32))
    _, timesteps, features = arrays["x_train"].shape
    spec = SequenceSpec(timesteps, features, labels, _normalize(arrays, path))
    train, valid = splits["train"], splits.get("valid")
    if valid is None:
        train, valid = hold_out_tenth(train)
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
            fix="One number per time step is x[..., np.newaxis]." if x.ndim == 2 else None,
        )
    if x.shape[1:] != shape[1:]:
        raise InputError(
            f"{path}: x_{name} and x_train have other sequences",
            expected=f"(n, {shape[1]}, {shape[2]})",
            got=x.shape,
        )


def _check_y(arrays: dict[str, np.ndarray], name: str, path: str) -> None:
    y, examples = arrays[f"y_{name}"], len(arrays[f"x_{name}"])
    if y.dtype.kind not in "iu":
        raise InputError(
            f"{path}: bad dtype of y_{name}",
            expected="whole numbers, the class of each example",
            got=y.dtype,
            fix=f"Give y_{name}.astype(np.int32).",
        )
    if y.shape != (examples,):
        raise InputError(
            f"{path}: y_{name} does not match x_{name}", expected=f"({examples},)", got=y.shape
        )


def _check_classes(y: np.ndarray, classes: int, name: str) -> None:
    # Python's int: uint64 and int32 have no NumPy type that holds both.
    for value in (int(y.min()), int(y.max())):
        if not 0 <= value < classes:
            raise InputError(
                f"{name} has a class that does not exist",
                expected=f"0 to {classes - 1}",
                got=value,
                fix="Classes count from 0; y_train, or labels, says how many there are.",
            )


def _labels(arrays: dict[str, np.ndarray], path: str) -> tuple[str, ...]:
    used = int(arrays["y_train"].max()) + 1
    if "labels" not in arrays:
        if not 2 <= used <= MOST_CLASSES:
            raise InputError(
                f"{path}: y_train gives a bad number of classes",
                expected=f"its largest value to be 1 to {MOST_CLASSES - 1:,}",
                got=used - 1,
                fix="Classes count from 0.",
            )
        return tuple(str(index) for index in range(used))
    labels = arrays["labels"]
    if labels.dtype.kind != "U" or labels.ndim != 1:
        raise InputError(
            f"{path}: bad labels",
            expected="one string per class, shape (classes,)",
            got=f"{labels.dtype} of shape {labels.shape}",
        )
    names = tuple(str(label) for label in labels)
    if len(names) < max(used, 2):
        raise InputError(
            f"{path}: too few labels", expected=f"at least {max(used, 2)}", got=len(names)
        )
    if len(set(names)) < len(names):
        twice = next(label for label in names if names.count(label) > 1)
        raise InputError(f"{path}: two classes have the same label", got=repr(twice))
    return names


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
