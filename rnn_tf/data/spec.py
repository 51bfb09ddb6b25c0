"""What a set of labelled sequences is: its arrays, and the specification that travels with them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rnn_tf.config import NormalizeChoice
from rnn_tf.data.normalize import Normalize, choose
from rnn_tf.errors import InputError

# Of a written specification. Raised when what is in one changes.
VERSION = 2
# What the model sees where nobody has said anything: raw values.
AS_IT_IS = Normalize(origin="none")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class SequenceSpec:
    """The shape and meaning of one example. Nothing downstream guesses any of it.

    It is written with a version, and read from any version up to this one. Raises `InputError` when
    a size is below its minimum, there are fewer than two labels or two alike, or the normalization
    is for another number of features.
    """

    # Length of every sequence (MNIST: 28 rows), >= 1; None where lengths vary, up to `longest`.
    timesteps: int | None
    features: int  # numbers per time step (MNIST: 28 columns), >= 1
    labels: tuple[str, ...]  # the name of each class, in the order of the class indices
    # From raw values to what the model sees (MNIST: 1/255). None: the source does not say, and the
    # model sees raw values unless training chooses otherwise.
    normalize: Normalize | None = None
    channels: int = 0  # colour channels when a sequence is the rows of a picture; 0: it is not one
    # Length of the longest sequence that the model reads, >= 1. Said only where lengths vary;
    # otherwise it is `timesteps`, whatever is given.
    longest: int = 0
    feature_names: tuple[str, ...] = ()  # the name of each feature; none where the source has none

    def __post_init__(self) -> None:
        if self.timesteps is not None:
            object.__setattr__(self, "longest", self.timesteps)
        names = ("longest" if self.timesteps is None else "timesteps", "features")
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"bad {name}", expected="a whole number >= 1", got=repr(value))
        if len(self.labels) < 2:
            raise InputError("too few labels", expected="at least 2", got=len(self.labels))
        if len(set(self.labels)) < len(self.labels):
            twice = next(label for label in self.labels if self.labels.count(label) > 1)
            raise InputError("two classes have the same label", got=repr(twice))
        if self.channels not in (0, 1, 3, 4) or self.features % (self.channels or 1):
            raise InputError(
                "bad channels", expected="0, 1, 3 or 4, a divisor of features", got=self.channels
            )
        if self.varies and self.channels:
            raise InputError("the rows of a picture are always as many", got="lengths that vary")
        if len(self.feature_names) not in (0, self.features):
            raise InputError(
                "the names of the features do not match them",
                expected=f"{self.features} names, or none", got=len(self.feature_names),
            )  # fmt: skip
        self.normalization.check_features(self.features)

    @property
    def varies(self) -> bool:
        """Whether sequences have different lengths."""
        return self.timesteps is None

    @property
    def classes(self) -> int:
        """How many classes there are, at least 2."""
        return len(self.labels)

    @property
    def normalization(self) -> Normalize:
        """From raw values to what the model sees: `normalize`, or nothing at all."""
        return self.normalize or AS_IT_IS

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "version": VERSION,
            "timesteps": self.timesteps,
            "longest": self.longest,
            "features": self.features,
            "labels": list(self.labels),
            "normalize": self.normalize and self.normalize.to_dict(),
            "channels": self.channels,
            "feature_names": list(self.feature_names),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> SequenceSpec:
        """The specification that `to_json` wrote. Raises `InputError` for anything else."""
        try:
            values: Any = json.loads(text)
        except (ValueError, RecursionError) as error:  # not JSON, numbers too long, lists too deep
            raise InputError("the specification is not JSON", got=str(error)) from error
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Any) -> SequenceSpec:
        """The specification that `to_dict`, of this or an older version, has given.

        Raises `InputError` for a newer version, and for anything else.
        """
        if not isinstance(values, dict):
            raise InputError("bad specification", expected="an object", got=type(values).__name__)
        values = _as_version_2(dict(values))
        known = {"version", *(field.name for field in dataclasses.fields(cls))}
        if set(values) != known:
            raise InputError(
                "the specification has other keys", expected=str(sorted(known)),
                got=sorted(map(str, values)),
            )  # fmt: skip
        del values["version"]
        for name in ("labels", "feature_names"):
            if not isinstance(values[name], list):
                raise InputError(
                    f"bad {name} in the specification", expected="a list", got=repr(values[name])
                )
            values[name] = tuple(map(str, values[name]))
        if values["normalize"] is not None:
            values["normalize"] = Normalize.from_dict(values["normalize"])
        spec = cls(**values)
        if spec.longest != values["longest"]:
            raise InputError(
                "bad longest", expected=f"{spec.longest}, the length of every sequence",
                got=values["longest"],
            )  # fmt: skip
        return spec


def _as_version_2(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a specification of any version as version 2 has them."""
    version = values.get("version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise InputError(
            "the specification was written by a newer version of this package",
            expected=f"version {VERSION} or older",
            got=repr(version),
            fix="Upgrade: pip install --upgrade rnn-tf.",
        )
    if version == 1 and "scale" in values:  # one number for all features, and the classes counted
        classes, labels = values.pop("classes", None), values.get("labels")
        if isinstance(labels, list) and classes != len(labels):
            raise InputError(
                "the labels do not match the classes",
                expected=f"{classes} labels", got=len(labels),
            )  # fmt: skip
        values["normalize"] = {"scale": [values.pop("scale")], "shift": [0.0]}
        values["longest"], values["feature_names"] = values.get("timesteps"), []
        values["version"] = VERSION
    return values


class Split(NamedTuple):
    """Examples of one split, as the source has them: raw values, not scaled."""

    x: np.ndarray  # (n, longest, features), uint8 or float32; shorter sequences are right-padded
    y: np.ndarray  # (n,), int32 class indices
    lengths: np.ndarray | None = None  # (n,), int32, 1 to longest; None where all are as long
    # (n,), whole numbers or text: who or what an example comes from; None where nobody says.
    groups: np.ndarray | None = None

    def take(self, rows: Any) -> Split:
        """The examples at `rows`: indices, a mask or a slice."""
        lengths, groups = (None if each is None else each[rows] for each in self[2:])
        return Split(self.x[rows], self.y[rows], lengths, groups)

    @property
    def valid(self) -> np.ndarray | None:
        """Which steps belong to a sequence, and are no padding: bool `(n, longest)`; None: all."""
        if self.lengths is None:
            return None
        return valid_steps(self.lengths, self.x.shape[1])


def valid_steps(lengths: np.ndarray, longest: int) -> np.ndarray:
    """Which steps of right-padded sequences belong to them: bool `(n, longest)`."""
    steps: np.ndarray = np.arange(longest) < lengths[:, np.newaxis]
    return steps


@dataclass(frozen=True)
class SequenceData:
    """A data set: three splits and their specification.

    `valid` chooses the model; `test` is read by evaluation only, once. Where lengths vary, what is
    given as padding never matters: it is 0 here. Raises `InputError` for lengths that do not fit.
    """

    spec: SequenceSpec
    train: Split
    valid: Split
    test: Split
    # How the source was read, where nobody had said it: a line each.
    notes: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for name in SPLITS:
            object.__setattr__(self, name, checked(getattr(self, name), name, self.spec))

    def normalized(self, by: NormalizeChoice | Normalize | None) -> SequenceData:
        """The same raw values with the normalization of a run: given, or chosen by name.

        What is learned for it is learned on the training split.
        """
        if isinstance(by, str):
            by = choose(by, self.spec.normalize, self.train.x, self.train.valid)
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, normalize=by))


def checked(split: Split, name: str, spec: SequenceSpec) -> Split:
    """The split with zeros as padding. Raises `InputError` for lengths that do not fit.

    `name` is what the error calls it.
    """
    lengths = split.lengths
    if (lengths is not None) != spec.varies:
        raise InputError(
            f"bad lengths of {name}",
            expected="the length of each sequence" if spec.varies else "none: all are as long",
            got="none" if lengths is None else f"shape {lengths.shape}",
        )
    if lengths is None:
        return split
    if lengths.shape != (len(split.x),) or lengths.dtype.kind not in "iu":
        raise InputError(
            f"bad lengths of {name}",
            expected=f"one whole number for each of {len(split.x):,} sequences",
            got=f"{lengths.dtype} of shape {lengths.shape}",
        )
    wrong = np.flatnonzero((lengths < 1) | (lengths > spec.longest))
    if wrong.size:
        raise InputError(
            f"bad lengths of {name}", expected=f"1 to {spec.longest}",
            got=f"{lengths[wrong[0]]} for example {wrong[0]}",
        )  # fmt: skip
    split = split._replace(lengths=lengths.astype(np.int32))
    padding = ~np.asarray(split.valid)
    if split.x[padding].any():  # NaN is
        x = split.x.copy()
        x[padding] = 0
        split = split._replace(x=x)
    return split
