"""Raw values as a `Split` holds them: checked, and in one dtype."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnn_tf.errors import InputError

# How many of the examples that are wrong a message names.
MOST_NAMED = 5


def raw_values(arrays: Mapping[str, np.ndarray], source: str, fix: str) -> dict[str, np.ndarray]:
    """The `x` arrays of all splits as `Split` holds them: uint8 if all are, else all float32.

    `arrays` maps a name for messages to an array `(n, ...)` of whole numbers, bool or floats.
    `fix` says what to do about values that are not finite; `{name}` in it becomes the array's.
    Warns (`UserWarning`) when float32 cannot hold a value exactly, and says by how much it is
    rounded at most. Raises `InputError` for other dtypes, NaN, infinity, and values beyond
    float32.
    """
    for name, x in arrays.items():
        _check_values(x, name, source, fix)
    if all(x.dtype == np.uint8 for x in arrays.values()):
        return dict(arrays)
    converted = {name: _to_float32(x, name, source) for name, x in arrays.items()}
    rounding = {name: _rounding(x, converted[name]) for name, x in arrays.items()}
    worst = max(rounding, key=rounding.__getitem__)
    if rounding[worst] > 0:
        warnings.warn(
            f"{source}: {arrays[worst].dtype} values are rounded to float32, by up to "
            f"{rounding[worst]:.2g} (in {worst})",
            stacklevel=2,
        )
    return converted


def to_float32(values: np.ndarray, where: Callable[[int, int], str]) -> np.ndarray:
    """Numbers that were read from text, `(steps, features)`, in float32.

    `where` says where the value of a step and a feature is. That decimals are rounded is not said:
    a text has no more digits than were measured. Raises `InputError` for infinity, and for what
    float32 cannot hold.
    """
    with np.errstate(over="ignore"):
        converted = np.asarray(values, np.float32, order="C")
    bad = np.argwhere(~np.isfinite(converted))
    if bad.size:
        step, feature = (int(place) for place in bad[0])
        raise InputError(
            f"{where(step, feature)}: not a number that float32 can hold",
            expected=f"at most {np.finfo(np.float32).max:.2g}",
            got=values[step, feature],
        )
    return converted


def _check_values(x: np.ndarray, name: str, source: str, fix: str) -> None:
    if x.dtype.kind not in "buif":
        raise InputError(
            f"{source}: bad dtype of {name}", expected="whole numbers, bool or floats", got=x.dtype
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise InputError(
            f"{source}: NaN or infinity in {name}",
            expected="finite values",
            got=_examples(~np.isfinite(x)),
            fix=fix.format(name=name),
        )


def _to_float32(x: np.ndarray, name: str, source: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # an overflow is an error of ours, with a better message
        converted = np.asarray(x, np.float32, order="C")
    if x.dtype.kind == "f" and not np.isfinite(converted).all():
        largest = np.abs(x).max()
        raise InputError(
            f"{source}: values in {name} are too large for float32",
            expected=f"at most {np.finfo(np.float32).max:.2g}",
            got=f"up to {largest:.2g} in {_examples(np.isinf(converted))}",
            fix=f"Divide x of every split by {largest:.0e}.",
        )
    return converted


def _examples(bad: np.ndarray) -> str:
    """The examples that have a bad value, by index: `2 of 900 examples (5, 17)`."""
    examples = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    named = ", ".join(map(str, examples[:MOST_NAMED]))
    more = ", …" if len(examples) > MOST_NAMED else ""
    return f"{len(examples):,} of {len(bad):,} examples ({named}{more})"


def _rounding(x: np.ndarray, converted: np.ndarray) -> float:
    """The largest difference that the conversion to float32 has made."""
    if x.size == 0 or np.can_cast(x.dtype, np.float32):
        return 0.0
    exact: Any = converted.astype(np.longdouble if x.dtype.itemsize > 8 else np.float64)
    if x.dtype.kind == "f":
        return float(np.abs(x - exact).max())
    # A 64-bit whole number is wider than a float64, its two halves are not. Near x both sides
    # are multiples of 2**32 or small, so no step of this rounds.
    wide = x if x.dtype.itemsize == 8 else x.astype(np.int64)
    return float(np.abs(((wide >> 32) * 2.0**32 - exact) + (wide & 0xFFFFFFFF)).max())
