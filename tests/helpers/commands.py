"""How commands refuse and fail, for the tests that call them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

Main = Callable[[list[str]], int]
Capture = pytest.CaptureFixture[str]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def refusal(main: Main, argv: list[object], capsys: Capture) -> str:
    """The one line on stderr with which a command refuses bad input."""
    assert main([str(argument) for argument in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def failure(main: Main, argv: list[object], capsys: Capture) -> str:
    """The last line on stderr, with which a command says that a check has failed."""
    assert main([str(argument) for argument in argv]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("failed: ")
    return line
