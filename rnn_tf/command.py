"""From a command line to a dataclass, the same way for every command."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from rnn_tf.errors import InputError
from rnn_tf.startup import ownership

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """The arguments as a `kind`, a dataclass whose fields are the options.

    `--help` prints and exits. Raises `InputError` for arguments that do not fit.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}

    def cli() -> T:
        # Flags are off until said: no --no-resume beside --resume.
        config = (tyro.conf.FlagCreatePairsOff,)
        parsed: T = tyro.cli(kind, args=list(argv), prog=prog, config=config, **given)
        return parsed

    complaint = io.StringIO()
    try:
        # What tyro says depends on stdout: on a terminal it is in colour, and in UTF-8 in a box.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(complaint):
            return cli()
    except SystemExit as stop:
        if not stop.code:
            cli()  # Help, which does belong on stdout; it exits here.
    raise InputError(_one_line(complaint.getvalue()), fix=f"See {prog} --help.")


def _one_line(box: str) -> str:
    """What tyro says in several lines: a title, its complaint, and the options it suggests."""
    lines = [line.strip() for line in box.splitlines()]
    rules = [i for i, line in enumerate(lines) if line and not line.strip("-")]
    if len(rules) < 2:  # Not the layout we know: better all of it than nothing.
        return " ".join(box.split())
    told = " ".join(lines[rules[0] + 1 : rules[1]]).rstrip(".")
    told = told.removeprefix("Error parsing settings: ")
    rest = lines[rules[1] :]
    similar = [line.split()[0] for line in rest if line.startswith("--") and line.strip("-")]
    if "Perhaps you meant:" not in rest or not similar:
        return told
    return f"{told}; similar: {', '.join(similar)}"


def option(argv: Sequence[str], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE`, for what decides the other defaults."""
    value = None
    for i, argument in enumerate(argv):
        given, equals, joined = argument.partition("=")
        if given.replace("_", "-") == name:
            value = joined if equals else next(iter(argv[i + 1 :]), None)
    return value  # the last one counts, as it does for tyro


def without_options(argv: Sequence[str], *names: str) -> list[str]:
    """`argv` without any `--name VALUE` or `--name=VALUE` of those names."""
    kept: list[str] = []
    rest = iter(argv)
    for argument in rest:
        given, equals, _ = argument.partition("=")
        if given.replace("_", "-") not in names:
            kept.append(argument)
        elif not equals:
            next(rest, None)
    return kept


def arguments(argv: Sequence[str] | None) -> Sequence[str]:
    """The arguments of a command: `argv`, or else those of the process, which is then its own."""
    if argv is not None:
        return argv
    ownership.claim()
    warnings.formatwarning = _as_a_line
    return sys.argv[1:]


def _as_a_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """How a command shows a warning: what is wrong, and not the line of code that noticed."""
    return f"warning: {' '.join(str(message).split())}\n"
