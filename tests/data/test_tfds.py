"""Real builders through the real TFDS: small generated sets, and the embedded MNIST."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from rnn_tf.config import Source
from rnn_tf.data import convert, mnist
from rnn_tf.data import load as load_source
from rnn_tf.data.spec import SequenceData
from rnn_tf.data.tfds import load
from rnn_tf.errors import InputError
from rnn_tf.startup import process

LABELS = ["cold", "mild", "warm"]


class Generated(tfds.core.GeneratorBasedBuilder):
    """A small set whose example `i` of class `i % 3` holds numbers drawn from the seed `i`."""

    VERSION = tfds.core.Version("1.2.3")
    SIZES: ClassVar[dict[str, int]] = {"train": 30, "test": 6}
    INPUT: Any = None
    LABEL: Any = None
    SUPERVISED: tuple[str, str] | None = ("input", "label")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"input": self.INPUT(), "note": tfds.features.Text()}
        if self.LABEL is not None:
            features["label"] = self.LABEL()
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=self.SUPERVISED,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self.SIZES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(self.SIZES[split]):
            example = {"input": self.make(f"{split}{index}"), "note": f"{split}{index}"}
            if self.LABEL is not None:
                example["label"] = self.label(index)
            yield index, example

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        raise NotImplementedError

    @classmethod
    def label(cls, index: int) -> Any:
        return index % 3


def three_classes() -> tfds.features.ClassLabel:
    return tfds.features.ClassLabel(names=LABELS)


def random(key: str) -> np.random.Generator:
    return np.random.default_rng(list(key.encode()))


class RnnGrey(Generated):
    INPUT = staticmethod(lambda: tfds.features.Image(shape=(5, 4, 1)))
    LABEL: Any = staticmethod(three_classes)

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return random(key).integers(0, 256, (5, 4, 1), np.uint8)


class RnnColour(RnnGrey):
    """The label has no names, and nothing says which features are meant."""

    SIZES: ClassVar[dict[str, int]] = {"train": 30, "test": 6, "validation": 9, "extra": 3}
    INPUT = staticmethod(lambda: tfds.features.Image(shape=(5, 4, 3)))
    LABEL: Any = staticmethod(lambda: tfds.features.ClassLabel(num_classes=3))
    SUPERVISED = None

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return random(key).integers(0, 256, (5, 4, 3), np.uint8)


class RnnDeep(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Image(shape=(5, 4, 1), dtype=np.uint16))

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return random(key).integers(0, 65536, (5, 4, 1), np.uint16)


class RnnSeries(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Tensor(shape=(7,), dtype=np.float32))

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return random(key).normal(size=7).astype(np.float32)


class RnnPhases(RnnSeries):
    """A class for each step; some steps have none, and one example has none at all."""

    LABEL: Any = staticmethod(lambda: tfds.features.Sequence(three_classes(), length=7))

    @classmethod
    def label(cls, index: int) -> Any:
        return [-1 if index == 1 or step == 2 else (index + step) % 3 for step in range(7)]


class RnnPhasesTooShort(RnnPhases):
    LABEL: Any = staticmethod(lambda: tfds.features.Sequence(three_classes(), length=6))


class RnnMatrix(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Tensor(shape=(7, 2), dtype=np.float64))

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return random(key).integers(-9, 9, (7, 2)) / 4


class RnnFixedList(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Sequence(np.int32, length=7))

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return random(key).integers(0, 9, 7, np.int32)


class RnnCube(RnnGrey):
    """More channels than a picture has."""

    INPUT = staticmethod(lambda: tfds.features.Tensor(shape=(5, 4, 6), dtype=np.float32))

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return random(key).normal(size=(5, 4, 6)).astype(np.float32)


class RnnNotFinite(RnnSeries):
    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return np.full(7, np.nan, np.float32)


class RnnNoTest(RnnGrey):
    SIZES: ClassVar[dict[str, int]] = {"train": 30, "validation": 6}


class RnnOnlyTrain(RnnGrey):
    SIZES: ClassVar[dict[str, int]] = {"train": 30}


class RnnOnlyTest(RnnGrey):
    SIZES: ClassVar[dict[str, int]] = {"test": 30}


class RnnSorted(RnnGrey):
    """TFDS shuffles when it writes, unless a set says that it must not."""

    SIZES: ClassVar[dict[str, int]] = {"train": 60}

    def _info(self) -> tfds.core.DatasetInfo:
        info = super()._info()
        return tfds.core.DatasetInfo(
            builder=self,
            features=info.features,
            supervised_keys=info.supervised_keys,
            disable_shuffling=True,
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, example in super()._generate_examples(split):
            yield index, example | {"label": index // 20}


class RnnNoOneLabel(RnnGrey):
    """Two labels, and nothing says which one counts."""

    SUPERVISED = None
    LABEL: Any = staticmethod(three_classes)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: three_classes() for name in ("colour", "form")}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"input": self.INPUT(), **features}),
        )


class RnnRegression(RnnGrey):
    """What is to be predicted is a number, though there is a class label too."""

    SUPERVISED = ("input", "note")


class RnnOneClass(RnnGrey):
    LABEL: Any = staticmethod(lambda: tfds.features.ClassLabel(names=["it"]))


class RnnNoLabel(RnnGrey):
    LABEL: Any = None
    SUPERVISED = None


class RnnSizes(RnnGrey):
    """Pictures of 4 to 8 rows and 3 to 6 columns, each of one grey level."""

    INPUT = staticmethod(lambda: tfds.features.Image(shape=(None, None, 1)))

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        draw = random(key)
        shape = (draw.integers(4, 9), draw.integers(3, 7), 1)
        return np.full(shape, draw.integers(0, 256), np.uint8)


class RnnDeepSizes(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Image(shape=(None, None, 1), dtype=np.uint16))


class RnnAudio(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Audio(dtype=np.int16))


class RnnRecords(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Sequence({"x": np.float32, "y": np.float32}))


class RnnList(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Sequence(np.int32))


class RnnText(RnnGrey):
    INPUT = staticmethod(tfds.features.Text)


class RnnVideo(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Video(shape=(3, 5, 4, 1)))


class RnnHiddenLabels(RnnGrey):
    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, example in super()._generate_examples(split):
            yield index, example | {"label": -1 if split == "test" else index % 3}


class RnnByHand(RnnGrey):
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Ask the author for data.zip."

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        assert (dl_manager.manual_dir / "data.zip").exists()
        return super()._split_generators(dl_manager)


class RnnNeedsPackage(RnnGrey):
    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        import no_such_package  # type: ignore[import-not-found] # noqa: F401

        return {}


class RnnDescribedByPackage(RnnGrey):
    def _info(self) -> tfds.core.DatasetInfo:
        import no_such_package  # noqa: F401

        return super()._info()


class RnnDescribedElsewhere(RnnGrey):
    def _info(self) -> tfds.core.DatasetInfo:
        raise RuntimeError("cannot reach the server")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared sets and cached arrays of a test are its own."""
    process.start()  # before the cache moves: compiled programs are shared by all tests
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RNN_TF_CACHE", str(tmp_path / "cache"))


def cached_files(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "tfds").iterdir())


def assert_holds(data: SequenceData, builder: type[Generated], sizes: dict[str, int]) -> None:
    """The splits hold the builder's examples: each once, with its label, in the right split."""
    splits = {"train": [data.train], "validation": [data.valid], "test": [data.test]}
    if "validation" not in sizes:
        splits = {"train": [data.train, data.valid], "test": [data.test]}
    for name, parts in splits.items():
        found = [
            (x.tobytes(), int(y)) for part in parts for x, y in zip(part.x, part.y, strict=True)
        ]
        made = [
            (builder.make(f"{name}{i}").astype(data.train.x.dtype).tobytes(), i % 3)
            for i in range(sizes[name])
        ]
        assert sorted(found) == sorted(made)


def assert_same(one: SequenceData, other: SequenceData) -> None:
    assert one.spec == other.spec
    for name in ("train", "valid", "test"):
        # Neither has lengths or groups.
        for a, b in zip(getattr(one, name)[:2], getattr(other, name)[:2], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("builder", "shape", "dtype", "scale", "channels"),
    [
        (RnnGrey, (5, 4), np.uint8, 1 / 255, 1),
        (RnnColour, (5, 12), np.uint8, 1 / 255, 3),
        (RnnDeep, (5, 4), np.float32, 1 / 65535, 0),
        (RnnSeries, (7, 1), np.float32, 1.0, 0),
        (RnnMatrix, (7, 2), np.float32, 1.0, 0),
        (RnnFixedList, (7, 1), np.float32, 1.0, 0),
        (RnnCube, (5, 24), np.float32, 1.0, 0),
    ],
)
def test_kinds_of_input(
    builder: type[Generated], shape: tuple[int, int], dtype: type, scale: float, channels: int
) -> None:
    data = load(builder.name)
    assert (data.spec.longest, data.spec.features) == shape
    assert data.spec.normalization.scale[0] == scale
    assert data.spec.channels == channels
    for split in (data.train, data.valid, data.test):
        assert split.x.shape == (len(split.y), *shape)
        assert split.x.dtype == dtype
        assert split.y.dtype == np.int32
    assert_holds(data, builder, builder.SIZES)


def test_labels_come_from_the_set() -> None:
    assert load("rnn_grey").spec.labels == ("cold", "mild", "warm")
    assert load("rnn_colour").spec.labels == ("0", "1", "2")


def test_an_image_row_is_its_pixels_one_after_the_other() -> None:
    data = load("rnn_colour")
    images = {RnnColour.make(f"test{i}").tobytes(): RnnColour.make(f"test{i}") for i in range(6)}
    for x in data.test.x:
        image = images[x.tobytes()]
        np.testing.assert_array_equal(x[2, 3:6], image[2, 1])  # row 2, column 1: R, G, B


def test_validation_is_the_sets_own_or_held_out_of_train() -> None:
    assert [len(split.y) for split in splits(load("rnn_colour"))] == [30, 9, 6]
    assert [len(split.y) for split in splits(load("rnn_grey"))] == [27, 3, 6]
    assert sorted(load("rnn_grey").valid.y) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "sizes"), [("rnn_no_test", [24, 6, 6]), ("rnn_only_train", [22, 2, 6])]
)
def test_a_missing_test_split_is_cut_off_train(name: str, sizes: list[int]) -> None:
    message = rf"^tfds:{name}: it has no test split: 6 of its 30 training examples, of every"
    with pytest.warns(UserWarning, match=message):
        data = load(name)
    assert [len(split.y) for split in splits(data)] == sizes
    assert np.bincount(data.test.y).tolist() == [2, 2, 2]
    made = {RnnGrey.make(f"train{i}").tobytes() for i in range(30)}
    parts = [data.train, data.test] + ([data.valid] if name == "rnn_only_train" else [])
    assert {x.tobytes() for part in parts for x in part.x} == made
    # It is said again when the arrays come from the cache, by whoever reads them.
    with pytest.warns(UserWarning, match=message):
        assert_same(load(name), data)


@pytest.mark.filterwarnings("ignore:tfds.rnn_sorted. it has no test split")
def test_splits_cut_off_a_sorted_set_have_all_classes() -> None:
    data = load("rnn_sorted")
    assert [np.bincount(split.y).tolist() for split in splits(data)] == [
        [15, 14, 15],
        [1, 2, 1],
        [4, 4, 4],
    ]


def test_unlabelled_examples_are_left_out() -> None:
    """A test split without labels, as competitions have it, is none."""
    with pytest.warns(UserWarning, match="test") as warned:
        data = load("rnn_hidden_labels")
    assert [str(warning.message) for warning in warned] == [
        "tfds:rnn_hidden_labels: 6 examples of test have no label and are left out",
        "tfds:rnn_hidden_labels: it has no test split: 6 of its 30 training examples, of every "
        "class its share, are the test split and not trained on",
    ]
    assert [len(split.y) for split in splits(data)] == [22, 2, 6]


@pytest.mark.filterwarnings("ignore:tfds.rnn_phases. 1 examples of .* have no label")
def test_a_class_for_each_step() -> None:
    data = load_source(Source("tfds:rnn_phases", answer="every_step"))
    assert data.spec.every_step
    assert data.spec.labels == tuple(LABELS)
    made = {RnnPhases.make(f"train{i}").tobytes(): RnnPhases.label(i) for i in range(30)}
    assert [len(split.y) for split in splits(data)] == [27, 2, 5]
    for x, y in zip(data.train.x, data.train.y.tolist(), strict=True):
        assert y == made[x.tobytes()]
    # From the cache; and a model with one answer has no use for them.
    with pytest.raises(InputError, match=r"a label for each step.* --answer every_step"):
        load_source("tfds:rnn_phases")
    with pytest.raises(InputError, match=r"do not match its steps; expected one, or 7.*\(6,\)"):
        load("rnn_phases_too_short")


def test_pictures_of_varying_size_are_resized() -> None:
    message = r"differ in size and are resized to 32x32\. For .* name: tfds:rnn_sizes@64x64"
    with pytest.warns(UserWarning, match=message):
        data = load("rnn_sizes")
    assert (data.spec.longest, data.spec.features, data.spec.channels) == (32, 32, 1)
    levels = sorted(int(RnnSizes.make(f"test{i}")[0, 0, 0]) for i in range(6))
    assert sorted(x.min() for x in data.test.x) == sorted(x.max() for x in data.test.x) == levels


@pytest.mark.parametrize("name", ["rnn_sizes", "rnn_grey"])
def test_a_size_of_ones_own(name: str) -> None:
    data = load(f"{name}@3x2")  # and no warning
    assert (data.spec.longest, data.spec.features, data.spec.channels) == (3, 2, 1)


def test_a_picture_is_resized_as_predict_does_it() -> None:
    """Height before width, channels last, Pillow's Lanczos filter."""
    data = load("rnn_colour@10x8")
    made = [
        np.asarray(Image.fromarray(RnnColour.make(f"test{i}")).resize((8, 10), 1)).tobytes()
        for i in range(6)
    ]
    assert data.spec.features == 24
    assert sorted(x.tobytes() for x in data.test.x) == sorted(made)


def test_the_own_size_changes_nothing() -> None:
    data, same = load("rnn_grey"), load("rnn_grey@5x4")
    assert_same(data, same)


def test_what_cannot_be_read_is_refused_before_the_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise AssertionError("downloads")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    for name in ("rnn_audio", "rnn_text", "rnn_video", "rnn_no_one_label", "rnn_regression"):
        with pytest.raises(InputError, match=f"^tfds:{name} "):
            load(name)


def with_known_splits(name: str, sizes: dict[str, int], data_dir: Path) -> None:
    """Tell TFDS the splits of a set that is not prepared: as its server would, if it were asked."""
    builder = tfds.builder(name, data_dir=data_dir)
    infos = [tfds.core.SplitInfo(name=key, shard_lengths=[n], num_bytes=0)
             for key, n in sizes.items()]  # fmt: skip
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_dir)


def test_a_set_without_train_is_refused_before_the_download(tmp_path: Path) -> None:
    with_known_splits("rnn_only_test", {"test": 30}, tmp_path / "data")
    with pytest.raises(InputError, match=r"has no train split; expected train, got test$"):
        load("rnn_only_test")


def test_a_set_without_train_is_refused_after_it() -> None:
    """When TFDS cannot know it before."""
    with pytest.raises(InputError, match=r"has no train split; expected train, got test$"):
        load("rnn_only_test")


@pytest.mark.parametrize(
    ("name", "examples", "message"),
    [
        (
            "rnn_colour",
            10**12,
            r"got 55879\.4 GiB in 1,000,000,000,000 examples of 5x12\. Write it into shards, and "
            r"train on those: rnn-tf convert tfds:rnn_colour OUT\.$",
        ),
        ("rnn_colour@500x500", 10**9, r"Read its pictures smaller: tfds:rnn_colour@32x32\.$"),
        ("rnn_series", 10**12, r"at most \d+\.\d GiB, half of it, got 26077\.0 GiB"),
    ],
)
def test_a_set_too_large_for_memory_is_refused_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, examples: int, message: str
) -> None:
    memory = psutil.virtual_memory()._replace(total=2**44)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with_known_splits(name.partition("@")[0], {"train": examples}, tmp_path / "data")
    with pytest.raises(InputError, match=message) as caught:
        load(name)
    assert "is too large for the memory of this machine" in str(caught.value)


def splits(data: SequenceData) -> tuple[Any, ...]:
    return data.train, data.valid, data.test


def test_order_is_the_same_when_prepared_again(tmp_path: Path) -> None:
    first = load("rnn_grey")
    shutil.rmtree(tmp_path)
    assert_same(first, load("rnn_grey"))


@pytest.mark.filterwarnings("ignore:tfds.rnn_")
@pytest.mark.parametrize("name", ["rnn_colour", "rnn_hidden_labels", "rnn_phases", "rnn_sizes@6x4"])
def test_shards_of_a_set_hold_what_is_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is decoded a block at a time, and kept nowhere else."""
    monkeypatch.setattr(convert, "BLOCK_BYTES", 7 * 40)
    source = Source(f"tfds:{name}", answer="every_step" if name == "rnn_phases" else "end")
    convert.convert(source, tmp_path / "shards", 2)
    assert not (tmp_path / "cache" / "tfds").exists()
    found = load_source(Source(f"tfrecord:{tmp_path / 'shards'}", answer=source.answer))
    in_memory = dataclasses.replace(
        found, **{key: getattr(found, key).take(slice(None)) for key in ("train", "valid", "test")}
    )
    assert_same(in_memory, load_source(source))


def test_version_in_the_name() -> None:
    assert_same(load("rnn_grey:1.2.3"), load("rnn_grey"))


def test_load_by_name() -> None:
    assert_same(load_source("tfds:rnn_grey"), load("rnn_grey"))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    load("rnn_grey")
    assert capfd.readouterr() == ("", "")


AS_A_COMMAND = "from rnn_tf.startup import ownership, process; ownership.claim(); process.start(); "


def test_a_prepared_set_is_read_without_its_code_and_progress_is_shown(tmp_path: Path) -> None:
    """In another process, where its builder does not exist, and whose stderr is a terminal."""
    data = load("rnn_grey")
    shutil.rmtree(tmp_path / "cache")
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(stderr, (24, 100))
    code = f"{AS_A_COMMAND}from rnn_tf.data import load; print(load('tfds:rnn_grey').test.x.sum())"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr)
    os.close(stderr)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that a terminal has no more
        while some := os.read(terminal, 4096):
            shown += some
    os.close(terminal)
    assert done.returncode == 0
    assert done.stdout == f"{data.test.x.sum()}\n".encode()
    assert b"Reading train: 100%" in shown
    assert b"Reading test: 100%" in shown


def test_second_run_reads_the_cache_without_tfds(tmp_path: Path) -> None:
    """In another process, where this set's builder does not exist."""
    data = load("rnn_grey")
    code = (
        "import sys; from rnn_tf.data import load; data = load('tfds:rnn_grey');"
        "print(data.test.x.sum(), {'tensorflow', 'tensorflow_datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{data.test.x.sum()} set()\n"
    assert [file.suffix for file in cached_files(tmp_path)] == [".npz"]  # and nothing temporary


def test_cache_outlives_the_prepared_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("rnn_grey")
    shutil.rmtree(tmp_path / "data")
    monkeypatch.setattr(tfds, "builder", None)  # a call would fail
    assert_same(load("rnn_grey"), data)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_cache_is_made_again(tmp_path: Path, keep: float) -> None:
    data = load("rnn_grey")
    (file,) = cached_files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep)])
    assert_same(load("rnn_grey"), data)
    (file,) = cached_files(tmp_path)
    assert len(file.read_bytes()) == len(whole)


def test_altered_cache_is_made_again(tmp_path: Path) -> None:
    data = load("rnn_grey")
    (file,) = cached_files(tmp_path)
    content = bytearray(file.read_bytes())
    content[content.index(data.train.x.tobytes()) + 10] ^= 1
    file.write_bytes(content)
    assert_same(load("rnn_grey"), data)


def test_cache_of_other_keys_is_made_again(tmp_path: Path) -> None:
    data = load("rnn_grey")
    (file,) = cached_files(tmp_path)
    np.savez(file, spec=np.array(data.spec.to_json()))
    assert_same(load("rnn_grey"), data)


def test_a_set_that_was_prepared_again_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load("rnn_grey")
    shutil.rmtree(tmp_path / "data")
    monkeypatch.setattr(RnnGrey, "SIZES", {"train": 40, "test": 6})
    tfds.builder("rnn_grey", data_dir=tmp_path / "data").download_and_prepare()
    new = load("rnn_grey")
    assert (len(old.train.y), len(new.train.y)) == (27, 36)


def test_another_data_folder_is_another_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("rnn_grey")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "other"))
    load("rnn_grey")
    assert len(cached_files(tmp_path)) == 2


def test_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RNN_TF_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"are not kept, .* Choose another folder\. Set RNN_TF_C"):
        data = load("rnn_grey")
    assert len(data.test.y) == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "rnn_no_label",
            r"tfds:rnn_no_label has no class label; .*got input \(Image \(5, 4, 1\)\)",
        ),
        ("rnn_no_one_label", r"does not say which class is meant; .*got colour, form$"),
        ("rnn_regression", r"not for classification; expected a ClassLabel .*got note \(Text"),
        ("rnn_one_class", r"tfds:rnn_one_class has too few classes; expected 2 or more, got 1$"),
        ("rnn_deep_sizes", r"its pictures cannot be resized; .*got input \(Image \(None, None"),
        ("rnn_series@3x3", r"cannot be resized; expected 8-bit .*Leave the size out of its name"),
        ("rnn_deep@3x3", r"tfds:rnn_deep@3x3 cannot be resized; expected 8-bit pictures, got inp"),
        ("rnn_list", r"cannot be read: its sequences differ in length.*\(None,\)\)\. Bring them"),
        ("rnn_audio", r"differ in length.*got input \(Audio \(None,\)\)\. Bring them to one le"),
        ("rnn_records", r"its sequences differ in length, .*got input \(Sequence\)\. Bring them"),
        ("rnn_text", r"its input is text, which is not supported; .*got input \(Text \(\)\)$"),
        ("rnn_video", r"its input has the shape \(3, 5, 4, 1\); expected a picture, or .*Video"),
        (
            "rnn_not_finite",
            r"NaN or infinity in train; .*got 30 of 30 examples \(0, 1",
        ),
        ("rnn_by_hand", r"cannot prepare tfds:rnn_by_hand; got Manual directory .*Ask the author"),
        ("rnn_needs_package", r"needs a package that .*Install it: pip install no_such_package$"),
        ("rnn_described_by_package", r"needs a package that .*: pip install no_such_package$"),
        ("rnn_described_elsewhere", r"cannot use tfds:rnn_described_elsewhere; got cannot reach"),
        ("fashoin_mnist", r"no 'fashoin_mnist'; .*Did you mean fashion_mnist or"),
        ("xqzzqx", r"no 'xqzzqx'; expected one of its \d+ sets\. They are listed at https"),
        ("mnist:1.0.0", r"cannot use tfds:mnist:1\.0\.0; got .*1\.0\.0, only: 3\.0\.1"),
        ("mnist/small", r"cannot use tfds:mnist/small; expected no config, got small"),
        ("emnist/leters", r"expected a config out of byclass, .*letters.*, got leters"),
    ],
)
def test_sets_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(name)


@pytest.mark.parametrize(
    "name",
    ["", "../x", "a/../b", "/etc", "a b", "x:", "ns:x", "x:1", "x/y=1", "x\n", "ü", "x/..", "x@",
     "x@8", "x@0x8", "x@8x", "x@8x8x3", "x@99999x1", "x@-1x8", "@8x8"],
)  # fmt: skip
def test_bad_names(name: str) -> None:
    with pytest.raises(InputError, match=r"bad TensorFlow Datasets name .*; expected tfds:<name>"):
        load(name)


def test_no_network_is_said_within_seconds() -> None:
    """Where there is a network, a proxy that is not there takes it away from this test."""
    code = (
        f"{AS_A_COMMAND}"
        "import sys; from rnn_tf.data import load; from rnn_tf.errors import one_line_errors;"
        "sys.exit(one_line_errors(lambda: load('tfds:fashion_mnist'))())"
    )
    closed = "http://127.0.0.1:9"
    proxies = {"http_proxy": closed, "https_proxy": closed, "HTTP_PROXY": closed, "no_proxy": ""}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | proxies
    )
    assert time.monotonic() - start < 60  # TFDS alone: over 200 s; seen here: 10 s
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "error: cannot download tfds:fashion_mnist; expected a connection"
    )
    assert "Connect once, or put t10k-images-idx3-ubyte.gz, " in done.stderr


def test_wrong_file_put_there_by_hand(tmp_path: Path) -> None:
    """MNIST's files have the names of Fashion-MNIST's; TFDS tells them by their SHA-256."""
    shutil.copytree(mnist.FILES, tmp_path / "data" / "downloads" / "manual")
    with pytest.raises(
        InputError, match=r"cannot prepare tfds:fashion_mnist; got .*wrong checksum"
    ):
        load("fashion_mnist")


def test_tfds_mnist_is_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TFDS's own builder on the official files, of which it prepares the first pictures."""
    builder = sys.modules[tfds.builder_cls("mnist").__module__]
    monkeypatch.setattr(builder, "_TRAIN_EXAMPLES", 600)
    monkeypatch.setattr(builder, "_TEST_EXAMPLES", 100)
    whole = mnist.load()
    with pytest.raises(InputError, match="does not hold the official MNIST"):
        load("mnist")
    parts = (whole.train.take(slice(540)), whole.train.take(slice(540, 600)))
    few = SequenceData(whole.spec, *parts, whole.test.take(slice(100)))
    monkeypatch.setattr(mnist, "load", lambda: few)
    assert_same(load("mnist"), few)
    monkeypatch.setattr(tfds, "builder", None)  # a call would fail
    assert_same(load("mnist"), few)
