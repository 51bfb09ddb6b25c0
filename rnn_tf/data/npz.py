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

Without `labels` the classes are the different values in `y_train`, sorted, and bear their names:
-1 and 1 are two classes, 1 to 9 are nine. With `labels`, `y` holds names out of it, or whole
numbers that count from 0, places in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.data.splits import hold_out_valid
from rnn_tf.data.values import raw_values
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import ObjectArray, read_arrays

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
KNOWN = (*REQUIRED, "x_valid", "y_valid", "labels", "scale")

# More different values than this in y_train are identifiers or times, not classes.
MOST_CLASSES = 65_536

# What to do about an array of Python objects. Zeros come first, since the network answers at the
# end. `x_test` is padded as `x_train` is.
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
    Without `x_valid` and `y_valid` a tenth of each class in train, at most 5,000 examples, is
    held out as the validation split. Without `scale` it is 1.

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
    labels = _labels(arrays, path)
    x = raw_values({f"x_{name}": arrays[f"x_{name}"] for name in names}, path, LEAVE_OUT)
    splits = {name: Split(x[f"x_{name}"], _classes(arrays, name, labels, path)) for name in names}
    _, timesteps, features = arrays["x_train"].shape
    spec = SequenceSpec(timesteps, features, len(labels), labels, _scale(arrays, path))
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
            f"{path}: x_{name} and x_train have other sequences",
            expected=f"(n, {shape[1]}, {shape[2]})",
            got=x.shape,
        )


def _check_y(arrays: dict[str, np.ndarray], name: str, path: str) -> None:
    y, examples = arrays[f"y_{name}"], len(arrays[f"x_{name}"])
    if y.shape != (examples,):
        raise InputError(
            f"{path}: y_{name} does not match x_{name}",
            expected=f"one class for each example, shape ({examples},)",
            got=y.shape,
            fix=_flatten(y, f"y_{name}") if y.ndim == 2 and len(y) == examples else None,
        )
    if y.dtype.kind not in "iuU":
        raise InputError(
            f"{path}: bad dtype of y_{name}",
            expected="whole numbers or text, the class of each example",
            got=y.dtype,
            fix=_to_classes(y, f"y_{name}"),
        )
    if (y.dtype.kind == "U") != (arrays["y_train"].dtype.kind == "U"):
        raise InputError(
            f"{path}: y_{name} and y_train name classes in different ways",
            expected="text in both, or whole numbers in both",
            got=f"{y.dtype} and {arrays['y_train'].dtype}",
        )


def _flatten(y: np.ndarray, name: str) -> str | None:
    """How to make one class an example of `y` `(n, columns)`; None when it has several."""
    if y.shape[1] == 1:
        return f"Give {name}[:, 0]."
    one_hot = y.dtype.kind in "buif" and ((y != 0).sum(axis=1) == 1).all()
    return f"It is one-hot: give {name}.argmax(axis=1)." if one_hot else None


def _to_classes(y: np.ndarray, name: str) -> str | None:
    """How to make classes of `y` `(n,)` of another dtype; None when there is no good way."""
    if y.dtype.kind == "S":
        return f"Give np.char.decode({name}, 'utf-8')."
    if y.dtype.kind == "b" or (y.dtype.kind == "f" and (y == np.round(y)).all()):
        return f"Give {name}.astype(np.int32)."
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        return f"Leave out the examples without a class: keep = np.isfinite({name})."
    if y.dtype.kind == "f":
        return f"To make classes of measurements, give np.digitize({name}, limits)."
    return None


def _labels(arrays: dict[str, np.ndarray], path: str) -> tuple[str, ...]:
    if "labels" not in arrays:
        found = np.unique(arrays["y_train"])
        if not 2 <= len(found) <= MOST_CLASSES:
            raise InputError(
                f"{path}: y_train gives a bad number of classes",
                expected=f"2 to {MOST_CLASSES:,} different values",
                got=f"{len(found):,}: {', '.join(map(str, found[:3]))}",
                fix="If only other splits have the others, name all of them in labels.",
            )
        return tuple(map(str, found))
    labels = arrays["labels"]
    if labels.dtype.kind != "U" or labels.ndim != 1:
        raise InputError(
            f"{path}: bad labels",
            expected="one string per class, shape (classes,)",
            got=f"{labels.dtype} of shape {labels.shape}",
            fix="Give labels.astype(str)." if labels.ndim == 1 else None,
        )
    names = tuple(map(str, labels))
    if len(names) < 2:
        raise InputError(f"{path}: too few labels", expected="at least 2", got=len(names))
    if len(set(names)) < len(names):
        twice = next(label for label in names if names.count(label) > 1)
        raise InputError(f"{path}: two classes have the same label", got=repr(twice))
    return names


def _classes(
    arrays: dict[str, np.ndarray], name: str, labels: tuple[str, ...], path: str
) -> np.ndarray:
    """The class of each example as its place in `labels`: int32 `(n,)`."""
    y = arrays[f"y_{name}"]
    if "labels" in arrays and y.dtype.kind != "U":
        return _checked_places(y, len(labels), f"{path}: y_{name}")
    # Looked up by value; every number is its own name.
    values = np.array(labels) if y.dtype.kind == "U" else np.unique(arrays["y_train"])
    order = np.argsort(values, kind="stable")
    at = np.minimum(np.searchsorted(values, y, sorter=order), len(values) - 1)
    places = order[at].astype(np.int32)
    unknown = values[places] != y
    if unknown.any():
        raise InputError(
            f"{path}: y_{name} has a class that does not exist",
            expected=_some(labels),
            got=str(y[unknown][0]),
            fix="Add it to labels."
            if "labels" in arrays
            else "y_train has no example of it; to keep the class, name all classes in labels.",
        )
    return places


def _checked_places(y: np.ndarray, classes: int, name: str) -> np.ndarray:
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        from_one = low == 1 and high == classes
        raise InputError(
            f"{name} has a class that does not exist",
            expected=f"0 to {classes - 1}, a place in labels",
            got=high if low >= 0 else low,
            fix="Subtract 1 from y of every split: places count from 0."
            if from_one
            else "Add what is missing to labels, or leave labels out.",
        )
    return y.astype(np.int32)


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:5]) + (", …" if len(labels) > 5 else "")


def _scale(arrays: dict[str, np.ndarray], path: str) -> float:
    scale = arrays.get("scale", np.array(1.0))
    if scale.shape != () or scale.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: bad scale",
            expected="one positive number, shape ()",
            got=f"{scale.dtype} of shape {scale.shape}",
        )
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"{path}: bad scale", expected="a positive finite number", got=scale)
    return float(scale)
