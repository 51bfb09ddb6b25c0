"""Arrays from `.npz` files, with no pickle read."""

from __future__ import annotations

import contextlib
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

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


class ObjectArray(InputError):
    """An array of Python objects, such as arrays of different shapes: only a pickle holds it."""

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(
            f"{path}: {key} holds Python objects", expected="one array of numbers or of text"
        )
        self.key = key


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of an `.npz` file, by name, with no pickle read.

    Raises `InputError` when there is no such file, or when it is not a whole `.npz` file;
    `ObjectArray`, which is one, when an array holds Python objects.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: cannot be read",
            expected="an .npz file",
            got="a folder" if path.is_dir() else "no such file",
        )
    what = f"{path}: not a whole .npz file"
    # Opened here: NumPy leaves a file open that it cannot read.
    with _npz_errors(what), path.open("rb") as stream:
        start = stream.read(6)
        # By both ends: NumPy takes what starts otherwise for a single array, or a pickle.
        if not (start.startswith(ZIP_STARTS) and zipfile.is_zipfile(stream)):
            raise InputError(what, expected="a zip archive", got=f"one that starts with {start!r}")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive:
            if len(set(archive.files)) < len(archive.files):
                raise InputError(f"{path}: the same name twice", got=", ".join(archive.files))
            return {key: _member(archive, key, path) for key in archive.files}


@contextlib.contextmanager
def _npz_errors(what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            what, got=str(error) or type(error).__name__, fix="Write it again with numpy.savez."
        ) from error


def _member(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    with _npz_errors(f"{path}: cannot read {key}"):
        try:
            array = archive[key]
        except ValueError as error:
            if str(error).startswith("Object arrays"):  # NumPy has no type of error for it
                raise ObjectArray(path, key) from error
            raise
    if not isinstance(array, np.ndarray):  # NumPy hands out a file of another kind as bytes
        raise InputError(f"{path}: {key} is not an array", got="another kind of file")
    return array
