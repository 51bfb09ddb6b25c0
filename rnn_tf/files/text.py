"""Text files that people bring, opened so that what is wrong with one is said in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import psutil

from rnn_tf.errors import InputError

# A file takes some times its size in memory while it is read.
MEMORY_A_BYTE = 4


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file in UTF-8, with or without its mark at the beginning.

    Raises `InputError` for what is no file, is empty, does not fit into memory or is not UTF-8,
    also while it is read.
    """
    check_size(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise not_utf8(path, error.object[error.start]) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error


def check_file(path: Path) -> None:
    """Raise `InputError` for what is no file, or an empty one."""
    if not path.is_file():
        raise InputError(f"not a file: {path}" if path.exists() else f"no such file: {path}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: an empty file")


def check_size(path: Path) -> None:
    """Raise `InputError` for what is no file, is empty, or does not fit into memory."""
    check_file(path)
    size, free = path.stat().st_size, psutil.virtual_memory().available
    if size * MEMORY_A_BYTE > free:
        raise InputError(
            f"{path}: too large to read",
            expected=f"at most {free / MEMORY_A_BYTE / 2**30:.3g} GiB, 1/4 of the free memory",
            got=f"{size / 2**30:.3g} GiB",
        )


def not_utf8(path: Path, byte: int) -> InputError:
    return InputError(
        f"{path}: not a text in UTF-8", got=f"the byte 0x{byte:02x}",
        fix="Save it as UTF-8 (a spreadsheet: CSV UTF-8).",
    )  # fmt: skip
