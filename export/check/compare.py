"""How answers are held against the formulas and the trained model, and when that fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf, isfinite
from typing import Any

import numpy as np

from export.check import limits
from export.check.questions import Family
from rnn_tf.errors import CheckFailed


@dataclass(frozen=True)
class Row:
    """How one format answered one family. Differences are of probabilities, absolute."""

    format: str
    family: str
    examples: int
    limit: float  # the largest difference that rounding explains
    max_difference: float  # from the oracle
    mean_difference: float
    max_difference_from_keras: float | None  # where Keras was asked
    max_difference_from_itself: float  # asked the same in the test split, in other batches
    # An example has one answer, or one at every step. Where labels are known, shares are of those.
    agreement: float  # share of answers with the oracle's most probable class, 0 to 1
    disagreements: int  # answers with another one though the oracle's two best are not tied
    accuracy: float | None  # share of right answers, 0 to 1, where labels are known
    failures: tuple[str, ...] = ()  # figure and limit of each rule that does not hold


@dataclass(frozen=True)
class Report:
    rows: list[Row]
    test_examples: int  # of the test split, of which not all may have been asked
    not_asked: dict[str, float] = field(default_factory=dict)  # family -> its limit, too large

    def worst(self) -> str:
        """The failure of each format that is furthest beyond its limit, in one line."""
        lines = []
        for name in dict.fromkeys(row.format for row in self.rows if row.failures):
            rows = [row for row in self.rows if row.format == name and row.failures]
            row = max(rows, key=lambda row: nan_last(row.max_difference / row.limit))
            more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
            lines.append(f"{name}, {row.family}: {row.failures[0]}{more}")
        return "; ".join(lines)

    def failures(self, name: str | None = None) -> list[str]:
        """One line for each rule that does not hold, of one format or all."""
        return [
            f"{row.format}, {row.family}: {failure}"
            for row in self.rows
            if name in (None, row.format)
            for failure in row.failures
        ]

    def to_json(self) -> str:
        return json.dumps(
            {
                "passed": not self.failures(),
                # That of a difference is in each row.
                "limits": {
                    "accuracy_loss": limits.MOST_ACCURACY_LOSS,
                    "agreement": limits.LEAST_AGREEMENT,
                },
                "test_examples": self.test_examples,
                "not_asked": {
                    name: value if isfinite(value) else None
                    for name, value in self.not_asked.items()
                },
                "rows": [_finite(asdict(row)) for row in self.rows],
            },
            indent=2,
            allow_nan=False,
        )

    def without(self, names: Sequence[str]) -> Report:
        return replace(self, rows=[row for row in self.rows if row.format not in names])


def nan_last(value: float) -> float:
    """`value` for comparing by size: what is no number is larger than all."""
    return value if isfinite(value) else inf


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: null stands for them."""
    wrong = {key for key, value in row.items() if isinstance(value, float) and not isfinite(value)}
    return {key: None if key in wrong else value for key, value in row.items()}


def compare(
    name: str,
    family: Family,
    got: np.ndarray,
    exact: np.ndarray,
    reference: np.ndarray | None,
    itself: np.ndarray,
    limit: float,
) -> Row:
    """Hold `got` against the oracle's `exact`, Keras's `reference` and `itself` on the test split.

    `limit` is what float32 promises of the family (`rounding.limit`). All others are probabilities
    `(n, classes)`, or of each step, `(n, timesteps, classes)`; `itself` may have more steps. Raises
    `CheckFailed` when a format gives another shape.
    """
    if got.shape != exact.shape:
        raise CheckFailed(f"{name}, {family.name}: shape {got.shape}, expected {exact.shape}")
    examples, before = len(got), got
    if family.asked_before is not None:
        before = itself[family.asked_before]
    labels = family.y
    if got.ndim == 3:
        before = family.in_rows(before[:, : got.shape[1]])
        got, exact = family.in_rows(got), family.in_rows(exact)
        reference = None if reference is None else family.in_rows(reference)
        labels = None if labels is None else family.in_rows(labels)
    difference = _difference(got, exact)
    best = got.argmax(axis=1)
    second, first = np.sort(exact, axis=1)[:, -2:].T
    other = best != exact.argmax(axis=1)
    known = np.ones(len(got), bool) if labels is None else labels >= 0
    return Row(
        format=name,
        family=family.name,
        examples=examples,
        limit=limit,
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        max_difference_from_keras=(
            None if reference is None else float(_difference(got, reference).max())
        ),
        max_difference_from_itself=float(_difference(got, before).max()),
        agreement=float(1 - other[known].mean()),
        disagreements=int((other & (first - second > limit)).sum()),
        accuracy=None if labels is None else float((best == labels)[known].mean()),
    )


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Element by element; NaN, silently, where both are infinite."""
    with np.errstate(invalid="ignore"):
        result: np.ndarray = np.abs(a - b)
    return result


def failures(row: Row, exact: Row, *, quantized: bool) -> tuple[str, ...]:
    """The rules that `row` breaks, each with its figure and its limit; `exact` is the oracle's."""
    most = [("|dp| from itself in other batches", row.max_difference_from_itself, row.limit)]
    least = []
    if not quantized:
        most += [
            ("|dp| from the oracle", row.max_difference, row.limit),
            ("other answers", row.disagreements, 0),
        ]
        if row.max_difference_from_keras is not None:
            most.append(("|dp| from Keras", row.max_difference_from_keras, row.limit))
    else:
        # How far a probability may be off is not said, but a number it must be.
        most.append(("|dp| from the oracle", row.max_difference, 1))
        if row.accuracy is not None and exact.accuracy is not None:
            lost, other = (
                limits.most_lost(share, row.examples, row.mean_difference)
                for share in (limits.MOST_ACCURACY_LOSS, 1 - limits.LEAST_AGREEMENT)
            )
            most.append(("accuracy lost", exact.accuracy - row.accuracy, lost))
            least.append(("agreement", row.agreement, 1 - other))
    # NaN is neither above nor below a limit: it breaks every rule that says what must hold.
    return tuple(
        [
            f"{what} {figure:.3g}, limit {limit:.3g}"
            for what, figure, limit in most
            if not figure <= limit
        ]
        + [
            f"{what} {figure:.3g}, at least {limit:.3g}"
            for what, figure, limit in least
            if not figure >= limit
        ]
    )
