"""Columns of a file as arrays: texts and times, each bad cell named by its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rnn_tf.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


class ColumnFile(Protocol):
    """A file of columns, of which at first only their names have been read."""

    @property
    def path(self) -> Path: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    def read(
        self, numbers: Sequence[str], others: Sequence[str]
    ) -> tuple[pa.Table, tuple[str, ...]]:
        """The columns `numbers` as float64, null where missing, and `others`.

        Beside it, how the file was read, where that had to be found out: a line each.
        """
        ...

    def place(self, row: int) -> str:
        """How a person finds a row, counted from 0: `line 2`."""
        ...


def numbers(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Columns of float64 beside each other: `(rows, columns)`, NaN where a number is missing."""
    return np.stack([table.column(name).to_numpy() for name in names], axis=1)


def texts(
    table: pa.Table, name: str, file: ColumnFile, *, may_be_empty: bool = False
) -> tuple[list[str], np.ndarray]:
    """The different texts of a column, and the place of each row's among them.

    Raises `InputError` where a row has none, or if it `may_be_empty`, that is the empty text.
    """
    import pyarrow as pa

    try:
        column = table.column(name).cast(pa.string()).combine_chunks()
    except pa.ArrowException as error:
        raise InputError(
            f"{file.path}, column {name!r}: not texts", expected="texts or numbers",
            got=table.column(name).type,
        ) from error  # fmt: skip
    encoded = column.dictionary_encode()
    stripped = [text.strip() for text in encoded.dictionary.to_pylist()]
    different = list(dict.fromkeys(stripped))
    places = {text: i for i, text in enumerate(different)}
    of_code = np.array([*(places[text] for text in stripped), -1])  # the last: null
    place: np.ndarray = of_code[encoded.indices.fill_null(-1).to_numpy()]
    empty = (place == -1) | (place == places.get("", -1))
    if not may_be_empty:
        _refuse_empty(empty, name, file)
    elif empty.any():
        place[empty] = places.setdefault("", len(different))
        different = list(places)
    return different, place


def times(table: pa.Table, name: str, file: ColumnFile) -> np.ndarray:
    """A column of times as numbers in the same order: int64 or float64 `(rows,)`.

    They are numbers, or dates as ISO 8601 writes them. Raises `InputError` for others, and where a
    row has none.
    """
    import pyarrow as pa

    column = table.column(name).combine_chunks()
    _refuse_empty(column.is_null().to_numpy(zero_copy_only=False), name, file)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _read_times(column, name, file)
    if pa.types.is_temporal(column.type):
        # As whole numbers of its unit; those of dates are 32 bits wide.
        column = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(
            f"{file.path}, column {name!r}: not times", expected="numbers, dates or texts",
            got=column.type,
        )  # fmt: skip
    found: np.ndarray = column.to_numpy(zero_copy_only=False)
    if found.dtype.kind == "f":
        _refuse_empty(np.isnan(found), name, file)
    return found


def _read_times(column: pa.Array, name: str, file: ColumnFile) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pc.utf8_trim_whitespace(column)
    _refuse_empty(pc.equal(column, "").to_numpy(zero_copy_only=False), name, file)
    with_points = pc.replace_substring(column, ",", ".")  # decimal commas
    for kind in (pa.int64(), pa.float64(), pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        for written in (column, with_points):
            try:
                return written.cast(kind)
            except pa.ArrowInvalid:
                continue
    raise InputError(
        f"{file.path}, column {name!r}: times that cannot be ordered",
        expected="numbers, or dates such as 2026-11-26 09:30:00, in all rows",
        got=f"{column[0].as_py()!r} in {file.place(0)}",
    )


def _refuse_empty(empty: np.ndarray, name: str, file: ColumnFile) -> None:
    rows = np.flatnonzero(empty)
    if rows.size:
        raise InputError(
            f"{file.path}, {file.place(int(rows[0]))}, column {name!r}: empty",
            expected="a text or a number in every row",
        )


def refuse_a_time_twice(
    table: pa.Table,
    name: str,
    file: ColumnFile,
    order: np.ndarray,
    again: np.ndarray,
    fix: str | None = None,
) -> None:
    """Raise `InputError` where `again` says that a row in `order` has the time of the one before.

    `again` is bool, one shorter than `order`.
    """
    steps = np.flatnonzero(again)
    if steps.size:
        rows = sorted(int(row) for row in order[[steps[0], steps[0] + 1]])
        raise InputError(
            f"{file.path}, column {name!r}: the time {table.column(name)[rows[0]].as_py()} twice "
            "in one sequence",
            got=" and ".join(map(file.place, rows)),
            fix=fix,
        )
