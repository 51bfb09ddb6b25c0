"""Files that are always whole: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rnn_tf.errors import InputError

# From Linux's fcntl.h and fs.h: paths are relative to the current folder; exchange the two names.
_HERE, _EXCHANGE = -100, 2
_LINUX = sys.platform == "linux"

# What `writing` calls a file until it is whole; a kill can leave one behind.
TEMPORARY = re.compile(r"\..+\.\d+\.\w+")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Write a file so that `path` is always the old or the new one, whole, also after a kill.

    Gives a temporary name in the same folder, and renames it when the block ends well. Raises
    `InputError` when the disk is full, read-only or gone.
    """
    # A random number: threads, and containers that share a folder, may have the same process id.
    temporary = path.with_name(f".{path.stem}.{secrets.randbelow(10**12)}{path.suffix}")
    with as_input_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(stem: Path, now: datetime | None = None) -> Path:
    """Make `<stem>-<date>-<time>`, or `<stem>-<date>-<time>-2` and so on: a folder of one's own.

    Of several processes in the same second each gets another. Raises `InputError` when none can
    be made.
    """
    name = f"{stem.name}-{now or datetime.now():%Y%m%d-%H%M%S}"
    path, number = stem.with_name(name), 1
    with as_input_errors(path):
        stem.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1
                path = stem.with_name(f"{name}-{number}")


def exchange(a: Path, b: Path) -> bool:
    """Exchange the names of two files or folders, so that each name always has one of them.

    False where the system cannot: Linux and most of its file systems can. Raises `OSError`.
    """
    # renameat2(2); Python has no call for it.
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if _LINUX else None
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(a), _HERE, os.fsencode(b), _EXCHANGE) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(error, os.strerror(error), str(a), None, str(b))


@contextlib.contextmanager
def as_input_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` into an `InputError`: what cannot be written, why, and what helps."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise InputError(
            f"cannot write {path}: {error.strerror or error}",
            fix="Free some space, or choose another folder." if full else "Choose another folder.",
        ) from error
