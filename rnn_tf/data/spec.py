"""What a set of labelled sequences is: its arrays, and the specification that travels with them."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rnn_tf.errors import InputError


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
