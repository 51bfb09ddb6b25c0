"""What a user did wrong, said in one line, and how a command ends.

Every check on something that comes from outside (a file, a name, a flag) raises `InputError`;
every command turns it into that one line on stderr and exit code 2. Anything else that escapes
is a bug and keeps its traceback.
"""

from __future__ import annotations

import functools
import os
import select
import sys
from collections.abc import Callable
from typing import ParamSpec, TextIO

P = ParamSpec("P")

# The exit code of a command whose reader went away, as in `| head -1`: 128 + SIGPIPE, as a shell
# reports it for every other program.
READER_GONE = 141


class InputError(ValueError):
    """Bad input: what is wrong, what was expected, what was found, and how to mend it.

    `str(error)` is `<what>; expected <expected>, got <got>. <fix>`, without the parts not given.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: str | None = None,
        got: object | None = None,
        fix: str | None = None,
    ) -> None:
        found = [f"expected {expected}"] if expected is not None else []
        if got is not None:
            found.append(f"got {got}")
        message = f"{what}; {', '.join(found)}" if found else what
        if fix is not None:
            message = f"{message}. {fix}"
        # One line, whatever text from outside has been put into it.
        super().__init__(" ".join(message.split()))


class CheckFailed(RuntimeError):
    """The input was good, the result is not: a loss that became NaN, formats that disagree."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # one line, as above


def one_line_errors(command: Callable[P, int]) -> Callable[P, int]:
    """Make a command answer bad input (exit code 2) and failed checks (1) with one line.

    And end silently (`READER_GONE`) when nobody reads its output any more.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            try:
                return command(*args, **kwargs)
            except InputError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            except CheckFailed as error:
                print(f"failed: {error}", file=sys.stderr)
                return 1
            finally:
                sys.stdout.flush()  # now: when Python ends, it would complain of a closed pipe
        except BrokenPipeError:
            unread = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
            if not unread:
                raise  # another pipe: that of a worker process, for instance
            for stream in unread:
                _write_nowhere(stream)
            return READER_GONE

    return run


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe whose other end is closed."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):  # a stream that is no file, as in a test
        return False
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))


def _write_nowhere(stream: TextIO) -> None:
    """Let what is still to be written, when Python ends too, vanish."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
