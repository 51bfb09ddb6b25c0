"""Process set-up: what must be said to TensorFlow, some of it before it is first imported."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from rnn_tf.config import TrainConfig
from rnn_tf.startup import compile_cache, xla_flags

# Parts of TensorFlow and Keras that take long to import, for what few programs use: the interface
# of TensorFlow 1, and what in Keras imports scikit-learn and pyplot.
SELDOM_USED = (
    "tensorflow._api.v2.compat.v1",
    "tensorflow._api.v2.compat.v2",
    *(
        f"{package}.{part}"
        for package in ("keras", "keras._tf_keras.keras", "keras.src")
        for part in ("wrappers", "visualization")
    ),
)


def start(config: TrainConfig | None = None, *, verbose: bool = False) -> None:
    """Import TensorFlow: quietly, its memory growing on demand, its compiled programs cached.

    What is set here holds for the process and only where the user has not set it already.
    `config` says what the process will train, if anything, so that XLA compiles it well.
    `verbose` lets TensorFlow's own messages through.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "tensorflow" in sys.modules:
        return
    if config is not None:
        xla_flags.suit(config)
    compile_cache.reuse()
    with contextlib.ExitStack() as meanwhile:
        meanwhile.enter_context(_nothing_collected())
        meanwhile.enter_context(_seldom_used_later())
        meanwhile.enter_context(_without_jax())
        if not verbose:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            meanwhile.enter_context(silent_stderr())
        import tensorflow as tf

        # Devices are looked for on first use, and talked about then.
        tf.config.list_logical_devices()


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Keep Python's collector from what is made here: a million objects that stay to the end.

    It would search them for garbage again and again: while they are made, during training, and
    when the process ends, which takes a second.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.freeze)
        if collecting:
            gc.enable()


@contextlib.contextmanager
def _seldom_used_later() -> Iterator[None]:
    """Have the modules in `SELDOM_USED` imported when something in them is first used."""
    sys.meta_path.insert(0, _WhenUsed)
    try:
        yield
    finally:
        sys.meta_path.remove(_WhenUsed)


@contextlib.contextmanager
def _without_jax() -> Iterator[None]:
    """Let TensorFlow and Keras find no JAX: they import it where they do, half a second's work.

    What for, nothing here uses: TensorFlow Lite's converter of it, and a name that old ones lack.
    """
    if "jax" in sys.modules:
        yield
        return
    sys.modules["jax"] = None  # type: ignore[assignment] # what Python knows as: cannot be imported
    try:
        yield
    finally:
        del sys.modules["jax"]


class _WhenUsed(Loader):
    """Loads a module when a name in it is first asked for. As a class, a finder of such modules.

    `importlib.util.LazyLoader` will not do: TensorFlow asks every module for its file.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in SELDOM_USED else None
        if spec is not None and spec.loader is not None:
            spec.loader = cls(spec.loader)
        return spec

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        module.__class__ = _Unused


class _Unused(ModuleType):
    """A module that has its name and place, and nothing else yet."""

    def __getattr__(self, name: str) -> Any:
        loader = self.__loader__
        if name.startswith("__") or not isinstance(loader, Loader):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        loader.exec_module(self)
        return getattr(self, name)


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
