"""Normalization: from raw values, as a source has them, to what a model sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from rnn_tf.config import NormalizeChoice
from rnn_tf.errors import InputError

# Where the numbers of a normalization come from.
Origin = Literal["source", "none", "standard", "minmax"]

# Statistics are taken of so many values at a time, in float64.
BLOCK_VALUES = 2**22
FLOAT32_MAX = float(np.finfo(np.float32).max)
# A feature that varies by less than this share of its size is constant: float32 holds no more.
LEAST_VARIATION = 1e-6


@dataclass(frozen=True)
class Normalize:
    """A scale and a shift: model input = raw * scale + shift.

    Each is one number for all features, or one for each. Raises `InputError` for a scale that is
    not a positive number, a shift that is not finite, and numbers that float32 cannot hold.
    """

    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    origin: Origin = "source"

    def __post_init__(self) -> None:
        for name, expected in (("scale", "positive finite numbers"), ("shift", "finite numbers")):
            values = getattr(self, name)
            if not values or not all(map(_is_float32, values)):
                raise InputError(f"bad {name}", expected=expected, got=_shown(values))
        if min(self.scale) <= 0 or min(map(np.float32, self.scale)) == 0:
            raise InputError(
                "bad scale", expected="positive finite numbers", got=_shown(self.scale)
            )
        if self.origin not in get_args(Origin):
            raise InputError(
                "bad origin", expected=f"one of {', '.join(get_args(Origin))}", got=self.origin
            )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Raw `x` `(..., features)` of any number type as the model sees it: float32."""
        scale, shift = self.arrays()
        result: np.ndarray = x.astype(np.float32) * scale
        return result if shift is None else result + shift

    def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Scale and shift, float32, `()` or `(features,)`. No shift where it is zero."""
        scale, shift = (
            np.array(values if len(values) > 1 else values[0], np.float32)
            for values in (self.scale, self.shift)
        )
        return scale, shift if any(self.shift) else None

    def check_features(self, features: int) -> None:
        """Raise `InputError` unless this can normalize so many features."""
        for name in ("scale", "shift"):
            count = len(getattr(self, name))
            if count not in (1, features):
                raise InputError(
                    f"the {name} does not match the features",
                    expected=f"1 or {features} numbers", got=count,
                )  # fmt: skip

    def describe(self) -> str:
        """The formula in words, for a person: `raw * 0.00392157`, or that it is one a feature."""
        if max(len(self.scale), len(self.shift)) > 1:
            return f"raw * scale + shift, a pair for each feature ({self.origin})"
        shift = f" + {self.shift[0]:.6g}" if self.shift[0] else ""
        return f"raw * {self.scale[0]:.6g}{shift}"

    def to_dict(self) -> dict[str, Any]:
        return {"scale": list(self.scale), "shift": list(self.shift), "origin": self.origin}

    @classmethod
    def from_dict(cls, values: Any) -> Normalize:
        """What `to_dict` gave. Raises `InputError` for anything else."""
        if not isinstance(values, dict) or not {"scale", "shift"} <= set(values):
            raise InputError("bad normalization", expected="scale and shift", got=_shown(values))
        if more := sorted(set(values) - {"scale", "shift", "origin"}):
            raise InputError("unknown keys in the normalization", got=", ".join(map(str, more)))
        for name in ("scale", "shift"):
            if not isinstance(values[name], list):
                raise InputError(f"bad {name}", expected="a list", got=_shown(values[name]))
        return cls(tuple(values["scale"]), tuple(values["shift"]), values.get("origin", "source"))


def choose(
    choice: NormalizeChoice,
    said: Normalize | None,
    x: np.ndarray,
    lengths: np.ndarray | None = None,
) -> Normalize:
    """The normalization of a run.

    `auto` is what the source has `said`, and `standard` where it says nothing. `standard` (mean 0,
    deviation 1) and `minmax` (0 to 1) are learned, feature by feature, from raw `x`
    `(n, timesteps, features)`: the training split, and no other. It is gone through once, some
    examples at a time. `lengths`, `(n,)`, says how many steps of each count: all, unless some are
    padding.
    """
    if choice == "auto" and said is not None:
        return said
    if choice == "none":
        return Normalize(origin="none")
    return minmax(x, lengths) if choice == "minmax" else standard(x, lengths)


def standard(x: np.ndarray, lengths: np.ndarray | None = None) -> Normalize:
    """Mean 0 and standard deviation 1 for each feature; a constant feature becomes 0."""
    return _from(*_moments(x, lengths), "standard")


def deviation(normalize: Normalize, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """The standard deviation of each feature as the model sees it: float32 `(features,)`.

    `x` and `lengths` are as for `choose`.
    """
    _, raw = _moments(x, lengths)
    result: np.ndarray = (raw * np.asarray(normalize.scale)).astype(np.float32)
    return result


def _moments(x: np.ndarray, lengths: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float64 `(features,)`, in one pass.

    Each block has sums of squares around its own mean, since those of the values themselves would
    cancel; two parts are put together by the formula of Chan, Golub and LeVeque, "Updating formulae
    and a pairwise algorithm for computing sample variances" (1979).
    """
    count, mean, squares = 0, np.zeros(x.shape[2]), np.zeros(x.shape[2])
    for block in _blocks(x, lengths):
        more = len(block)
        own = block.mean(axis=0)
        apart = own - mean
        squares += np.square(block - own).sum(axis=0)
        squares += np.square(apart) * (count * more / (count + more))
        count += more
        mean += apart * (more / count)
    return mean, np.sqrt(squares / count)


def minmax(x: np.ndarray, lengths: np.ndarray | None = None) -> Normalize:
    """The lowest value of each feature becomes 0, the highest 1; a constant feature becomes 0."""
    ends = [(block.min(axis=0), block.max(axis=0)) for block in _blocks(x, lengths)]
    low, high = np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)
    return _from(low, high - low, "minmax")


def _from(zero: np.ndarray, span: np.ndarray, origin: Origin) -> Normalize:
    """`zero` becomes 0, and what is `span` above it 1. A feature without a span is constant."""
    size = np.abs(zero)
    constant = (span <= LEAST_VARIATION * size) | (span <= 1 / FLOAT32_MAX)
    # In units of itself: another value than the constant one does not become a huge input.
    span = np.where(constant, np.where(size > 1 / FLOAT32_MAX, size, 1.0), span)
    return Normalize(tuple((1 / span).tolist()), tuple((-zero / span).tolist()), origin)


def _blocks(x: np.ndarray, lengths: np.ndarray | None) -> Iterator[np.ndarray]:
    """The steps that count, some at a time: float64 `(steps, features)`."""
    examples = max(1, BLOCK_VALUES // (x.shape[1] * x.shape[2]))
    for start in range(0, len(x), examples):
        block = x[start : start + examples]
        if lengths is None:
            steps = block.reshape(-1, x.shape[2])
        else:
            steps = block[np.arange(x.shape[1]) < lengths[start:][:examples, np.newaxis]]
        yield steps.astype(np.float64)


def _is_float32(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= FLOAT32_MAX  # NaN is not


def _shown(value: object) -> str:
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return repr(value)[:80]
