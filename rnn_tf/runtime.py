"""Process set-up: what must be said to TensorFlow, some of it before it is first imported."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rnn_tf import programs
from rnn_tf.config import TrainConfig

if TYPE_CHECKING:
    import tensorflow as tf


def start(*, verbose: bool = False) -> None:
    """Import TensorFlow: quietly, its memory growing on demand, its compiled programs cached.

    What is set here holds for the process and only where the user has not set it already.
    `verbose` lets TensorFlow's own messages through.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "tensorflow" in sys.modules:
        return
    programs.reuse()
    if verbose:
        import tensorflow  # noqa: F401
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with silent_stderr():
            import tensorflow as tf

            # Devices are looked for on first use, and talked about then.
            tf.config.list_logical_devices()


def seed_everything(config: TrainConfig) -> None:
    """Seed Python, NumPy, Keras and TensorFlow; allow only repeatable operations if asked to."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


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
    """`MirroredStrategy` over all devices of the fastest kind, or None for a single one."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    single = len(devices) < 2 or config.optimizer == "soap"
    if config.strategy == "none" or (config.strategy == "auto" and single):
        return None
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Hold back what is written to stderr, native code included; show it if something fails."""
    sys.stderr.flush()
    keep = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(keep, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(keep, 2)
            os.close(keep)
