"""Data sets decoded into arrays, kept so that the next run starts at once."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import read_arrays
from rnn_tf.files.writing import writing

# The splits of `SequenceData`, in its order.
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Decoded:
    """A data set as it was decoded, and what its user should know about that."""

    data: SequenceData
    notes: tuple[str, ...]  # one line each


def read(file: Path) -> Decoded | None:
    """What `write` has kept in `file`; None when there is nothing, or it is damaged or outdated."""
    try:
        arrays = read_arrays(file)  # checks the CRC-32 of every array
        spec = SequenceSpec.from_json(str(arrays["spec"]))
        splits = [Split(arrays[f"x_{key}"], arrays[f"y_{key}"]) for key in SPLITS]
        notes = tuple(map(str, arrays["notes"]))
        prepared = _prepared_at(Path(str(arrays["folder"])))
        # A set that was deleted since can still be used; one that was made again has changed.
        outdated = prepared not in (0, int(arrays["prepared_at"]))
    except (ValueError, TypeError, KeyError):  # an InputError is a ValueError
        return None
    return None if outdated else Decoded(SequenceData(spec, *splits), notes)


def write(file: Path, decoded: Decoded, folder: Path) -> None:
    """Keep the arrays in `file`; `folder` is where TFDS prepared them. Warns when it cannot."""
    arrays = {
        "spec": np.array(decoded.data.spec.to_json()),
        "notes": np.array(decoded.notes, dtype=np.str_),
        "folder": np.array(str(folder)),
        "prepared_at": np.array(_prepared_at(folder)),
    }
    for key in SPLITS:
        split: Split = getattr(decoded.data, key)
        arrays[f"x_{key}"], arrays[f"y_{key}"] = split.x, split.y
    try:
        with writing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
    except InputError as error:
        warnings.warn(
            f"the decoded arrays are not kept, so the next run will decode them again: {error} "
            "Set RNN_TF_CACHE to it",
            stacklevel=2,
        )


def _prepared_at(folder: Path) -> int:
    """When TFDS wrote a set, ns since 1970; 0 when it is no longer there."""
    with contextlib.suppress(OSError):
        return (folder / "dataset_info.json").stat().st_mtime_ns
    return 0
