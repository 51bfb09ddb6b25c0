"""`python -m rnn_tf.predict RUN FILE...`: what a trained model says of pictures and sequences."""

from __future__ import annotations

import json
import struct
import sys
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageOps

from rnn_tf.command import arguments, parse
from rnn_tf.data import SequenceSpec
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.files.arrays import UNREADABLE, read_arrays
from rnn_tf.run import Run
from rnn_tf.startup import process

PICTURES = (".png", ".jpg", ".jpeg")
ARRAYS = (".npy", ".npz")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name of a colour mode, by channels
# A picture whose mean is above this is mostly light. Of 255.
LIGHT = 127.5


@dataclass(frozen=True)
class Sequences:
    """What one file holds, in the raw units of the run's data, and how it was made to fit."""

    name: str
    x: np.ndarray  # (n, timesteps, features) float32
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """What the model says of one sequence."""

    name: str
    label: str
    probability: float  # of that label, 0 to 1
    probabilities: dict[str, float]  # of every label


def predict(run: Run, sequences: list[Sequences]) -> list[Prediction]:
    """The run's best model applied to each sequence. Raises `InputError` for an unfinished run."""
    run.require_finished()
    process.start()
    x = np.concatenate([file.x for file in sequences]) * np.float32(run.spec.scale)
    from rnn_tf.training.keras.tracing import new_programs_expected

    with new_programs_expected():
        probabilities = run.load_model().predict(x, verbose=0)
    return named(probabilities, sequences, run.spec)


def named(
    probabilities: np.ndarray, sequences: list[Sequences], spec: SequenceSpec
) -> list[Prediction]:
    """The probabilities `(n, classes)` of all `sequences`, in their order, with names for both."""
    names = [name for file in sequences for name in _names(file)]
    return [
        Prediction(
            name=name,
            label=spec.labels[int(row.argmax())],
            probability=float(row.max()),
            probabilities=dict(zip(spec.labels, map(float, row), strict=True)),
        )
        for name, row in zip(names, probabilities, strict=True)
    ]


def draw_reading(run: Run, x: np.ndarray, path: Path) -> None:
    """Draw how the run's model reads one raw sequence `(timesteps, features)` as a PNG."""
    from rnn_tf.model.classifier import read_along
    from rnn_tf.plots import plot_reading

    states, probabilities = read_along(run.load_model(), x * np.float32(run.spec.scale))
    plot_reading(x, states, probabilities, run.spec.labels, path)


def read(path: Path, spec: SequenceSpec, *, invert: bool = False) -> Sequences:
    """A file as sequences of `spec`: a PNG or JPEG picture, or `.npy` or `.npz` sequences.

    Raises `InputError` for a file that is missing, of another kind, or does not fit.
    """
    kind = path.suffix.lower()
    if kind not in PICTURES + ARRAYS:
        raise InputError(
            f"cannot tell what {path} is", expected=", ".join(PICTURES + ARRAYS), got=kind or "none"
        )
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    return _read_picture(path, spec, invert) if kind in PICTURES else _read_array(path, spec)


def _read_picture(path: Path, spec: SequenceSpec, invert: bool) -> Sequences:
    if not spec.channels:
        raise InputError(
            f"the run was not trained on pictures, so {path} means nothing to it",
            expected=f"a .npy or .npz of shape ({spec.timesteps}, {spec.features})",
        )
    picture, notes = _convert(_open_picture(path), MODES[spec.channels])
    size = (spec.features // spec.channels, spec.timesteps)  # (width, height): a row is a step
    if picture.size != size:
        notes.append(f"resized from {_by(picture.size)} to {_by(size)}")
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    x = np.asarray(picture, np.float32).reshape(1, spec.timesteps, spec.features)
    if invert:
        x = 255 - x
        notes.append("inverted")
    elif x.mean() > LIGHT:
        notes.append("mostly light: if it is dark on light, add --invert")
    return Sequences(str(path), x, tuple(notes))


def _open_picture(path: Path) -> Image.Image:
    """The picture, upright as its camera says. Raises `InputError` when it is not one, or huge."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as opened:
                return ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"the picture is too large: {path}", got=str(error)) from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise InputError(f"not a whole picture: {path}", expected="a PNG or JPEG") from error


def _convert(picture: Image.Image, mode: str) -> tuple[Image.Image, list[str]]:
    """The picture in a colour mode, and what had to be done for that."""
    notes = []
    if mode != "RGBA" and _is_transparent(picture):
        # What is transparent would otherwise count as whatever colour lies below it.
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
        notes.append("laid on white where it is transparent")
    if picture.mode.startswith("I"):
        # 16 bits a pixel; Pillow's own conversion would clip.
        picture = Image.fromarray((np.asarray(picture, np.float64) / 257).round().astype(np.uint8))
        notes.append("reduced from 16 to 8 bits")
    if picture.mode != mode:
        notes.append(f"converted from {picture.mode} to {mode}")
        picture = picture.convert(mode)
    return picture, notes


def _is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    if not picture.has_transparency_data:
        return False
    return bool(np.asarray(picture.convert("RGBA"))[..., 3].min() < 255)


def _read_array(path: Path, spec: SequenceSpec) -> Sequences:
    x = _only_array(path, read_arrays(path)) if path.suffix.lower() == ".npz" else _npy(path)
    shape = (spec.timesteps, spec.features)
    if x.shape[-2:] != shape or x.ndim not in (2, 3) or not x.size:
        raise InputError(
            f"{path} does not fit the model",
            expected=f"{shape} or (n, {shape[0]}, {shape[1]})",
            got=x.shape,
        )
    if x.dtype.kind not in "buif":
        raise InputError(f"{path} does not hold finite numbers", got=x.dtype)
    with np.errstate(over="ignore"):
        x = x.reshape(-1, *shape).astype(np.float32)
    if not np.isfinite(x).all():
        raise InputError(
            f"{path} does not hold finite numbers", got="NaN, or more than float32 can"
        )
    return Sequences(str(path), x)


def _npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            return array
    except UNREADABLE as error:
        raise InputError(f"not a NumPy array without objects: {path}", got=str(error)) from error


def _only_array(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    names = list(arrays)
    name = "x" if "x" in names else names[0] if len(names) == 1 else None
    if name is None:
        raise InputError(
            f"which array of {path}?", expected="one array, or one called x", got=names
        )
    return arrays[name]


def _names(file: Sequences) -> list[str]:
    return [file.name] if len(file.x) == 1 else [f"{file.name}[{i}]" for i in range(len(file.x))]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@dataclass(frozen=True)
class Command:
    """Classify pictures (PNG, JPEG) or sequences (.npy, .npz with one array) with a run's model."""

    run: tyro.conf.Positional[Path]
    """The folder of a finished run."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures or arrays, in the raw units of the run's data."""
    invert: bool = False
    """Turn light pictures dark and dark ones light: MNIST digits are light on dark."""
    json: bool = False
    """Print one JSON object a sequence, with the probability of every label."""
    picture: Path | None = None
    """Also draw how the model reads the first sequence, step by step, as this PNG."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m rnn_tf.predict") -> int:
    command = parse(Command, arguments(argv), prog)
    run = Run.open(command.run)
    run.require_finished()
    files = read_all(command.files, run.spec, invert=command.invert)
    predictions = predict(run, files)
    if command.picture:
        draw_reading(run, files[0].x[0], command.picture)
    show(predictions, as_json=command.json)
    return 0


def read_all(paths: Sequence[Path], spec: SequenceSpec, *, invert: bool) -> list[Sequences]:
    """Read every file of a command line, and say on stderr what was done to make it fit."""
    if not paths:
        raise InputError("no file to classify", expected=", ".join(PICTURES + ARRAYS))
    files = [read(path, spec, invert=invert) for path in paths]
    for file in files:
        for note in file.notes:
            print(f"{file.name}: {note}", file=sys.stderr)
    return files


def show(predictions: list[Prediction], *, as_json: bool) -> None:
    """Print a line for each prediction."""
    for found in predictions:
        if as_json:
            print(json.dumps(vars(found)))
        else:
            print(f"{found.name}  {found.label}  {found.probability:.2%}")


if __name__ == "__main__":
    raise SystemExit(main())
