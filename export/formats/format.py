"""What a format is: one entry of the registry, its writer, and what runs it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from export.network import Network
from export.signatures import classify
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

# ONNX's default operator set, and the ends of the range that can be chosen. Low, so that old
# runtimes load it: onnxruntime 1.19 and 1.20 of 2024 were tried, and 1.32. From 22 on, activations
# have new versions that they do not know; below 16, operators are missing.
OPSET, OLDEST_OPSET, NEWEST_OPSET = 17, 16, 21


class Runtime(Protocol):
    """Something that runs one format."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The probabilities `(batch, classes)` of raw `x` `(batch, timesteps, features)`.

        Any number type that float32 holds; the batch may change from call to call. Raises
        `InputError` for another shape or type, and for values that are not finite.
        """


@dataclass(frozen=True)
class Options:
    """What a writer may need beside the network."""

    calibration: np.ndarray  # raw training examples (n, timesteps, features)
    opset: int = OPSET


# Writes a network to a path; gives what the manifest says about it.
Writer = Callable[[Network, Path, Options], dict[str, Any]]
# Opens a file; with as many threads as are said, or as the library does by itself.
Opener = Callable[[Path, SequenceSpec, int | None], Runtime]


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


def file_metadata(network: Network) -> dict[str, str]:
    """What every file says of itself, each a JSON text: labels, specification and signatures."""
    about = {
        "labels": list(network.spec.labels),
        "spec": network.spec.to_dict(),
        "signatures": [classify(network.spec).to_dict()],
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in about.items()}


def as_input(x: npt.ArrayLike, spec: SequenceSpec) -> np.ndarray:
    """`x` as float32 `(batch, timesteps, features)`, without a copy if it is that already."""
    x = np.asarray(x)
    if x.ndim != 3 or x.shape[1:] != (spec.timesteps, spec.features) or not len(x):
        raise InputError(
            "the input does not fit the model",
            expected=f"shape (batch, {spec.timesteps}, {spec.features})",
            got=x.shape,
        )
    if x.dtype.kind not in "buif":
        raise InputError("the input is not numbers", expected="float32", got=x.dtype)
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, np.float32)
    # The sum of squares is finite unless something is not, or is beyond 1e19: a microsecond for
    # what looking at every value takes three.
    if not math.isfinite(np.vdot(x, x)) and not np.isfinite(x).all():
        raise InputError("the input is not finite", got="NaN or infinity")
    return x


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
