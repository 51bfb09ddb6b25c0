"""What a training in TensorFlow runs on: its random numbers, its precision, its devices."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from rnn_tf.config import TrainConfig
from rnn_tf.startup import forms

if TYPE_CHECKING:
    import tensorflow as tf


def seed_everything(config: TrainConfig) -> None:
    """Seed Python, NumPy, Keras and TensorFlow; allow only repeatable operations if asked to."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def random_numbers_put_back() -> Iterator[None]:
    """Let Python and NumPy go on with the random numbers of whoever called.

    Otherwise a program that draws some between two trainings would draw the same ones each time.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def choose_precision(precision: str) -> str:
    """The Keras dtype policy for `--precision`: `auto` becomes what suits the hardware.

    `mixed_float16` where a GPU has tensor cores (compute capability 7.0 or later, see NVIDIA's
    "Train With Mixed Precision"), else `float32`.
    """
    if precision != "auto":
        return precision
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    capable = [d.get("compute_capability", (0, 0)) >= (7, 0) for d in details]
    return "mixed_float16" if capable and all(capable) else "float32"


def choose_strategy(config: TrainConfig) -> tf.distribute.Strategy | None:
    """What `--strategy` stands for on this machine; None for a single device.

    `auto` uses several GPUs only where a layer is large: the steps of a small one take less time
    than adding up its gradients does.
    """
    import tensorflow as tf

    if config.strategy == "multi_worker":
        from rnn_tf.training.keras import workers

        return workers.joined().strategy
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    single = len(devices) < 2 or forms.is_small(config)
    if config.strategy == "none" or (config.strategy == "auto" and single):
        return None
    return _mirrored(tuple(device.name for device in devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """One for all trainings of a process.

    TensorFlow numbers the sums of a strategy from the same start, and takes those of another one
    for the same: a second training would be asked for the shapes of the first.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(devices))
