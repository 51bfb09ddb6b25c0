"""What a format is: one entry of the registry, its writer, and what runs it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from export.network import INPUT, LENGTHS, Network
from export.signatures import classify
from rnn_tf.data.spec import SequenceSpec, valid_steps
from rnn_tf.errors import CheckFailed, InputError

# ONNX's default operator set, and the ends of the range that can be chosen. The default is low, so
# that runtimes of 2024 load it (docs/engines.md). From 22 on, activations have new versions that
# those do not know; below 16, operators are missing.
OPSET, OLDEST_OPSET, NEWEST_OPSET = 17, 16, 21

# What to do about a bundle that is damaged.
AGAIN = "Make it again with: rnn-tf export RUN."


class Runtime(Protocol):
    """Something that runs one format."""

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """The probabilities `(batch, classes)` of raw `x` `(batch, timesteps, features)`.

        Any number type that float32 holds; the batch may change from call to call. A model whose
        sequences vary in length takes their `lengths` `(batch,)`, whole numbers, and does not care
        what stands after them. Raises `InputError` for another shape or type, for lengths that are
        missing or do not fit, and for values that are not finite.
        """


class FileRuntime(Runtime, Protocol):
    """A runtime of a file that says what it is."""

    def metadata(self) -> Mapping[str, str]:
        """What `file_metadata` gave when the file was written, or whatever else it says."""


@dataclass(frozen=True)
class Options:
    """What a writer may need beside the network."""

    calibration: np.ndarray  # raw training examples (n, timesteps, features)
    lengths: np.ndarray | None = None  # of these examples, (n,) where they vary
    opset: int = OPSET


# Writes a network to a path; gives what the manifest says about it.
Writer = Callable[[Network, Path, Options], dict[str, Any]]
# Opens a file; with as many threads as are said, or as the library does by itself.
Opener = Callable[[Path, SequenceSpec, int | None], FileRuntime]


@dataclass(frozen=True)
class Format:
    """One entry of the registry. Nothing heavy is imported before it is used."""

    name: str
    file: str  # where it lies in a bundle: a file or a folder
    about: str  # for the table of the bundle's README
    packages: tuple[str, ...]  # whose versions decide what is in the file
    write: Writer
    open: Opener
    readme: Callable[[dict[str, Any]], list[str]]  # its sections, from a manifest
    quantized: bool = False  # held to the accuracy, not to rounding
    extra: str | None = None  # of this package, that installs what it needs


def about(spec: SequenceSpec, signatures: list[dict[str, Any]]) -> dict[str, Any]:
    """What every file says of itself, as plain values."""
    return {"labels": list(spec.labels), "spec": spec.to_dict(), "signatures": signatures}


def file_metadata(network: Network) -> dict[str, str]:
    """The same as a file holds it, each a JSON text."""
    values = about(network.spec, [classify(network.spec).to_dict()])
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def as_inputs(
    x: npt.ArrayLike, lengths: npt.ArrayLike | None, spec: SequenceSpec
) -> dict[str, np.ndarray]:
    """What a file is given, by name: float32 `(batch, timesteps, features)`, int32 `(batch,)`.

    The second only where lengths vary. Nothing is copied that is of this type already.
    """
    x = _as_float32(x, spec)
    inputs = {INPUT: x}
    if lengths is not None or spec.varies:
        inputs[LENGTHS] = _as_lengths(lengths, len(x), spec)
    # The sum of squares is finite unless something is not, or is beyond 1e19: a microsecond for
    # what looking at every value takes three.
    if not math.isfinite(np.vdot(x, x)):
        steps = x[valid_steps(inputs[LENGTHS], spec.longest)] if spec.varies else x
        if not np.isfinite(steps).all():
            raise InputError("the input is not finite", got="NaN or infinity")
    return inputs


def _as_float32(x: npt.ArrayLike, spec: SequenceSpec) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 3 or x.shape[1:] != (spec.longest, spec.features) or not len(x):
        raise InputError(
            "the input does not fit the model",
            expected=f"shape (batch, {spec.longest}, {spec.features})",
            got=x.shape,
        )
    if x.dtype.kind not in "buif":
        raise InputError("the input is not numbers", expected="float32", got=x.dtype)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, np.float32)


def _as_lengths(lengths: npt.ArrayLike | None, batch: int, spec: SequenceSpec) -> np.ndarray:
    if not spec.varies:
        raise InputError(
            "the model takes no lengths",
            expected=f"none: every sequence has {spec.longest} steps",
            got=np.shape(lengths),  # type: ignore[arg-type]
        )
    if lengths is None:
        raise InputError(
            "the model needs lengths", expected=f"the length of each of {batch:,} sequences",
            got="none",
        )  # fmt: skip
    lengths = np.asarray(lengths)
    if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
        raise InputError(
            "the lengths do not fit the input",
            expected=f"whole numbers of shape ({batch},)",
            got=f"{lengths.dtype} of shape {lengths.shape}",
        )
    wrong = np.flatnonzero((lengths < 1) | (lengths > spec.longest))
    if wrong.size:
        raise InputError(
            "the lengths do not fit the model", expected=f"1 to {spec.longest}",
            got=f"{lengths[wrong[0]]} for sequence {wrong[0]}",
        )  # fmt: skip
    return np.ascontiguousarray(lengths, np.int32)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file that cannot be loaded or run, whatever that raises: libraries share no error.

    Raises `InputError`; what is not installed stays a `ModuleNotFoundError`.
    """
    try:
        yield
    except (InputError, CheckFailed, ModuleNotFoundError):
        raise
    except Exception as error:
        what = str(error).strip() or type(error).__name__
        raise InputError(f"cannot run {path}", got=what.splitlines()[0][:300], fix=AGAIN) from error


@contextlib.contextmanager
def missing_package_named(path: Path) -> Iterator[None]:
    """Name the runtime that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0].replace("_", "-")
        raise InputError(
            f"running {path.name} needs {package}", fix=f"Install it: pip install {package}"
        ) from error
