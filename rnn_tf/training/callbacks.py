"""Keras callbacks that are not for one way of training only."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras


def after_first_epoch(do: Callable[[], object]) -> keras.callbacks.Callback:
    """Calls `do` once, for work beside training.

    Python is idle while an epoch runs, but not in the first one, which it traces and compiles.
    """
    once = functools.cache(do)
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: once())
