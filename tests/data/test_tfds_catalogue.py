"""Sets of the real catalogue: their real descriptions, with examples that TFDS's own mock draws.

What a set looks like is in the code of TFDS. Which splits it has is known after the download, or
from a server; they are given here as the catalogue lists them.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rnn_tf.data.tfds import load
from rnn_tf.errors import InputError

# How many examples a split of the mock has.
EXAMPLES = 60

TRAIN_TEST = ("train", "test")
ALL = ("train", "validation", "test")
RESIZED = "its pictures differ in size and are resized to 32x32"
NO_TEST = "it has no test split: "

# name: its splits, (timesteps, features), channels, and the warnings that loading it gives
SERVED: dict[str, tuple[tuple[str, ...], tuple[int, int], int, tuple[str, ...]]] = {
    "binary_alpha_digits": (("train",), (20, 16), 1, (NO_TEST,)),
    "caltech101": (TRAIN_TEST, (32, 96), 3, (RESIZED,)),
    "cats_vs_dogs": (("train",), (32, 96), 3, (RESIZED, NO_TEST)),
    "cats_vs_dogs@48x64": (("train",), (48, 192), 3, (NO_TEST,)),
    "cifar10": (TRAIN_TEST, (32, 96), 3, ()),
    "cifar100": (TRAIN_TEST, (32, 96), 3, ()),
    "cifar10_h": (TRAIN_TEST, (32, 96), 3, ()),
    "citrus_leaves": (("train",), (32, 96), 3, (RESIZED, NO_TEST)),
    "cmaterdb": (TRAIN_TEST, (32, 96), 3, ()),
    "coil100@32x32": (("train",), (32, 96), 3, (NO_TEST,)),
    "dmlab@9x12": (ALL, (9, 36), 3, ()),
    "emnist/letters": (TRAIN_TEST, (28, 28), 1, ()),
    "eurosat": (("train",), (64, 192), 3, (NO_TEST,)),
    "eurosat/all": (("train",), (64, 832), 0, (NO_TEST,)),
    "fashion_mnist": (TRAIN_TEST, (28, 28), 1, ()),
    "food101": (("train", "validation"), (32, 96), 3, (RESIZED, NO_TEST)),
    "german_credit_numeric": (("train",), (24, 1), 0, (NO_TEST,)),
    "iris": (("train",), (4, 1), 0, (NO_TEST,)),
    "kmnist": (TRAIN_TEST, (28, 28), 1, ()),
    "oxford_flowers102": (ALL, (32, 96), 3, (RESIZED,)),
    "oxford_iiit_pet": (TRAIN_TEST, (32, 96), 3, (RESIZED,)),
    "penguins": (("train",), (4, 1), 0, (NO_TEST,)),
    "places365_small@32x32": (ALL, (32, 96), 3, ()),
    "pneumonia_mnist": (ALL, (28, 28), 1, ()),
    "smallnorb": (TRAIN_TEST, (96, 96), 1, ()),
    "stl10": (("train", "test", "unlabelled"), (96, 288), 3, ()),
    "svhn_cropped": (("train", "test", "extra"), (32, 96), 3, ()),
    "tf_flowers": (("train",), (32, 96), 3, (RESIZED, NO_TEST)),
}

LENGTHS = "its sequences differ in length, which is not supported yet"
TEXT = "its input is text, which is not supported"
WHICH = "does not say which class is meant"

REFUSED = {
    "accentdb": LENGTHS,
    "ag_news_subset": TEXT,
    "chexpert": "is not for classification",
    "crema_d": LENGTHS,
    "dsprites": WHICH,
    "genomics_ood": TEXT,
    "glue": TEXT,
    "gtzan": LENGTHS,
    "imagenet2012_real": "is not for classification",
    "imdb_reviews": TEXT,
    "librispeech": "is not for classification",
    "nsynth": WHICH,
    "shapes3d": WHICH,
    "smartwatch_gestures": LENGTHS,
    "so2sat/all": "has several inputs",
    "speech_commands": LENGTHS,
    "spoken_digit": LENGTHS,
    "titanic": "has no usable input",
    "ucf101": "its input has the shape (None, 256, 256, 3)",
    "voxforge": LENGTHS,
    "xnli": "has several inputs",
    "yelp_polarity_reviews": TEXT,
}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RNN_TF_CACHE", str(tmp_path / "cache"))


@contextlib.contextmanager
def mocked(name: str, splits: tuple[str, ...], data_dir: Path) -> Iterator[None]:
    """TFDS as if it had prepared the set, with examples drawn at random."""
    builder = tfds.builder(name, data_dir=data_dir)
    infos = [tfds.core.SplitInfo(name=key, shard_lengths=[EXAMPLES], num_bytes=0) for key in splits]
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_dir)
    with tfds.testing.mock_data(num_examples=EXAMPLES, data_dir=str(data_dir)):
        yield


@pytest.mark.parametrize("name", SERVED)
def test_served(tmp_path: Path, name: str) -> None:
    own, shape, channels, notes = SERVED[name]
    with (
        mocked(name.partition("@")[0], own, tmp_path / "data"),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        data = load(name)
    said = [str(warning.message) for warning in warned]
    assert len(said) == len(notes)
    for line, note in zip(said, notes, strict=True):
        assert line.startswith(f"tfds:{name}: {note}")
    assert (data.spec.longest, data.spec.features, data.spec.channels) == (*shape, channels)
    splits = (data.train, data.valid, data.test)
    assert sum(len(split.y) for split in splits) == EXAMPLES * len({*own} & {*ALL})
    for split in splits:
        assert split.x.shape == (len(split.y), *shape)
        assert split.x.dtype == (np.uint8 if channels else np.float32)
        assert 0 <= split.y.min() <= split.y.max() < data.spec.classes
        assert split.x.std() > 0.1  # the mock draws noise, and none of it is lost


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_download(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise AssertionError("downloads")

    with tfds.testing.mock_data(), monkeypatch.context() as patch:
        patch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
        with pytest.raises(InputError) as caught:
            load(name)
    assert str(caught.value).startswith(f"tfds:{name} ")
    assert REFUSED[name] in str(caught.value)
