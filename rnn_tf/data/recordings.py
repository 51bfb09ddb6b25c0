"""Recordings: sequences of any length, one after another, as a file has them.

Every source that people bring reads its file into these; what happens then is the same for all:
missing values, windows, classes, splits that are not there, padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rnn_tf.config import Missing, Source, ToScore
from rnn_tf.data.classes import NO_LABEL, Classes, in_order
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import (
    UNLABELLED,
    SequenceData,
    SequenceSpec,
    Split,
    most_frequent,
    valid_steps,
)
from rnn_tf.data.splits import with_missing_splits
from rnn_tf.data.values import to_float32
from rnn_tf.errors import InputError

# Where the value of a row of `values` and of a feature is: "walk.csv, line 3, column 'x'".
Where = Callable[[int, int], str]

FILL = (
    "Add --missing interpolate, which draws a line between the values before and after it, or "
    "--missing zero."
)


@dataclass(frozen=True)
class Recordings:
    """The sequences of one split."""

    values: np.ndarray  # (time steps of all, features), numbers; NaN where one is missing
    lengths: np.ndarray  # (n,), whole numbers >= 1, which add up to the time steps of all
    # (n,), the class of each, or if `by_step` (time steps of all,), that of each step: text, or its
    # place among the classes. A step without a label has one of `classes.NO_LABEL`.
    y: np.ndarray
    groups: np.ndarray | None = None  # (n,), whole numbers or text
    names: np.ndarray | None = None  # (n,), what the source calls each; None: by their place
    by_step: bool = False

    @classmethod
    def of(cls, split: Split) -> Recordings:
        """The sequences of padded arrays, without the padding."""
        examples, steps, features = split.x.shape
        if split.lengths is None:
            lengths, values = np.full(examples, steps), split.x.reshape(-1, features)
            y = split.y.reshape(-1)
        else:
            lengths, values = split.lengths.astype(np.int64), split.x[split.valid]
            y = split.y[split.valid] if split.labelled_by_step else split.y
        return cls(values, lengths, y, split.groups, by_step=split.labelled_by_step)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> np.ndarray:
        """The row of `values` at which each sequence begins."""
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts

    @property
    def sequence_labels(self) -> np.ndarray:
        """One class for each, `(n,)`, of places among the classes: of steps, the most frequent."""
        if not self.by_step:
            return self.y
        return most_frequent(np.repeat(np.arange(len(self)), self.lengths), self.y, len(self))

    @property
    def called(self) -> np.ndarray:
        """What the source calls each, or else its place: text `(n,)`."""
        return np.arange(len(self)).astype(str) if self.names is None else self.names

    def take(self, rows: np.ndarray) -> Recordings:
        """The sequences at `rows`, indices or a mask."""
        return self._pieces(np.arange(len(self))[rows])

    def named(self, split: str) -> Recordings:
        """The same with names, which no sequence of another split has."""
        if self.names is not None:
            return self
        return dataclasses.replace(self, names=np.char.add(f"{split} ", self.called))

    def windows(self, size: int, stride: int) -> Recordings:
        """Every window of `size` steps, one each `stride` steps; a shorter sequence as it is.

        Steps after the last whole window are left out, and windows of which no step has a label.
        Windows of one sequence are of one group: its own, or else the sequence itself.
        """
        counts = np.maximum((self.lengths - size) // stride, 0) + 1
        rows = np.repeat(np.arange(len(self)), counts)
        offsets = (np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)) * stride
        groups = self.names if self.groups is None else self.groups
        windows = dataclasses.replace(self, groups=groups)._pieces(
            rows, offsets, np.minimum(self.lengths[rows], size)
        )
        return windows.take(windows.sequence_labels >= 0) if self.by_step else windows

    def _pieces(
        self, rows: np.ndarray, offsets: np.ndarray | int = 0, lengths: np.ndarray | None = None
    ) -> Recordings:
        """Of each sequence at `rows`, `lengths` steps from its `offsets` on."""
        lengths = self.lengths[rows] if lengths is None else lengths
        first = self.starts[rows] + offsets
        steps = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
        steps += np.arange(len(steps))
        groups, names = (None if each is None else each[rows] for each in (self.groups, self.names))
        y = self.y[steps if self.by_step else rows]
        return Recordings(self.values[steps], lengths, y, groups, names, self.by_step)

    def padded(self, longest: int, *, varies: bool) -> Split:
        """As arrays of `longest` steps, with zeros after the end of shorter sequences."""
        shape = (len(self), longest, self.values.shape[1])
        y = self.y.astype(np.int32)
        if not varies:
            y = y.reshape(shape[:2]) if self.by_step else y
            return Split(self.values.reshape(shape), y, None, self.groups)
        valid = valid_steps(self.lengths, longest)
        x = np.zeros(shape, self.values.dtype)
        x[valid] = self.values
        if self.by_step:
            of_steps, y = y, np.full(shape[:2], UNLABELLED, np.int32)
            y[valid] = of_steps
        return Split(x, y, self.lengths, self.groups)

    def without_gaps(self, missing: Missing, where: Where) -> Recordings:
        """The same without NaN. Raises `InputError` where a value is missing and may not be.

        `interpolate` draws a line between the values of the same feature and sequence before and
        after a gap, and holds the first and the last value at the ends.
        """
        gaps = np.isnan(self.values)
        if not gaps.any():
            return self
        row, feature = (int(place) for place in np.argwhere(gaps)[0])
        if missing == "refuse":
            raise InputError(f"{where(row, feature)}: a value is missing", fix=FILL)
        values = self.values.copy()
        if missing == "zero":
            values[gaps] = 0
            return dataclasses.replace(self, values=values)
        ends = np.cumsum(self.lengths)
        sequences = np.searchsorted(ends, np.flatnonzero(gaps.any(axis=1)), side="right")
        for sequence in np.unique(sequences):
            begin, end = ends[sequence] - self.lengths[sequence], ends[sequence]
            for place in np.flatnonzero(gaps[begin:end].any(axis=0)):
                gap, column = gaps[begin:end, place], values[begin:end, place]
                if gap.all():
                    raise InputError(
                        f"{where(int(begin), int(place))}: all values of this feature are "
                        "missing in the sequence, so that there is no line to draw",
                        fix="Add --missing zero, or leave the sequence out.",
                    )
                column[gap] = np.interp(np.flatnonzero(gap), np.flatnonzero(~gap), column[~gap])
        return dataclasses.replace(self, values=values)


def from_text(
    splits: Mapping[str, Recordings],
    where: Mapping[str, Where],
    source: Source,
    *,
    labels: Sequence[str] | None = None,
    feature_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> SequenceData:
    """The data set of recordings whose values are float64 and whose classes are text.

    The classes are `labels`, or else all that there are, in order. Raises `InputError` for missing
    values that may not be, for infinite ones and those beyond float32, and for too few classes.
    """
    by_step = splits["train"].by_step
    found = {str(label) for each in splits.values() for label in np.unique(each.y)}
    found -= set(NO_LABEL) if by_step else set()
    if isinstance(source, ToScore):
        labels = source.labels
        _refuse_unknown_class(found, source)
    elif labels is None:
        labels = in_order(found)
    if len(labels) < 2:
        raise InputError(
            f"{source.dataset}: too few classes", expected="at least 2", got=", ".join(labels),
            fix=f"{UNLABELLED} stands for a step without a label." if by_step else None,
        )  # fmt: skip
    classes = Classes.of(splits["train"].y, np.array(labels), source.dataset)
    read = {}
    for name, recordings in splits.items():
        whole = recordings.without_gaps(source.missing, where[name])
        values = to_float32(whole.values, where[name])
        places = classes.step_places if by_step else classes.places
        y = places(whole.y, f"y_{name}", source.dataset)
        read[name] = dataclasses.replace(whole, values=values, y=y)
    return sequence_data(read, classes.labels, source, feature_names=feature_names, notes=notes)


def _refuse_unknown_class(found: set[str], source: ToScore) -> None:
    """Raise `InputError` for a class that the model to be scored does not know."""
    if unknown := in_order(found - set(source.labels)):
        raise InputError(
            f"{source.dataset} has a class that the model does not know",
            expected=", ".join(source.labels), got=", ".join(unknown),
        )  # fmt: skip


def sequence_data(
    splits: Mapping[str, Recordings],
    labels: tuple[str, ...],
    source: Source,
    *,
    normalize: Normalize | None = None,
    feature_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    longest: int = 0,
) -> SequenceData:
    """The data set of recordings whose values are uint8 or float32, and `y` places in `labels`.

    Cuts the splits that are not there, then windows, so that no recording is in two splits. Where
    a model is only to be scored on them, train and valid are empty. All
    sequences have one length where all are as long; `longest` is the least that the arrays hold
    where not. Raises `InputError` when a split cannot be cut.
    """
    if source.window is not None:  # whose groups will be the names
        splits = {name: each.named(name) for name, each in splits.items()}
    splits = _with_all_splits(splits, source)
    if source.window is not None:
        splits = {name: _windows(each, name, source) for name, each in splits.items()}
        longest = 0
    lengths = np.concatenate([each.lengths for each in splits.values()])
    varies = bool((lengths != lengths[0]).any())
    longest = max(longest, int(lengths.max())) if varies else int(lengths[0])
    spec = SequenceSpec(
        None if varies else longest,
        splits["train"].values.shape[1],
        labels,
        normalize,
        longest=longest,
        feature_names=feature_names,
        answer=source.answer,
    )
    padded = {name: each.padded(longest, varies=varies) for name, each in splits.items()}
    return SequenceData(spec, **padded, notes=notes)


def _windows(recordings: Recordings, name: str, source: Source) -> Recordings:
    """The windows of a split. Raises `InputError` where none has a label."""
    size = source.window or 0
    windows = recordings.windows(size, source.stride or size)
    if len(recordings) and not len(windows):
        raise InputError(
            f"{source.dataset}: no window of {name} has a label", expected="one at least",
            fix="Leave --window out, or make windows longer.",
        )  # fmt: skip
    return windows


def _with_all_splits(splits: Mapping[str, Recordings], source: Source) -> dict[str, Recordings]:
    """The same with the validation and test split that a source does not have, cut from train."""
    if isinstance(source, ToScore):
        scored = splits.get("test", splits["train"])
        none = scored.take(np.arange(0))
        return {"train": none, "valid": none, "test": scored}
    # By place: whole recordings move, not yet their windows.
    places = {
        name: Split(np.arange(len(each)), each.sequence_labels, None, each.groups)
        for name, each in splits.items()
    }
    train, valid, test = with_missing_splits(
        source.dataset, places["train"], places.get("valid"), places.get("test"),
        source.test_share, to_fold=bool(source.fold),
    )  # fmt: skip
    cut: dict[str, Recordings] = {}
    for name, part in (("train", train), ("valid", valid), ("test", test)):
        whole = splits.get(name, splits["train"])
        cut[name] = whole if len(part.x) == len(whole) else whole.take(part.x)
    return cut
