"""What a format is: one entry of the registry, its writer, and what runs it."""

from __future__ import annotations

import abc
import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from export import signatures
from export.network import INPUT, LENGTHS, STATE, Network
from export.signatures import CLASSIFY, STEP, STEPS
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

        Of a model that answers at every step, `(batch, timesteps, classes)`. Any number type that
        float32 holds; the batch may change from call to call. A model whose sequences vary in
        length takes their `lengths` `(batch,)`, whole numbers, and does not care what stands after
        them. Raises `InputError` for another shape or type, for lengths that are missing or do not
        fit, and for values that are not finite.
        """


class FileRuntime(Runtime, Protocol):
    """A runtime of a file that says what it is."""

    def metadata(self) -> Mapping[str, str]:
        """What `file_metadata` gave when the file was written, or whatever else it says."""


# Does what a step does: frames, and states before them, to probabilities and states after them.
Run = Callable[[np.ndarray, Sequence[np.ndarray]], tuple[np.ndarray, list[np.ndarray]]]


class StepRuntime(Protocol):
    """What runs the step of a format: it keeps no state, which goes in and comes out."""

    @property
    def spec(self) -> SequenceSpec:
        """What its frames are."""

    @property
    def units(self) -> tuple[int, ...]:
        """Those of each state."""

    def bind(self, sessions: int) -> Run:
        """What runs a single frame of each of so many sessions, for one thread, as fast as it can.

        The states that it gives are good until the next call but one, and as long as nobody writes
        to them.
        """

    def run(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Do what `step` does, without looking at its input: `as_frames` and states it gave."""

    def step(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Read the next raw `frames` `(batch, steps, features)` in `states`, `(batch, units)` each.

        Gives the probabilities after each, `(batch, steps, classes)`, and the states after the
        last. The batch and the number of steps may change from call to call. Raises `InputError`
        for frames and states of another shape or type, and for those that are not finite.
        """

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
StepOpener = Callable[[Path, SequenceSpec, int | None], StepRuntime]


@dataclass(frozen=True)
class Step:
    """How a format answers frame by frame."""

    file: str  # where it lies in a bundle
    open: StepOpener
    write: Writer | None = None  # None: the format's own file has it
    steps: int | str = STEPS  # how many a call takes; a name: any number


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
    in_tensorflow: bool = False  # its runtime is TensorFlow
    extra: str | None = None  # of this package, that installs what it needs
    step: Step | None = None

    def file_of(self, signature: str) -> str | None:
        """Where the file lies that answers a signature; None where none does."""
        if signature == STEP:
            return None if self.step is None else self.step.file
        return self.file


def about(
    spec: SequenceSpec, model: str | None, signatures: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What a file says of itself, as plain values; `model` is the fingerprint of its network."""
    return {
        "labels": list(spec.labels),
        "spec": spec.to_dict(),
        "signatures": list(signatures),
        "model": model,
    }


def file_metadata(
    network: Network, names: Sequence[str] = (CLASSIFY,), steps: int | str = STEPS
) -> dict[str, str]:
    """The same as a file that answers these signatures holds it, each a JSON text.

    `steps` is how many a call takes.
    """
    found = signatures.of(network, steps)
    values = about(
        network.spec,
        network.fingerprint,
        [found[name].to_dict() for name in names if name in found],
    )
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


class CheckedStep(abc.ABC):
    """The step of a runtime that has `run`: looks at what it is given before it is run."""

    spec: SequenceSpec
    units: tuple[int, ...]

    def bind(self, sessions: int) -> Run:
        """See `StepRuntime.bind`."""
        return self.run

    @abc.abstractmethod
    def run(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """See `StepRuntime.run`."""

    def step(
        self, frames: npt.ArrayLike, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """See `StepRuntime.step`."""
        given = as_frames(np.asarray(frames), self.spec)
        check_states(states, len(given), self.units)
        return self.run(given, [np.ascontiguousarray(state) for state in states])


def check_states(states: Sequence[np.ndarray], sessions: int, units: Sequence[int]) -> None:
    """Raise `InputError` unless these are the states of so many sessions, finite float32."""
    if len(states) != len(units):
        raise InputError(
            "the states do not fit the model", expected=f"{len(units)} of them", got=len(states)
        )
    for i, (state, size) in enumerate(zip(states, units, strict=True)):
        check_state(STATE.format(i), state, (sessions, size))


def check_state(name: str, state: np.ndarray, shape: tuple[int, int]) -> None:
    """Raise `InputError` unless a state is finite float32 of this shape."""
    what = f"{name} does not fit the model"
    if not isinstance(state, np.ndarray) or state.dtype != np.float32:
        got = state.dtype if isinstance(state, np.ndarray) else type(state).__name__
        raise InputError(what, expected="a float32 array", got=got)
    if state.shape != shape:
        raise InputError(what, expected=f"shape {shape}", got=f"shape {state.shape}")
    if not is_finite(state):
        raise InputError(f"{name} is not finite", got="NaN or infinity")


def as_frames(frames: np.ndarray, spec: SequenceSpec) -> np.ndarray:
    """The frames as a step takes them: float32, contiguous, and finite.

    Nothing is copied that is so already. Raises `InputError` unless they are numbers of shape
    `(batch, steps, features)`.
    """
    if frames.ndim != 3 or frames.shape[2] != spec.features or not frames.size:
        raise InputError(
            "the frames do not fit the model",
            expected=f"shape (batch, steps, {spec.features}), one step at least",
            got=f"shape {frames.shape}",
        )
    given = frames
    if frames.dtype != np.float32 or not frames.flags.c_contiguous:
        given = _numbers(frames, "the frames are not numbers")
    if not is_finite(given):
        raise InputError("a frame is not finite", got="NaN or infinity")
    return given


def _numbers(values: np.ndarray, what: str) -> np.ndarray:
    if values.dtype.kind not in "buif":
        raise InputError(what, expected="float32", got=values.dtype)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


def is_finite(values: np.ndarray) -> bool:
    """Whether every number of an array is."""
    # The sum of squares is finite unless something is not, or is beyond 1e19: a microsecond for
    # what looking at every value takes three.
    return math.isfinite(np.vdot(values, values)) or bool(np.isfinite(values).all())


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
    if not is_finite(x):
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
    return _numbers(x, "the input is not numbers")


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
