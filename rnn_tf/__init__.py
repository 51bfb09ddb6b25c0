"""Small recurrent classifiers: trained fast, and ready to ship.

    from rnn_tf import TrainConfig, train
    run = train(TrainConfig(epochs=2))

Importing the package imports neither TensorFlow nor Keras; the first use of a name that needs
them does.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnn_tf.config import TrainConfig as TrainConfig
    from rnn_tf.data import load as load
    from rnn_tf.estimator import SequenceClassifier as SequenceClassifier
    from rnn_tf.model.classifier import build_model as build_model
    from rnn_tf.run import Run as Run
    from rnn_tf.train import train as train

__version__ = "0.1.0"

_HOMES = {
    "TrainConfig": "rnn_tf.config",
    "load": "rnn_tf.data",
    "build_model": "rnn_tf.model.classifier",
    "Run": "rnn_tf.run",
    "SequenceClassifier": "rnn_tf.estimator",
}

__all__ = ["Run", "SequenceClassifier", "TrainConfig", "build_model", "load", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rnn_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """Keeps `rnn_tf.train` the function, though there is a module of that name."""

    @property
    def train(self) -> Callable[..., Any]:
        return importlib.import_module("rnn_tf.train").train  # type: ignore[no-any-return]

    @train.setter
    def train(self, module: ModuleType) -> None:
        """Importing the submodule assigns it to the package, which would hide the function."""


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
