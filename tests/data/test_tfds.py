"""Real builders through the real TFDS: small generated sets, and the embedded MNIST."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rnn_tf.data import load as load_source
from rnn_tf.data import mnist
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
                example["label"] = index % 3
            yield index, example

    @classmethod
    def make(cls, key: str) -> np.ndarray:
        raise NotImplementedError


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


class RnnNotFinite(RnnSeries):
    @classmethod
    def make(cls, key: str) -> np.ndarray:
        return np.full(7, np.nan, np.float32)


class RnnNoTest(RnnGrey):
    SIZES: ClassVar[dict[str, int]] = {"train": 30, "validation": 6}


class RnnNoLabel(RnnGrey):
    LABEL: Any = None
    SUPERVISED = None


class RnnSizes(RnnGrey):
    INPUT = staticmethod(lambda: tfds.features.Image(shape=(None, None, 1)))


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
        for a, b in zip(getattr(one, name), getattr(other, name), strict=True):
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
    ],
)
def test_kinds_of_input(
    builder: type[Generated], shape: tuple[int, int], dtype: type, scale: float, channels: int
) -> None:
    data = load(builder.name)
    assert (data.spec.timesteps, data.spec.features) == shape
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


def test_validation_is_the_sets_own_or_the_last_tenth_of_train() -> None:
    assert [len(split.y) for split in splits(load("rnn_colour"))] == [30, 9, 6]
    assert [len(split.y) for split in splits(load("rnn_grey"))] == [27, 3, 6]


def splits(data: SequenceData) -> tuple[Any, ...]:
    return data.train, data.valid, data.test


def test_order_is_the_same_when_prepared_again(tmp_path: Path) -> None:
    first = load("rnn_grey")
    shutil.rmtree(tmp_path)
    assert_same(first, load("rnn_grey"))


def test_version_in_the_name() -> None:
    assert_same(load("rnn_grey:1.2.3"), load("rnn_grey"))


def test_load_by_name() -> None:
    assert_same(load_source("tfds:rnn_grey"), load("rnn_grey"))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    load("rnn_grey")
    assert capfd.readouterr() == ("", "")


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


def test_prepared_set_whose_code_is_not_here(tmp_path: Path) -> None:
    """TFDS reads a set of the user's own from its folder, in a process without its builder."""
    data = load("rnn_grey")
    shutil.rmtree(tmp_path / "cache")
    code = "from rnn_tf.data import load; print(load('tfds:rnn_grey').test.x.sum())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{data.test.x.sum()}\n", "")


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
    with pytest.warns(UserWarning, match=r"cannot keep the decoded arrays in .*Set RNN_TF_CACHE"):
        data = load("rnn_grey")
    assert len(data.test.y) == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rnn_no_test", r"tfds:rnn_no_test has no test split; .*got train, validation$"),
        (
            "rnn_no_label",
            r"tfds:rnn_no_label has no class label; .*got input \(Image \(5, 4, 1\)\)",
        ),
        ("rnn_sizes", r"examples of tfds:rnn_sizes differ in shape; .*\(None, None, 1\).*\.npz"),
        ("rnn_list", r"examples of tfds:rnn_list differ in shape; .*got input of shape \(None,\)"),
        ("rnn_text", r"tfds:rnn_text has no usable input; .*got input \(Text \(\)\), note \(Text"),
        ("rnn_video", r"tfds:rnn_video has no usable input; .*Video"),
        ("rnn_not_finite", r"tfds:rnn_not_finite: NaN or infinity in train; .*got 210 of 210"),
        (
            "rnn_hidden_labels",
            r"unlabelled examples in test; expected classes 0 to 2, got -1 to -1",
        ),
        ("rnn_by_hand", r"cannot prepare tfds:rnn_by_hand; got Manual directory .*Ask the author"),
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
    "name", ["", "../x", "a/../b", "/etc", "a b", "x:", "ns:x", "x:1", "x/y=1", "x\n", "ü", "x/.."]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InputError, match=r"bad TensorFlow Datasets name .*; expected tfds:<name>"):
        load(name)


def test_no_network_is_said_within_seconds() -> None:
    """Where there is a network, a proxy that is not there takes it away from this test."""
    code = (
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


@pytest.mark.slow  # TFDS takes 20 s or more to prepare MNIST
def test_tfds_mnist_is_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same(load("mnist"), mnist.load())
    monkeypatch.setattr(tfds, "builder", None)  # a call would fail
    assert_same(load("mnist"), mnist.load())
