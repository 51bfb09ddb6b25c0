"""A search killed at any moment goes on, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from formula import FormulaBackend

from rnn_tf.errors import InputError
from rnn_tf.files import writing
from tuning.search import main, read_search, search
from tuning.settings import Settings

TUNERS = ("bayesian", "hyperband", "random", "grid")
SPACE = "learning_rate: {low: 0.001, high: 0.02, sampling: log}\n"


class Killed(BaseException):
    """What kill -9 is to a process, to a test in the same one."""


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return str(path)


def settings(tuner: str, data: Path, space: str, **more: Any) -> Settings:
    # Bayesian: the first 3 trials are random, 3 for each setting.
    return Settings(str(data), tuner, space, trials=5, epochs=4, seed=0, **more)  # type: ignore[arg-type]


def rows(directory: Path) -> list[dict[str, Any]]:
    """The leaderboard without what differs between repeats."""
    table = json.loads((directory / "leaderboard.json").read_text())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table]


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_same_seed_gives_the_same_trials(
    tuner: str, small_npz: Path, space: str, tmp_path: Path, formula: FormulaBackend
) -> None:
    for name in ("a", "b"):
        search(settings(tuner, small_npz, space), tmp_path / name, backend=formula)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert len(rows(tmp_path / "a")) == 5
    assert len({json.dumps(row) for row in rows(tmp_path / "a")}) == 5


def test_neighbouring_seeds_give_other_trials(
    small_npz: Path, space: str, tmp_path: Path, formula: FormulaBackend
) -> None:
    rates = []
    for seed in (0, 1, 2**32 - 1):
        chosen = Settings(str(small_npz), "random", space, trials=6, epochs=1, seed=seed)
        search(chosen, tmp_path / str(seed), backend=formula)
        rates.append({row["learning_rate"] for row in rows(tmp_path / str(seed))})
    assert not rates[0] & rates[1]
    assert not rates[0] & rates[2]


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_kill_before_or_after_any_file_changes_nothing(
    tuner: str,
    small_npz: Path,
    space: str,
    tmp_path: Path,
    formula: FormulaBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ended at one write after another, resumed each time until the next: many kills in one."""
    chosen = settings(tuner, small_npz, space)
    search(chosen, tmp_path / "whole", backend=formula)
    unbroken = rows(tmp_path / "whole")
    formula.finished.clear()

    writes = 0
    deadly = -1

    def dies(*, after: bool) -> Any:
        @contextlib.contextmanager
        def written(path: Path) -> Iterator[Path]:
            nonlocal writes
            writes += 1
            if writes == deadly and not after:
                raise Killed
            with real(path) as temporary:
                yield temporary
            if writes == deadly and after:
                raise Killed

        return written

    real = writing.writing

    directory = tmp_path / "broken"
    kills, moment = 0, 3  # the first writes are search.json and those of the first trial
    while True:
        writes, deadly = 0, moment
        with monkeypatch.context() as patch:
            # What every `write_text` writes with, whoever calls it.
            patch.setattr(writing, "writing", dies(after=kills % 2 == 0))
            try:
                search(chosen, directory, resume=directory.exists(), backend=formula)
                break
            except Killed:
                kills += 1
                moment = 3 + (moment + 4) % 9
    assert kills > 5
    assert rows(directory) == unbroken
    finished = [row["trial"] for row in unbroken if row["score"] is not None]
    assert formula.finished == {f"trial_{name}": 1 for name in finished}


def test_a_lost_state_is_found_again_in_the_trials(
    small_npz: Path,
    space: str,
    tmp_path: Path,
    formula: FormulaBackend,
    capsys: pytest.CaptureFixture[str],
) -> None:
    search(settings("bayesian", small_npz, space), tmp_path / "d", backend=formula)
    before = rows(tmp_path / "d")
    for damage in ("", "{}", '{"trials": 3'):
        (tmp_path / "d/oracle.json").write_text(damage)
        assert main(["--dir", str(tmp_path / "d"), "--resume"]) == 2
        told = capsys.readouterr().err
        assert f"the state of the search is damaged: {tmp_path / 'd/oracle.json'}" in told
        scored = sum(row["score"] is not None for row in before)
        assert f"Delete it and go on with --resume: the {scored} finished trials are found" in told
    (tmp_path / "d/oracle.json").unlink()
    trained = dict(formula.finished)
    search(settings("bayesian", small_npz, space), tmp_path / "d", resume=True, backend=formula)
    assert rows(tmp_path / "d") == before
    assert formula.finished == trained


@pytest.mark.parametrize("file", ["config.json", "spec.json", "metrics.json", "history.jsonl"])
def test_a_damaged_trial_is_named_and_can_be_dropped(
    file: str, small_npz: Path, space: str, tmp_path: Path, formula: FormulaBackend
) -> None:
    chosen = settings("random", small_npz, space)
    search(chosen, tmp_path / "d", backend=formula)
    before = rows(tmp_path / "d")
    folder = tmp_path / "d" / f"trial_{before[0]['trial']}"
    (folder / file).write_text("{")
    with pytest.raises(InputError) as error:
        search(chosen, tmp_path / "d", resume=True, backend=formula)
    told = str(error.value)
    assert f"trial {before[0]['trial']} is damaged" in told
    assert str(folder / file) in told
    assert f"Delete {folder} and go on with --resume: its result is kept" in told
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()
    search(chosen, tmp_path / "d", resume=True, backend=formula)
    assert rows(tmp_path / "d") == before


def test_a_search_with_another_setting_is_refused_by_its_name(
    small_npz: Path,
    space: str,
    tmp_path: Path,
    formula: FormulaBackend,
    capsys: pytest.CaptureFixture[str],
) -> None:
    search(settings("random", small_npz, space), tmp_path / "d", backend=formula)
    for name, value in (("trials", 3), ("tuner", "grid"), ("seed", 4), ("epochs", 2)):
        given = [f"--{name}", str(value)]
        assert main(["--dir", str(tmp_path / "d"), "--resume", *given]) == 2
        assert f"holds a search with another {name}" in capsys.readouterr().err
    Path(space).write_text("learning_rate: [0.1, 0.2]")
    assert main(["--dir", str(tmp_path / "d"), "--resume"]) == 2
    assert "holds a search with another bounds" in capsys.readouterr().err


def test_a_finished_search_stays_as_it_is(
    small_npz: Path, space: str, tmp_path: Path, formula: FormulaBackend
) -> None:
    chosen = settings("random", small_npz, space)
    search(chosen, tmp_path / "d", backend=formula)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with pytest.raises(InputError, match=r"already holds a search: .* Add --resume"):
        search(chosen, tmp_path / "d", backend=formula)
    search(chosen, tmp_path / "d", resume=True, backend=formula)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    assert read_search(tmp_path / "d")["bounds"]["learning_rate"]["high"] == 0.02


def test_a_search_to_resume_that_is_not_there_begins(
    small_npz: Path,
    space: str,
    tmp_path: Path,
    formula: FormulaBackend,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = settings("random", small_npz, space)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        search(chosen, tmp_path / name, resume=True, backend=formula)
        told = capsys.readouterr().err.splitlines()
        assert told[0] == f"nothing to resume in {tmp_path / name}: a new search begins"
        search(chosen, tmp_path / name, resume=True, backend=formula)
        assert capsys.readouterr().err == ""
    assert rows(tmp_path / "new") == rows(tmp_path / "empty")


def test_what_cannot_be_resumed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--resume"]) == 2
    assert "--resume needs the folder of a search. Add --dir." in capsys.readouterr().err
    (tmp_path / "search.json").write_text("{")
    assert main(["--dir", str(tmp_path), "--resume"]) == 2
    assert f"cannot read {tmp_path / 'search.json'}" in capsys.readouterr().err


# --- in earnest: real training, a real kill ---
@pytest.mark.slow
def test_a_real_kill(small_npz: Path, space: str, tmp_path: Path) -> None:
    line = ["--dataset", str(small_npz), "--tuner", "random", "--trials", "4", "--epochs", "3"]
    line += ["--seed", "0", "--space", space, "--dir"]
    assert main([*line, str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-m", "tuning.search", *line, str(tmp_path / "broken")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    board = tmp_path / "broken/leaderboard.csv"
    while process.poll() is None and time.monotonic() < until:
        if board.exists() and board.read_text().count("completed") == 2:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    finished = {p: p.read_bytes() for p in tmp_path.glob("broken/trial_*/metrics.json")}
    assert len(finished) >= 2
    assert main(["--dir", str(tmp_path / "broken"), "--resume"]) == 0
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    assert {path: path.read_bytes() for path in finished} == finished
