"""What the training data look like, kept in a small file beside the model that learned from them.

`predict` reads it to bring pictures into the form of the training pictures, to warn of values in
another unit, and to say how unusual an example is. A model without it still predicts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rnn_tf.data.drawing import Style, find_style
from rnn_tf.data.novelty import MOST_EXAMPLES, Novelty, measure_novelty, sample
from rnn_tf.data.spec import SequenceData, SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import read_arrays, readable
from rnn_tf.files.writing import writing

# What the file says about its layout. Raised when it changes.
FORMAT = 1

# Pictures of which the style is found.
STYLE_EXAMPLES = 256
# Values this many times the training range beyond it, or examples with less than this share of the
# range that the flattest ones of training have, are in another unit.
FAR_BEYOND, FAR_WITHIN = 0.5, 0.5


@dataclass(frozen=True)
class ValueRange:
    """Between which values the training data lie: one row for all features, or one for each."""

    low: np.ndarray  # (1,) or (features,) float32, raw
    high: np.ndarray
    flattest: np.ndarray  # (1,) or (features,) float32: range within almost the flattest example

    def warning(self, low: np.ndarray, high: np.ndarray) -> str | None:
        """What is strange about values from `low` to `high`, both `(features,)`, if anything."""
        if len(self.low) == 1:
            low, high = low.min(keepdims=True), high.max(keepdims=True)
        extent = self.high - self.low
        beyond = np.maximum(self.low - low, high - self.high) - FAR_BEYOND * extent
        within = FAR_WITHIN * self.flattest - (high - low)
        strange = np.maximum(beyond, within)
        worst = int(np.argmax(strange / np.maximum(extent, np.finfo(np.float32).tiny)))
        if strange[worst] <= 0:
            return None
        of = "values" if len(self.low) == 1 else f"values of feature {worst}"
        return (
            f"{of} from {low[worst]:.6g} to {high[worst]:.6g}, in the training data from "
            f"{self.low[worst]:.6g} to {self.high[worst]:.6g}: give them in the same unit"
        )


@dataclass(frozen=True)
class DataProfile:
    """What the training data look like."""

    values: ValueRange
    novelty: Novelty
    style: Style | None  # None: not pictures of something drawn

    def save(self, path: Path) -> None:
        parts = {"values": self.values, "novelty": self.novelty, "style": self.style}
        arrays = {
            f"{name}.{key}": np.asarray(value)
            for name, part in parts.items()
            if part is not None
            for key, value in vars(part).items()
        }
        with writing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, format=np.array(FORMAT), **arrays)  # type: ignore[arg-type]

    @classmethod
    def open(cls, path: Path, spec: SequenceSpec) -> DataProfile | None:
        """The profile in `path`; None when there is no such file.

        Raises `InputError` when it is damaged, from a newer version, or of other data than `spec`.
        """
        if not path.exists():
            return None
        arrays = read_arrays(path)
        with readable(f"cannot read {path}"):
            if int(arrays["format"]) > FORMAT:
                raise InputError(
                    f"made by a newer version: {path}", expected=f"format {FORMAT} or older",
                    got=int(arrays["format"]), fix="Upgrade this package.",
                )  # fmt: skip
            style = None
            if "style.paper" in arrays:
                style = Style(**{name: float(arrays[f"style.{name}"]) for name in _names(Style)})
            profile = cls(
                ValueRange(**{name: arrays[f"values.{name}"] for name in _names(ValueRange)}),
                Novelty(**{name: arrays[f"novelty.{name}"] for name in _names(Novelty)}),
                style,
            )
            # Asked once, so that what does not fit is found now and by its name.
            example = np.zeros((1, spec.longest, spec.features), np.float32)
            profile.novelty.unusual(example)
            profile.values.warning(example[0].min(0), example[0].max(0))
        return profile


def measure(data: SequenceData) -> DataProfile:
    """The profile of a data set: learned on its training split, calibrated on validation."""
    pictures = bool(data.spec.channels)
    style = None
    if data.spec.channels == 1:
        style = find_style(sample(data.train, STYLE_EXAMPLES))
    return DataProfile(
        _value_range(sample(data.train, MOST_EXAMPLES), one_unit=pictures),
        measure_novelty(data.train, data.valid, one_unit=pictures),
        style,
    )


def _value_range(x: np.ndarray, *, one_unit: bool) -> ValueRange:
    low, high = (edge.astype(np.float32) for edge in (x.min(axis=1), x.max(axis=1)))  # (n, F)
    if one_unit:
        low, high = low.min(axis=1, keepdims=True), high.max(axis=1, keepdims=True)
    flattest = np.quantile(high - low, 0.01, axis=0).astype(np.float32)
    return ValueRange(low.min(axis=0), high.max(axis=0), flattest)


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
