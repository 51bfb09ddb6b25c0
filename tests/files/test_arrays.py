"""Arrays in files: read whole, read in blocks, refused by what their header says."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rnn_tf.errors import InputError
from rnn_tf.files.arrays import open_npy, open_npz, read_arrays

X = np.arange(2 * 3 * 5, dtype=np.int16).reshape(5, 3, 2)


def header(shape: tuple[int, ...], dtype: str = "|u1", *, fortran: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": dtype, "fortran_order": fortran, "shape": shape}
    )
    return stream.getvalue()


def zipped(path: Path, *parts: bytes, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive with one array, `x`, written part by part."""
    with (
        zipfile.ZipFile(path, "w", compression) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        for part in parts:
            member.write(part)
    return path


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("examples", [1, 2, 4, 5, 100])
@pytest.mark.parametrize("kind", ["npy", "savez", "savez_compressed"])
def test_blocks_are_the_whole(kind: str, examples: int, order: str, tmp_path: Path) -> None:
    x = np.asarray(X, order=order)  # type: ignore[call-overload]
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, x)
        blocks = list(open_npy(tmp_path / "x.npy").blocks(examples))
    else:
        with path.open("wb") as file:
            getattr(np, kind)(file, x=x)
        with open_npz(path) as arrays:
            blocks = list(arrays["x"].blocks(examples))
    assert [len(block) for block in blocks[:-1]] == [examples] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), X)


@pytest.mark.parametrize(
    "array",
    [
        np.float64(3.5), np.zeros((0, 3)), np.array(["a", "日本語"]), np.array("text"),
        np.array([True, False]), np.arange(6.0).reshape(2, 3).T, np.array([1 + 2j]),
        np.arange(3, dtype=">i4"), np.array([b"", b""], "S0"),
    ],
)  # fmt: skip
def test_any_array_comes_back(array: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", one=array)
    found = read_arrays(tmp_path / "one.npz")["one"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.asarray(array).dtype


def test_what_was_read_can_be_written_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X)
    read_arrays(tmp_path / "x.npz")["x"][0] = 7


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_only_a_block_is_in_memory(compression: int, tmp_path: Path) -> None:
    """200 MB of zeros, from 200 KB if they are compressed."""
    examples = 10_000
    zeros = bytes(1000 * 20)
    path = zipped(
        tmp_path / "x.npz", header((examples, 1000, 20)), *[zeros] * examples,
        compression=compression,
    )  # fmt: skip
    tracemalloc.start()
    with open_npz(path) as arrays:
        read = sum(len(block) for block in arrays["x"].blocks(100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == examples
    # Two blocks of 2 MB, and a chunk of 1 MB on its way.
    assert peak < 8e6


def test_a_header_that_says_more_than_there_is_memory_for_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.npz", header((10**9, 1000, 1000)), bytes(1000))
    with pytest.raises(
        InputError,
        match=r"x\.npz: cannot read x; expected at most the .* GiB of memory that are free, "
        r"got 9.31e\+05 GiB, shape \(1000000000, 1000, 1000\) of uint8",
    ):
        read_arrays(path)


@pytest.mark.parametrize(("there", "got"), [(29, "fewer"), (31, "more")])
def test_a_header_that_lies_is_found_out(there: int, got: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.npz", header((5, 3, 2)), bytes(there))
    expected = rf"cannot read x; expected the 30 bytes that its header says, got {got}\. Write it"
    with pytest.raises(InputError, match=expected):
        read_arrays(path)
    with open_npz(path) as arrays, pytest.raises(InputError, match=expected):
        list(arrays["x"].blocks(2))
    (tmp_path / "x.npy").write_bytes(header((5, 3, 2)) + bytes(there))
    with pytest.raises(InputError, match=rf"x\.npy: cannot read the array; .* got {there}"):
        open_npy(tmp_path / "x.npy")


def test_a_zip_that_claims_another_size_unpacks_no_more_than_the_header_says(
    tmp_path: Path,
) -> None:
    """The directory of the archive says 158 bytes; 100 MB would come out."""
    path = zipped(tmp_path / "x.npz", header((5, 3, 2)), *[bytes(10**6)] * 100)
    whole = 128 + 10**8
    content = path.read_bytes()
    assert content.count(whole.to_bytes(4, "little")) >= 1
    path.write_bytes(content.replace(whole.to_bytes(4, "little"), (158).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"cannot read x"):
        read_arrays(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6


def test_objects_are_not_read(tmp_path: Path) -> None:
    ragged = np.array([np.zeros(3), np.zeros(4)], object)
    np.savez(tmp_path / "x.npz", x=ragged)
    with pytest.raises(InputError, match=r"x holds Python objects; expected one array of numbers"):
        read_arrays(tmp_path / "x.npz")
