"""The classes of a data set, however its labels name them: as text, or as whole numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rnn_tf.config import Answer
from rnn_tf.data.spec import UNLABELLED
from rnn_tf.errors import InputError

# More different values than this are identifiers or times, not classes.
MOST_CLASSES = 65_536

# What stands for no label among the labels of steps: as text, and as a whole number.
NO_LABEL = ("", str(UNLABELLED))

# How many classes a message names.
MOST_NAMED = 5

# As far as NumPy's whole numbers reach.
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True)
class Classes:
    """The name of each class, and what stands for it where examples are labelled."""

    labels: tuple[str, ...]
    values: np.ndarray  # (classes,), text or whole numbers, each once
    given: bool  # whether the source lists its classes; else they are what its labels contain

    @classmethod
    def of(cls, y_train: np.ndarray, labels: np.ndarray | None, source: str) -> Classes:
        """The classes of a source whose training labels are `y_train`, `(n,)` or `(n, steps)`.

        Without `labels`, they are the different values in `y_train`, sorted, as in scikit-learn.
        With `labels`, text `(classes,)`, `y` holds text out of it, or places in it from 0.
        Raises `InputError` for fewer than two classes, and for bad labels.
        """
        if labels is not None:
            names = _checked_labels(labels, source)
            is_text = y_train.dtype.kind == "U"
            return cls(names, np.array(names) if is_text else np.arange(len(names)), given=True)
        values = np.unique(y_train[has_label(y_train)] if y_train.ndim == 2 else y_train)
        if not 2 <= len(values) <= MOST_CLASSES:
            raise InputError(
                f"{source}: y_train gives a bad number of classes",
                expected=f"2 to {MOST_CLASSES:,} different values",
                got=f"{len(values):,}: {_some(values)}",
                fix="If other splits have more classes, name all of them in labels.",
            )
        return cls(tuple(map(str, values)), values, given=False)

    @classmethod
    def of_model(cls, labels: tuple[str, ...], y: np.ndarray) -> Classes:
        """The classes that a model knows, by which examples with the classes `y` are scored.

        `y` holds their names, or, where names are no numbers, places among them from 0.
        """
        if y.dtype.kind == "U":
            values = np.array(labels)
        elif all(map(WHOLE_NUMBER.fullmatch, labels)):
            values = np.array(list(map(int, labels)))
        else:
            values = np.arange(len(labels))
        return cls(labels, values, given=True)

    def places(self, y: np.ndarray, name: str, source: str) -> np.ndarray:
        """The class of each example as its place in `labels`: int32 `(n,)`.

        `name` is what messages call `y`. Raises `InputError` for a class that does not exist.
        """
        order = np.argsort(self.values, kind="stable")
        at = np.searchsorted(self.values, y, sorter=order).clip(max=len(order) - 1)
        places: np.ndarray = order[at].astype(np.int32)
        unknown = y[self.values[places] != y]
        if unknown.size:
            raise InputError(
                f"{source}: {name} has a class that does not exist",
                expected=_some(self.values),
                got=unknown[0],
                fix=self._fix(y),
            )
        return places

    def step_places(self, y: np.ndarray, name: str, source: str) -> np.ndarray:
        """The class of each step as `places` has it, of the same shape; UNLABELLED without one."""
        labelled = has_label(y)
        found = np.full(y.shape, UNLABELLED, np.int32)
        found[labelled] = self.places(y[labelled], name, source)
        return found

    def _fix(self, y: np.ndarray) -> str:
        if not self.given:
            return "y_train has no example of it; to keep the class, name all classes in labels."
        if y.dtype.kind == "U":
            return "Add it to labels."
        if y.min() == 1 and y.max() == len(self.labels):
            return "y holds places in labels, which count from 0: subtract 1 in every split."
        return "y holds places in labels: add what is missing there, or leave labels out."


def in_order(names: Iterable[str]) -> list[str]:
    """Names of classes or sequences, sorted: as numbers where all are whole ones, else as text."""
    names = list(names)
    if all(map(WHOLE_NUMBER.fullmatch, names)):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def has_label(y: np.ndarray) -> np.ndarray:
    """Which labels of steps, text or whole numbers, are labels: bool, as `y`."""
    labels: np.ndarray = ~np.isin(y, NO_LABEL) if y.dtype.kind == "U" else y != UNLABELLED
    return labels


def check_y(y: np.ndarray, x: np.ndarray, answer: Answer, name: str, source: str) -> None:
    """Raise `InputError` unless `y` has one class for each sequence of `x`, as text or numbers.

    Where every step is answered, it may have one for each step.
    """
    examples, steps = x.shape[:2]
    by_step = y.shape == (examples, steps)
    if y.shape != (examples,) and not (by_step and answer == "every_step"):
        fix = _one_column(y, name) if y.ndim == 2 and len(y) == examples else None
        if fix is None and by_step:
            fix = "For labels by step, train with --answer every_step."
        of_steps = f", or ({examples}, {steps}), of each step" if answer == "every_step" else ""
        raise InputError(
            f"{source}: {name} does not have one class for each example",
            expected=f"shape ({examples},){of_steps}",
            got=y.shape,
            fix=fix,
        )
    if y.dtype.kind not in "iuU":
        raise InputError(
            f"{source}: bad dtype of {name}",
            expected="whole numbers or text, the class of each example",
            got=y.dtype,
            fix=_to_classes(y, name),
        )


def _one_column(y: np.ndarray, name: str) -> str | None:
    """How to make one class an example of `y` `(n, columns)`; None when it has several."""
    if y.shape[1] == 1:
        return f"Give {name}[:, 0]."
    one_hot = y.dtype.kind in "buif" and ((y != 0).sum(axis=1) == 1).all()
    return f"It is one-hot: give {name}.argmax(axis=1)." if one_hot else None


def _to_classes(y: np.ndarray, name: str) -> str | None:
    """How to make classes of `y` `(n,)` of another dtype; None when there is no good way."""
    if y.dtype.kind == "S":
        return f"Give np.char.decode({name}, 'utf-8')."
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        return f"Leave out the examples without a class: keep = np.isfinite({name})."
    if y.dtype.kind == "b" or (y.dtype.kind == "f" and (y == np.round(y)).all()):
        return f"Give {name}.astype(np.int32)."
    if y.dtype.kind == "f":
        return f"To make classes of measurements, give np.digitize({name}, limits)."
    return None


def _checked_labels(labels: np.ndarray, source: str) -> tuple[str, ...]:
    if labels.dtype.kind != "U" or labels.ndim != 1:
        raise InputError(
            f"{source}: bad labels",
            expected="one string per class, shape (classes,)",
            got=f"{labels.dtype} of shape {labels.shape}",
            fix="Give labels.astype(str)." if labels.ndim == 1 else None,
        )
    names = tuple(map(str, labels))
    if len(names) < 2:
        raise InputError(f"{source}: too few labels", expected="at least 2", got=len(names))
    if len(set(names)) < len(names):
        twice = next(label for label in names if names.count(label) > 1)
        raise InputError(f"{source}: two classes have the same label", got=repr(twice))
    return names


def _some(values: np.ndarray) -> str:
    more = f" and {len(values) - MOST_NAMED:,} more" if len(values) > MOST_NAMED else ""
    return ", ".join(map(str, values[:MOST_NAMED])) + more
