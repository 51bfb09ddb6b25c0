"""Puts off importing parts of TensorFlow and Keras that take long and few commands use.

Only in a process that belongs to a command: modules and the names in them stay where they are, and
are loaded when they are first used.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

# Where TensorFlow lists the names that are public, each module one list. The names come from all
# of TensorFlow, the Keras of TensorFlow 1 and the debugger included: a quarter of its import.
LISTS = "tensorflow._api.v2."
# What in Keras imports scikit-learn and pyplot.
SELDOM_USED = tuple(
    f"{package}.{part}"
    for package in ("keras", "keras._tf_keras.keras", "keras.src")
    for part in ("wrappers", "visualization")
)

_NO_CODE = re.compile(r"#.*|import sys as _sys|")
_LISTED = re.compile(r"from (?P<module>\S+) import (?P<name>\w+)(?: as (?P<alias>\w+))?(?: *#.*)?")


def use_later() -> None:
    """From now on, load what is seldom used when it is first used: modules, and names in `LISTS`.

    TensorFlow and Keras import more of themselves as they are used.
    """
    sys.meta_path[:0] = (_LoadWhenUsed, _LookUpWhenUsed)


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


class _LoadWhenUsed(SourceFileLoader):
    """Loads a module when a name in it is first asked for. The class itself finds such modules.

    `importlib.util.LazyLoader` will not do: TensorFlow asks every module for its file.
    """

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if cls.is_for(name) else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = cls(name, spec.loader.path)
        return spec

    @staticmethod
    def is_for(name: str) -> bool:
        return name in SELDOM_USED

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Unused


class _Unused(ModuleType):
    """A module that has its name and place, and nothing else yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        SourceFileLoader.exec_module(cast(SourceFileLoader, self.__loader__), self)
        return getattr(self, name)


class _LookUpWhenUsed(_LoadWhenUsed):
    """Loads a module that lists names without what they name: each when it is first asked for."""

    @staticmethod
    def is_for(name: str) -> bool:
        return name.startswith(LISTS)

    def exec_module(self, module: ModuleType) -> None:
        listed = _listed(self.get_data(self.path).decode())
        if listed is None:
            SourceFileLoader.exec_module(self, module)
        else:
            module._listed = listed  # type: ignore[attr-defined]
            module.__class__ = _List
            # Python gives the name `tf.lite` to `tensorflow.lite` when that is first imported: now,
            # and so not later, when the public module has it.
            if module.__name__.removeprefix(LISTS) in _packages_of_tensorflow():
                importlib.import_module(_namesake(module.__name__))


@functools.cache
def _packages_of_tensorflow() -> frozenset[str]:
    """The packages right in that of TensorFlow, where it also finds its public modules later."""
    folder = Path(str(sys.modules["tensorflow"].__file__)).parent
    return frozenset(child.parent.name for child in folder.glob("*/__init__.py"))


def _namesake(public: str) -> str:
    """What a package of TensorFlow with the name of a public module is called, if there is one."""
    return f"tensorflow.{public.removeprefix(LISTS)}"


def _listed(source: str) -> dict[str, tuple[str, str]] | None:
    """The module and the name there for each name that a module imports; None if it does more."""
    found = {}
    for line in re.sub(r'^""".*?"""', "", source, flags=re.DOTALL | re.MULTILINE).splitlines():
        if match := _LISTED.fullmatch(line):
            found[match["alias"] or match["name"]] = (match["module"], match["name"])
        elif not _NO_CODE.fullmatch(line):
            return None
    return found


class _List(ModuleType):
    """A module of names that are imported from elsewhere when they are first asked for."""

    _listed: dict[str, tuple[str, str]]

    def __getattr__(self, name: str) -> Any:
        if name not in self._listed:
            # `import tensorflow.lite.python.lite as lite` asks `tf.lite`, and means its namesake.
            namesake = vars(sys.modules.get(_namesake(self.__name__), self))
            if name in namesake and not name.startswith("__"):
                return namesake[name]
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, listed = self._listed[name]
        with without_jax():
            if module == self.__name__:  # a package, which lists the modules in it
                value = importlib.import_module(f"{module}.{listed}")
            else:
                value = getattr(__import__(module, fromlist=[listed]), listed)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *self._listed})
