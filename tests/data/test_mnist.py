"""The embedded files are the official ones, and the IDX reader takes nothing else."""

from __future__ import annotations

import gzip
import math
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rnn_tf.data import load as load_source
from rnn_tf.data import mnist
from rnn_tf.data.spec import SequenceData
from rnn_tf.errors import InputError

CODES = {
    "uint8": 0x08,
    "int8": 0x09,
    "int16": 0x0B,
    "int32": 0x0C,
    "float32": 0x0D,
    "float64": 0x0E,
}


def idx(array: np.ndarray) -> bytes:
    """The IDX file of an array, written from the format's description, not from the reader."""
    header = struct.pack(">BBBB", 0, 0, CODES[array.dtype.name], array.ndim)
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


idx_arrays = st.sampled_from(sorted(CODES)).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
    )
)


@pytest.fixture(scope="module")
def data() -> SequenceData:
    return mnist.load()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder of the official files that a test may alter."""
    for file in mnist.OFFICIAL.values():
        shutil.copy(mnist.FILES / file.name, tmp_path)
    return tmp_path


def test_shapes_dtypes_and_spec(data: SequenceData) -> None:
    assert data.spec.labels == tuple("0123456789")
    assert (data.spec.longest, data.spec.features, data.spec.classes) == (28, 28, 10)
    assert data.spec.normalization.scale[0] == 1 / 255
    assert data.spec.channels == 1
    for split, examples in ((data.train, 55_000), (data.valid, 5_000), (data.test, 10_000)):
        assert split.x.shape == (examples, 28, 28)
        assert split.y.shape == (examples,)
        assert split.x.dtype == np.uint8
        assert split.y.dtype == np.int32


def test_it_is_mnist(data: SequenceData) -> None:
    """Numbers that are published: first labels, class counts, mean and deviation of the pixels."""
    assert data.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    labels = np.concatenate([data.train.y, data.valid.y])
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels).tolist() == counts
    assert np.bincount(data.test.y).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    pixels = np.concatenate([data.train.x, data.valid.x])
    assert pixels.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std() / 255 == pytest.approx(0.3081, abs=5e-5)


def test_the_files_are_read_in_order(data: SequenceData) -> None:
    """Against another reader: gzip, and NumPy past the header."""
    name = mnist.OFFICIAL["x_train"].name
    raw = np.frombuffer(gzip.decompress((mnist.FILES / name).read_bytes()), np.uint8, offset=16)
    np.testing.assert_array_equal(data.train.x, raw.reshape(-1, 28, 28)[:55_000])
    np.testing.assert_array_equal(data.valid.x, raw.reshape(-1, 28, 28)[55_000:])


def test_load_by_name(data: SequenceData) -> None:
    np.testing.assert_array_equal(load_source("mnist").valid.x, data.valid.x)


def test_loading_imports_no_tensorflow() -> None:
    code = (
        "import sys; from rnn_tf.data import load; load('mnist');print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("key", sorted(mnist.OFFICIAL))
def test_truncated_file(copy: Path, key: str) -> None:
    file = mnist.OFFICIAL[key]
    path = copy / file.name
    path.write_bytes(path.read_bytes()[:-1])
    message = rf"{file.name} is not the official MNIST file; expected SHA-256 {file.sha256[:12]}…"
    with pytest.raises(InputError, match=rf"{message}, got \w{{12}}… .*Reinstall the package"):
        mnist.load(copy)


def test_altered_file(copy: Path) -> None:
    path = copy / mnist.OFFICIAL["y_test"].name
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"t10k-labels.* is not the official MNIST file"):
        mnist.load(copy)


def test_missing_file(copy: Path) -> None:
    (copy / mnist.OFFICIAL["x_test"].name).unlink()
    with pytest.raises(
        InputError, match=r"cannot read .*t10k-images.*; got No such file.*Reinstall"
    ):
        mnist.load(copy)


@given(idx_arrays, st.booleans())
def test_idx_round_trip(array: np.ndarray, compressed: bool) -> None:
    data = idx(array)
    read = mnist.read_idx(gzip.compress(data) if compressed else data)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.flags.writeable
    assert read.shape == array.shape
    assert read.tobytes() == array.tobytes()  # bit for bit: NaN and -0.0 too


@given(idx_arrays, st.data())
def test_truncated_idx(array: np.ndarray, data: st.DataObject) -> None:
    whole = idx(array)
    with pytest.raises(InputError):
        mnist.read_idx(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(idx_arrays, st.binary(min_size=1, max_size=20))
def test_trailing_bytes(array: np.ndarray, more: bytes) -> None:
    with pytest.raises(InputError, match="an IDX file of the wrong length"):
        mnist.read_idx(idx(array) + more)


@given(idx_arrays, st.data())
def test_truncated_or_extended_gzip(array: np.ndarray, data: st.DataObject) -> None:
    whole = gzip.compress(idx(array))
    cut = data.draw(st.integers(2, len(whole) - 1))
    with pytest.raises(InputError, match=r"damaged gzip data"):
        mnist.read_idx(whole[:cut])
    with pytest.raises(InputError, match=r"damaged gzip data; .*got more after its end"):
        mnist.read_idx(whole + data.draw(st.binary(min_size=1, max_size=20)))


@given(idx_arrays, st.data())
def test_corrupt_header_byte(array: np.ndarray, data: st.DataObject) -> None:
    """The magic zeros are always checked; other bytes may turn one valid header into another."""
    whole = bytearray(idx(array))
    at = data.draw(st.integers(0, 3 + 4 * array.ndim))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        read = mnist.read_idx(bytes(whole))
    except InputError:
        return
    assert at >= 2
    assert (read.dtype, read.shape) != (array.dtype, array.shape)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\0\0", b"\0\0\x08", b"\x1f\x8b\x08\0"]))
def test_arbitrary_bytes(data: bytes, start: bytes) -> None:
    try:
        read = mnist.read_idx(start + data)
    except InputError:
        return
    assert len(start + data) == 4 + 4 * read.ndim + math.prod(read.shape) * read.itemsize


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not an IDX file; expected two zero bytes.*, got an empty file"),
        (b"PK\3\4", r"not an IDX file; expected .* or the same in gzip, got 50 4b 03 04"),
        (b"\0\0\x0a\1\0\0\0\0", r"unknown IDX dtype; expected 0x08, .*0x0e, got 0x0a"),
        (b"\0\0\x08\0", r"bad IDX header; expected one size or more, got rank 0 in 4 bytes"),
        (b"\0\0\x08\3\0\0\0\1", r"bad IDX header; .* got rank 3 in 8 bytes"),
        (b"\0\0\x0b\1\0\0\0\2abc", r"wrong length; expected 12 bytes for \(2,\), got 11"),
        (b"\0\0\x08\xff" + bytes(4 * 255), r"an IDX array of an impossible shape"),
        (b"\0\0\x08\4" + bytes(4) + b"\xff" * 12, r"an IDX array of an impossible shape"),
    ],
)
def test_bad_idx(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mnist.read_idx(data)
