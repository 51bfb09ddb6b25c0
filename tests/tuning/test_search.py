"""What a search leaves behind, what it does when trials fail, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import refusal
from formula import FormulaBackend

from export.publish import export_run
from export.verify import main as verify_main
from rnn_tf import Run, TrainConfig
from rnn_tf.data import SequenceData, SequenceSpec, Split
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.evaluate import evaluate
from rnn_tf.files.locking import locked
from rnn_tf.train import main as train_main
from rnn_tf.training.keras.backend import KerasBackend
from rnn_tf.training.recorder import Fitted
from tuning import report, trial
from tuning.oracles import Hyperband, build_oracle
from tuning.search import build, main, read_search, search
from tuning.settings import Settings
from tuning.space import Range, hyperparameters, read_space

SPEC = SequenceSpec(4, 2, ("a", "b", "c"))
WIDE = {"low": 2, "high": 64}
RATES = {"learning_rate": {"low": 0.001, "high": 0.01, "sampling": "log"}}
# Real trainings of this file differ in no more than this: they share a compiled program.
REAL = {"activation": ["relu"], **RATES}


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


def test_the_best_is_an_ordinary_run_of_the_model_of_its_trial(searched: Path) -> None:
    rows = json.loads((searched / "leaderboard.json").read_text())
    best, trial = Run.open(searched / "best"), Run.open(searched / f"trial_{rows[0]['trial']}")
    assert best.model_file.read_bytes() == trial.model_file.read_bytes()
    assert best.history == trial.history
    written = {file.name for file in best.path.iterdir()} - {
        file.name for file in trial.path.iterdir()
    }
    assert written == {"confusion.png", "curves.png"}
    assert {file.name for file in trial.path.iterdir()} <= {
        file.name for file in best.path.iterdir()
    }
    assert [file.read_bytes() for file in best.tensorboard_folder.iterdir()] == [
        file.read_bytes() for file in trial.tensorboard_folder.iterdir()
    ]
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


# --- a trial is a run ---
@pytest.fixture
def copied(searched: Path, tmp_path: Path) -> Path:
    """The real search, to be changed."""
    return shutil.copytree(searched, tmp_path / "copied")


def test_a_trial_has_validation_scores_and_none_of_the_test_split(searched: Path) -> None:
    run = Run.open(searched / "trial_0")
    assert run.complete
    metrics = run.metrics
    assert not {"train", "test"} & set(metrics)
    best = run.history[metrics["best_epoch"] - 1]
    assert metrics["valid"] == {
        "accuracy": best["val_accuracy"], "loss": best["val_loss"], "examples": 40
    }  # fmt: skip


def test_a_trial_is_evaluated_and_given_back_by_resume(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(Run.open(copied / "trial_0")).examples == 50
    assert train_main(["--run-dir", str(copied / "trial_0"), "--resume"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].endswith("% validation")
    assert "test" not in out.splitlines()[0]
    assert err == ""


def test_a_trial_is_exported(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = export_run(Run.open(copied / "trial_0"), formats=["onnx"])
    assert set(bundle.manifest["metrics"]) & {"train", "valid", "test"} == {"valid"}
    assert "| valid | " in (bundle.path / "README.md").read_text()
    assert verify_main([str(bundle.path)]) == 0


def test_a_trial_whose_model_was_dropped_is_trained_again_as_the_message_says(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = Run.open(copied / "trial_1")
    history, weights = trained.history, trained.load_model().get_weights()
    trained.model_file.unlink()
    with pytest.raises(InputError, match="Train it again with: ") as caught:
        export_run(Run.open(copied / "trial_1"), formats=["onnx"])
    advice = str(caught.value).partition("python -m rnn_tf.train ")[2].split()
    assert train_main(advice) == 0
    run = Run.open(copied / "trial_1")
    assert [record["val_loss"] for record in run.history] == [r["val_loss"] for r in history]
    for a, b in zip(run.load_model().get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert run.metrics["test"]["examples"] == 50
    export_run(run, formats=["onnx"])
    # The search takes it as the trial that it was.
    settings = Settings.from_dict({
        name: value for name, value in read_search(copied).items()
        if name in {field.name for field in dataclasses.fields(Settings)}
    })  # fmt: skip
    before = table(copied)
    search(settings, copied, resume=True)
    assert table(copied) == before
    assert (copied / "trial_1/model.keras").exists()


@pytest.mark.slow
def test_a_trial_that_was_interrupted_is_finished_by_train(
    options: Any, small: SequenceData, tmp_path: Path
) -> None:
    """Killed after its second epoch; then it has test scores too, and the search takes it."""
    chosen = options(REAL, trials=1, epochs=4, preset="tutorial")
    search(chosen, tmp_path / "whole", data=small)

    class Killed(BaseException):
        pass

    class Dies(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            if epoch == 1:
                raise Killed

    class DyingBackend(KerasBackend):
        def fit(self, run: Run, data: SequenceData, callbacks: Any, beside: Any = None) -> Fitted:
            return super().fit(run, data, [*callbacks, Dies()], beside)

    with pytest.raises(Killed):
        search(chosen, tmp_path / "d", data=small, backend=DyingBackend())
    assert train_main(["--run-dir", str(tmp_path / "d/trial_0"), "--resume"]) == 0
    run, whole = (Run.open(tmp_path / name / "trial_0") for name in ("d", "whole"))
    assert "test" in run.metrics
    for a, b in zip(run.load_model().get_weights(), whole.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    search(chosen, tmp_path / "d", data=small, resume=True)
    a, b = ([{**row, "seconds": ""} for row in table(tmp_path / name)] for name in ("d", "whole"))
    assert a == b


# --- which is best, and what is kept ---
def test_ties_go_to_the_smaller_model_then_to_the_earlier_trial(
    options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    space = {"units": [16, 4, 8], "clip_norm": [1, 2]}
    search(options(space, tuner="grid", trials=9), tmp_path / "d", backend=formula)
    rows = table(tmp_path / "d")
    assert len({row["score"] for row in rows}) == 1
    assert [row["units"] for row in rows] == ["4", "4", "8", "8", "16", "16"]
    assert rows[0]["trial"] < rows[1]["trial"]


@pytest.mark.parametrize("objective", ["accuracy", "balanced_accuracy", "loss"])
def test_the_objective_says_which_trial_is_the_best(
    objective: str, options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    space = {"learning_rate": [0.001, 0.002, 0.004]}
    chosen = options(space, tuner="grid", trials=3, objective=objective)
    search(chosen, tmp_path / "d", backend=formula)
    rows = table(tmp_path / "d")
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == sorted(rates, reverse=objective != "balanced_accuracy")
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=objective != "loss")
    best = Run.open(tmp_path / "d" / "best")
    assert best.config.learning_rate == rates[0]
    assert best.config.objective == objective


@pytest.mark.slow
def test_a_real_search_by_another_objective(options: Any, tmp_path: Path) -> None:
    """With a Bayesian tuner, which models the objective; its pictures and logs are drawn."""
    more: dict[str, Any] = {"objective": "loss", "class_weights": "balanced", "preset": "tutorial"}
    best = search(options(REAL, tuner="bayesian", trials=4, epochs=2, **more), tmp_path / "d")
    scores = [float(row["score"]) for row in table(tmp_path / "d")]
    assert scores == sorted(scores)
    assert best.metrics["valid"]["loss"] == pytest.approx(scores[0], rel=1e-5)
    assert best.config.class_weights == "balanced"
    assert (tmp_path / "d" / "report.png").exists()


def test_trials_of_auto_epochs_are_as_long_as_a_training(
    options: Any, small: SequenceData, tmp_path: Path, formula: FormulaBackend
) -> None:
    chosen = options(tuner="hyperband", trials=3, epochs="auto")
    oracle = build(chosen, read_space(chosen.space), small, tmp_path)
    assert isinstance(oracle, Hyperband)
    assert oracle.max_epochs == TrainConfig().epochs_for(203)
    best = search(options(trials=2, epochs="auto"), tmp_path / "d", backend=formula)
    assert best.config.epochs == "auto"


def test_a_search_from_before_there_was_an_objective_goes_on(
    options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    chosen = options(trials=3)
    search(chosen, tmp_path / "d", backend=formula)
    file = tmp_path / "d" / "search.json"
    found = json.loads(file.read_text())
    for name in ("objective", "class_weights", "test_share"):
        del found[name]
    file.write_text(json.dumps(found))
    search(chosen, tmp_path / "d", resume=True, backend=formula)
    with pytest.raises(InputError, match="holds a search with another objective"):
        search(dataclasses.replace(chosen, objective="loss"), tmp_path / "d", resume=True)


@pytest.mark.parametrize("objective", ["accuracy", "balanced_accuracy", "loss"])
def test_only_the_best_models_stay(
    objective: str, options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    search(options(trials=6, objective=objective), tmp_path / "d", backend=formula)
    best = [row["trial"] for row in table(tmp_path / "d")][: trial.KEEP]
    kept = {path.parent.name for path in tmp_path.glob("d/trial_*/model.keras")}
    assert kept == {f"trial_{name}" for name in best}
    assert len(list(tmp_path.glob("d/trial_*/history.jsonl"))) == 6


@pytest.mark.slow
def test_no_trial_is_larger_than_allowed(
    options: Any, small: SequenceData, tmp_path: Path, formula: FormulaBackend
) -> None:
    space = {"cell": ["simple_rnn", "lstm", "gru"], "units": {**WIDE, "sampling": "log"}}
    # Bayesian: the first 12 are random, 3 for each hyperparameter.
    for tuner, trials in (("random", 5), ("grid", 5), ("bayesian", 13)):
        chosen = options(space, tuner=tuner, trials=trials, max_parameters=500)
        search(chosen, tmp_path / tuner, backend=formula)
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
    monkeypatch.setattr("tuning.search.evaluated", lambda trained, path, *_: Run.create(
        path, trained.config, small.spec
    ))  # fmt: skip
    for data, name in ((small, "a"), (poisoned, "b")):
        search(options(REAL, trials=1, preset="tutorial"), tmp_path / name, data=data)
    a, b = ([{**row, "seconds": ""} for row in table(tmp_path / name)] for name in "ab")
    assert a == b
    assert len(trial.without_test(small).test.x) == len(trial.without_test(small).test.y) == 0


# --- trials that fail ---
def test_a_winner_whose_files_are_gone_is_trained_again(
    options: Any, tmp_path: Path, formula: FormulaBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []
    formula.before = lambda run: trained.append(run.path.name)
    search(options(trials=3), tmp_path / "d", backend=formula)
    assert "best" not in trained
    assert "evaluating the winner, trial 2\n" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "d" / "best")
    for model in (tmp_path / "d").glob("trial_*/model.keras"):
        model.unlink()
    best = search(options(trials=3), tmp_path / "d", resume=True, backend=formula)
    assert trained[3:] == ["best"]
    assert "test" in best.metrics


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
    formula: FormulaBackend,
) -> None:
    def fails(run: Run) -> None:
        if run.path.name not in ("trial_2", "best"):
            raise error

    formula.before = fails
    search(options(trials=6), tmp_path / "d", backend=formula)
    statuses = [row["status"] for row in table(tmp_path / "d")]
    assert statuses == ["completed"] + 5 * [reason]


def test_when_all_fail_the_command_says_so(
    options: Any,
    tmp_path: Path,
    formula: FormulaBackend,
) -> None:
    with pytest.raises(CheckFailed, match="no trial gave a model: failed: the loss became NaN"):
        search(
            options({"learning_rate": [0.5, 0.6]}, tuner="grid"), tmp_path / "d", backend=formula
        )
    assert len(table(tmp_path / "d")) == 2


def test_a_full_disk_is_no_trial_s_fault(
    options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    def full(run: Run) -> None:
        raise InputError("cannot write x: No space left on device") from OSError(28, "No space")

    formula.before = full
    with pytest.raises(InputError, match="No space left"):
        search(options(), tmp_path / "d", backend=formula)
    assert not [row for row in table(tmp_path / "d") if row["status"] != "running"]


# --- time ---
def test_no_trial_begins_after_max_minutes_and_resume_goes_on(
    options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    with pytest.raises(CheckFailed, match="none was begun"):
        search(options(), tmp_path / "d", max_minutes=1e-9, backend=formula)
    search(options(), tmp_path / "d", resume=True, backend=formula)
    assert len(table(tmp_path / "d")) == 5


def test_progress_says_how_far_it_is(
    options: Any,
    tmp_path: Path,
    formula: FormulaBackend,
    capsys: pytest.CaptureFixture[str],
) -> None:
    search(options(trials=2), tmp_path / "d", backend=formula)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1 of 2 trials, the last (0) ")
    assert lines[1].startswith("2 of 2 trials, the last (1) ")
    assert lines[1].endswith("0 s left")


def test_a_space_with_fewer_models_than_trials_is_said_at_both_ends(
    options: Any, tmp_path: Path, formula: FormulaBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    for tuner in ("grid", "random"):
        space = {"learning_rate": [0.005, 0.01]}
        chosen = options(space, tuner=tuner, trials=100)
        search(chosen, tmp_path / tuner, backend=formula)
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "the space holds 2 models; 100 trials were asked for"
        assert lines[1].startswith("1 of 2 trials, ")
        assert f"2 of 100 trials were run: the {tuner} tuner found no other model to try" in lines
        assert "about" not in "".join(lines)


# --- one at a time ---
@pytest.mark.parametrize("resume", [False, True])
def test_a_search_where_another_is_under_way_is_refused(
    resume: bool, options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    directory = tmp_path / "d"
    with locked(directory / ".lock", "", fix=""), pytest.raises(InputError) as caught:
        search(options(), directory, resume=resume, backend=formula)
    assert str(caught.value) == (
        f"another process is searching in {directory}; got process {os.getpid()} on "
        f"{socket.gethostname()}. Wait until it has ended, or choose another --dir."
    )
    assert not directory.exists()


def test_what_a_kill_has_left_is_no_obstacle(
    options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.lock").write_text("process 1 on a host that is gone")
    search(options(), tmp_path / "d", backend=formula)
    assert len(table(tmp_path / "d")) == 5
    assert not list((tmp_path / "d").rglob(".*"))


# --- bad input ---
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tuner", "annealing"], "annealing"),
        (["--space", "huge"], "unknown space 'huge'"),
        (["--trials", "0"], "bad trials; expected a whole number >= 1, got 0"),
        (["--epochs", "0"], "bad epochs; expected a whole number >= 1 or auto, got 0"),
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
    assert not (tmp_path / "d").exists()


def test_a_port_in_use_leaves_the_folder_free(
    small_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        given = ["--dataset", small_npz, "--dir", tmp_path / "d", "--listen", address]
        assert "a port in use" in refusal(main, given, capsys)
    assert not (tmp_path / "d").exists()


def test_after_a_refusal_the_corrected_search_begins(
    options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    wide = {"cell": ["simple_rnn", "lstm"], "units": WIDE}
    with pytest.raises(InputError, match="no model of the space is within --max-parameters"):
        search(options(wide, trials=1, max_parameters=10), tmp_path / "d", backend=formula)
    with pytest.raises(InputError, match="unknown activation 'swoosh'"):
        search(options({"activation": ["swoosh"]}, trials=1), tmp_path / "d", backend=formula)
    search(options(wide, trials=1, max_parameters=500), tmp_path / "d", backend=formula)
    assert len(table(tmp_path / "d")) == 1


def test_an_activation_that_does_not_exist_is_found_before_the_night(
    options: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="unknown activation 'swoosh'"):
        search(options({"activation": ["elu", "swoosh"]}), tmp_path / "d")


def test_a_folder_that_cannot_be_used(
    options: Any, tmp_path: Path, formula: FormulaBackend
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot write"):
        search(options(), tmp_path / "file" / "d", backend=formula)
    with pytest.raises(InputError, match="not empty and not a search"):
        search(options(), tmp_path, backend=formula)
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


def test_the_pareto_front_of_losses_is_the_lowest() -> None:
    rows = [{"parameters": p, "score": s} for p, s in ((10, 0.5), (20, 0.6), (30, 0.4), (40, 0.4))]
    front = [(row["parameters"], row["score"]) for row in report.pareto(rows, "loss")]
    assert front == [(10, 0.5), (30, 0.4)]


def test_the_table_is_as_wide_as_its_cells() -> None:
    rows = [{"trial": str(i), "score": i / math.pi, "status": "completed"} for i in range(12)]
    lines = report.table(rows).splitlines()
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1] == "… and 2 more"


def test_a_trial_s_configuration_is_one_that_train_takes(searched: Path) -> None:
    config = json.loads((searched / "trial_0/config.json").read_text())
    config.pop("format")
    assert TrainConfig.from_dict(config) == Run.open(searched / "trial_0").config
