"""The examples of a prepared TensorFlow Datasets set as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rnn_tf.data import mnist
from rnn_tf.data.decoded import Decoded
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.data.splits import hold_out_test, hold_out_valid
from rnn_tf.data.tfds_features import Columns, class_label
from rnn_tf.data.values import raw_values
from rnn_tf.errors import InputError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# The splits that are read where a set has them, in the order of `SequenceData`; others, such as
# `extra`, are not.
SPLITS = ("train", "validation", "test")

# Examples decoded at once.
READ_BATCH = 1024

LEAVE_OUT = "Save the set as an .npz file without these examples."


def split_sizes(builder: tfds.core.DatasetBuilder) -> dict[str, int]:
    """The splits that are read, with their numbers of examples; none while TFDS knows no split."""
    sizes = {key: split.num_examples for key, split in builder.info.splits.items()}
    return {key: sizes[key] for key in SPLITS if sizes.get(key)}


def read(builder: tfds.core.DatasetBuilder, columns: Columns, source: str) -> Decoded:
    """Decode the splits into arrays, and cut those that are missing off train.

    Raises `InputError` for values that are not finite, and when nothing in train has a label.
    """
    read = {
        key: read_split(builder, columns, key, size) for key, size in split_sizes(builder).items()
    }
    splits, notes = labelled(read, source)
    x = raw_values({key: split.x for key, split in splits.items()}, source, LEAVE_OUT)
    splits = {key: Split(x[key], split.y) for key, split in splits.items()}
    if is_mnist(builder, columns):
        return Decoded(_official_mnist(splits, builder.data_dir), ())
    splits, more = with_missing_splits(splits)
    data = SequenceData(spec_of(builder, columns), *(splits[key] for key in SPLITS))
    return Decoded(data, (*size_notes(columns, source), *notes, *more))


def is_mnist(builder: tfds.core.DatasetBuilder, columns: Columns) -> bool:
    """Whether a set is MNIST in its own size."""
    return bool(builder.name == "mnist" and columns.size is None)


def spec_of(builder: tfds.core.DatasetBuilder, columns: Columns) -> SequenceSpec:
    """The specification of a prepared set."""
    return SequenceSpec(
        columns.timesteps,
        columns.features,
        tuple(class_label(builder.info.features[columns.y]).names or ()),
        columns.normalize,
        columns.channels,
        answer="every_step" if columns.by_step else "end",
    )


def size_notes(columns: Columns, source: str) -> list[str]:
    """That pictures are resized, where nobody has asked for it."""
    if not (columns.default_size and columns.size):
        return []
    height, width = columns.size
    return [
        f"its pictures differ in size and are resized to {height}x{width}. For another size "
        f"add it to the name: {source}@64x64"
    ]


def labelled(splits: Mapping[str, Split], source: str) -> tuple[dict[str, Split], list[str]]:
    """The examples of each split that have a label, and how many are left out.

    Raises `InputError` when none in train has one.
    """
    found, notes = {}, []
    for key, split in splits.items():
        has_label = split.sequence_labels >= 0
        if not has_label.all():
            left_out = np.count_nonzero(~has_label)
            notes.append(f"{left_out:,} examples of {key} have no label and are left out")
            split = split.take(has_label)
        if len(split.y):
            found[key] = split
    if "train" not in found:
        raise InputError(f"{source} has no labelled example in train", expected="one or more")
    return found, notes


def with_missing_splits(splits: Mapping[str, Split]) -> tuple[dict[str, Split], list[str]]:
    """All of `SPLITS`, those that are missing cut off train; and what is to be said of it."""
    complete, notes = dict(splits), []
    if "test" not in splits:
        examples = len(splits["train"].y)
        complete["train"], complete["test"] = hold_out_test(complete["train"])
        notes.append(
            f"it has no test split: {len(complete['test'].y):,} of its {examples:,} training "
            "examples, of every class its share, are the test split and not trained on"
        )
    if "validation" not in splits:
        complete["train"], complete["validation"] = hold_out_valid(complete["train"])
    return complete, notes


def read_labels(builder: tfds.core.DatasetBuilder, columns: Columns) -> dict[str, np.ndarray]:
    """The labels of each split alone, int32 `(n,)` or `(n, timesteps)`, in storage order."""
    return {
        key: np.concatenate(
            [batch[columns.y] for batch in _examples(builder, key, [columns.y])]
        ).astype(np.int32)
        for key in split_sizes(builder)
    }


def read_split(
    builder: tfds.core.DatasetBuilder, columns: Columns, key: str, examples: int
) -> Split:
    """The examples of a split, or of a part of one such as `train[100:200]`, in storage order."""
    from tensorflow_datasets.core.utils import tqdm_utils

    x = np.empty((examples, columns.timesteps, columns.features), columns.dtype)
    y = np.empty((examples, columns.timesteps) if columns.by_step else examples, np.int32)
    start = 0
    # Shown where TFDS shows its own progress.
    with tqdm_utils.tqdm(desc=f"Reading {key}", total=examples, unit=" examples") as progress:
        for some_x, some_y in _batches(builder, columns, key):
            end = start + len(some_y)
            x[start:end] = some_x.reshape(-1, *x.shape[1:])
            y[start:end] = some_y
            start = end
            progress.update(len(some_y))
    return Split(x[:start], y[:start])


def _batches(
    builder: tfds.core.DatasetBuilder, columns: Columns, key: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The examples of a split in storage order, some at a time."""
    # What differs in size comes one by one.
    batch_size = None if columns.size else READ_BATCH
    for example in _examples(builder, key, [columns.x, columns.y], batch_size):
        x, y = example[columns.x], example[columns.y]
        if columns.size:
            x, y = _resized(x, *columns.size)[np.newaxis], y[np.newaxis]
        yield x, y


def _examples(
    builder: tfds.core.DatasetBuilder,
    key: str,
    names: Sequence[str],
    batch_size: int | None = READ_BATCH,
) -> Iterator[dict[str, np.ndarray]]:
    """The features `names` of a split in storage order; the others are not decoded."""
    import tensorflow_datasets as tfds

    examples = builder.as_dataset(
        split=key,
        batch_size=batch_size,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
        # One file after the other: storage order.
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    yield from tfds.as_numpy(examples)


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture, uint8 `(any, any, channels)`, stretched to `(height, width, channels)`.

    With the filter of `predict`, so that a picture is the same in training and afterwards.
    """
    grey = picture.shape[-1] == 1
    image = Image.fromarray(picture[..., 0] if grey else picture)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized).reshape(height, width, -1)


def _official_mnist(splits: dict[str, Split], prepared: str) -> SequenceData:
    """MNIST in the order of its files: TFDS sorts by a hash of the position, and keeps neither.

    Raises `InputError` unless `splits` hold the official examples, in whatever order.
    """
    data = mnist.load()
    train, valid = data.train, data.valid
    official = {
        "train": Split(np.concatenate([train.x, valid.x]), np.concatenate([train.y, valid.y])),
        "test": data.test,
    }
    same = splits.keys() == official.keys() and all(
        sorted(_example_bytes(splits[key])) == sorted(_example_bytes(official[key]))
        for key in official
    )
    if not same:
        raise InputError(
            f"{prepared} does not hold the official MNIST",
            fix="Delete it, and it will be made again.",
        )
    return data


def _example_bytes(split: Split) -> Iterator[bytes]:
    return (y.tobytes() + x.tobytes() for x, y in zip(split.x, split.y, strict=True))
