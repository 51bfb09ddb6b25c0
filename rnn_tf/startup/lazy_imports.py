"""Puts off importing parts of TensorFlow and Keras that take long and few commands use.

Only while TensorFlow is being imported, and only in a process that belongs to a command: the
modules keep their names and places, and are loaded when something in them is first used.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# The interfaces of TensorFlow 1, and what in Keras imports scikit-learn and pyplot.
SELDOM_USED = (
    "tensorflow._api.v2.compat.v1",
    "tensorflow._api.v2.compat.v2",
    *(
        f"{package}.{part}"
        for package in ("keras", "keras._tf_keras.keras", "keras.src")
        for part in ("wrappers", "visualization")
    ),
)


@contextlib.contextmanager
def seldom_used_later() -> Iterator[None]:
    """Load the modules in `SELDOM_USED` when something in them is first used."""
    sys.meta_path.insert(0, _LoadWhenUsed)
    try:
        yield
    finally:
        sys.meta_path.remove(_LoadWhenUsed)


@contextlib.contextmanager
def without_jax() -> Iterator[None]:
    """Hide JAX from TensorFlow and Keras, which import it where they find it: half a second.

    They use it for things that nothing here does: TensorFlow Lite's converter of JAX models, and
    the name of a type that old versions of JAX lack.
    """
    if "jax" in sys.modules:
        yield
        return
    sys.modules["jax"] = None  # type: ignore[assignment] # Python's mark for "cannot be imported"
    try:
        yield
    finally:
        del sys.modules["jax"]


class _LoadWhenUsed(Loader):
    """Loads a module when a name in it is first asked for. The class itself finds such modules.

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
