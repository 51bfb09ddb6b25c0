"""`rnn-tf evaluate --stream` and `--early`: from a run to what it keeps."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, refusal
from recordings import arrays

from rnn_tf import Run, TrainConfig, train
from rnn_tf.data import SequenceData
from rnn_tf.errors import InputError
from rnn_tf.evaluate import evaluate, main
from rnn_tf.model.classifier import build_model
from rnn_tf.streams import job


@pytest.fixture(scope="module")
def source(varying: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of 1 to 9 steps as a file."""
    path = tmp_path_factory.mktemp("data") / "recordings.npz"
    np.savez(path, **arrays(varying))
    return path


@pytest.fixture(scope="module")
def run_of_source(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig(
        dataset=str(source), cell="gru", units=7, epochs=4, batch_size=16, optimizer="adam"
    )
    return train(config, tmp_path_factory.mktemp("runs") / "recordings", progress=False)


@pytest.fixture(scope="module")
def rule(run_of_source: Run, varying: SequenceData) -> str:
    """A rule for early answers as it is kept, JSON."""
    job.keep_early(run_of_source, job.answer_early(run_of_source, varying, varying.test, 0.4))
    return run_of_source.early_file.read_text()


def asked(run: Run, capsys: Capture, *options: object) -> Any:
    assert main([str(run.path), *map(str, options), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_a_stream_reset_at_each_sequence_is_the_sequences(
    run_of_source: Run, varying: SequenceData, capsys: Capture
) -> None:
    found = asked(run_of_source, capsys, "--stream")
    assert json.loads(run_of_source.stream_file.read_text()) == found
    assert run_of_source.stream_picture.read_bytes().startswith(b"\x89PNG")
    assert varying.train.lengths is not None
    mean = round(float(varying.train.lengths.mean()))
    rows = {(row["gap"], row["policy"]): row for row in found["policies"]}
    policies = ("never", "at each sequence", f"every {mean} steps")
    assert list(rows) == [(gap, policy) for gap in (0, mean) for policy in policies]
    # What comes after a sequence does not change what was said of it.
    accuracy = evaluate(run_of_source).accuracy
    for gap in (0, mean):
        assert rows[gap, "at each sequence"]["accuracy_at_end"] == accuracy
    along = [rows[0, policy]["accuracy_by_step"] for policy in policies]
    assert [len(each) for each in along] == [9, 9, 9]
    assert along[0] != along[1] != along[2]


def test_a_stream_is_told_as_a_table(run_of_source: Run, capsys: Capture) -> None:
    options = ["--stream", "--gap", "1500", "--reset-every", "3"]
    assert main([str(run_of_source.path), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "test sequences, one after the other in a random order: 50"
    assert lines[2] == "state is reset      gap  each step   at end  delay  largest state"
    assert {len(line) for line in lines[2:9]} == {len(lines[2])}
    kept = json.loads(run_of_source.stream_file.read_text())["policies"]
    assert [row["gap"] for row in kept] == [0, 0, 0, 1500, 1500, 1500]
    for line, row in zip(lines[3:9], kept, strict=True):
        shares = f"{row['accuracy']:.2%} {row['accuracy_at_end']:.2%}"
        figures = f"{row['gap']:,} {shares} {row['delay']:.1f} "
        assert " ".join(line.split()).startswith(f"{row['policy']} {figures}")


def test_early_answers_are_those_of_the_whole_at_the_end(
    run_of_source: Run, capsys: Capture
) -> None:
    found = asked(run_of_source, capsys, "--early", "--promise", "0.5")
    assert json.loads(run_of_source.early_file.read_text()) == found
    assert run_of_source.early_picture.read_bytes().startswith(b"\x89PNG")
    assert found["accuracy_at_percent"]["test"]["100"] == evaluate(run_of_source).accuracy
    assert found["promise"] == 0.5
    assert found["valid"]["accuracy"] >= 0.5
    assert found["held"] == (found["test"]["accuracy"] >= 0.5)
    assert (found["valid"]["examples"], found["test"]["examples"]) == (40, 50)
    kept = job.kept_early(run_of_source)
    assert kept is not None
    assert kept.to_dict() == json.loads(run_of_source.early_file.read_text(), object_hook=numbered)
    assert main([str(run_of_source.path), "--early", "--promise", "0.5"]) == 0
    text = capsys.readouterr().out
    assert f"a probability reaches {found['confidence']:.6g}\n" in text
    assert f"{found['test']['accuracy']:.2%} of 50 right" in text


def numbered(values: dict[str, Any]) -> dict[Any, Any]:
    """JSON has no numbers as keys."""
    return {int(key) if key.isdigit() else key: value for key, value in values.items()}


def test_what_other_data_say_is_not_kept(
    run_of_source: Run, source: Path, tmp_path: Path, capsys: Capture
) -> None:
    with np.load(source) as file:
        mine = dict(file)
    for name in ("x_test", "y_test", "lengths_test"):
        mine[name] = mine[name][:7]
    np.savez(tmp_path / "mine.npz", **mine)
    for file in (run_of_source.stream_file, run_of_source.early_file):
        file.unlink(missing_ok=True)
    early = asked(
        run_of_source, capsys, "--early", "--promise", "0.4", "--data", tmp_path / "mine.npz"
    )
    assert (early["valid"]["examples"], early["test"]["examples"]) == (40, 7)
    stream = asked(run_of_source, capsys, "--stream", "--gap", 1, "--data", tmp_path / "mine.npz")
    assert len(stream["policies"]) == 6
    assert not run_of_source.stream_file.exists()
    assert job.kept_early(run_of_source) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stream", "--early"], "--stream and --early are two questions. Ask one after"),
        (["--gap", "3"], "--gap means nothing without --stream. Add --stream."),
        (["--early", "--reset-every", "3"], "--reset-every means nothing without --stream"),
        (["--stream", "--promise", "0.9"], "--promise means nothing without --early"),
        (["--stream", "--gap", "-1"], "bad --gap; expected a whole number >= 0, got -1"),
        (["--stream", "--gap", "999999999999"], "bad --gap; expected at most 10,737,418 for"),
        (["--stream", "--reset-every", "0"], "bad --reset-every; expected a whole number >= 1"),
        (["--early", "--promise", "95"], "got 95.0. For 95 % say --promise 0.95."),
        (["--early", "--promise", "1"], "does not keep this promise; expected an accuracy of at"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], message: str, run_of_source: Run, capsys: Capture
) -> None:
    assert message in refusal(main, [run_of_source.path, *options], capsys)


def test_the_advice_for_a_promise_works(run_of_source: Run, capsys: Capture) -> None:
    line = refusal(main, [run_of_source.path, "--early", "--promise", 1], capsys)
    advised = line.split("--promise ")[1].split(",")[0]
    assert asked(run_of_source, capsys, "--early", "--promise", advised)["promise"] == float(
        advised
    )


def test_both_directions_are_refused(varying: SequenceData, tmp_path: Path) -> None:
    config = TrainConfig(cell="gru", units=3, bidirectional=True)
    run = Run.create(tmp_path, config, varying.spec)
    run.save_model(build_model(config, varying.spec))
    run.save_metrics({})
    for ask in (
        lambda: job.answer_early(run, varying, varying.test, 0.9),
        lambda: job.compare_policies(run, varying, varying.test),
    ):
        with pytest.raises(InputError, match="reads in both directions cannot answer step by step"):
            ask()


def test_labels_of_steps_have_no_early_answer(varying: SequenceData, run_of_source: Run) -> None:
    by_step = varying.test._replace(y=varying.test.step_labels)
    with pytest.raises(InputError, match=r"each step has a label of its own.*Leave --early out\."):
        job.answer_early(run_of_source, varying, by_step, 0.9)
    # A stream of them has a right answer at each step all the same.
    found = job.compare_policies(run_of_source, varying, by_step, gap=0)
    of_sequences = job.compare_policies(run_of_source, varying, varying.test, gap=0)
    assert [each.to_dict() for each in found] == [each.to_dict() for each in of_sequences]


@pytest.mark.parametrize(
    "change",
    [{"confidence": 2.0}, {"promise": None}, {"test": {}}, {"valid": {"accuracy": "high"}}, {}],
)
def test_a_rule_that_was_edited_into_nonsense_is_refused(
    change: dict[str, Any], rule: str, run_of_source: Run, tmp_path: Path
) -> None:
    values = json.loads(rule) | change
    copy = dataclasses.replace(run_of_source, path=tmp_path)
    copy.early_file.write_text(json.dumps(values) if change else "{")
    with pytest.raises(InputError, match=r"^cannot read .*early\.json; got "):
        job.kept_early(copy)
