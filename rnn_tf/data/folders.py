"""A folder with a sub-folder for each class, and in it a file for each sequence.

    gestures/                     gestures/
      circle/                       train/
        anna-1.csv                    circle/anna-1.csv
        anna-2.csv                    swipe/ben-1.csv
      swipe/                        test/
        ben-1.csv                     circle/cleo-1.csv

A row of a `.csv`, `.tsv` or `.txt` file is a time step, with or without a line of names above; a
column with the usual name of a time orders them and is no value. An `.npy` holds
`(steps, features)`, or `(steps,)` for one feature.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rnn_tf.config import Source
from rnn_tf.data.classes import in_order
from rnn_tf.data.columns import numbers, refuse_a_time_twice, times
from rnn_tf.data.delimited import SUFFIXES as TEXTS
from rnn_tf.data.delimited import DelimitedText
from rnn_tf.data.recordings import Recordings, Where, from_text
from rnn_tf.data.roles import SPLITS, of_sequence
from rnn_tf.data.spec import SequenceData
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import open_npy
from rnn_tf.files.links import refuse_link_out

ARRAY = ".npy"
SUFFIXES = (*TEXTS, ARRAY)


@dataclass(frozen=True)
class _File:
    """A file with one sequence."""

    path: Path
    label: str
    values: np.ndarray  # (steps, features) float64
    names: tuple[str, ...] = ()  # of the features; none where the file has none
    text: DelimitedText | None = None
    order: np.ndarray | None = None  # the rows of the file by step; None: as they are
    notes: tuple[str, ...] = ()

    def where(self, step: int, feature: int) -> str:
        """Where a value is."""
        name = repr(self.names[feature]) if self.names else feature + 1
        row = step if self.order is None else int(self.order[step])
        place = self.text.place(row) if self.text else f"step {step + 1}"
        return f"{self.path}, {place}, column {name}"


def load(source: Source) -> SequenceData:
    """The sequences in the folder `source.dataset`, in the order of the names of their files.

    Nothing outside the folder is read, whatever links in it point to. Raises `InputError` for a
    folder without two classes, a class without a sequence, and files that are empty, cannot be
    read or differ in their columns.
    """
    root = Path(source.dataset)
    splits = {
        name: _read_split(folder, root, source, least=2 if name == "train" else 1)
        for name, folder in _splits(root).items()
    }
    first = splits["train"][0]
    for file in (file for files in splits.values() for file in files):
        _check_alike(first, file)
    notes = dict.fromkeys(
        note for files in splits.values() for file in files for note in file.notes
    )
    return from_text(
        {name: _recordings(files, root) for name, files in splits.items()},
        {name: _where(files) for name, files in splits.items()},
        source,
        feature_names=first.names,
        notes=tuple(notes),
    )


# --- which files there are ---
def _splits(root: Path) -> dict[str, Path]:
    """The folder of each split; all is train where no folder has the name of a split."""
    found = {name: folder for folder in _folders(root) if (name := SPLITS.get(folder.name.lower()))}
    if "train" not in found:
        return {"train": root}
    others = [folder.name for folder in _folders(root) if folder not in found.values()]
    if others:
        raise InputError(
            f"{root}: folders of splits beside others", expected="train, and valid and test if any",
            got=", ".join(others),
        )  # fmt: skip
    return found


def _folders(parent: Path) -> list[Path]:
    return [entry for entry in _entries(parent) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, by name."""
    try:
        return sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
    except OSError as error:
        raise InputError(f"{folder}: cannot be read", got=error.strerror) from error


def _read_split(folder: Path, root: Path, source: Source, least: int) -> list[_File]:
    """The sequences of a split, in the order of the names of their files."""
    classes = _folders(folder)
    if len(classes) < least:
        raise InputError(
            f"{folder}: too few classes",
            expected=f"a sub-folder for each class, {least} or more",
            got=classes[0].name if classes else "no sub-folder",
        )
    files = [(path, entry.name) for entry in classes for path in _files(entry, root)]
    names = in_order(dict.fromkeys(path.stem for path, _ in files))
    place = {name: i for i, name in enumerate(names)}
    files.sort(key=lambda file: place[file[0].stem])  # those of one name by class
    return [_read(path, label, source) for path, label in files]


def _files(folder: Path, root: Path) -> list[Path]:
    """The sequences of a class. Raises `InputError` where there is none."""
    files = [entry for entry in _entries(folder) if entry.suffix.lower() in SUFFIXES]
    if not files:
        raise InputError(
            f"{folder}: a class without a sequence", expected=f"files of {', '.join(SUFFIXES)}",
            got=f"{len(_entries(folder))} others" if _entries(folder) else "an empty folder",
        )  # fmt: skip
    for file in files:
        refuse_link_out(file, root)
    return files


# --- what is in them ---
def _read(path: Path, label: str, source: Source) -> _File:
    file = (
        _read_array(path, label)
        if path.suffix.lower() == ARRAY
        else _read_text(path, label, source)
    )
    if 0 in file.values.shape:
        raise InputError(f"{path}: no time step", expected="a row for each")
    return file


def _read_text(path: Path, label: str, source: Source) -> _File:
    text = DelimitedText.open(path)
    time, features = of_sequence(text.columns, source, path)
    table, notes = text.read(features, [] if time is None else [time])
    names = features if text.named else ()
    file = _File(path, label, numbers(table, features), names, text, None, notes)
    if time is None:
        return file
    when = times(table, time, text)
    order = np.argsort(when, kind="stable")
    refuse_a_time_twice(table, time, text, order, np.diff(when[order]) == 0)
    notes = (*notes, f"time: {time}")
    return dataclasses.replace(file, values=file.values[order], order=order, notes=notes)


def _read_array(path: Path, label: str) -> _File:
    stored = open_npy(path)
    if len(stored.shape) not in (1, 2) or stored.dtype.kind not in "buif":
        raise InputError(
            f"{path}: not one sequence of numbers", expected="shape (steps, features)",
            got=f"{stored.dtype} of shape {stored.shape}",
        )  # fmt: skip
    values = stored.read().astype(np.float64)
    return _File(path, label, values[:, np.newaxis] if values.ndim == 1 else values)


def _check_alike(first: _File, other: _File) -> None:
    """Raise `InputError` unless two files have the same columns."""
    if other.names and first.names and other.names != first.names:
        differ = f"{other.path} has other columns than {first.path}"
        raise InputError(differ, expected=", ".join(first.names), got=", ".join(other.names))
    expected, got = first.values.shape[1], other.values.shape[1]
    if expected != got:
        raise InputError(
            f"{other.path} has another number of columns than {first.path}",
            expected=str(expected), got=got,
        )  # fmt: skip


def _recordings(files: list[_File], root: Path) -> Recordings:
    return Recordings(
        np.concatenate([file.values for file in files]),
        np.array([len(file.values) for file in files]),
        np.array([file.label for file in files]),
        names=np.array([file.path.relative_to(root).as_posix() for file in files]),
    )


def _where(files: list[_File]) -> Where:
    """Where the value of a step of the files, one after another, is."""
    ends = np.cumsum([len(file.values) for file in files])

    def where(row: int, feature: int) -> str:
        at = int(np.searchsorted(ends, row, side="right"))
        return files[at].where(row - int(ends[at]) + len(files[at].values), feature)

    return where
