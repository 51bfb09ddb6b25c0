"""`.ts` files of time series: those of timeseriesclassification.com, aeon and sktime.

`NAME_TRAIN.ts` and, beside it, `NAME_TEST.ts`; either of them, or their folder, names both. Any
other `.ts` is one without a test split.

A header of lines `@key value`, keys in any case, then a line for each sequence: the values of each
dimension, separated by commas, dimensions by colons, the class last. `?` is a missing value. With
`@timeStamps true` a value is `(time,value)`: the times of all dimensions together, in order, are
the steps, and a value is missing where a dimension has none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np

from rnn_tf.config import Source
from rnn_tf.data.recordings import Recordings, Where, from_text
from rnn_tf.data.spec import SequenceData
from rnn_tf.errors import InputError
from rnn_tf.files.links import refuse_link_out
from rnn_tf.files.text import open_text

SUFFIX = ".ts"
# The end of a file's name before its suffix, in any case, by split.
PARTS = {"train": "_train", "test": "_test"}
MISSING = ("?", "nan")
# In `(time,value)` the time may hold colons: a date.
STAMPED = re.compile(r"\(([^()]*),([^(),]*)\)")
STAMPED_DIMENSION = re.compile(r"(?:\([^()]*\)[,\s]*)+")


def load(source: Source) -> SequenceData:
    """The sequences of `source.dataset`, with the files of its other splits.

    Classes are in the order of `@classLabel`. Raises `InputError` for a file that cannot be read,
    whose header is wrong, or that is not of a classification problem.
    """
    files = {name: TsFile.read(path) for name, path in _files(Path(source.dataset)).items()}
    train = files["train"]
    for other in files.values():
        _check_alike(train, other)
    return from_text(
        {name: file.recordings() for name, file in files.items()},
        {name: file.where for name, file in files.items()},
        source,
        labels=train.header.labels,
    )


def load_input(path: Path) -> tuple[Recordings, Where]:
    """The sequences of one file that are to be classified, and where each value is.

    Raises `InputError` as `load` does.
    """
    file = TsFile.read(path)
    y = np.zeros(len(file.sequences), np.int32)
    return dataclasses.replace(file.recordings(), y=y, names=None), file.where


def holds(folder: Path) -> bool:
    """Whether a folder has `.ts` files."""
    return any(_is_ts(entry) for entry in folder.iterdir())


def _is_ts(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and path.name[0] != "."


def _files(path: Path) -> dict[str, Path]:
    """The file of each split that is there: one for train, and perhaps one for test."""
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if _is_ts(entry))
        for entry in found:
            refuse_link_out(entry, path)
        problems = {_problem(entry): entry for entry in found}
        if len(problems) > 1:
            raise InputError(
                f"{path}: several data sets", expected="the files of one",
                got=", ".join(problems), fix=f"Name a file: {found[0]}.",
            )  # fmt: skip
        path = found[0]
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    beside = {entry.stem.lower(): entry for entry in sorted(path.parent.iterdir()) if _is_ts(entry)}
    files = {
        split: beside[name]
        for split, end in PARTS.items()
        if (name := (_problem(path) + end).lower()) in beside
    }
    if path not in files.values():
        return {"train": path}
    if "train" not in files:
        raise InputError(
            f"{path} has no training file beside it",
            expected=f"{_problem(path)}_TRAIN{path.suffix} in the same folder",
        )
    return files


def _problem(path: Path) -> str:
    """The name of a data set: that of a file without its split."""
    for end in PARTS.values():
        if path.stem.lower().endswith(end):
            return path.stem[: -len(end)]
    return path.stem


@dataclass
class _Header:
    """What the lines before `@data` say; None where they do not."""

    labels: list[str] | None = None
    dimensions: int | None = None
    length: int | None = None  # of all sequences
    equal: bool = False
    stamped: bool = False


@dataclass
class TsFile:
    """One `.ts` file, read."""

    path: Path
    header: _Header = field(default_factory=_Header)
    sequences: list[np.ndarray] = field(default_factory=list)  # each (steps, dimensions) float64
    labels: list[str] = field(default_factory=list)  # the class of each
    lines: list[int] = field(default_factory=list)  # the line of each, counted from 1

    @classmethod
    def read(cls, path: Path) -> TsFile:
        """Read a file. Raises `InputError` with its line for what is wrong in it."""
        file = cls(path)
        with open_text(path) as text:
            lines = ((number, line.strip()) for number, line in enumerate(text, start=1))
            content = ((n, line) for n, line in lines if line and line[0] not in "#%")
            file._read_header(content)
            for number, line in content:
                file._read_sequence(number, line)
        if not file.sequences:
            raise InputError(f"{path}: no sequence after @data")
        return file

    def recordings(self) -> Recordings:
        return Recordings(
            np.concatenate(self.sequences),
            np.array(list(map(len, self.sequences))),
            np.array(self.labels),
            names=np.array([f"{self.path.name}, line {line}" for line in self.lines]),
        )

    @property
    def where(self) -> Where:
        """Where the value of a row of the concatenated sequences and of a dimension is."""
        ends = np.cumsum(list(map(len, self.sequences)))

        def where(row: int, dimension: int) -> str:
            sequence = int(np.searchsorted(ends, row, side="right"))
            step = row - ends[sequence] + len(self.sequences[sequence])
            return (
                f"{self.path}, line {self.lines[sequence]}, dimension {dimension + 1}, "
                f"value {step + 1}"
            )

        return where

    # --- the header ---
    def _read_header(self, lines: Iterator[tuple[int, str]]) -> None:
        header, line_number = self.header, 0
        said: dict[str, tuple[int, list[str]]] = {}
        for line_number, line in lines:
            if line[0] != "@":
                self._refuse(line_number, "a line of data before @data", got=line[:40])
            key, *words = line[1:].split() or [""]
            if key.lower() == "data":
                break
            said[key.lower()] = line_number, words
        else:
            raise InputError(
                f"{self.path}: no @data", expected="a header that ends with @data",
                got="an empty file" if not line_number else f"{line_number} lines",
            )  # fmt: skip
        self._refuse_regression(said)
        header.labels = self._class_labels(said)
        header.stamped = self._says(said, "timestamps")
        header.equal = self._says(said, "equallength")
        header.dimensions = self._number(said, "dimensions") or self._number(said, "dimension")
        header.length = self._number(said, "serieslength") if header.equal else None
        if self._says(said, "univariate"):
            if header.dimensions not in (None, 1):
                number, _ = said["univariate"]
                self._refuse(
                    number, "the header contradicts itself",
                    expected=f"@univariate false, as there are {header.dimensions} dimensions",
                    got="@univariate true",
                )  # fmt: skip
            header.dimensions = 1

    def _refuse_regression(self, said: dict[str, tuple[int, list[str]]]) -> None:
        number, words = said.get("targetlabel", (0, []))
        if words and words[0].lower() == "true":
            self._refuse(
                number, "a regression problem: its targets are numbers, not classes",
                expected="@classLabel true and the names of the classes", got="@targetlabel true",
            )  # fmt: skip

    def _class_labels(self, said: dict[str, tuple[int, list[str]]]) -> list[str]:
        expected = "@classLabel true and the names of the classes"
        if "classlabel" not in said:
            raise InputError(f"{self.path}: no @classLabel in the header", expected=expected)
        number, words = said["classlabel"]
        if not words or words[0].lower() != "true":
            self._refuse(
                number, "sequences without classes", expected=expected, got=" ".join(words)
            )
        labels = words[1:]
        if len(labels) < 2:
            self._refuse(
                number, "too few classes", expected="at least 2", got=", ".join(labels) or "none"
            )
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            self._refuse(number, "a class twice", got=twice)
        return labels

    def _says(self, said: dict[str, tuple[int, list[str]]], key: str) -> bool:
        number, words = said.get(key, (0, ["false"]))
        word = " ".join(words).lower()
        if word not in ("true", "false"):
            self._refuse(number, f"bad @{key}", expected="true or false", got=word or "nothing")
        return word == "true"

    def _number(self, said: dict[str, tuple[int, list[str]]], key: str) -> int | None:
        if key not in said:
            return None
        number, words = said[key]
        word = " ".join(words)
        if not re.fullmatch("[1-9][0-9]{0,8}", word):
            self._refuse(number, f"bad @{key}", expected="a whole number >= 1", got=word)
        return int(word)

    # --- the sequences ---
    def _read_sequence(self, number: int, line: str) -> None:
        *dimensions, label = self._stamped(line) if self.header.stamped else line.split(":")
        label = label.strip()
        labels = self.header.labels or []
        if label not in labels:
            self._refuse(
                number, "the line does not end with a class of the header",
                expected=", ".join(labels), got=repr(label[-40:]),
                fix="Is the line whole? If it is, add the class to @classLabel.",
            )  # fmt: skip
        self._check_dimensions(number, len(dimensions))
        read = self._merged if self.header.stamped else self._side_by_side
        sequence = read(number, dimensions)
        self._check_length(number, len(sequence))
        self.sequences.append(sequence)
        self.labels.append(label)
        self.lines.append(number)

    @property
    def _as_before(self) -> str:
        """Where an expectation comes from."""
        return f", as line {self.lines[0]} has" if self.lines else ", as the header says"

    def _check_dimensions(self, number: int, found: int) -> None:
        header = self.header
        if found == 0:
            self._refuse(number, "no values before the class")
        if found != (header.dimensions or found):
            self._refuse(
                number, "another number of dimensions",
                expected=f"{header.dimensions}{self._as_before}", got=found,
                fix="Is the line whole? If it is, correct @dimensions and @univariate.",
            )  # fmt: skip
        header.dimensions = found

    def _check_length(self, number: int, found: int) -> None:
        header = self.header
        if not header.equal:
            return
        if found != (header.length or found):
            self._refuse(
                number, "another length than @equalLength true allows",
                expected=f"{header.length} values in each dimension{self._as_before}", got=found,
                fix="Is the line whole? If it is, write @equalLength false.",
            )  # fmt: skip
        header.length = found

    def _side_by_side(self, number: int, dimensions: list[str]) -> np.ndarray:
        """Plain values: `(steps, dimensions)`."""
        columns = []
        for dimension, text in enumerate(dimensions, start=1):
            values = text.split(",")
            columns.append(self._numbers(number, dimension, values))
            if len(values) != len(columns[0]):
                self._refuse(
                    number, f"dimension {dimension} has another length than dimension 1",
                    expected=f"{len(columns[0])} values", got=len(values),
                )  # fmt: skip
        return np.stack(columns, axis=1)

    def _stamped(self, line: str) -> list[str]:
        """The parts between colons, where those within `(time,value)` do not count."""
        parts, at = [], 0
        while found := STAMPED_DIMENSION.match(line, at):
            parts.append(found[0])
            at = found.end()
            if line[at : at + 1] != ":":
                break
            at += 1
        return [*parts, line[at:]]

    def _merged(self, number: int, dimensions: list[str]) -> np.ndarray:
        """Values with time stamps: `(different times, dimensions)`, NaN where there is none."""
        stamped = [STAMPED.findall(text) for text in dimensions]
        for dimension, (text, pairs) in enumerate(zip(dimensions, stamped, strict=True), start=1):
            if len(pairs) != text.count("("):
                self._refuse(
                    number, f"dimension {dimension} has values without a time",
                    expected="(time,value),(time,value)", got=text[:40],
                )  # fmt: skip
        times = self._times(number, [time for time, _ in chain(*stamped)])
        steps, place = np.unique(times, return_inverse=True)
        merged = np.full((len(steps), len(dimensions)), np.nan)
        at = 0
        for dimension, pairs in enumerate(stamped):
            rows = place[at : at + len(pairs)]
            at += len(pairs)
            if len(np.unique(rows)) < len(rows):
                again = np.flatnonzero(np.bincount(rows) > 1)[0]
                twice = pairs[int(np.flatnonzero(rows == again)[0])][0]
                self._refuse(number, f"a time twice in dimension {dimension + 1}", got=twice)
            values = [value for _, value in pairs]
            merged[rows, dimension] = self._numbers(number, dimension + 1, values)
        return merged

    def _times(self, number: int, texts: list[str]) -> np.ndarray:
        """Numbers, or dates and times as ISO 8601 writes them."""
        for dtype in (np.float64, "datetime64[ns]"):
            try:
                times = np.array(texts).astype(dtype)
            except ValueError:
                continue
            if not (np.isnat(times) if times.dtype.kind == "M" else np.isnan(times)).any():
                return times
        self._refuse(
            number, "bad time stamps", expected="numbers or dates (2026-11-26 09:30:00)",
            got=", ".join(texts[:3]),
        )  # fmt: skip

    def _numbers(self, number: int, dimension: int, texts: list[str]) -> np.ndarray:
        try:
            return np.array(texts, dtype=np.float64)
        except ValueError:
            pass
        values = np.empty(len(texts))
        for i, text in enumerate(map(str.strip, texts)):
            try:
                values[i] = np.nan if text.lower() in MISSING else float(text)
            except ValueError:
                self._refuse(
                    number, f"dimension {dimension}, value {i + 1} is not a number",
                    expected="a number, or ? where it is missing", got=repr(text[:40]),
                )  # fmt: skip
        return values

    def _refuse(
        self,
        number: int,
        what: str,
        *,
        expected: str | None = None,
        got: object | None = None,
        fix: str | None = None,
    ) -> NoReturn:
        raise InputError(f"{self.path}, line {number}: {what}", expected=expected, got=got, fix=fix)


def _check_alike(train: TsFile, other: TsFile) -> None:
    """Raise `InputError` unless both files are of one problem."""
    for what, expected, got in (
        ("dimensions", train.header.dimensions, other.header.dimensions),
        ("classes", sorted(train.header.labels or []), sorted(other.header.labels or [])),
    ):
        if expected != got:
            raise InputError(
                f"{other.path} has other {what} than {train.path}", expected=_said(expected),
                got=_said(got),
            )  # fmt: skip


def _said(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
