"""Delimited text: `.csv`, `.tsv` and `.txt` files of columns.

pyarrow reads them. What separates columns and decimals is found here, since people's files differ
in it, and so is the line of whatever cannot be read: for that the file is read again, slowly.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rnn_tf.errors import InputError
from rnn_tf.files.text import check_size, open_text

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".txt")

# What may separate columns, and how a person calls it. The comma is the last but one, since it
# may also separate decimals, and the space the last, since it may be anywhere.
DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas", " ": "spaces"}
# Lines at the beginning by which a delimiter is chosen.
LINES_LOOKED_AT = 50
# How a missing number is written.
MISSING = ("", "?", "-", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>")


@dataclass(frozen=True)
class DelimitedText:
    """A text file of columns, of which only the beginning has been read."""

    path: Path
    delimiter: str
    first: tuple[str, ...]  # the cells of the first line
    named: bool  # whether these are the names of the columns
    skip: int  # lines before the first row

    @classmethod
    def open(cls, path: Path) -> DelimitedText:
        """Find out what separates columns, and whether they have names.

        Raises `InputError` for what is no text in UTF-8, is empty, or names a column twice.
        """
        with open_text(path) as file, _readable(path):
            lines = list(itertools.islice(file, LINES_LOOKED_AT))
            if not any(map(str.strip, lines)):
                raise InputError(f"{path}: an empty file")
            delimiter = _delimiter(lines)
            number, cells = next(_rows(lines, delimiter))
        first = tuple(map(str.strip, cells))
        named = not all(_is_number(name) or name in MISSING for name in first)
        twice = next((name for name in first if name and first.count(name) > 1), None)
        if named and twice is not None:
            raise InputError(f"{path}, line {number}: two columns have one name", got=repr(twice))
        return cls(path, delimiter, first, named, number if named else number - 1)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, or their numbers from 1 where they have none."""
        return self.first if self.named else tuple(str(i + 1) for i in range(len(self.first)))

    def read(
        self, numbers: Sequence[str], others: Sequence[str]
    ) -> tuple[pa.Table, tuple[str, ...]]:
        """The columns `numbers` as float64, null where missing, and `others` as text.

        Beside it, what separates columns and decimals, where that is unusual: a line. Raises
        `InputError` that names file, line and column for what is no number, and for a line with
        another number of columns.
        """
        import pyarrow as pa
        from pyarrow import csv as arrow

        check_size(self.path)
        content: Path | io.BytesIO = self.path
        if self.delimiter == " ":
            with open_text(self.path) as file:
                content = io.BytesIO("".join(_lines(file, " ")).encode())
        names = [name or f"column {i}" for i, name in enumerate(self.columns, start=1)]
        failures = []
        for decimal in ".,":
            if isinstance(content, io.BytesIO):
                content.seek(0)
            try:
                table = arrow.read_csv(
                    content,
                    arrow.ReadOptions(column_names=names, skip_rows=self.skip),
                    arrow.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                    arrow.ConvertOptions(
                        column_types=dict.fromkeys(numbers, pa.float64())
                        | dict.fromkeys(others, pa.string()),
                        include_columns=[*numbers, *others],
                        null_values=MISSING,
                        strings_can_be_null=False,
                        decimal_point=decimal,
                    ),
                )
            except pa.ArrowInvalid as error:
                failures.append(error)
            else:
                return table, self._described(decimal)
        self._refuse(numbers, failures[0])

    def place(self, row: int) -> str:
        """Where a person finds a row, counted from 0: `line 2`."""
        line, _ = next(itertools.islice(self._body(), row, None))
        return f"line {line}"

    def _described(self, decimal: str) -> tuple[str, ...]:
        expected = "\t" if self.path.suffix.lower() == ".tsv" else ","
        between = f"{DELIMITERS[self.delimiter]} between columns"
        said = [between] if self.delimiter != expected else []
        said += ["decimal commas"] if decimal == "," else []
        return (", ".join(said),) if said else ()

    def _body(self) -> Iterator[tuple[int, list[str]]]:
        """The rows below the names, each with its line."""
        with open_text(self.path) as file, _readable(self.path):
            yield from itertools.islice(_rows(file, self.delimiter), int(self.named), None)

    def _refuse(self, numbers: Sequence[str], error: Exception) -> NoReturn:
        """Raise the `InputError` that says where the file cannot be read."""
        places = [(self.columns.index(name), name) for name in numbers]
        decimal = None  # the first that there is
        if next(self._body(), None) is None:
            raise InputError(f"{self.path}: no rows below the names of the columns") from error
        for line, row in self._body():
            if len(row) != len(self.columns):
                raise InputError(
                    f"{self.path}, line {line}: another number of columns",
                    expected=f"{len(self.columns)}, as line {self.skip or 1} has", got=len(row),
                ) from error  # fmt: skip
            for place, name in places:
                where, cell = f"{self.path}, line {line}, column {name!r}", row[place].strip()
                if not (_is_number(cell) or cell in MISSING):
                    raise InputError(
                        f"{where}: not a number",
                        expected="a number, or nothing where it is missing", got=repr(cell[:40]),
                        fix="Correct it, or name the columns to use: --features.",
                    ) from error  # fmt: skip
                found = next((mark for mark in ".," if mark in cell), None)
                decimal = decimal or found
                if found and decimal and found != decimal:
                    said = {".": "decimal points", ",": "decimal commas"}
                    raise InputError(
                        f"{where}: a number with {said[found]}, where others have "
                        f"{said[decimal]}",
                        expected="one of both in the whole file", got=repr(cell),
                    ) from error  # fmt: skip
        raise InputError(f"{self.path}: cannot be read", got=str(error)) from error


def _delimiter(lines: list[str]) -> str:
    """The delimiter that gives every line as many columns, more than one; else one of many."""
    widths = {
        delimiter: [len(row) for _, row in _rows(lines, delimiter)] for delimiter in DELIMITERS
    }
    for delimiter, found in widths.items():
        if len(set(found)) == 1 and found[0] > 1:
            return delimiter
    # One column, or a line that is wrong and will be named: the first line decides.
    return max(DELIMITERS, key=lambda delimiter: (widths[delimiter][0], delimiter == ","))


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file, each with the line that it ends at; empty lines are none."""
    reader = csv.reader(_lines(lines, delimiter), delimiter=delimiter)
    for row in reader:
        if row:
            yield reader.line_num, row


def _lines(lines: Iterable[str], delimiter: str) -> Iterator[str]:
    """The lines as they are, but where spaces separate columns: there several count as one."""
    return (" ".join(line.split()) + "\n" for line in lines) if delimiter == " " else iter(lines)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise InputError(f"{path}: not a table in text", got=str(error)) from error


def _is_number(text: str) -> bool:
    """Whether a number is written here, with a decimal point or a decimal comma."""
    if "_" in text:  # which Python allows
        return False
    try:
        float(text.replace(",", ".", 1) if "." not in text else text)
    except ValueError:
        return False
    return True
