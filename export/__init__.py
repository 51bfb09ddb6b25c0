"""From a trained run to a bundle that ships: SavedModel, TFLite and ONNX, proven equal.

    python -m export RUN                 make the bundle
    python -m export.verify RUN          is every format the same function?
    python -m export.benchmark RUN       how fast and how large is each?

And from a bundle to answers while a sequence is still coming:

    from export import open_stream
    stream = open_stream("runs/gestures/bundle", "onnx")
    probabilities = stream.push(frames)  # (steps, features) -> (steps, classes)

Importing this package imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.stream import State as State
    from export.stream import Stream as Stream
    from export.stream import open_stream as open_stream

__all__ = ["State", "Stream", "open_stream"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'export' has no attribute {name!r}")
    return getattr(importlib.import_module("export.stream"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
