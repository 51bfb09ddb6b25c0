"""Frames as lines of text, as they come: the numbers of one time step, in CSV or JSON."""

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

    A first line of the features' names is passed over. `name` is what errors call the source.
    Raises `InputError` for a line that is not as many finite numbers, naming it.
    """
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            yield number, END
        elif number > 1 or not _is_header(text, spec):
            yield number, _frame(text, spec, f"line {number} of {name}")


def _is_header(text: str, spec: SequenceSpec) -> bool:
    names = tuple(cell.strip().strip('"') for cell in text.split(","))
    return bool(spec.feature_names) and names == spec.feature_names


def _frame(text: str, spec: SequenceSpec, where: str) -> np.ndarray:
    values = _from_json(text, spec, where) if text[0] in "[{" else _from_csv(text, where)
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


def _from_csv(text: str, where: str) -> list[float]:
    values = []
    for cell in text.split(","):
        try:
            values.append(float(cell))
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
