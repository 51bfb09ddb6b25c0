"""What a user did wrong, said in one line.

Every check on something that comes from outside (a file, a name, a flag) raises `InputError`;
every command turns it into that one line on stderr and exit code 2. Anything else that escapes
is a bug and keeps its traceback.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


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
    """Make a command answer bad input (exit code 2) and failed checks (1) with one line."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return command(*args, **kwargs)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except CheckFailed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1

    return run
