"""From a command line to a dataclass, the same way for every command."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from rnn_tf.errors import InputError

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """The arguments as a `kind`, a dataclass whose fields are the options.

    `--help` prints and exits. Raises `InputError` for arguments that do not fit.
    """
    complaint = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint):
            # Flags are off until said: no --no-resume beside --resume.
            config = (tyro.conf.FlagCreatePairsOff,)
            parsed: T = tyro.cli(kind, args=list(argv), prog=prog, config=config, **given)
            return parsed
    except SystemExit as stop:
        if not stop.code:
            raise
    raise InputError(_one_line(complaint.getvalue()), fix=f"See {prog} --help.")


def _one_line(box: str) -> str:
    """What tyro says in a box of several lines: its complaint, and the options it suggests."""
    lines = [line.strip("│ ") for line in box.splitlines() if line[:1] not in "╭╰"]
    rules = [i for i, line in enumerate(lines) if line.startswith("─")] or [len(lines)]
    similar = [line.split()[0] for line in lines[rules[0] :] if line.startswith("--")]
    told = " ".join(lines[: rules[0]]).rstrip(".")
    return f"{told}; similar: {', '.join(similar)}" if similar else told


def option(argv: Sequence[str], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE`, for what decides the other defaults."""
    for i, argument in enumerate(argv):
        if argument in (name, name.replace("_", "-")) and i + 1 < len(argv):
            return argv[i + 1]
        if argument.startswith(f"{name}="):
            return argument.split("=", 1)[1]
    return None


def arguments(argv: Sequence[str] | None) -> Sequence[str]:
    return sys.argv[1:] if argv is None else argv
