"""The one place that starts TensorFlow, and Keras on it.

In a process of a command with every shortcut of this package; in someone's program, so that the
process is afterwards as it was, but for what TensorFlow and Keras do themselves.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

from rnn_tf.errors import InputError
from rnn_tf.startup import compile_cache, garbage, lazy_imports, ownership, stderr, xla_flags

BACKEND = "KERAS_BACKEND"
# What a user may have changed in keras.json and everything here is made for: name, value.
KERAS_SETTINGS: dict[str, str | float] = {"floatx": "float32", "epsilon": 1e-7}
# What is set for TensorFlow while it starts.
VARIABLES = (
    BACKEND, "TF_FORCE_GPU_ALLOW_GROWTH", "TF_CPP_MIN_LOG_LEVEL", xla_flags.VARIABLE,
    compile_cache.VARIABLE,
)  # fmt: skip

_starting = threading.RLock()
_computes = False  # whether a start here has looked for devices


def start(
    *,
    whole_loops: bool | None = None,
    verbose: bool = False,
    join: Callable[[], None] | None = None,
    devices: bool = True,
) -> None:
    """Import TensorFlow and Keras, quietly in a command, and settle how XLA compiles.

    `whole_loops` says whether the training that follows wants XLA to compile loops whole (see
    `forms.whole_loops`); None that nothing is trained. Only the first training of a process
    settles it: XLA reads its flags once. `verbose` lets TensorFlow's own messages through. `join`
    makes TensorFlow one of several workers, which it can become only before it has any device.
    Without `devices`, those are looked for by the next start: until then TensorFlow has no threads,
    and the process can be copied.

    Raises `InputError` when Keras already runs on another backend here, or in another precision.
    """
    with _starting, contextlib.ExitStack() as meanwhile:
        first = "tensorflow" not in sys.modules
        if not ownership.is_command():
            meanwhile.enter_context(_environment_put_back())
        if "keras" not in sys.modules:
            _choose_backend()
        if not ownership.is_plain():
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
            if not verbose:
                os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            if whole_loops is not None and not xla_flags.are_settled():
                xla_flags.offer(whole_loops)
                compile_cache.enable()
        if first and ownership.is_command() and not ownership.is_plain():
            meanwhile.enter_context(_shortcuts())
            if not verbose:
                meanwhile.enter_context(stderr.muted())
        _import_tensorflow_and_keras(join, devices=devices)
        if whole_loops is not None and not xla_flags.are_settled():
            # In a process of its own, a command knows that nobody has compiled anything before.
            xla_flags.settle(unread=first and ownership.is_command())


def computes() -> bool:
    """Whether TensorFlow was started here with its devices, and so has threads."""
    return _computes


@contextlib.contextmanager
def _environment_put_back() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _shortcuts() -> Iterator[None]:
    """Import only what commands use, and look for no garbage meanwhile."""
    lazy_imports.use_later()
    with garbage.nothing_collected(), lazy_imports.without_jax():
        yield


def _choose_backend() -> None:
    """Have Keras run on TensorFlow. Says so when the user's environment has it otherwise."""
    wanted = os.environ.get(BACKEND) or "tensorflow"
    if wanted != "tensorflow":
        warnings.warn(
            f"{BACKEND}={wanted} is not followed: rnn_tf runs Keras on TensorFlow", stacklevel=3
        )
    os.environ[BACKEND] = "tensorflow"


def _import_tensorflow_and_keras(join: Callable[[], None] | None, *, devices: bool) -> None:
    try:
        import keras
        import tensorflow as tf
    except ValueError as error:
        if "configuration" not in str(error):
            raise
        # How Keras refuses a value in its keras.json.
        raise InputError(
            "cannot import Keras", got=str(error), fix="Correct or delete ~/.keras/keras.json."
        ) from error
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise InputError(
            "Keras already runs on another backend in this process",
            expected="tensorflow", got=backend,
            fix=f"Restart Python, and set the environment variable {BACKEND}=tensorflow before "
            "Keras is imported.",
        )  # fmt: skip
    for name, value in KERAS_SETTINGS.items():
        _require_setting(name, value)
    if join is not None:
        join()
    if devices:  # they are looked for on first use, and talked about then
        global _computes
        tf.config.list_logical_devices()
        _computes = True


def _require_setting(name: str, value: str | float) -> None:
    """Give a Keras setting its usual value in a command; elsewhere refuse another one."""
    import keras

    got = getattr(keras.config, name)()
    if got == value:
        return
    if not ownership.is_command():
        raise InputError(
            f"Keras has another {name} in this process", expected=str(value), got=got,
            fix=f"Call keras.config.set_{name}({value!r}) first.",
        )  # fmt: skip
    warnings.warn(f"{name} {got} of keras.json is not followed: rnn_tf uses {value}", stacklevel=3)
    getattr(keras.config, f"set_{name}")(value)
