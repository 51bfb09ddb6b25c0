"""One process at a time: a lock that the kernel releases when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from rnn_tf.errors import InputError
from rnn_tf.files.writing import as_input_errors

# The lock of a folder, in the folder.
LOCK = ".lock"
# What a file system answers that has no locks, such as some network drives.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def locked(file: Path, what: str, *, fix: str, wait: float = 0.0) -> Iterator[bool]:
    """Hold the lock `file` while the block runs; its folder is made if it is not there.

    Gives False, after a line on stderr, where the file system has no locks: work goes on without.
    The file is removed at the end, with the folder if that was made here and is empty; one that a
    kill has left is no obstacle. Raises `InputError` when another process holds the lock for
    longer than `wait` seconds, with what it does, its id and its host, and when the file cannot be
    written.
    """
    from filelock import FileLock, Timeout  # 50 ms that --help need not wait for

    made = not file.parent.exists()
    with as_input_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        # Where no file can be made, filelock may wait for one as if another process held it.
        file.touch()
        # A soft lock, a file that is there, would outlive a kill.
        lock = FileLock(file, thread_local=False, fallback_to_soft=False, on_acquired=_sign)
        try:
            lock.acquire(timeout=wait, poll_interval=0.02)
        except Timeout:
            raise InputError(f"another process {what}", got=_owner(file), fix=fix) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            file.unlink(missing_ok=True)
            _say_without_locks()
    try:
        yield lock.is_locked
    finally:
        # While it is held: whoever waits for it sees that the file is gone, and makes a new one.
        # Windows removes no open file; there it stays.
        if lock.is_locked:
            with contextlib.suppress(OSError):
                file.unlink()
            lock.release()
        if made:
            with contextlib.suppress(OSError):
                file.parent.rmdir()


def check_unlocked(file: Path, what: str, *, fix: str) -> None:
    """Raise `InputError`, as `locked` does, if another process holds the lock now."""
    if file.exists():
        with locked(file, what, fix=fix):
            pass


@functools.cache
def _say_without_locks() -> None:
    """Once, since a command may use several locks."""
    print(
        "this file system has no locks: do not use a folder from two commands at once",
        file=sys.stderr,
    )


def _sign(descriptor: int) -> None:
    """Write into the file of a lock who holds it."""
    with contextlib.suppress(OSError):  # a full disk: then it is a lock without a name
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _owner(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()[:200] or "one unnamed"
    except OSError:  # Windows lets nobody read a file that is locked
        return "one unnamed"
