"""Which features of a TensorFlow Datasets set a sequence classifier reads, and how.

All of it is decided from what TFDS knows before it downloads anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnn_tf.data.normalize import Normalize
from rnn_tf.errors import InputError

# Channels of a picture: grey levels, RGB, RGBA.
CHANNELS = (1, 3, 4)

# What pictures of varying size are resized to: (height, width).
DEFAULT_SIZE = (32, 32)

VARIES = "its sequences differ in length, which is not supported yet"
TEXT = "its input is text, which is not supported"
PAD = "Bring them to one length yourself, and save them as an .npz file."
EXPECTED = "a picture, or a numeric tensor of a fixed shape with 1 to 3 axes"


# How many features a message names.
MOST_NAMED = 5


@dataclass(frozen=True)
class Columns:
    """The features of a set that are read, and what they hold."""

    x: str  # name of the input feature
    y: str  # name of the class label feature
    by_step: bool  # whether that has a class for each step, and not one for all
    timesteps: int
    features: int
    dtype: np.dtype[Any]  # of x as TFDS decodes it
    normalize: Normalize | None  # what is known of it; None: nothing
    channels: int  # of an 8-bit picture, else 0
    size: tuple[int, int] | None  # (height, width) that pictures are resized to, if they are
    default_size: bool  # pictures differ in size, and the user has not said which they should have

    @property
    def example_bytes(self) -> int:
        """Bytes of one example in a `Split`."""
        return self.timesteps * self.features * (1 if self.dtype == np.uint8 else 4)


def choose(features: Any, supervised: Any, size: tuple[int, int] | None, source: str) -> Columns:
    """The input and the label of a set: what it says is supervised, else the only candidates.

    The first axis of the input is time; the others become the features of a time step. A picture
    is read row by row, resized to `size`, the user's own `(height, width)`; without one, to
    `DEFAULT_SIZE` where pictures differ in size.

    `features` and `supervised` are TFDS's `info.features` and `info.supervised_keys`. Raises
    `InputError` when there is no class label, or the input cannot be read.
    """
    import tensorflow_datasets as tfds

    if not isinstance(features, tfds.features.FeaturesDict):
        raise InputError(
            f"{source} has no class label", expected="one ClassLabel", got=_described(features)
        )
    x, y = supervised[:2] if supervised else (None, None)
    y = _label(features, y, source)
    x = _input({key: value for key, value in features.items() if key != y}, x, source)
    columns = _columns(features[x], x, y, size, source)
    if not _is_of_steps(features[y]):
        return columns
    if features[y].shape != (columns.timesteps,):
        raise InputError(
            f"{source} has classes that do not match its steps",
            expected=f"one, or {columns.timesteps}, one a step of {x}", got=_named(features)[y],
        )  # fmt: skip
    return dataclasses.replace(columns, by_step=True)


def class_label(feature: Any) -> Any:
    """The `ClassLabel` of a label feature, of the sequence or of each of its steps."""
    return feature.feature if _is_of_steps(feature) else feature


def _is_of_steps(feature: Any) -> bool:
    """Whether a feature is a sequence of so many classes; of any number, they are tags of it."""
    import tensorflow_datasets as tfds

    if not isinstance(feature, tfds.features.Sequence):
        return False
    return isinstance(feature.feature, tfds.features.ClassLabel) and None not in feature.shape


def _label(features: Mapping[str, Any], target: Any, source: str) -> str:
    """The name of the class label; `target` is what the set says is to be predicted, or None."""
    import tensorflow_datasets as tfds

    labels = [key for key, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
    of_steps = [key for key, value in features.items() if _is_of_steps(value)]
    if not labels or target in of_steps:
        labels = of_steps
    if target is None and not labels:
        raise InputError(
            f"{source} has no class label",
            expected="one ClassLabel",
            got=_some(features),
        )
    if target is None:
        # Beside one that is called so, others are mere attributes.
        target = "label" if "label" in labels else labels[0] if len(labels) == 1 else None
    if target is None:
        raise InputError(
            f"{source} does not say which class is meant",
            expected="one ClassLabel",
            got=", ".join(labels),
        )
    if target not in labels:
        raise InputError(
            f"{source} is not for classification",
            expected="a ClassLabel as its target",
            got=_named(features).get(str(target), target),
        )
    classes = class_label(features[target]).num_classes  # None: known once the set is prepared
    if classes is not None and classes < 2:
        raise InputError(f"{source} has too few classes", expected="2 or more", got=classes)
    return str(target)


def _input(features: Mapping[str, Any], supervised: Any, source: str) -> str:
    """The name of the input. Raises `InputError` when it is unclear, or cannot be read."""
    import tensorflow_datasets as tfds

    images = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
    texts = [key for key, value in features.items() if isinstance(value, tfds.features.Text)]
    arrays = [key for key, value in features.items() if value.shape != ()]
    candidates = [supervised] if isinstance(supervised, str) and supervised in features else []
    for only in (images, arrays):
        candidates += only if len(only) == 1 else []
    if not arrays:
        candidates += texts[:1]
    if not candidates:
        raise InputError(
            f"{source} has {'several inputs' if arrays else 'no usable input'}",
            expected=EXPECTED,
            got=_some(features),
        )
    reasons = {key: _why_not(features[key]) for key in candidates}
    usable = [key for key, reason in reasons.items() if reason is None]
    if not usable:
        x = candidates[0]
        raise InputError(
            f"{source} cannot be read: {reasons[x]}",
            expected=EXPECTED,
            got=_named(features)[x],
            fix=PAD if reasons[x] == VARIES else None,
        )
    return usable[0]


def _why_not(feature: Any) -> str | None:
    """Why a feature cannot be the input, or None when it can."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    shape, dtype = feature.shape, feature.np_dtype
    if any(np.dtype(part).kind not in "buif" for part in tf.nest.flatten(dtype)):
        return TEXT
    if isinstance(shape, dict) or isinstance(dtype, dict):
        is_sequence = isinstance(feature, tfds.features.Sequence)
        return VARIES if is_sequence else "its input has several parts"
    if isinstance(feature, tfds.features.Image):
        resizable = np.dtype(dtype) == np.uint8 and shape[-1] in CHANNELS
        return None if resizable or None not in shape else "its pictures cannot be resized"
    if not 1 <= len(shape) <= 3 or 0 in shape:
        return f"its input has the shape {shape}"
    return VARIES if None in shape else None


def _columns(feature: Any, x: str, y: str, size: tuple[int, int] | None, source: str) -> Columns:
    import tensorflow_datasets as tfds

    shape, dtype = feature.shape, np.dtype(feature.np_dtype)
    image = isinstance(feature, tfds.features.Image)
    resizable = image and dtype == np.uint8 and shape[-1] in CHANNELS
    if size is not None and not resizable:
        raise InputError(
            f"{source} cannot be resized",
            expected="8-bit pictures",
            got=f"{x} ({_described(feature)}, {dtype})",
            fix="Leave the size out of its name.",
        )
    default_size = size is None and None in shape
    if default_size:
        size = DEFAULT_SIZE
    if size is not None:
        shape = (*size, shape[-1])
    timesteps, *rest = shape
    return Columns(
        x=x,
        y=y,
        by_step=False,
        timesteps=timesteps,
        features=math.prod(rest),
        dtype=dtype,
        # Levels go from 0 to the largest that the type holds.
        normalize=Normalize((1 / np.iinfo(dtype).max,)) if image and dtype.kind == "u" else None,
        channels=shape[-1] if resizable else 0,
        size=size,
        default_size=default_size,
    )


def _named(features: Mapping[str, Any]) -> dict[str, str]:
    """What each feature is, by its name, for a message."""
    return {key: f"{key} ({_described(feature)})" for key, feature in features.items()}


def _some(features: Mapping[str, Any]) -> str:
    named = list(_named(features).values())
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return ", ".join(named[:MOST_NAMED]) + more


def _described(feature: Any) -> str:
    shape = "" if isinstance(feature.shape, dict) else f" {feature.shape}"
    return f"{type(feature).__name__}{shape}"
