"""Tables in `.parquet` files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rnn_tf.errors import InputError
from rnn_tf.files.text import check_file

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".parquet"


@dataclass(frozen=True)
class Parquet:
    """A `.parquet` file, of which only the header has been read."""

    path: Path
    schema: pa.Schema

    @classmethod
    def open(cls, path: Path) -> Parquet:
        """Read the header. Raises `InputError` for what has none, or does not fit into memory."""
        import pyarrow.parquet as pq

        check_file(path)
        with _readable(path):
            header = pq.read_metadata(path)
            schema = header.schema.to_arrow_schema()
        needed, free = header.num_rows * header.num_columns * 8, psutil.virtual_memory().available
        if needed > free:
            raise InputError(
                f"{path}: too large to read",
                expected=f"at most the {free / 2**30:.3g} GiB of memory that are free",
                got=f"{header.num_rows:,} rows of {header.num_columns} columns",
            )
        twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path}: two columns have one name", got=repr(twice))
        return cls(path, schema)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.schema.names)

    def read(
        self, numbers: Sequence[str], others: Sequence[str]
    ) -> tuple[pa.Table, tuple[str, ...]]:
        """The columns `numbers` as float64, null where missing, and `others` as they are.

        Beside it, nothing: there is one way to read the file. Raises `InputError` for a column of
        `numbers` that holds something else.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        is_number = (
            pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal,
        )  # fmt: skip
        for name in numbers:
            kind = self.schema.field(name).type
            if not any(test(kind) for test in is_number):
                raise InputError(
                    f"{self.path}, column {name!r}: not numbers", expected="numbers", got=kind,
                    fix="Name the columns to use: --features.",
                )  # fmt: skip
        with _readable(self.path):
            table = pq.read_table(self.path, columns=[*numbers, *others], partitioning=None)
            table.validate(full=True)  # that texts are UTF-8
            for place, name in enumerate(numbers):
                column = table.column(name)
                if pa.types.is_boolean(column.type):
                    column = column.cast(pa.int8())
                table = table.set_column(place, name, column.cast(pa.float64(), safe=False))
        return table, ()

    def place(self, row: int) -> str:
        return f"row {row + 1}"


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into an `InputError`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError, MemoryError) as error:
        raise InputError(f"{path}: not a whole .parquet file", got=str(error)[:300]) from error
