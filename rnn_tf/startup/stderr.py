"""What native code writes to stderr, held back while a command runs it.

TensorFlow and its libraries write to file descriptor 2, past Python. While that is muted, Python's
own `sys.stderr` still reaches the terminal: a warning or an error line is never lost, whichever
thread writes it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, TextIO

from rnn_tf.startup import ownership

STDERR = 2  # the file descriptor that native code writes to


@contextlib.contextmanager
def muted(*, in_any_process: bool = False) -> Iterator[None]:
    """Hold back what native code writes to stderr; show it if something fails.

    For the whole process: threads may enter and leave in any order, and the last to leave ends it.
    Does nothing in a plain start, nor in a process that is not a command's. But `in_any_process`
    does, for the moment in which a library says what nothing else keeps it from saying.
    """
    if ownership.is_plain() or not (in_any_process or ownership.is_command()):
        yield
        return
    _mute.enter()
    try:
        yield
    except BaseException:
        _mute.show()
        raise
    finally:
        _mute.leave()


class _Mute:
    """File descriptor 2 of this process, and how many have it muted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0  # how many have entered and not left
        self._held: IO[bytes]  # what was written since the first of them entered
        self._shown = 0  # how many bytes of it have been shown
        self._terminal: TextIO | None = None  # writes to where the descriptor led
        self._replaced: TextIO | None = None  # `sys.stderr` as it was, if it had to be replaced

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            sys.stderr.flush()
            self._held = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the last to leave
            self._shown = 0
            terminal = self._lead_to_terminal()
            if _descriptor(sys.stderr) == STDERR:
                self._replaced, sys.stderr = sys.stderr, terminal
            os.dup2(self._held.fileno(), STDERR)

    def show(self) -> None:
        """Write what has been held so far, once, to where it would have gone."""
        with self._lock:
            # Read at a place: the file's own position is where native code writes next.
            size = os.fstat(self._held.fileno()).st_size
            text = os.pread(self._held.fileno(), size - self._shown, self._shown)
            self._shown = size
            sys.stderr.write(text.decode(errors="replace"))
            sys.stderr.flush()

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            if self._terminal is not None:
                self._terminal.flush()
                os.dup2(self._terminal.fileno(), STDERR)
            if self._replaced is not None:
                sys.stderr, self._replaced = self._replaced, None
            self._held.close()

    def _lead_to_terminal(self) -> TextIO:
        """A stream to where the descriptor leads now: always the same one, never closed.

        A logger that is made meanwhile may hold on to it.
        """
        if self._terminal is None:
            binary = os.fdopen(os.dup(STDERR), "wb", buffering=0, closefd=False)
            self._terminal = io.TextIOWrapper(
                binary, sys.stderr.encoding, sys.stderr.errors, line_buffering=True,
                write_through=True,
            )  # fmt: skip
        os.dup2(STDERR, self._terminal.fileno())
        return self._terminal


_mute = _Mute()


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # a stream that is no file, or closed
        return None
