"""What a search leaves behind, what it does when trials fail, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refusal

from rnn_tf import Run, TrainConfig
from rnn_tf.data import SequenceData, SequenceSpec, Split
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.evaluate import evaluate
from tuning import report, trial
from tuning.oracles import build_oracle
from tuning.search import main, search
from tuning.settings import Settings
from tuning.space import Range, hyperparameters

SPEC = SequenceSpec(4, 2, ("a", "b", "c"))
WIDE = {"low": 2, "high": 64}
RATES = {"learning_rate": {"low": 0.001, "high": 0.01, "sampling": "log"}}


@pytest.fixture
def options(tmp_path: Path, small_npz: Path) -> Any:
    """Settings of a small search: a space, and what else is said."""

    def make(space: dict[str, Any] = RATES, **more: Any) -> Settings:
        path = tmp_path / "space.json"
        path.write_text(json.dumps(space))
        given = {"tuner": "random", "trials": 5, "epochs": 1, "seed": 0, **more}
        return Settings(dataset=str(small_npz), space=str(path), **given)

    return make


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


# --- in earnest ---
@pytest.fixture(scope="module")
def searched(small_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real search whose last trial fails: a rate without hope."""
    folder = tmp_path_factory.mktemp("searched")
    space = folder / "space.json"
    space.write_text(json.dumps({"activation": ["relu"], "learning_rate": [0.005, 0.01, 1e30]}))
    settings = Settings(str(small_npz), "grid", str(space), trials=9, epochs=2, preset="tutorial")
    search(settings, folder / "d")
    return folder / "d"


def test_the_tables_have_a_row_a_trial(searched: Path) -> None:
    rows = table(searched)
    columns = ["trial", "activation", "learning_rate", "score", "parameters", "seconds", "status"]
    assert list(rows[0]) == columns
    assert [row["status"].partition(":")[0] for row in rows] == ["completed", "completed", "failed"]
    assert "NaN" in rows[2]["status"]
    plain = json.loads((searched / "leaderboard.json").read_text())
    assert [str(row["trial"]) for row in plain] == [row["trial"] for row in rows]
    assert plain[0]["score"] >= plain[1]["score"]
    assert plain[2]["score"] is None


def test_the_best_is_an_ordinary_run_that_trains_as_its_trial_did(searched: Path) -> None:
    rows = json.loads((searched / "leaderboard.json").read_text())
    best = Run.open(searched / "best")
    assert best.config.learning_rate == rows[0]["learning_rate"]
    assert best.metrics["valid"]["accuracy"] == pytest.approx(rows[0]["score"], abs=1e-6)
    assert evaluate(best).accuracy == best.metrics["test"]["accuracy"]


def test_there_are_pictures_and_logs_for_tensorboard(searched: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert (searched / "report.png").read_bytes().startswith(b"\x89PNG")
    logs = sorted((searched / "hparams").glob("trial_*"))
    assert len(logs) == 2
    events = EventAccumulator(str(logs[0])).Reload()
    assert "_hparams_/session_start_info" in events.Tags()["tensors"]
    assert "score" in events.Tags()["tensors"]


def test_a_trial_leaves_no_checkpoint_and_nothing_temporary(searched: Path) -> None:
    assert not list(searched.rglob("checkpoint"))
    assert not list(searched.rglob(".*"))


# --- which is best, and what is kept ---
def test_ties_go_to_the_smaller_model_then_to_the_earlier_trial(
    options: Any, tmp_path: Path, known_scores: Counter[str]
) -> None:
    space = {"units": [16, 4, 8], "clip_norm": [1, 2]}
    search(options(space, tuner="grid", trials=9), tmp_path / "d")
    rows = table(tmp_path / "d")
    assert len({row["score"] for row in rows}) == 1
    assert [row["units"] for row in rows] == ["4", "4", "8", "8", "16", "16"]
    assert rows[0]["trial"] < rows[1]["trial"]


def test_only_the_best_models_stay(
    options: Any, tmp_path: Path, known_scores: Counter[str]
) -> None:
    search(options(trials=8), tmp_path / "d")
    best = [row["trial"] for row in table(tmp_path / "d")][: trial.KEEP]
    kept = {path.parent.name for path in tmp_path.glob("d/trial_*/model.keras")}
    assert kept == {f"trial_{name}" for name in best}
    assert len(list(tmp_path.glob("d/trial_*/history.jsonl"))) == 8


def test_no_trial_is_larger_than_allowed(
    options: Any, small: SequenceData, tmp_path: Path, known_scores: Counter[str]
) -> None:
    space = {"cell": ["simple_rnn", "lstm", "gru"], "units": {**WIDE, "sampling": "log"}}
    # Bayesian: the first 12 are random, 3 for each hyperparameter.
    for tuner, trials in (("random", 7), ("grid", 7), ("bayesian", 15)):
        chosen = options(space, tuner=tuner, trials=trials, max_parameters=500)
        search(chosen, tmp_path / tuner)
        sizes = [int(row["parameters"]) for row in table(tmp_path / tuner)]
        assert len(sizes) == trials
        assert max(sizes) <= 500


@pytest.mark.parametrize("sampling", ["linear", "log"])
def test_a_bayesian_guess_stays_between_its_bounds(sampling: Any, tmp_path: Path) -> None:
    """KerasTuner takes the upper end of its own range for one number more."""
    space = hyperparameters({"units": Range(2, 43, sampling)}, TrainConfig(), SPEC)
    oracle = build_oracle("bayesian", space, SPEC, trials=1, epochs=1, seed=0, file=tmp_path / "o")
    lowest, highest = oracle._get_hp_bounds().T
    assert oracle._vector_to_values(lowest)["units"] == 2
    assert oracle._vector_to_values(highest)["units"] == 43


def test_the_search_has_no_test_split(
    options: Any, small: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test split of which one look would be seen: every number of it is NaN, every label bad."""
    poisoned = dataclasses.replace(
        small, test=Split(np.full_like(small.test.x, np.nan), np.full_like(small.test.y, -9))
    )
    monkeypatch.setattr("tuning.search.train", lambda config, path, **_: Run.create(
        path, config, small.spec
    ))  # fmt: skip
    for data, name in ((small, "a"), (poisoned, "b")):
        search(options(trials=1, preset="tutorial"), tmp_path / name, data=data)
    a, b = ([{**row, "seconds": ""} for row in table(tmp_path / name)] for name in "ab")
    assert a == b
    assert len(trial.without_test(small).test.x) == len(trial.without_test(small).test.y) == 0


# --- trials that fail ---
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CheckFailed("the loss became NaN"), "failed: the loss became NaN"),
        (MemoryError(), "failed: MemoryError"),
        (InputError("a bad combination"), "failed: a bad combination"),
        (RuntimeError("OOM when\nallocating"), "failed: OOM when allocating"),
    ],
)
def test_a_failing_trial_is_recorded_and_the_search_goes_on(
    error: Exception,
    reason: str,
    options: Any,
    tmp_path: Path,
    known_scores: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_formula = trial._train

    def fails(run: Run, *others: Any) -> None:
        if run.path.name != "trial_2":
            raise error
        by_formula(run, *others)

    monkeypatch.setattr(trial, "_train", fails)
    search(options(trials=6), tmp_path / "d")
    statuses = [row["status"] for row in table(tmp_path / "d")]
    assert statuses == ["completed"] + 5 * [reason]


def test_when_all_fail_the_command_says_so(
    options: Any,
    tmp_path: Path,
    known_scores: Counter[str],
) -> None:
    with pytest.raises(CheckFailed, match="no trial gave a model: failed: the loss became NaN"):
        search(options({"learning_rate": [0.5, 0.6]}, tuner="grid"), tmp_path / "d")
    assert len(table(tmp_path / "d")) == 2


def test_a_full_disk_is_no_trial_s_fault(
    options: Any, tmp_path: Path, known_scores: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise InputError("cannot write x: No space left on device") from OSError(28, "No space")

    monkeypatch.setattr(trial, "_train", full)
    with pytest.raises(InputError, match="No space left"):
        search(options(), tmp_path / "d")
    assert not [row for row in table(tmp_path / "d") if row["status"] != "running"]


# --- time ---
def test_no_trial_begins_after_max_minutes_and_resume_goes_on(
    options: Any, tmp_path: Path, known_scores: Counter[str]
) -> None:
    with pytest.raises(CheckFailed, match="none was begun"):
        search(options(), tmp_path / "d", max_minutes=1e-9)
    search(options(), tmp_path / "d", resume=True)
    assert len(table(tmp_path / "d")) == 5


def test_progress_says_how_far_it_is(
    options: Any,
    tmp_path: Path,
    known_scores: Counter[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    search(options(trials=2), tmp_path / "d")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1 of 2 trials, the last (0) ")
    assert lines[1].startswith("2 of 2 trials, the last (1) ")
    assert lines[1].endswith("0 s left")


# --- bad input ---
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tuner", "annealing"], "annealing"),
        (["--space", "huge"], "unknown space 'huge'"),
        (["--trials", "0"], "bad trials; expected a whole number >= 1, got 0"),
        (["--epochs", "0"], "bad epochs; expected a whole number >= 1, got 0"),
        (["--workers", "0"], "bad workers; expected a whole number >= 1, got 0"),
        (["--max-parameters", "0"], "bad max_parameters"),
        (["--max-parameters", "100"], "no model of the space is within --max-parameters"),
        (["--max-minutes", "0"], "bad max_minutes; expected more than 0"),
        (["--seed", "-1"], "bad seed"),
        (["--preset", "better"], "unknown preset 'better'"),
        (["--dataset", "nowhere.npz"], "nowhere.npz: cannot be read"),
        (["--listen", "8470"], "bad address; expected HOST:PORT"),
        (["--chief", "127.0.0.1:1"], "no search listens at 127.0.0.1:1"),
    ],
)
def test_bad_input_is_refused(
    arguments: list[str],
    message: str,
    small_npz: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--dataset", small_npz, "--dir", tmp_path / "d", *arguments]
    assert message in refusal(main, given, capsys)


def test_an_activation_that_does_not_exist_is_found_before_the_night(
    options: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="unknown activation 'swoosh'"):
        search(options({"activation": ["elu", "swoosh"]}), tmp_path / "d")


def test_a_folder_that_cannot_be_used(
    options: Any, tmp_path: Path, known_scores: Counter[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot write"):
        search(options(), tmp_path / "file" / "d")
    with pytest.raises(InputError, match="not empty and not a search"):
        search(options(), tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tuning.search.search", interrupted)
    assert main(["--dir", str(tmp_path)]) == 130
    assert f"--dir {tmp_path} --resume" in capsys.readouterr().err


# --- the report ---
def test_the_pareto_front_is_what_no_smaller_one_beats() -> None:
    rows = [
        {"parameters": p, "score": s}
        for p, s in ((10, 0.5), (20, 0.4), (30, 0.7), (30, 0.6), (40, 0.7), (50, 0.9))
    ]
    front = [(row["parameters"], row["score"]) for row in report.pareto(rows)]
    assert front == [(10, 0.5), (30, 0.7), (50, 0.9)]


def test_the_table_is_as_wide_as_its_cells() -> None:
    rows = [{"trial": str(i), "score": i / math.pi, "status": "completed"} for i in range(12)]
    lines = report.table(rows).splitlines()
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1] == "… and 2 more"


def test_a_trial_s_configuration_is_one_that_train_takes(searched: Path) -> None:
    config = json.loads((searched / "trial_0/config.json").read_text())
    config.pop("format")
    assert TrainConfig.from_dict(config) == Run.open(searched / "trial_0").config
