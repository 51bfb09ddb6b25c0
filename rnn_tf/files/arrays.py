"""Arrays from `.npy` and `.npz` files: no pickle is read, and no more than a header says.

A header gives shape and dtype in some hundred bytes. It is read first, so that an array that does
not fit is refused before anything is unpacked, and a large one can be read block by block.
"""

from __future__ import annotations

import contextlib
import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import psutil

from rnn_tf.errors import InputError

# A zip archive with something in it, and one with nothing.
ZIP_STARTS = (b"PK\3\4", b"PK\5\6")

# What zipfile, its decompressors and NumPy's header parser raise for a file that is damaged,
# encrypted or made to mislead. None of them run code from the file.
UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,  # encrypted; also NotImplementedError, an unknown compression
    TypeError,
    KeyError,
    SyntaxError,
    tokenize.TokenError,
    OverflowError,
    MemoryError,
)

SAVE_AGAIN = "Write it again with NumPy."
# Bytes that are read at a time.
CHUNK = 1 << 20


class ObjectArray(InputError):
    """An array of Python objects, such as arrays of different shapes: only a pickle holds it."""

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(
            f"{path}: {key} holds Python objects", expected="one array of numbers or of text"
        )
        self.key = key


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, of which only the header has been read."""

    path: Path
    key: str  # its name in an `.npz`; "" in an `.npy`
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool  # the first index varies fastest
    _open: Callable[[], IO[bytes]]  # a new stream of header and data

    @property
    def what(self) -> str:
        """How an error about it begins."""
        return f"{self.path}: cannot read {self.key or 'the array'}"

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array, as its header says."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """Read the whole array.

        Raises `ObjectArray` when it holds Python objects, and `InputError` when it does not fit
        into the memory that is free, is damaged, or is longer or shorter than its header says.
        """
        self._require_memory()
        with self._data() as stream:
            flat = self._take(stream, math.prod(self.shape))
            self._require_end(stream)
        return flat.reshape(self.shape, order="F" if self.fortran_order else "C")

    def blocks(self, examples: int) -> Iterator[np.ndarray]:
        """Read `examples` at a time along the first axis, the last block with what is left.

        An array in Fortran order has its examples scattered, and is read whole. Raises
        `InputError` as `read` does; the blocks before the damaged place have been given by then.
        """
        if self.fortran_order:
            whole = self.read()
            yield from (whole[i : i + examples] for i in range(0, len(whole), examples))
            return
        numbers = math.prod(self.shape[1:])
        with self._data() as stream:
            for start in range(0, self.shape[0], examples):
                count = min(examples, self.shape[0] - start)
                block = self._take(stream, count * numbers).reshape(count, *self.shape[1:])
                if start + count == self.shape[0]:
                    self._require_end(stream)
                yield block

    def _require_memory(self) -> None:
        free = psutil.virtual_memory().available
        if self.nbytes > free:
            raise InputError(
                self.what,
                expected=f"at most the {free / 2**30:.3g} GiB of memory that are free",
                got=f"{self.nbytes / 2**30:,.3g} GiB, shape {self.shape} of {self.dtype}",
            )

    @contextlib.contextmanager
    def _data(self) -> Iterator[IO[bytes]]:
        if self.dtype.hasobject:
            raise ObjectArray(self.path, self.key)
        with readable(self.what, SAVE_AGAIN), self._open() as stream:
            _read_header(stream)
            yield stream

    def _take(self, stream: IO[bytes], numbers: int) -> np.ndarray:
        """The next `numbers` of the stream, which unpacks no more than it is asked for."""
        memory = np.empty(numbers * self.dtype.itemsize, np.uint8)
        filled = 0
        while filled < len(memory):
            chunk = stream.read(min(CHUNK, len(memory) - filled))
            if not chunk:
                raise self._another_size("fewer")
            memory[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
        return np.ndarray((numbers,), self.dtype, memory.data)

    def _require_end(self, stream: IO[bytes]) -> None:
        # A zip archive compares the checksum when its end is reached.
        if stream.read(1):
            raise self._another_size("more")

    def _another_size(self, got: str) -> InputError:
        expected = f"the {self.nbytes:,} bytes that its header says"
        return InputError(self.what, expected=expected, got=got, fix=SAVE_AGAIN)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an `.npz` file, by name, with no pickle read.

    Raises `InputError` when there is no such file, when it is not a whole `.npz` file, or when
    its arrays do not fit into the memory that is free; `ObjectArray`, which is one, when an array
    holds Python objects.
    """
    with open_npz(path) as stored:
        return {name: array.read() for name, array in stored.items()}


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[dict[str, StoredArray]]:
    """Open an `.npz` file and give its arrays by name; they can be read until it is closed.

    Raises `InputError` when there is no such file, or when it is not a whole `.npz` file.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: cannot be read",
            expected="an .npz file",
            got="a folder" if path.is_dir() else "no such file",
        )
    what = f"{path}: not a whole .npz file"
    with contextlib.ExitStack() as opened:
        with readable(what, SAVE_AGAIN):
            file = opened.enter_context(path.open("rb"))
            start = file.read(6)
            # By both ends: NumPy takes what starts otherwise for a single array, or a pickle.
            if not (start.startswith(ZIP_STARTS) and zipfile.is_zipfile(file)):
                got = f"one that starts with {start!r}"
                raise InputError(what, expected="a zip archive", got=got)
            archive = opened.enter_context(zipfile.ZipFile(file))
            members = archive.namelist()
            names = [member.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise InputError(f"{path}: the same name twice", got=", ".join(names))
        yield {
            name: _member(archive, member, name, path)
            for name, member in zip(names, members, strict=True)
        }


def open_npy(path: Path) -> StoredArray:
    """Read the header of an `.npy` file.

    Raises `InputError` when there is no array, or it is not whole.
    """
    with readable(f"{path}: cannot read the array", SAVE_AGAIN), path.open("rb") as file:
        shape, fortran_order, dtype = _read_header(file)
        size = path.stat().st_size - file.tell()
    array = StoredArray(path, "", shape, dtype, fortran_order, lambda: path.open("rb"))
    if size != array.nbytes and not dtype.hasobject:
        raise array._another_size(f"{size:,}")
    return array


def _member(archive: zipfile.ZipFile, member: str, name: str, path: Path) -> StoredArray:
    what = f"{path}: cannot read {name}"
    with readable(what, SAVE_AGAIN):
        with archive.open(member) as stream:
            if stream.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                raise InputError(f"{path}: {name} is not an array", got="another kind of file")
        with archive.open(member) as stream:
            shape, fortran_order, dtype = _read_header(stream)
    return StoredArray(path, name, shape, dtype, fortran_order, lambda: archive.open(member))


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, Fortran order and dtype, and leave the stream at the data.

    Raises one of `UNREADABLE` when there is no valid header.
    """
    version = np.lib.format.read_magic(stream)
    # Version 3 differs from 2 in the names of fields only, which are in UTF-8.
    later = version > (1, 0)
    read = np.lib.format.read_array_header_2_0 if later else np.lib.format.read_array_header_1_0
    shape, fortran_order, dtype = read(stream)
    if any(size < 0 for size in shape):
        raise ValueError(f"negative size in shape {shape}")
    return shape, fortran_order, dtype


@contextlib.contextmanager
def readable(what: str, fix: str | None = None) -> Iterator[None]:
    """Turn what a damaged or misleading file raises into an `InputError` that begins `what`."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        got = str(error) or type(error).__name__
        raise InputError(what, got=got[:300], fix=fix) from error
