"""Reading one file as predict does, for the tests of what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rnn_tf.data import SequenceSpec
from rnn_tf.data.inputs import Inputs
from rnn_tf.data.profile import DataProfile
from rnn_tf.errors import InputError


@dataclass(frozen=True)
class Read:
    """What was in a file, and what was said about it."""

    x: np.ndarray  # (n, timesteps, features) float32
    names: list[str]
    notes: list[str]  # without the file's name


def read(
    path: Path,
    spec: SequenceSpec,
    profile: DataProfile | None = None,
    *,
    as_is: bool = False,
    invert: bool = False,
) -> Read:
    """All sequences of a file. Raises `InputError` with what was said if some could not be read."""
    said: list[str] = []
    inputs = Inputs([path], spec, profile, as_is=as_is, invert=invert, say=said.append)
    blocks = list(inputs)
    if inputs.failed:
        raise InputError(said[-1].removeprefix("error: "))
    notes = [line.removeprefix(f"{path}: ") for line in said]
    return Read(
        np.concatenate([block.x for block in blocks]),
        [name for block in blocks for name in block.names],
        notes,
    )


def save(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path
