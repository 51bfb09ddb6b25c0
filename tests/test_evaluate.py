"""Evaluation: every example once, counted rightly, on data that fit."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import refusal
from recordings import arrays, short
from rich.cells import cell_len

from rnn_tf import Run, TrainConfig
from rnn_tf.config import ToScore
from rnn_tf.data import SequenceData, SequenceSpec, Split, load
from rnn_tf.errors import InputError
from rnn_tf.evaluate import as_read, as_tables, check_fits, evaluate, main
from rnn_tf.predict import predict
from rnn_tf.scores import Scores
from rnn_tf.training.keras.backend import probabilities

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def called(run: Run, mnist: SequenceData) -> np.ndarray:
    """The class that the model gives each test digit, worked out without this package's code."""
    x = mnist.test.x.astype(np.float32) / np.float32(255)
    rows: np.ndarray = run.load_model().predict(x, batch_size=2_500, verbose=0)
    best: np.ndarray = rows.argmax(axis=1)
    return best


def write_digits(path: Path, mnist: SequenceData, examples: int, **change: Any) -> Path:
    """An .npz file of the first test digits, as someone else might have them."""
    x, y = mnist.test.x[:examples], mnist.test.y[:examples]
    arrays: dict[str, Any] = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    labels = np.array(mnist.spec.labels)
    np.savez(path, **(arrays | {"labels": labels, "scale": 1 / 255} | change))
    return path


def test_training_and_evaluation_agree(run: Run) -> None:
    scores = evaluate(run)
    recorded = run.metrics["test"]
    assert scores.examples == recorded["examples"] == 10_000
    assert scores.accuracy == recorded["accuracy"]
    # The same float32 program on the same numbers, perhaps compiled another way.
    assert scores.loss == pytest.approx(recorded["loss"], rel=1e-5)


def test_answers_at_every_step(
    every_step_run: Run, labelled_steps: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    """By step and by sequence; and on other data, labelled by sequence."""
    recorded = every_step_run.metrics["test"]
    lines = as_tables(evaluate(every_step_run), every_step_run.spec).splitlines()
    assert lines[:3] == [
        f"accuracy  {recorded['accuracy']:.2%} of {recorded['examples']:,} steps",
        f"last step {recorded['last_step_accuracy']:.2%} of 50 sequences",
        f"sequences {recorded['sequence_accuracy']:.2%} without an error",
    ]
    assert "   steps" in "\n".join(lines)
    other = arrays(labelled_steps)
    for name in ("train", "valid", "test"):
        other[f"y_{name}"] = getattr(labelled_steps, name).sequence_labels
        other[f"x_{name}"] = other[f"x_{name}"][:, :8]  # shorter than what the model reads
        other[f"lengths_{name}"] = np.minimum(other[f"lengths_{name}"], 8)
    np.savez(tmp_path / "other.npz", **other)
    assert main([str(every_step_run.path), "--data", str(tmp_path / "other.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == sum(other["lengths_test"])
    assert found["sequences"] == 50
    assert "sequence_accuracy" not in found


def test_labels_by_step_are_found_by_their_names(
    every_step_run: Run, labelled_steps: SequenceData, tmp_path: Path
) -> None:
    """In a file without a test split, and without one of the classes."""
    test, labels = labelled_steps.test, labelled_steps.spec.labels
    names = np.array([*labels, ""])  # the last: of a step without a label
    y = names[np.where(test.y == labels.index("middle"), -1, test.y)]
    rows = (y != "").any(axis=1)
    assert test.lengths is not None
    given = {"x_train": test.x[rows], "y_train": y[rows], "lengths_train": test.lengths[rows]}
    np.savez(tmp_path / "other.npz", **given)
    scores = evaluate(every_step_run, str(tmp_path / "other.npz"))
    said = predict(every_step_run, test.x[rows], test.lengths[rows]).argmax(axis=2)
    expected = np.array(labels)[said] == y[rows]
    assert scores.accuracy == expected.sum() / (y != "").sum()
    assert scores.confusion[labels.index("middle")].sum() == 0


def test_one_epoch_is_well_above_chance(run: Run) -> None:
    assert evaluate(run).accuracy > 0.9


def test_json_is_what_counting_gives(
    run: Run, mnist: SequenceData, called: np.ndarray, capsys: Capture
) -> None:
    assert main([str(run.path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    result = json.loads(out)
    y = mnist.test.y
    counts = [[int(((y == i) & (called == j)).sum()) for j in range(10)] for i in range(10)]
    assert result["confusion"] == counts
    assert result["examples"] == 10_000
    assert result["accuracy"] == (y == called).mean()
    assert [row["label"] for row in result["classes"]] == list("0123456789")
    for i, row in enumerate(result["classes"]):
        assert row["examples"] == (y == i).sum()
        assert row["recall"] == ((y == i) & (called == i)).sum() / (y == i).sum()
        assert row["precision"] == ((y == i) & (called == i)).sum() / max((called == i).sum(), 1)


def test_tables_show_the_same_numbers(
    run: Run, mnist: SequenceData, called: np.ndarray, capsys: Capture
) -> None:
    assert main([str(run.path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"accuracy  {(mnist.test.y == called).mean():.2%} of 10,000 examples"
    confusion = lines[-10:]
    for i, line in enumerate(confusion):
        label, *cells = line.split()
        assert label == str(i)
        assert sum(map(int, cells)) == (mnist.test.y == i).sum()
        assert int(cells[i]) == ((mnist.test.y == i) & (called == i)).sum()


@pytest.mark.parametrize("examples", [11, 1003])
def test_other_data_of_the_same_kind_are_scored_to_the_last_example(
    examples: int,
    run: Run,
    mnist: SequenceData,
    called: np.ndarray,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    path = write_digits(tmp_path / "mine.npz", mnist, examples)
    assert main([str(run.path), "--data", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["examples"] == examples
    assert result["accuracy"] == (mnist.test.y == called)[:examples].mean()


def test_probabilities_come_in_the_order_of_the_split(run: Run, mnist: SequenceData) -> None:
    split = mnist.test.take(slice(1001))
    rows = probabilities(run.load_model(), split, mnist.spec)
    assert rows.shape == (1001, 10)
    assert rows.dtype == np.float32
    last = probabilities(run.load_model(), split.take(slice(-1, None)), mnist.spec)
    # float32, in a batch of another size.
    np.testing.assert_allclose(rows[-1:], last, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"x_train": x[:, :14], "x_test": x[:, :14]}, "expected timesteps 28, got 14"),
        (lambda x: {"x_train": x[..., :7], "x_test": x[..., :7]}, "expected features 28, got 7"),
        (
            lambda x: {"labels": np.array(list("abcdefghijk"))},
            r"other labels than the run; expected 0, .*, got a, b",
        ),
        (lambda x: {"scale": 1.0}, "expected scale 0.0039.*, got 1.0"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    change: Callable[[np.ndarray], dict[str, Any]],
    message: str,
    run: Run,
    mnist: SequenceData,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    path = write_digits(tmp_path / "mine.npz", mnist, 20, **change(mnist.test.x[:20]))
    with pytest.raises(InputError, match=message):
        evaluate(run, str(path))
    assert re.search(message, refusal(main, [run.path, "--data", path], capsys))


@pytest.mark.parametrize(
    ("trained", "given", "classes"),
    [
        (("cat", "dog", "eel"), ("cat", "dog", "eel"), [0, 1, 2]),
        (("cat", "dog", "eel"), ("eel", "cat"), [2, 0]),
        (("cat", "dog", "eel"), ("0", "1", "2"), [0, 1, 2]),  # called by their numbers
        (("1", "2", "3"), ("2", "3"), [1, 2]),
        (("2", "1", "0"), ("0", "1", "2"), [2, 1, 0]),
    ],
)
def test_the_classes_of_the_model_are_found_by_their_names(
    trained: tuple[str, ...], given: tuple[str, ...], classes: list[int]
) -> None:
    spec = SequenceSpec(4, 2, trained)
    test = Split(np.zeros((len(given), 4, 2), np.uint8), np.arange(len(given)))
    data = SequenceData(SequenceSpec(4, 2, given), test, test, test)
    check_fits(spec, data.spec, "mine.npz")
    assert as_read(data, spec).y.tolist() == classes


# --- a file without a test split ---
TABLE = "id,label,x,y\n" + "".join(
    f"{i},{'walk' if i % 3 else 'run'},{i}.{step},{step}\n" for i in range(9) for step in range(4)
)


def test_a_table_without_a_test_split_is_scored_as_a_whole(
    varying: SequenceData, varying_run: Run, tmp_path: Path
) -> None:
    first, *_, last = varying.spec.labels
    text = TABLE.replace("walk", last).replace("run", first)
    (tmp_path / "new.csv").write_text(text)
    assert evaluate(varying_run, str(tmp_path / "new.csv")).examples == 9
    one = "".join(line for line in text.splitlines(keepends=True) if f",{first}," not in line)
    (tmp_path / "one.csv").write_text(one)
    scores = evaluate(varying_run, str(tmp_path / "one.csv"))
    assert scores.confusion.sum(axis=1).tolist() == [
        6 if label == last else 0 for label in varying.spec.labels
    ]
    (tmp_path / "other.csv").write_text(TABLE)
    with pytest.raises(InputError, match=r"class that the model does not know; .* got run, walk"):
        evaluate(varying_run, str(tmp_path / "other.csv"))


@pytest.mark.parametrize("labels", [("cat", "dog", "eel"), ("1", "2", "3")])
def test_arrays_without_a_test_split_are_scored_as_a_whole(
    labels: tuple[str, ...], tmp_path: Path
) -> None:
    x, named = np.zeros((4, 5, 2)), np.array(labels)[[1, 2, 1, 1]]
    numbers = named.astype(int) if labels[0] == "1" else np.array([1, 2, 1, 1])
    for y in (named, numbers):
        np.savez(tmp_path / "new.npz", x_train=x, y_train=y)
        data = load(ToScore(str(tmp_path / "new.npz"), labels=labels))
        assert data.spec.labels == labels
        assert data.test.y.tolist() == [1, 2, 1, 1]
        assert len(data.train.y) == len(data.valid.y) == 0


# --- sequences of different lengths ---
def of_one_length(data: SequenceData, steps: int) -> SequenceData:
    """The same sequences, all cut to `steps`."""
    splits = {}
    for name in ("train", "valid", "test"):
        split = getattr(data, name)
        splits[name] = split._replace(x=split.x[:, :steps], lengths=None)
    return SequenceData(dataclasses.replace(data.spec, timesteps=steps, longest=steps), **splits)


def test_each_sequence_is_scored_at_its_own_length(
    varying: SequenceData, varying_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnn_tf.evaluate.load", lambda _: varying)
    scores, test = evaluate(varying_run), varying.test
    assert scores.summary() == pytest.approx(varying_run.metrics["test"], rel=1e-5)
    model = keras.Sequential(varying_run.load_model().layers)  # reads sequences of any length
    rows = [model(varying.spec.normalization(short(test, i)))[0] for i in range(len(test.y))]
    assert scores.accuracy == (np.argmax(rows, axis=1) == test.y).mean()
    said = np.array(rows)[range(len(rows)), test.y]
    assert scores.loss == pytest.approx(-np.log(said).mean(), rel=1e-4)


def test_data_of_one_length_are_scored_by_a_model_of_any(
    varying: SequenceData, varying_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = of_one_length(varying, 4)
    monkeypatch.setattr("rnn_tf.evaluate.load", lambda _: given)
    scores = evaluate(varying_run, "mine.npz")
    lengths = np.full(len(given.test.y), 4, np.int32)
    rows = predict(varying_run, np.pad(given.test.x, ((0, 0), (0, 5), (0, 0))), lengths)
    assert scores.accuracy == (rows.argmax(axis=1) == given.test.y).mean()


def test_lengths_that_the_model_does_not_read_are_refused(varying: SequenceData) -> None:
    nine, four = (of_one_length(varying, steps).spec for steps in (9, 4))
    shorter = dataclasses.replace(varying.spec, longest=4)
    check_fits(varying.spec, shorter, "mine.npz")
    check_fits(varying.spec, four, "mine.npz")
    for trained, given, message in (
        (shorter, nine, "expected longest 4, got 9"),
        (shorter, varying.spec, "expected longest 4, got 9"),
        (four, nine, "expected timesteps 4, got 9"),
        (four, varying.spec, "expected timesteps 4, got up to 9"),
    ):
        with pytest.raises(InputError, match=message):
            check_fits(trained, given, "mine.npz")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "not a run: nowhere"),
        ([], "PATH"),
        (["RUN", "--data", "nowhere.npz"], "nowhere.npz: cannot be read"),
        (["RUN", "--data", "mnst"], "unknown dataset 'mnst'"),
        (["RUN", "--split", "valid"], "--split"),
        (["RUN", "RUN"], "RUN|copy|mnist"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str], message: str, run: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    line = refusal(main, [run.path if argument == "RUN" else argument for argument in argv], capsys)
    assert any(part in line for part in message.split("|"))


def test_an_unfinished_run_is_refused(tmp_path: Path, mnist: SequenceData, capsys: Capture) -> None:
    Run.create(tmp_path, TrainConfig(), mnist.spec)
    line = refusal(main, [tmp_path], capsys)
    assert line.startswith(f"error: the run is not finished: {tmp_path}. Go on with: ")


def test_tables_line_up_whatever_the_labels() -> None:
    labels = ("a", "a much longer name", "c")
    spec = SequenceSpec(4, 2, labels)
    confusion = np.array([[1_234_567, 0, 1], [2, 3, 4], [0, 0, 0]])
    *scores, title, header, first, second, third = as_tables(
        Scores(confusion, 0.5), spec
    ).splitlines()
    assert title.startswith("confusion")
    for label, line in zip(labels, (first, second, third), strict=True):
        assert len(line) == len(header)
        assert line.startswith(label)
    # Each column ends where its label does.
    ends = [match.end() for match in re.finditer(r"a much longer name|a|c", header)]
    assert [int(first[:end].split()[-1]) for end in ends] == confusion[0].tolist()
    assert "1,234,568" in "\n".join(scores)


def test_wide_characters_line_up() -> None:
    labels = ("猫", "a dog", "ネコ科")
    confusion = np.array([[12, 0, 1], [2, 3, 4], [0, 0, 5]])
    spec = SequenceSpec(4, 2, labels)
    lines = as_tables(Scores(confusion, 0.5), spec, width=80).splitlines()
    for table in (lines[6:10], lines[-4:]):
        assert len({cell_len(line) for line in table}) == 1


def test_a_matrix_wider_than_the_terminal_gives_way_to_the_most_frequent_mistakes() -> None:
    classes = 100
    confusion = 50 * np.eye(classes, dtype=np.int64)
    confusion[3, 7], confusion[7, 3], confusion[50, 99] = 1234, 20, 21
    spec = SequenceSpec(4, 2, tuple(f"class {i}" for i in range(classes)))
    scores = Scores(confusion, 0.5)
    lines = as_tables(scores, spec, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-4:] == [
        "true      predicted  examples",
        "class 3   class 7       1,234",
        "class 50  class 99         21",
        "class 7   class 3          20",
    ]
    assert lines[-5] == "confusion: all of 3 kinds of mistake; --json has the whole matrix"
    confusion[:] = np.arange(classes**2).reshape(classes, classes)
    lines = as_tables(scores, spec, width=80).splitlines()
    title = "confusion: the 20 most frequent of 9,900 kinds of mistake; --json has the whole matrix"
    assert lines[-22] == title
    assert lines[-20] == "class 99  class 98      9,998"
    # Where there is room, all of it is shown.
    assert len(as_tables(scores, spec, width=10_000).splitlines()[-1]) > 800


def test_no_mistake_at_all_is_said_in_a_narrow_terminal() -> None:
    spec = SequenceSpec(4, 2, ("a" * 60, "b" * 60))
    lines = as_tables(Scores(np.eye(2, dtype=np.int64), 0.0), spec, width=80).splitlines()
    assert lines[-2] == "confusion: all of 0 kinds of mistake; --json has the whole matrix"


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SequenceSpec(4, 2, ("falling", "rising"))
    scores = Scores(np.array([[5, 1], [0, 4]]), 0.1)
    monkeypatch.setenv("COLUMNS", "20")
    assert "kinds of mistake" in as_tables(scores, spec)
    monkeypatch.setenv("COLUMNS", "120")
    assert "kinds of mistake" not in as_tables(scores, spec)
