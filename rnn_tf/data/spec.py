"""What a set of labelled sequences is: its arrays, and the specification that travels with them."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rnn_tf.errors import InputError

# A tenth of a large set is more than choosing a model needs.
MOST_VALID_EXAMPLES = 5_000


@dataclass(frozen=True)
class SequenceSpec:
    """The shape and meaning of one example. Nothing downstream guesses any of it.

    Raises `InputError` when a size is below its minimum, the labels do not match the classes,
    or the scale is not a positive finite number.
    """

    timesteps: int  # length of a sequence (MNIST: 28 rows), >= 1
    features: int  # numbers per time step (MNIST: 28 columns), >= 1
    classes: int  # number of classes, >= 2
    labels: tuple[str, ...]  # the name of each class, in the order of the class indices
    scale: float = 1.0  # raw value * scale = model input (MNIST: 1/255)
    channels: int = 0  # colour channels when a sequence is the rows of a picture; 0: it is not one

    def __post_init__(self) -> None:
        for name, least in (("timesteps", 1), ("features", 1), ("classes", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(
                    f"bad {name}", expected=f"a whole number >= {least}", got=repr(value)
                )
        if len(self.labels) != self.classes:
            raise InputError(
                "the labels do not match the classes",
                expected=f"{self.classes} labels",
                got=len(self.labels),
            )
        if self.channels not in (0, 1, 3, 4) or self.features % (self.channels or 1):
            raise InputError(
                "bad channels", expected="0, 1, 3 or 4, a divisor of features", got=self.channels
            )
        number = isinstance(self.scale, (int, float)) and not isinstance(self.scale, bool)
        if not (number and 0 < self.scale <= sys.float_info.max):
            raise InputError("bad scale", expected="a positive finite number", got=repr(self.scale))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> SequenceSpec:
        """The specification that `to_json` wrote. Raises `InputError` for anything else."""
        try:
            values: Any = json.loads(text)
        except (ValueError, RecursionError) as error:  # not JSON, numbers too long, lists too deep
            raise InputError("the specification is not JSON", got=str(error)) from error
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != known:
            got = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise InputError(
                "the specification has other keys", expected=str(sorted(known)), got=got
            )
        if not isinstance(values["labels"], list):
            raise InputError(
                "bad labels in the specification", expected="a list", got=repr(values["labels"])
            )
        values["labels"] = tuple(str(label) for label in values["labels"])
        return cls(**values)


class Split(NamedTuple):
    """Examples of one split, as the source has them: raw values, not scaled."""

    x: np.ndarray  # (n, timesteps, features), uint8 or float32
    y: np.ndarray  # (n,), int32 class indices


@dataclass(frozen=True)
class SequenceData:
    """A data set: three splits and their specification.

    `valid` chooses the model; `test` is read by evaluation only, once.
    """

    spec: SequenceSpec
    train: Split
    valid: Split
    test: Split


def hold_out(train: Split, examples: int) -> tuple[Split, Split]:
    """Cut the last `examples` off `train` as a fixed validation split.

    The last part, not a random one: the split is then the same for every seed, machine and
    library version. Raises `InputError` when that would leave nothing to train on.
    """
    left = len(train.y) - examples
    if examples < 1 or left < 1:
        raise InputError(
            "too few training examples to hold out a validation split",
            expected=f"more than {max(examples, 1)}",
            got=len(train.y),
            fix="Add examples, or give x_valid and y_valid.",
        )
    return Split(train.x[:left], train.y[:left]), Split(train.x[left:], train.y[left:])


def hold_out_tenth(train: Split) -> tuple[Split, Split]:
    """Cut the last tenth, at least 1 and at most 5,000 examples, off `train` for validation.

    Raises `InputError` when that would leave nothing to train on.
    """
    return hold_out(train, min(max(len(train.y) // 10, 1), MOST_VALID_EXAMPLES))


def raw_values(arrays: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The `x` arrays of all splits as `Split` holds them: uint8 if all are, else all float32.

    `arrays` maps a name for messages to an array of any shape, of whole numbers, bool or floats.
    Warns (`UserWarning`) when float32 cannot hold a value exactly, and says by how much it is
    rounded at most. Raises `InputError` for other dtypes, NaN, infinity, and values beyond
    float32.
    """
    for name, x in arrays.items():
        _check_values(x, name, source)
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


def _check_values(x: np.ndarray, name: str, source: str) -> None:
    if x.dtype.kind not in "buif":
        raise InputError(
            f"{source}: bad dtype of {name}", expected="whole numbers, bool or floats", got=x.dtype
        )
    bad = x.size - int(np.count_nonzero(np.isfinite(x))) if x.dtype.kind == "f" else 0
    if bad:
        raise InputError(
            f"{source}: NaN or infinity in {name}",
            expected="finite values",
            got=f"{bad:,} of {x.size:,} that are not",
            fix="Remove or fill these examples.",
        )


def _to_float32(x: np.ndarray, name: str, source: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # an overflow is an error of ours, with a better message
        converted = np.asarray(x, np.float32, order="C")
    bad = int(np.count_nonzero(np.isinf(converted)))
    if bad:
        raise InputError(
            f"{source}: values in {name} are too large for float32",
            expected=f"at most {np.finfo(np.float32).max:.2g}",
            got=f"{bad:,} beyond",
            fix="Rescale the values.",
        )
    return converted


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
