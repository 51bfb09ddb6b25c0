"""Your own sequences, from one `.npz` file. To write one:

    import numpy as np
    x = np.random.default_rng(0).normal(size=(100, 20, 3)).astype(np.float32)
    y = np.where(x.sum(axis=(1, 2)) > 0, "rising", "falling")
    np.savez("mine.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])

| key | shape | dtype |
|---|---|---|
| `x_train` | (n, timesteps, features) | whole numbers, bool or floats |
| `y_train` | (n,) | the class of each example: text or whole numbers |
| | or (n, timesteps) | with `--answer every_step`, the class of each step |
| `x_test`, `y_test` | like the others; optional with `--test-share` | |
| `x_valid`, `y_valid` | like the others; optional | |
| `lengths_train`, ... | (n,), optional, for all splits or none | whole numbers, 1 to timesteps |
| `groups_train`, ... | (n,), optional | what belongs together: text or whole numbers |
| `labels` | (classes,), optional | strings, the name of each class, in their order |
| `scale` | (), optional | a number: value * scale is what the model sees |

Without `labels` the classes are the different values in `y_train`, sorted: -1 and 1 are two
classes, 1 to 9 are nine. With `labels`, `y` holds names out of it, or places in it from 0. Among
classes of steps, -1 or an empty text stands for a step without a label.

Sequences of different lengths are padded at the end, and `lengths` says how many steps of each
count; what the others hold never matters. Right-padded arrays rather than one flat array and
offsets: that is what people have for every other library, and a file of one length needs nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rnn_tf.config import Source, ToScore
from rnn_tf.data.classes import Classes, check_y
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.recordings import Recordings, sequence_data
from rnn_tf.data.spec import SPLITS, UNLABELLED, SequenceData, Split, valid_steps
from rnn_tf.data.values import raw_values
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import ObjectArray, read_arrays

REQUIRED = ("x_train", "y_train")
OF_A_SPLIT = ("x", "y", "lengths", "groups")
KNOWN = (
    *REQUIRED, "x_valid", "y_valid", "x_test", "y_test",
    *(f"{what}_{name}" for what in ("lengths", "groups") for name in SPLITS),
    "labels", "scale",
)  # fmt: skip

# What to do about an array of Python objects.
PAD = (
    "For sequences of different lengths, pad them at the end and say how long each is: "
    "longest = max(map(len, [*x_train, *x_test])); lengths_train = np.array(list(map(len, "
    "x_train))); x_train = np.stack([np.pad(np.asarray(s, np.float32), [(0, longest - len(s))] + "
    "[(0, 0)] * (np.ndim(s) - 1)) for s in x_train]); the other splits alike, then np.savez(..., "
    "lengths_train=lengths_train, lengths_test=lengths_test)."
)
AS_TEXT = "Give {name}.astype(str)."

LEAVE_OUT = (
    "Leave these examples out (keep = np.isfinite({name}).all(axis=(1, 2)), then give {name}[keep] "
    "and its y[keep]), or put 0 there: np.nan_to_num({name}, posinf=0, neginf=0). "
    "For a line between the values around a NaN, add --missing interpolate."
)


def load(source: Source) -> SequenceData:
    """The sequences in the `.npz` file of `source`; the module's docstring says what is in one.

    `x` stays uint8 where all splits have that, and becomes float32 otherwise, with a
    `UserWarning` if that rounds; `y` becomes int32, places in the specification's labels.
    Without `x_valid` and `y_valid`, a tenth of train, of every class its share and at most 5,000
    examples, becomes the validation split. Without `x_test` and `y_test`, `source.test_share` of
    train becomes the test split.
    Without `scale` the source says nothing of normalization.

    Raises `InputError` for anything that is missing, unknown, unreadable or does not fit.
    """
    path = source.dataset
    try:
        arrays = read_arrays(Path(path))
    except ObjectArray as error:
        advice = PAD if error.key.startswith("x_") else AS_TEXT
        raise InputError(str(error), fix=advice.format(name=error.key)) from error
    _check_keys(arrays, path)
    names = [name for name in SPLITS if f"x_{name}" in arrays]
    for name in names:
        _check_x(arrays, name, path)
        _check_y(arrays, name, source)
        _check_lengths(arrays, name, path)
        _check_groups(arrays, name, path)
        if arrays[f"y_{name}"].ndim == 2:
            arrays[f"y_{name}"] = _without_padding(arrays, name)
    classes = _classes(arrays, source)
    x = raw_values({f"x_{name}": _x(arrays, name, source) for name in names}, path, LEAVE_OUT)
    splits = {}
    for name in names:
        y = arrays[f"y_{name}"]
        y = (classes.step_places if y.ndim == 2 else classes.places)(y, f"y_{name}", path)
        split = Split(
            x[f"x_{name}"], y, arrays.get(f"lengths_{name}"), arrays.get(f"groups_{name}")
        )
        splits[name] = Recordings.of(split)
    return sequence_data(
        splits, classes.labels, source, normalize=_normalize(arrays, path),
        longest=max(each.shape[1] for each in x.values()),
    )  # fmt: skip


def _classes(arrays: dict[str, np.ndarray], source: Source) -> Classes:
    labels = arrays.get("labels")
    if isinstance(source, ToScore) and labels is None:
        return Classes.of_model(source.labels, arrays["y_train"])
    return Classes.of(arrays["y_train"], labels, source.dataset)


def _x(arrays: dict[str, np.ndarray], name: str, source: Source) -> np.ndarray:
    """The `x` of a split, with zeros as padding and without gaps that may be filled."""
    x = arrays[f"x_{name}"]
    # Its classes are of no concern here.
    split = Split(x, np.zeros(len(x), np.int32), arrays.get(f"lengths_{name}"))
    if split.lengths is not None:
        x = np.where(np.asarray(split.valid)[..., np.newaxis], x, np.zeros((), x.dtype))
    if source.missing != "refuse" and x.dtype.kind == "f" and np.isnan(x).any():
        recordings = Recordings.of(split._replace(x=x))
        ends = np.cumsum(recordings.lengths)

        def where(row: int, feature: int) -> str:
            example = int(np.searchsorted(ends, row, side="right"))
            step = row - int(ends[example] - recordings.lengths[example])
            return f"{source.dataset}, x_{name}[{example}, {step}, {feature}]"

        whole = recordings.without_gaps(source.missing, where)
        x = whole.padded(x.shape[1], varies=split.lengths is not None).x
    return x


def _check_keys(arrays: dict[str, np.ndarray], path: str) -> None:
    found, known = ", ".join(arrays) or "none", ", ".join(KNOWN)
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise InputError(f"{path}: missing {', '.join(missing)}", expected=known, got=found)
    unknown = [key for key in arrays if key not in KNOWN]
    if unknown:
        raise InputError(f"{path}: unknown {', '.join(unknown)}", expected=known, got=found)
    for name, said in (("valid", "validation"), ("test", "test")):
        if (f"x_{name}" in arrays) != (f"y_{name}" in arrays):
            raise InputError(
                f"{path}: half a {said} split",
                expected=f"x_{name} and y_{name}, or neither",
                got=found,
            )
    splits = [name for name in SPLITS if f"x_{name}" in arrays]
    for key in arrays:
        what, _, name = key.partition("_")
        if what in OF_A_SPLIT and name not in splits:
            raise InputError(f"{path}: {key} without x_{name}", got=found)
    without = [f"lengths_{name}" for name in splits if f"lengths_{name}" not in arrays]
    if 0 < len(without) < len(splits):
        raise InputError(
            f"{path}: lengths of some splits only", expected="of all splits, or of none",
            got=f"no {', '.join(without)}",
        )  # fmt: skip


def _check_x(arrays: dict[str, np.ndarray], name: str, path: str) -> None:
    x, shape = arrays[f"x_{name}"], arrays["x_train"].shape
    varies = f"lengths_{name}" in arrays
    if x.ndim != 3 or 0 in x.shape:
        raise InputError(
            f"{path}: bad shape of x_{name}",
            expected="(n, timesteps, features), each at least 1",
            got=x.shape,
            fix=f"One number per time step is x_{name}[..., np.newaxis]." if x.ndim == 2 else None,
        )
    if x.shape[2] != shape[2] or (x.shape[1] != shape[1] and not varies):
        raise InputError(
            f"{path}: x_{name} and x_train have different sequences",
            expected=f"(n, {'timesteps' if varies else shape[1]}, {shape[2]})",
            got=x.shape,
        )


def _check_y(arrays: dict[str, np.ndarray], name: str, source: Source) -> None:
    path, y, y_train = source.dataset, arrays[f"y_{name}"], arrays["y_train"]
    check_y(y, arrays[f"x_{name}"], source.answer, f"y_{name}", path)
    if y.ndim != y_train.ndim:
        raise InputError(
            f"{path}: y_{name} and y_train label different things",
            expected="a class for each example in both, or for each step",
            got=f"shapes {y.shape} and {y_train.shape}",
        )
    if (y.dtype.kind == "U") != (y_train.dtype.kind == "U"):
        raise InputError(
            f"{path}: y_{name} and y_train name classes in different ways",
            expected="text in both, or whole numbers in both",
            got=f"{y.dtype} and {y_train.dtype}",
        )


def _without_padding(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The classes of steps of a split, with no label where there is padding."""
    y = arrays[f"y_{name}"]
    is_text = y.dtype.kind == "U"
    y = y if is_text else y.astype(np.int64)
    lengths = arrays.get(f"lengths_{name}")
    if lengths is None:
        return y
    return np.where(valid_steps(lengths, y.shape[1]), y, "" if is_text else UNLABELLED)


def _check_lengths(arrays: dict[str, np.ndarray], name: str, path: str) -> None:
    key, x = f"lengths_{name}", arrays[f"x_{name}"]
    if key not in arrays:
        return
    lengths = arrays[key]
    if lengths.shape != (len(x),):
        raise InputError(
            f"{path}: {key} does not have one length for each example",
            expected=f"shape ({len(x)},)", got=lengths.shape,
        )  # fmt: skip
    if lengths.dtype.kind not in "iu":
        whole = lengths.dtype.kind == "f" and (lengths == np.round(lengths)).all()
        raise InputError(
            f"{path}: bad dtype of {key}", expected="whole numbers, the time steps of each example",
            got=lengths.dtype, fix=f"Give {key}.astype(np.int32)." if whole else None,
        )  # fmt: skip
    wrong = np.flatnonzero((lengths < 1) | (lengths > x.shape[1]))
    if wrong.size:
        raise InputError(
            f"{path}: bad length in {key}",
            expected=f"1 to {x.shape[1]}, the time steps that x_{name} has",
            got=f"{lengths[wrong[0]]} for example {wrong[0]}",
        )


def _check_groups(arrays: dict[str, np.ndarray], name: str, path: str) -> None:
    key, x = f"groups_{name}", arrays[f"x_{name}"]
    if key not in arrays:
        return
    groups = arrays[key]
    if groups.shape != (len(x),) or groups.dtype.kind not in "iuU":
        raise InputError(
            f"{path}: bad {key}", expected=f"text or whole numbers of shape ({len(x)},)",
            got=f"{groups.dtype} of shape {groups.shape}",
        )  # fmt: skip


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
