"""From arguments to a dataclass: what is understood, and how the rest is answered in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import tyro

from rnn_tf.command import arguments, option, parse
from rnn_tf.errors import CheckFailed, InputError, one_line_errors


@dataclass(frozen=True)
class Bake:
    """Bake a loaf."""

    recipe: tyro.conf.Positional[Path]
    """The recipe to follow."""
    loaf_count: int = 1
    """How many loaves."""
    flour: Literal["wheat", "rye"] = "wheat"
    """What to bake it from."""
    slice: bool = False
    """Cut it, too."""


def bake(*argv: str) -> Bake:
    return parse(Bake, argv, "bake")


def test_options_fill_the_fields() -> None:
    assert bake("a.txt") == Bake(Path("a.txt"))
    assert bake("a.txt", "--loaf-count", "3", "--flour=rye", "--slice") == Bake(
        Path("a.txt"), 3, "rye", True
    )


def test_a_given_default_stands_for_what_is_left_out() -> None:
    default = Bake(Path("b.txt"), 5, "rye")
    assert parse(Bake, ["--slice"], "bake", default=default) == Bake(Path("b.txt"), 5, "rye", True)


def test_help_tells_every_option_and_exits_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        bake("--help")
    assert not stop.value.code
    told, complaint = capsys.readouterr()
    for text in ("bake", "Bake a loaf.", "--loaf-count INT", "How many loaves.", "{wheat,rye}"):
        assert text in told
    assert "--no-slice" not in told
    assert complaint == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a", "--loaf-count", "few"], r"--loaf-count.*'few'"),
        (["a", "--loaf-count"], r"--loaf-count"),
        (["a", "--flour", "oat"], r"'oat'.*'wheat', 'rye'"),
        (["a", "--loaf-counts", "2"], r"--loaf-counts.*similar: --loaf-count\b"),
        (["a", "b"], r"b"),
        (["a", "--nothing-like-it"], r"--nothing-like-it"),
        ([], r"(?i)recipe"),
    ],
)
def test_what_does_not_fit_is_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=message) as error:
        bake(*argv)
    line = str(error.value)
    assert line.isprintable()
    assert not set(line) & set("│╭╮╰╯─")
    assert line.endswith(". See bake --help.")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "argv",
    [
        ["--preset", "fast", "--units", "3"],
        ["--units", "3", "--preset=fast"],
        ["--preset", "slow", "--preset", "fast"],
    ],
)
def test_an_option_is_found_before_parsing(argv: list[str]) -> None:
    assert option(argv, "--preset") == "fast"


@pytest.mark.parametrize("argv", [[], ["--preset"], ["preset", "fast"], ["--presets", "fast"]])
def test_an_option_that_is_not_there_is_none(argv: list[str]) -> None:
    assert option(argv, "--preset") is None


@pytest.mark.parametrize("spelling", ["--run-dir", "--run_dir"])
@pytest.mark.parametrize("joined", [True, False])
def test_an_option_is_found_in_either_spelling(spelling: str, joined: bool) -> None:
    argv = [f"{spelling}=here"] if joined else [spelling, "here"]
    assert option(argv, "--run-dir") == "here"


def test_arguments_come_from_the_process_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "one", "two"])
    assert arguments(None) == ["one", "two"]
    assert arguments([]) == []


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "bad thing"),
        ({"expected": "a good one"}, "bad thing; expected a good one"),
        ({"got": 0}, "bad thing; got 0"),
        ({"expected": "1", "got": 2}, "bad thing; expected 1, got 2"),
        ({"expected": "1", "got": 2, "fix": "Try 1."}, "bad thing; expected 1, got 2. Try 1."),
        ({"fix": "Try 1."}, "bad thing. Try 1."),
        ({"got": "two\n\tlines"}, "bad thing; got two lines"),
    ],
)
def test_an_input_error_is_one_sentence_of_its_parts(parts: dict[str, str], message: str) -> None:
    assert str(InputError("bad thing", **parts)) == message


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("bad thing"), 2, "error: bad thing\n"),
        (CheckFailed("they differ"), 1, "failed: they differ\n"),
    ],
)
def test_expected_failures_are_one_line_and_an_exit_code(
    error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @one_line_errors
    def command() -> int:
        raise error

    assert command() == code
    assert capsys.readouterr() == ("", line)


def test_a_bug_keeps_its_traceback() -> None:
    @one_line_errors
    def command() -> int:
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        command()


# --- how a command ends when nobody reads ---
@pytest.mark.parametrize(
    "arguments",
    [
        ["rnn_tf.train", "--help"],
        ["rnn_tf.cli", "--help"],
        ["rnn_tf.cli", "--version"],
        ["rnn_tf.cli", "train", "--help"],
        ["rnn_tf.cli", "trian"],
        ["export", "--help"],
    ],
)
def test_a_command_whose_reader_is_gone_ends_silently(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    # The last writes its error line to the same pipe.
    errors = write if arguments[-1] == "trian" else subprocess.PIPE
    done = subprocess.run(
        [sys.executable, "-m", *arguments], stdout=write, stderr=errors, timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr or b"") == (141, b"")


def test_another_broken_pipe_keeps_its_traceback() -> None:
    @one_line_errors
    def main() -> int:
        read, write = os.pipe()
        os.close(read)
        os.write(write, b"to a worker that died")
        return 0

    with pytest.raises(BrokenPipeError):
        main()
