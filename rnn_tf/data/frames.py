"""Frames as lines of text, as they come: the numbers of one time step, in CSV or JSON.

Commas, semicolons, tabs or spaces separate numbers; with semicolons and tabs, decimals may have
commas.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

# Stands for an empty line: a sequence has ended.
END = np.empty(0, np.float32)


def read_frames(
    lines: Iterable[str], spec: SequenceSpec, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """The number of each line, from 1, and its frame: float32 `(features,)`, or `END`.

    A first line of names is passed over, and says where the features are when there are other
    columns, too. `name` is what errors call the source.
    Raises `InputError` for a line that is not as many finite numbers, naming it.
    """
    header: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if number == 1 and _is_header(text, spec):
            header = _names(text)
        elif text:
            yield number, _frame(text, spec, header, f"line {number} of {name}")
        else:
            yield number, END


def _is_header(text: str, spec: SequenceSpec) -> bool:
    return bool(spec.feature_names) and set(spec.feature_names) <= set(_names(text))


def _names(text: str) -> list[str]:
    return [cell.strip().strip('"') for cell in _cells(text)]


def _cells(text: str) -> list[str]:
    mark = next((mark for mark in "\t;," if mark in text), None)
    return text.split(mark)


def _frame(text: str, spec: SequenceSpec, header: list[str], where: str) -> np.ndarray:
    if text[0] in "[{":
        values = _from_json(text, spec, where)
    else:
        values = _from_csv(text, spec, header, where)
    if len(values) != spec.features:
        raise InputError(
            f"{where} is not a frame of the model",
            expected=f"{spec.features} numbers", got=len(values),
        )  # fmt: skip
    with np.errstate(over="ignore"):
        frame = np.array(values, np.float64).astype(np.float32)
    if not np.isfinite(frame).all():
        raise InputError(f"{where} is not finite", got="NaN, or more than float32 can hold")
    return frame


def _from_csv(text: str, spec: SequenceSpec, header: list[str], where: str) -> list[float]:
    cells, values = _cells(text), []
    if header:
        if len(cells) != len(header):
            raise InputError(
                f"{where} has another number of columns than the names in line 1",
                expected=str(len(header)), got=len(cells),
            )  # fmt: skip
        cells = [cells[header.index(name)] for name in spec.feature_names]
    for cell in cells:
        try:
            values.append(float(cell.replace(",", ".")))
        except ValueError as error:
            raise InputError(
                f"{where} is not numbers", expected="CSV or JSON", got=repr(cell[:40])
            ) from error
    return values


def _from_json(text: str, spec: SequenceSpec, where: str) -> list[float]:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON", got=str(error)[:80]) from error
    if isinstance(found, dict):
        names = spec.feature_names
        if set(found) != set(names):
            raise InputError(
                f"{where} has other features",
                expected=", ".join(names)[:200] if names else "a list: they have no names",
                got=", ".join(map(str, found))[:200],
            )
        found = [found[each] for each in names]
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in found):
        raise InputError(f"{where} is not numbers", expected="a list of them", got=text[:80])
    try:
        return [float(each) for each in found]
    except OverflowError as error:
        raise InputError(f"{where} is not finite", got="more than float32 can hold") from error
