"""What XLA has compiled is reused, and a damaged file is compiled again instead of believed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from commands import Command

from rnn_tf import Run
from rnn_tf.startup import compile_cache


@pytest.fixture(autouse=True)
def nothing_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "_enabled", None)
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a process that has compiled nothing yet."""
    monkeypatch.setenv("RNN_TF_CACHE", str(tmp_path))
    compile_cache.enable()
    (made,) = (tmp_path / "xla").iterdir()
    return made


def test_recorded_files_stay_and_others_go(folder: Path) -> None:
    (folder / "whole.pb").write_bytes(b"program")
    (folder / "torn.pb").write_bytes(b"program")
    compile_cache.record()
    (folder / "torn.pb").write_bytes(b"prog")
    (folder / "unrecorded.pb").write_bytes(b"program")
    os.environ.pop("TF_XLA_FLAGS")
    compile_cache.enable()
    assert sorted(path.name for path in folder.glob("*.pb")) == ["whole.pb"]


def test_a_file_that_is_another_is_recorded_again(folder: Path) -> None:
    for content in (b"program", b"another program"):
        (folder / "program.pb").write_bytes(content)
        compile_cache.record()
    os.environ.pop("TF_XLA_FLAGS")
    compile_cache.enable()
    assert (folder / "program.pb").read_bytes() == b"another program"


def test_a_child_with_other_flags_has_a_folder_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XLA does not tell programs of other flags apart."""
    monkeypatch.setenv("TF_XLA_FLAGS", f"--mine=1 {compile_cache.FLAG}={folder}")
    monkeypatch.setenv("XLA_FLAGS", "--another=1")
    compile_cache.enable()
    mine, other = os.environ["TF_XLA_FLAGS"].split()
    assert mine == "--mine=1"
    assert other.startswith(f"{compile_cache.FLAG}={folder.parent}")
    assert other != f"{compile_cache.FLAG}={folder}"


def test_files_that_nobody_made_again_go(folder: Path) -> None:
    (folder / "old.pb").write_bytes(b"program")
    compile_cache.record()
    long_ago = time.time() - (compile_cache.LIFETIME + 1) * 24 * 3600
    os.utime(folder / "old.pb", (long_ago, long_ago))
    os.environ.pop("TF_XLA_FLAGS")
    compile_cache.enable()
    assert not list(folder.glob("*.pb"))


def test_what_the_user_says_about_the_cache_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "--tf_xla_persistent_cache_directory=/somewhere"
    monkeypatch.setenv("TF_XLA_FLAGS", said)
    compile_cache.enable()
    assert os.environ["TF_XLA_FLAGS"] == said


@pytest.mark.parametrize("place", ["file", "white space"])
def test_a_cache_that_cannot_be_used_is_done_without(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RNN_TF_CACHE", str(tmp_path / place))
    compile_cache.enable()
    assert "TF_XLA_FLAGS" not in os.environ
    compile_cache.record()


@pytest.mark.slow
def test_training_survives_a_damaged_cache(
    command: Command, small_npz: Path, tmp_path: Path
) -> None:
    def train(name: str) -> Run:
        options = ("--epochs", 2, "--units", 5, "--preset", "tutorial")
        where = ("--dataset", small_npz, "--run-dir", tmp_path / name)
        # Not this process's flags, which name its own cache.
        environment = {"RNN_TF_CACHE": str(tmp_path / "cache"), "TF_XLA_FLAGS": ""}
        done = command("rnn_tf.train", *where, *options, **environment)
        assert done.returncode == 0, done.stderr
        return Run.open(tmp_path / name)

    first = train("first")
    made = list((tmp_path / "cache").rglob("*.pb"))
    assert made, "nothing was cached"
    for program in made:
        program.write_bytes(program.read_bytes()[:1000])
    second = train("second")
    assert [r["loss"] for r in second.history] == [r["loss"] for r in first.history]
