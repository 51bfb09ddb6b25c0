"""Where examples come from: `load(source)`, one module per kind of source."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from pathlib import Path

from rnn_tf.config import Source, ToScore
from rnn_tf.data import tfrecord
from rnn_tf.data.describe import describe
from rnn_tf.data.likely_mistakes import likely_mistakes
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.data.splits import fold_of, refuse_test_share
from rnn_tf.errors import InputError

__all__ = [
    "TFDS", "SequenceData", "SequenceSpec", "Source", "Split", "check_settings", "describe",
    "elsewhere", "load", "load_to_fold", "needs_tensorflow",
]  # fmt: skip

TFDS = "tfds:"

MNIST = "mnist"

# The settings of `Source` that have a meaning in every kind of source, and those of each.
IN_ALL = ("dataset", "answer", "fold")
RECORDINGS = ("missing", "window", "stride", "test_share")
SETTINGS = {
    "mnist": ("test_share",),  # refused by what it would do
    "tfds": ("test_share",),
    "tfrecord": (),
    "npz": RECORDINGS,
    "ts": RECORDINGS,
    "folders": ("time", "features", *RECORDINGS),
    "tables": ("id", "time", "label", "features", "groups", *RECORDINGS),
}
SUFFIXES = {
    ".npz": "npz", ".ts": "ts", ".csv": "tables", ".tsv": "tables", ".txt": "tables",
    ".parquet": "tables",
}  # fmt: skip


def load(source: str | Source, *, to_train: bool = False) -> SequenceData:
    """Load a data set, given by name or with how it is to be read.

    `mnist` is the embedded default, `tfds:<name>` a set of TensorFlow Datasets and
    `tfrecord:<glob>` one in shards, which stays in its files; files are told apart by their suffix,
    and a folder holds shards, `.ts` files or a sub-folder for each class. Where
    `fold` says so, the test split is that fold of the training and validation examples. With
    `to_train`, warns (`UserWarning`) of what is probably a mistake in data to train on. Raises
    `InputError` for any other name, for a setting that means nothing in this kind of source, and
    for a source that cannot be read.
    """
    source = Source(source) if isinstance(source, str) else source
    data = _read(source, to_train)
    return fold_of(data, source.fold) if source.fold else data


def load_to_fold(source: Source, *, to_train: bool = False) -> SequenceData:
    """Load what `fold_of` makes folds of, as `load` does. It may have no test example."""
    return _read(dataclasses.replace(source, fold=source.fold or "1/2"), to_train)


def _read(source: Source, to_train: bool) -> SequenceData:
    """The whole data set. Where a fold is wanted of it, there may be no test example."""
    kind = check_settings(source)
    module = importlib.import_module(f"rnn_tf.data.{kind}")
    data: SequenceData
    if kind == "mnist":
        data = module.load()
    elif kind == "tfds":
        data = module.load(source.dataset.removeprefix(TFDS))
    elif kind == "tfrecord":
        if source.fold:
            raise InputError(
                f"{source.dataset} is in shards, of which no folds are made",
                expected="a source that is read into memory",
                fix="Give the source that the shards were written from, or leave the folds out.",
            )
        data = module.load(source.dataset)
    else:
        data = module.load(source)
    data = data.answering(source.answer)
    # Of shards it was said when they were written: here it would take another pass over the files.
    if to_train and source.dataset != MNIST and not data.stored:
        for line in likely_mistakes(data):
            warnings.warn(f"{source.dataset}: {line}", stacklevel=3)
    return data


def check_settings(source: Source) -> str:
    """The module that reads a source. Raises `InputError` for settings that mean nothing there."""
    kind = _kind(source.dataset)
    for name, value in _meaningless(source, kind).items():
        raise InputError(
            f"--{name.replace('_', '-')} means nothing in {source.dataset}",
            got=value,
            fix="Leave it out.",
        )
    if source.test_share and kind in ("mnist", "tfds"):
        refuse_test_share(source.dataset, source.test_share)
    return kind


def elsewhere(source: Source, dataset: str, labels: tuple[str, ...]) -> ToScore:
    """Another data set, read like `source` as far as that means something there.

    It is to score a model that knows the classes `labels`.

    Raises `InputError` for a data set of no known kind.
    """
    there = Source(**{**source.source(), "dataset": dataset, "fold": "", "test_share": 0.0})
    default = Source()
    without = {name: getattr(default, name) for name in _meaningless(there, _kind(dataset))}
    return ToScore(**{**there.source(), **without}, labels=labels)


def needs_tensorflow(source: str | Source) -> bool:
    """Whether reading this source may import TensorFlow. Whoever cares how starts it before."""
    return (source if isinstance(source, str) else source.dataset).startswith(TFDS)


def _kind(dataset: str) -> str:
    """The module that reads a data set."""
    if dataset == MNIST:
        return "mnist"
    if dataset.startswith(TFDS):
        return "tfds"
    path = Path(dataset)
    if dataset.startswith(tfrecord.PREFIX) or tfrecord.holds(path):
        return "tfrecord"
    if path.is_dir():
        from rnn_tf.data import ts

        return "ts" if ts.holds(path) else "folders"
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"unknown dataset {dataset!r}",
            expected=f"mnist, tfds:<name>, tfrecord:<glob>, a file ({', '.join(SUFFIXES)}) or a "
            "folder",
            got=None if path.exists() else "no file or folder of this name",
            fix="For your own arrays, save them with numpy.savez and give the path of the .npz.",
        )
    return kind


def _meaningless(source: Source, kind: str) -> dict[str, object]:
    """The settings that were said and mean nothing in a kind of source."""
    default = Source()
    return {
        name: value
        for name, value in source.source().items()
        if name not in (*IN_ALL, *SETTINGS[kind]) and value != getattr(default, name)
    }
