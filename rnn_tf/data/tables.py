"""Long tables, `.csv`, `.tsv`, `.txt` and `.parquet`: a row for each time step of each sequence.

    id,time,label,x,y
    1,0.0,walk,0.13,9.81
    1,0.1,walk,0.21,9.74
    2,0.0,run,1.70,8.90

`roles.py` says what each column is. A column `split` with train, valid and test says in which
split each sequence is; the splits that it does not name are cut from train.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rnn_tf.config import Answer, Source
from rnn_tf.data.classes import in_order
from rnn_tf.data.columns import ColumnFile, numbers, refuse_a_time_twice, texts, times
from rnn_tf.data.delimited import DelimitedText
from rnn_tf.data.parquet import SUFFIX as PARQUET
from rnn_tf.data.parquet import Parquet
from rnn_tf.data.recordings import Recordings, Where, from_text
from rnn_tf.data.roles import SPLITS, of_input, of_table
from rnn_tf.data.spec import SequenceData, SequenceSpec
from rnn_tf.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

# How many cells a message shows.
MOST_NAMED = 5


def load(source: Source) -> SequenceData:
    """The sequences of the table `source.dataset`, in the order of their ids.

    Where every step is answered, the class may change within a sequence: then it is that of each
    step, and `-1` or nothing where it has none.

    Raises `InputError`, with line and column where it can, for a table that cannot be read, a
    column that is not there, a step without id or class, a time twice in one sequence, and two
    classes, splits or groups in one.
    """
    file = _open(Path(source.dataset))
    roles = of_table(file.columns, source, file.path)
    table, notes = file.read(roles.features, roles.others)
    if not len(table):
        raise InputError(f"{file.path}: no rows below the names of the columns")
    sequences = _Sequences(file, table, roles.id, roles.time)
    y, by_step = sequences.labels(roles.label, source.answer)
    recordings = Recordings(
        numbers(table, roles.features)[sequences.order],
        sequences.lengths,
        y,
        sequences.constant(roles.groups, "groups") if roles.groups else None,
        sequences.names,
        by_step,
    )
    splits, where = {}, {}
    for name, chosen in _splits(sequences, roles.split).items():
        splits[name] = recordings.take(chosen)
        where[name] = _where(file, roles.features, sequences.rows(chosen))
    notes = (roles.describe(), *notes)
    return from_text(splits, where, source, feature_names=roles.features, notes=notes)


def load_input(path: Path, spec: SequenceSpec, source: Source) -> tuple[Recordings, Where]:
    """The sequences of a table that a model of `spec` is to classify, and where each value is.

    One with a column that says which sequence a row belongs to holds many; any other holds one.
    Classes are not read: `y` is 0. Raises `InputError` as `load` does.
    """
    file = _open(path, named=False)
    named = spec.feature_names if file.columns != _numbered(file) else ()
    id, time, features = of_input(file.columns, named, source, path)
    table, _ = file.read(features, [name for name in (id, time) if name is not None])
    if not len(table):
        raise InputError(f"{path}: no rows below the names of the columns")
    sequences = _Sequences(file, table, id, time)
    every = np.ones(len(sequences.lengths), bool)
    recordings = Recordings(
        numbers(table, features)[sequences.order], sequences.lengths,
        np.zeros(len(every), np.int32), names=sequences.names,
    )  # fmt: skip
    return recordings, _where(file, features, sequences.rows(every))


def _numbered(file: ColumnFile) -> tuple[str, ...]:
    """The names of columns that have none."""
    return tuple(str(i + 1) for i in range(len(file.columns)))


def _open(path: Path, *, named: bool = True) -> ColumnFile:
    if path.suffix.lower() == PARQUET:
        return Parquet.open(path)
    text = DelimitedText.open(path)
    if named and not text.named:
        raise InputError(
            f"{path}, line 1: numbers where the names of the columns are expected",
            expected="a line such as id,time,label,x",
            got=", ".join(text.first[:MOST_NAMED]),
        )
    return text


def _where(file: ColumnFile, features: Sequence[str], rows: np.ndarray) -> Where:
    """Where the value of a step of some sequences, which are the `rows` of the table, is."""
    return lambda step, feature: (
        f"{file.path}, {file.place(int(rows[step]))}, column {features[feature]!r}"
    )


def _splits(sequences: _Sequences, column: str | None) -> dict[str, np.ndarray]:
    """Which sequences are in which split, as masks; all in train where the table does not say."""
    if column is None:
        return {"train": np.ones(len(sequences.lengths), bool)}
    said = sequences.constant(column, "splits")
    unknown = next((name for name in np.unique(said) if name.lower() not in SPLITS), None)
    if unknown is not None:
        raise InputError(
            f"{sequences.file.path}, column {column!r}: not a split",
            expected="train, valid or test", got=repr(str(unknown)),
        )  # fmt: skip
    split = np.array([SPLITS[name.lower()] for name in said])
    if "train" not in split:
        raise InputError(
            f"{sequences.file.path}, column {column!r}: no sequence to train on",
            expected="train in some rows", got=", ".join(np.unique(said)),
        )  # fmt: skip
    return {name: split == name for name in ("train", "valid", "test") if name in split}


class _Sequences:
    """Which rows of a table are a sequence, and in which order."""

    def __init__(self, file: ColumnFile, table: pa.Table, id: str | None, time: str | None) -> None:
        self.file, self.table, self.id = file, table, id
        self.names, sequence = self._apart()
        self.lengths = np.bincount(sequence)
        if time is None:
            self.order = np.argsort(sequence, kind="stable")
        else:
            when = times(table, time, file)
            self.order = np.lexsort((when, sequence))
            again = (np.diff(when[self.order]) == 0) & (np.diff(sequence[self.order]) == 0)
            refuse_a_time_twice(table, time, file, self.order, again, self._other_id)

    def _apart(self) -> tuple[np.ndarray, np.ndarray]:
        """The names of the sequences, and the place of each row's among them."""
        if self.id is None:
            return np.array([str(self.file.path)]), np.zeros(len(self.table), np.int64)
        ids, place = texts(self.table, self.id, self.file)
        names = in_order(ids)
        rank = {name: i for i, name in enumerate(names)}
        return np.array(names), np.array([rank[name] for name in ids])[place]

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """The rows of some sequences, by step."""
        rows: np.ndarray = self.order[np.repeat(chosen, self.lengths)]
        return rows

    def labels(self, column: str, answer: Answer) -> tuple[np.ndarray, bool]:
        """The class of each sequence, `(n,)`, or of each step, `(rows,)`, and whether of steps."""
        if answer == "end":
            return self.constant(
                column, "classes", "For a class at each step, train with --answer every_step."
            ), False
        said, place = texts(self.table, column, self.file, may_be_empty=True)
        in_steps, first = self._in_steps(place)
        by_step = "" in said or bool((in_steps != np.repeat(first, self.lengths)).any())
        return np.array(said)[in_steps if by_step else first], by_step

    def constant(self, column: str, what: str, fix: str = "") -> np.ndarray:
        """The text of `column` in each sequence, which must be one: `(n,)`."""
        said, place = texts(self.table, column, self.file)
        in_steps, first = self._in_steps(place)
        others = np.flatnonzero(in_steps != np.repeat(first, self.lengths))
        if others.size:
            step = others[0]
            starts = np.cumsum(self.lengths) - self.lengths
            sequence = int(np.searchsorted(starts, step, side="right")) - 1
            rows = self.order[[starts[sequence], step]]
            got = [f"{said[place[row]]!r} in {self.file.place(int(row))}" for row in rows]
            raise InputError(
                f"{self.file.path}, column {column!r}: two {what} in the sequence "
                f"{str(self.names[sequence])!r}",
                expected="one in all of its rows", got=" and ".join(got),
                fix=" ".join(filter(None, (self._other_id, fix))),
            )  # fmt: skip
        constant: np.ndarray = np.array(said)[first]
        return constant

    def _in_steps(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What rows have, by step, `(rows,)`, and what the first step of each sequence has."""
        in_steps = place[self.order]
        return in_steps, in_steps[np.cumsum(self.lengths) - self.lengths]

    @property
    def _other_id(self) -> str:
        if self.id is None:
            return "Are there several sequences? Say which column tells them apart: --id COLUMN."
        return f"Is {self.id!r} the column that tells sequences apart? If not, say --id COLUMN."
