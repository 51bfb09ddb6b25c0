"""Files that are always whole: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rnn_tf.errors import InputError

# What `writing` calls a file until it is whole; a kill can leave one behind.
TEMPORARY = re.compile(r"\..+\.\d+\.\w+")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Write a file so that `path` is always the old or the new one, whole, also after a kill.

    Gives a temporary name in the same folder, and renames it when the block ends well. Raises
    `InputError` when the disk is full, read-only or gone.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    with said_plainly(path):
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


@contextlib.contextmanager
def said_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise InputError(
            f"cannot write {path}: {error.strerror or error}",
            fix="Free some space, or choose another folder." if full else "Choose another folder.",
        ) from error
