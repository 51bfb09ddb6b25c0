"""What a set of labelled sequences is: its arrays, and the specification that travels with them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np

from rnn_tf.config import Answer, NormalizeChoice
from rnn_tf.data.normalize import Normalize, choose, deviation
from rnn_tf.data.stored import StoredSequences
from rnn_tf.errors import InputError

# Of a written specification. Raised when what is in one changes.
VERSION = 3
# What the model sees where nobody has said anything: raw values.
AS_IT_IS = Normalize(origin="none")
SPLITS = ("train", "valid", "test")
# Of a split that lies in files, what is not asked about all examples is asked about so many bytes.
SAMPLE_BYTES = 64 * 2**20
# The class of a step that has none, among labels by step.
UNLABELLED = -1


@dataclass(frozen=True)
class SequenceSpec:
    """The shape and meaning of one example. Nothing downstream guesses any of it.

    It is written with a version, and read from any version up to this one. Raises `InputError` when
    a size is below its minimum, there are fewer than two labels or two alike, or the normalization
    is for another number of features.
    """

    # Length of every sequence (MNIST: 28 rows), >= 1; None where lengths vary, up to `longest`.
    timesteps: int | None
    features: int  # numbers per time step (MNIST: 28 columns), >= 1
    labels: tuple[str, ...]  # the name of each class, in the order of the class indices
    # From raw values to what the model sees (MNIST: 1/255). None: the source does not say, and the
    # model sees raw values unless training chooses otherwise.
    normalize: Normalize | None = None
    channels: int = 0  # colour channels when a sequence is the rows of a picture; 0: it is not one
    # Length of the longest sequence that the model reads, >= 1. Said only where lengths vary;
    # otherwise it is `timesteps`, whatever is given.
    longest: int = 0
    feature_names: tuple[str, ...] = ()  # the name of each feature; none where the source has none
    # What the model is asked for: one answer, when a sequence has ended, or one at every step.
    answer: Answer = "end"

    def __post_init__(self) -> None:
        if self.timesteps is not None:
            object.__setattr__(self, "longest", self.timesteps)
        names = ("longest" if self.timesteps is None else "timesteps", "features")
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"bad {name}", expected="a whole number >= 1", got=repr(value))
        if len(self.labels) < 2:
            raise InputError("too few labels", expected="at least 2", got=len(self.labels))
        if len(set(self.labels)) < len(self.labels):
            twice = next(label for label in self.labels if self.labels.count(label) > 1)
            raise InputError("two classes have the same label", got=repr(twice))
        if self.channels not in (0, 1, 3, 4) or self.features % (self.channels or 1):
            raise InputError(
                "bad channels", expected="0, 1, 3 or 4, a divisor of features", got=self.channels
            )
        if self.varies and self.channels:
            raise InputError("the rows of a picture are always as many", got="lengths that vary")
        if len(self.feature_names) not in (0, self.features):
            raise InputError(
                "the names of the features do not match them",
                expected=f"{self.features} names, or none", got=len(self.feature_names),
            )  # fmt: skip
        if self.answer not in get_args(Answer):
            expected = f"one of {', '.join(get_args(Answer))}"
            raise InputError("bad answer", expected=expected, got=repr(self.answer))
        self.normalization.check_features(self.features)

    @property
    def every_step(self) -> bool:
        """Whether the model answers at every step."""
        return self.answer == "every_step"

    @property
    def varies(self) -> bool:
        """Whether sequences have different lengths."""
        return self.timesteps is None

    @property
    def classes(self) -> int:
        """How many classes there are, at least 2."""
        return len(self.labels)

    @property
    def normalization(self) -> Normalize:
        """From raw values to what the model sees: `normalize`, or nothing at all."""
        return self.normalize or AS_IT_IS

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "version": VERSION,
            "timesteps": self.timesteps,
            "longest": self.longest,
            "features": self.features,
            "labels": list(self.labels),
            "normalize": self.normalize and self.normalize.to_dict(),
            "channels": self.channels,
            "feature_names": list(self.feature_names),
            "answer": self.answer,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> SequenceSpec:
        """The specification that `to_json` wrote. Raises `InputError` for anything else."""
        try:
            values: Any = json.loads(text)
        except (ValueError, RecursionError) as error:  # not JSON, numbers too long, lists too deep
            raise InputError("the specification is not JSON", got=str(error)) from error
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Any) -> SequenceSpec:
        """The specification that `to_dict`, of this or an older version, has given.

        Raises `InputError` for a newer version, and for anything else.
        """
        if not isinstance(values, dict):
            raise InputError("bad specification", expected="an object", got=type(values).__name__)
        values = _as_this_version(dict(values))
        known = {"version", *(field.name for field in dataclasses.fields(cls))}
        if set(values) != known:
            raise InputError(
                "the specification has other keys", expected=str(sorted(known)),
                got=sorted(map(str, values)),
            )  # fmt: skip
        del values["version"]
        for name in ("labels", "feature_names"):
            if not isinstance(values[name], list):
                raise InputError(
                    f"bad {name} in the specification", expected="a list", got=repr(values[name])
                )
            values[name] = tuple(map(str, values[name]))
        if values["normalize"] is not None:
            values["normalize"] = Normalize.from_dict(values["normalize"])
        spec = cls(**values)
        if spec.longest != values["longest"]:
            raise InputError(
                "bad longest", expected=f"{spec.longest}, the length of every sequence",
                got=values["longest"],
            )  # fmt: skip
        return spec


def _as_this_version(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a specification of any version as this version has them."""
    version = values.get("version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise InputError(
            "the specification was written by a newer version of this package",
            expected=f"version {VERSION} or older",
            got=repr(version),
            fix="Upgrade: pip install --upgrade rnn-tf.",
        )
    if version == 1 and "scale" in values:  # one number for all features, and the classes counted
        classes, labels = values.pop("classes", None), values.get("labels")
        if isinstance(labels, list) and classes != len(labels):
            raise InputError(
                "the labels do not match the classes",
                expected=f"{classes} labels", got=len(labels),
            )  # fmt: skip
        values["normalize"] = {"scale": [values.pop("scale")], "shift": [0.0]}
        values["longest"], values["feature_names"] = values.get("timesteps"), []
        version = values["version"] = 2
    if version == 2:  # before there were answers at every step
        values["answer"] = "end"
    return values


class Split(NamedTuple):
    """Examples of one split, as the source has them: raw values, not scaled."""

    # (n, longest, features), uint8 or float32; shorter sequences are right-padded. In its place may
    # be `StoredSequences`, which lie in files: an index reads them (see `stored`).
    x: np.ndarray
    # int32 class indices: (n,), one a sequence, or (n, longest), one a step, with UNLABELLED at
    # steps that have none and in the padding.
    y: np.ndarray
    lengths: np.ndarray | None = None  # (n,), int32, 1 to longest; None where all are as long
    # (n,), whole numbers or text: who or what an example comes from; None where nobody says.
    groups: np.ndarray | None = None

    def take(self, rows: Any) -> Split:
        """The examples at `rows`, in memory: indices, a mask or a slice."""
        lengths, groups = (None if each is None else each[rows] for each in self[2:])
        return Split(self.x[rows], self.y[rows], lengths, groups)

    @property
    def stored(self) -> StoredSequences | None:
        """The sequences if they lie in files; None where `x` is an array."""
        x: object = self.x
        return x if isinstance(x, StoredSequences) else None

    def parts(self, examples: int) -> Iterator[Split]:
        """The split in memory: as it is, or if it lies in files, so many examples at a time."""
        if self.stored is None:
            yield self
        else:
            for start in range(0, len(self.y), examples):
                yield self.take(slice(start, start + examples))

    def sampled(self) -> Split:
        """The split in memory: as it is, or if it lies in files, `SAMPLE_BYTES` of it.

        These are examples at even distances, since files are often sorted by class.
        """
        if self.stored is None:
            return self
        most = max(1, SAMPLE_BYTES // self.stored.example_bytes)
        if len(self.y) <= most:
            return self.take(slice(None))
        return self.take(np.linspace(0, len(self.y) - 1, most).astype(int))

    @property
    def valid(self) -> np.ndarray | None:
        """Which steps belong to a sequence, and are no padding: bool `(n, longest)`; None: all."""
        if self.lengths is None:
            return None
        return valid_steps(self.lengths, self.x.shape[1])

    @property
    def labelled_by_step(self) -> bool:
        """Whether each step has a label of its own, and not the sequence one for all."""
        return self.y.ndim == 2

    @property
    def step_labels(self) -> np.ndarray:
        """The label of every step, int32 `(n, longest)`; UNLABELLED where there is none."""
        if self.labelled_by_step:
            return self.y
        labels = np.repeat(self.y[:, np.newaxis], self.x.shape[1], axis=1)
        if self.lengths is not None:
            labels[~np.asarray(self.valid)] = UNLABELLED
        return labels

    def labelled_for(self, spec: SequenceSpec) -> Split:
        """The same with a label for each answer of a model of `spec`: for every step, or for all.

        Raises `ValueError` where steps have labels and the answer is at the end.
        """
        if self.labelled_by_step and not spec.every_step:
            raise ValueError("labels by step for an answer at the end")
        return self._replace(y=self.step_labels) if spec.every_step else self

    @property
    def sequence_labels(self) -> np.ndarray:
        """One label for every sequence, `(n,)`: of labels by step, its most frequent."""
        if not self.labelled_by_step:
            return self.y
        sequences, steps = self.y.shape
        return most_frequent(np.repeat(np.arange(sequences), steps), self.y.ravel(), sequences)


def most_frequent(sequence: np.ndarray, labels: np.ndarray, sequences: int) -> np.ndarray:
    """The most frequent label of each sequence, `(sequences,)`; of equals, the lowest.

    `labels` are those of steps, `sequence` says whose, from 0, both `(steps,)`. UNLABELLED does not
    count; a sequence without a label has UNLABELLED.
    """
    sequence, found = sequence[labels >= 0], labels[labels >= 0]
    most = np.full(sequences, UNLABELLED, np.int32)
    if found.size:
        width = int(found.max()) + 1
        pairs, counts = np.unique(sequence * width + found, return_counts=True)
        # What is written last stays: the most frequent, and of equals the lowest.
        order = np.lexsort((-pairs, counts))
        most[pairs[order] // width] = pairs[order] % width
    return most


def valid_steps(lengths: np.ndarray, longest: int) -> np.ndarray:
    """Which steps of right-padded sequences belong to them: bool `(n, longest)`."""
    steps: np.ndarray = np.arange(longest) < lengths[:, np.newaxis]
    return steps


@dataclass(frozen=True)
class SequenceData:
    """A data set: three splits and their specification.

    `valid` chooses the model; `test` is read by evaluation only, once. Where lengths vary, what is
    given as padding never matters: it is 0 here, and has no label. Raises `InputError` for lengths
    and labels that do not fit.
    """

    spec: SequenceSpec
    train: Split
    valid: Split
    test: Split
    # How the source was read, where nobody had said it: a line each.
    notes: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for name in SPLITS:
            object.__setattr__(self, name, checked(getattr(self, name), name, self.spec))
            if getattr(self, name).labelled_by_step != self.train.labelled_by_step:
                raise InputError(
                    f"labels by step in train or {name}, and by sequence in the other",
                    expected="the same in both",
                )

    def normalized(self, by: NormalizeChoice | Normalize | None) -> SequenceData:
        """The same raw values with the normalization of a run: given, or chosen by name.

        What is learned for it is learned on the training split.
        """
        if isinstance(by, str):
            by = choose(by, self.spec.normalize, self.train.x, self.train.lengths)
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, normalize=by))

    def deviation(self) -> np.ndarray:
        """The standard deviation of each feature in training, as the model sees it.

        float32 `(features,)`.
        """
        return deviation(self.spec.normalization, self.train.x, self.train.lengths)

    @property
    def stored(self) -> bool:
        """Whether the sequences lie in files, and are read when they are needed."""
        return self.train.stored is not None

    def sampled(self) -> SequenceData:
        """The data in memory, with what `Split.sampled` leaves of each split."""
        if not self.stored:
            return self
        parts = {name: getattr(self, name).sampled() for name in SPLITS}
        return dataclasses.replace(self, **parts)

    def answering(self, answer: Answer) -> SequenceData:
        """The same examples for a model that answers so.

        Raises `InputError` where steps have labels of their own and the answer is at the end.
        """
        if answer == self.spec.answer:
            return self
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, answer=answer))


def checked(split: Split, name: str, spec: SequenceSpec) -> Split:
    """The split with zeros as padding, and no labels there.

    `name` is what errors call it. Raises `InputError` for lengths and labels that do not fit.
    """
    split = _with_checked_lengths(split, name, spec)
    return _with_checked_step_labels(split, name, spec) if split.labelled_by_step else split


def _with_checked_lengths(split: Split, name: str, spec: SequenceSpec) -> Split:
    lengths = split.lengths
    if (lengths is not None) != spec.varies:
        raise InputError(
            f"bad lengths of {name}",
            expected="the length of each sequence" if spec.varies else "none: all are as long",
            got="none" if lengths is None else f"shape {lengths.shape}",
        )
    if lengths is None:
        return split
    if lengths.shape != (len(split.x),) or lengths.dtype.kind not in "iu":
        raise InputError(
            f"bad lengths of {name}",
            expected=f"one whole number for each of {len(split.x):,} sequences",
            got=f"{lengths.dtype} of shape {lengths.shape}",
        )
    wrong = np.flatnonzero((lengths < 1) | (lengths > spec.longest))
    if wrong.size:
        raise InputError(
            f"bad lengths of {name}", expected=f"1 to {spec.longest}",
            got=f"{lengths[wrong[0]]} for example {wrong[0]}",
        )  # fmt: skip
    split = split._replace(lengths=lengths.astype(np.int32, copy=False))
    if split.stored is not None:  # files hold no padding
        return split
    padding = ~np.asarray(split.valid)
    if split.x[padding].any():  # NaN is
        x = split.x.copy()
        x[padding] = 0
        split = split._replace(x=x)
    return split


def _with_checked_step_labels(split: Split, name: str, spec: SequenceSpec) -> Split:
    y, steps = split.y, split.x.shape[:2]
    if not spec.every_step:
        raise InputError(
            f"{name} has a label for each step, and the answer is at the end of a sequence",
            expected=f"a label for each sequence, shape ({len(split.x)},)", got=f"shape {y.shape}",
            fix="For an answer at every step, train with --answer every_step.",
        )  # fmt: skip
    if y.dtype.kind not in "iu":
        raise InputError(
            f"bad dtype of the labels of {name}", expected="whole numbers", got=str(y.dtype)
        )
    if y.shape != steps:
        raise InputError(
            f"the labels of {name} do not match its steps",
            expected=f"shape {steps}, or ({steps[0]},) for one a sequence", got=f"shape {y.shape}",
        )  # fmt: skip
    if split.lengths is not None:
        y = np.where(np.asarray(split.valid), y, UNLABELLED)
    wrong = np.argwhere((y < UNLABELLED) | (y >= spec.classes))
    if wrong.size:
        example, step = wrong[0]
        raise InputError(
            f"bad label in {name}",
            expected=f"0 to {spec.classes - 1}, or {UNLABELLED} for a step without one",
            got=f"{y[example, step]} in step {step} of example {example}",
        )
    without = np.flatnonzero((y == UNLABELLED).all(axis=1))
    if without.size:
        raise InputError(
            f"a sequence of {name} without a label", expected="one at least",
            got=f"none in example {without[0]}", fix="Leave such sequences out.",
        )  # fmt: skip
    return split._replace(y=y.astype(np.int32, copy=False))
