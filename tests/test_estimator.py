"""scikit-learn's interface: it fits in with scikit-learn, and trains as the command does."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture
from recordings import recordings
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from export import verify
from export.bundle import Bundle
from rnn_tf import SequenceClassifier, TrainConfig, load, train
from rnn_tf.data import SequenceData, Split
from rnn_tf.errors import InputError
from rnn_tf.predict import predict

# All examples are one batch, whatever a fold leaves of them: trainings then share their programs.
ONE_BATCH: dict[str, Any] = {"batch_size": 256, "optimizer": "adam", "learning_rate": 0.1}
SMALL: dict[str, Any] = {"cell": "gru", "units": 4, "random_state": 1, **ONE_BATCH}


def named(split: Split, data: SequenceData) -> np.ndarray:
    """The labels of a split as text."""
    labels: np.ndarray = np.array(data.spec.labels)[split.y]
    return labels


def as_list(split: Split) -> list[np.ndarray]:
    assert split.lengths is not None
    return [x[:length] for x, length in zip(split.x, split.lengths, strict=True)]


@pytest.fixture(scope="module")
def fitted(small: SequenceData) -> SequenceClassifier:
    """Of sequences of one length. Use it, do not change it."""
    return SequenceClassifier(**SMALL, epochs=25).fit(small.train.x, named(small.train, small))


@pytest.fixture(scope="module")
def fitted_to_any(varying: SequenceData) -> SequenceClassifier:
    """Of sequences of different lengths. Use it, do not change it."""
    classifier = SequenceClassifier(**SMALL, epochs=25)
    return classifier.fit(as_list(varying.train), named(varying.train, varying))


# --- what it learns ---
def test_it_learns_classes_that_are_text(fitted: SequenceClassifier, small: SequenceData) -> None:
    assert fitted.classes_.tolist() == ["falls", "flat", "rises"]
    said = fitted.predict_proba(small.test.x)
    assert said.shape == (50, 3)
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-6)
    assert (fitted.predict(small.test.x) == fitted.classes_[said.argmax(axis=1)]).all()
    # A line through 12 noisy steps; always answering one class gives 0.4.
    assert fitted.score(small.test.x, named(small.test, small)) > 0.9
    assert len(fitted.history_) == 25
    assert fitted.spec_.normalize is not None
    assert fitted.spec_.normalize.origin == "standard"


@pytest.mark.parametrize("labels", [[3, 1, 2], [-1.0, 0.0, 7.0]])
def test_predictions_are_labels_as_they_were_given(labels: list[Any], small: SequenceData) -> None:
    y = np.array(labels)[small.train.y]
    classifier = SequenceClassifier(**SMALL, epochs=1).fit(small.train.x, y)
    assert classifier.classes_.tolist() == sorted(labels)
    assert classifier.predict(small.test.x).dtype == y.dtype


def test_it_trains_to_the_bits_of_the_command(small: SequenceData, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    train_split, test = small.train, small.test
    np.savez(path, x_train=train_split.x, y_train=train_split.y, x_test=test.x, y_test=test.y)
    config = TrainConfig(str(path), cell="gru", units=4, **ONE_BATCH, epochs=2, seed=7)
    run = train(config, tmp_path / "run", progress=False)
    classifier = SequenceClassifier(**SMALL, epochs=2).set_params(random_state=7)
    said = classifier.fit(train_split.x, train_split.y).predict_proba(test.x)
    np.testing.assert_array_equal(said, predict(run, test.x))


def test_an_array_of_two_axes_has_one_feature(small: SequenceData) -> None:
    one = SequenceClassifier(**SMALL, epochs=1).fit(small.train.x[..., 0], small.train.y)
    same = clone(one).fit(small.train.x[..., :1], small.train.y)
    of_list = clone(one).fit([*small.train.x[..., 0]], small.train.y)
    expected = one.predict_proba(small.test.x[..., 0])
    assert one.n_features_in_ == small.spec.timesteps
    for other in (same, of_list):
        np.testing.assert_array_equal(other.predict_proba(small.test.x[..., :1]), expected)


# --- lengths ---
def test_a_sequence_is_read_to_its_own_end(
    fitted_to_any: SequenceClassifier, varying: SequenceData
) -> None:
    assert fitted_to_any.spec_.varies
    sequences = as_list(varying.test)
    said = fitted_to_any.predict_proba(sequences)
    assert fitted_to_any.score(sequences, named(varying.test, varying)) > 0.6  # chance: 0.33
    for place in (0, 1, 17):
        alone = fitted_to_any.predict_proba(sequences[place][np.newaxis])
        np.testing.assert_allclose(alone[0], said[place], atol=1e-6)


def test_longer_sequences_than_in_training_are_read(fitted_to_any: SequenceClassifier) -> None:
    longer = recordings(seed=3, longest=14)
    sequences = as_list(longer.test)
    assert max(map(len, sequences)) == 14 > fitted_to_any.spec_.longest
    together = fitted_to_any.predict_proba(sequences)
    long = next(place for place, each in enumerate(sequences) if len(each) == 14)
    alone = fitted_to_any.predict_proba([sequences[long]])
    np.testing.assert_allclose(alone[0], together[long], atol=1e-6)
    # The class is in the last two steps.
    assert fitted_to_any.score(sequences, named(longer.test, longer)) > 0.6


def test_longest_has_arrays_read_at_any_length(small: SequenceData) -> None:
    classifier = SequenceClassifier(**SMALL, epochs=1, longest=20)
    classifier.fit(small.train.x, small.train.y)
    assert classifier.spec_.varies
    assert classifier.spec_.longest == 20
    assert classifier.predict(small.test.x[:, :5]).shape == (50,)
    assert classifier.predict([small.test.x[0], small.test.x[1, :3]]).shape == (2,)


# --- a citizen of scikit-learn ---
@pytest.mark.slow
def test_it_is_validated_searched_and_chained(small: SequenceData) -> None:
    x, y = small.train.x, named(small.train, small)
    log = FunctionTransformer(np.arctan)
    pipeline = make_pipeline(log, SequenceClassifier(**SMALL))
    grid = {"sequenceclassifier__epochs": np.array([1, 25])}
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert search.best_params_ == {"sequenceclassifier__epochs": 25}
    assert search.best_score_ > 0.6  # chance: 0.33
    assert search.predict(small.test.x).shape == (50,)


def test_a_list_is_cross_validated(varying: SequenceData) -> None:
    y = named(varying.train, varying)
    classifier = SequenceClassifier(**SMALL, epochs=25)
    scores = cross_val_score(classifier, as_list(varying.train), y, cv=2)
    assert scores.shape == (2,)
    assert scores.min() > 0.5  # chance: 0.33


def test_a_table_is_scaled_before(small: SequenceData) -> None:
    pipeline = make_pipeline(StandardScaler(), SequenceClassifier(**SMALL, epochs=25))
    x = small.train.x[..., 0]
    assert pipeline.fit(x, small.train.y).score(small.test.x[..., 0], small.test.y) > 0.5


@pytest.mark.slow
def test_a_search_in_other_processes(small: SequenceData) -> None:
    grid = {"units": [2, 4]}
    search = GridSearchCV(SequenceClassifier(epochs=1, random_state=1), grid, cv=2, n_jobs=2)
    search.fit(small.train.x, small.train.y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_pickle_holds_no_code(fitted: SequenceClassifier, small: SequenceData) -> None:
    expected = fitted.predict_proba(small.test.x)  # its model is loaded by then
    pickled = pickle.dumps(fitted)
    texts = [str(value) for _, value, _ in pickletools.genops(pickled) if isinstance(value, str)]
    assert "rnn_tf.estimator" in texts
    assert not [each for each in texts if each.startswith(("keras.", "tensorflow"))]
    np.testing.assert_array_equal(pickle.loads(pickled).predict_proba(small.test.x), expected)  # noqa: S301


def test_random_state_is_scikit_learns(small: SequenceData) -> None:
    def said(random_state: Any) -> np.ndarray:
        classifier = SequenceClassifier(**SMALL, epochs=1).set_params(random_state=random_state)
        classifier.fit(small.train.x, small.train.y)
        probabilities: np.ndarray = classifier.predict_proba(small.test.x)
        return probabilities

    np.testing.assert_array_equal(said(5), said(5))
    generator = np.random.RandomState(0)
    assert (said(generator) != said(generator)).any()


def test_random_numbers_of_the_program_go_on(small: SequenceData) -> None:
    np.random.seed(0)
    expected = np.random.random(2)
    np.random.seed(0)
    first = np.random.random()
    SequenceClassifier(**SMALL, epochs=1).fit(small.train.x, small.train.y)
    assert [first, np.random.random()] == expected.tolist()


def test_groups_are_not_split(small: SequenceData) -> None:
    groups = np.array(["anna", "bert", "carl", "dora", "emil"])[np.arange(203) % 5]
    classifier = SequenceClassifier(**SMALL, epochs=1, validation_share=0.3)
    trained = classifier.fit(small.train.x, small.train.y, groups=groups)._trained
    parts = [{*np.asarray(each.groups)} for each in (trained.learned, trained.held_out)]
    assert not parts[0] & parts[1]
    assert 0.2 < len(trained.held_out.y) / 203 < 0.4


@pytest.mark.slow
@pytest.mark.torch
def test_scikit_learns_own_checks_pass() -> None:
    """They ask the interface, which is the same whatever trains: PyTorch, which compiles nothing.

    Keras would compile a program for each of their shapes.
    """
    classifier = SequenceClassifier(
        units=4, epochs=10, batch_size=16, learning_rate=0.03, optimizer="adam", backend="torch"
    )
    # Skipped is what needs a package that is not here, pandas perhaps.
    results = check_estimator(classifier, on_skip=None, on_fail=None)
    status = {each["check_name"]: each["status"] for each in results}
    assert [name for name, said in status.items() if said not in ("passed", "skipped")] == []
    assert list(status.values()).count("passed") >= 40


# --- export ---
@pytest.mark.slow
def test_it_exports_a_verified_bundle(
    fitted: SequenceClassifier, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    bundle = fitted.export(tmp_path / "bundle", formats=("onnx",))
    assert bundle.spec == Bundle.open(tmp_path / "bundle").spec == fitted.spec_
    assert bundle.spec.labels == ("falls", "flat", "rises")
    # On the validation examples, a tenth.
    assert load(str(tmp_path / "bundle-examples.npz")).test.y.size == 20
    assert verify.main([str(bundle.path)]) == 0
    assert "onnx" in capsys.readouterr().out
    fitted.export(tmp_path / "bundle", small.test.x, named(small.test, small), formats=("onnx",))
    assert load(str(tmp_path / "bundle-examples.npz")).test.y.size == 50


def test_a_bundle_of_any_length_is_verified_on_what_is_all_as_long(
    fitted_to_any: SequenceClassifier, varying: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    x, y = varying.test.x[:, :5], named(varying.test, varying)
    bundle = fitted_to_any.export(tmp_path / "bundle", x, y, formats=("onnx",))
    assert bundle.spec.varies
    assert verify.main([str(bundle.path)]) == 0
    assert "onnx" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"longer than exported files read.*longest=12"):
        fitted_to_any.export(tmp_path / "longer", np.zeros((2, 12, 2)), ["low", "high"])
    with pytest.raises(InputError, match=r"a class that the model does not know"):
        fitted_to_any.export(tmp_path / "other", x[:2], ["low", "lower"])
    assert not (tmp_path / "other").exists()


# --- bad input ---
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cell": "rnn"}, "unknown cell 'rnn'; expected one of simple_rnn, lstm, gru"),
        ({"units": 0}, "bad units; expected a whole number >= 1, got 0"),
        ({"validation_share": 1.0}, "bad validation_share; expected 0 < value < 1, got 1.0"),
        ({"longest": 0}, "bad longest; expected a whole number >= 1, got 0"),
        ({"longest": 11}, "a sequence is longer .* expected at most 11 steps, got 12"),
    ],
)
def test_bad_parameters_are_refused(
    parameters: dict[str, Any], message: str, small: SequenceData
) -> None:
    with pytest.raises(InputError, match=message):
        SequenceClassifier(**parameters).fit(small.train.x, small.train.y)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 3, 2)), [1, 1, 1, 1], "too few classes in y; expected at least 2, got 1"),
        (np.zeros((4, 3, 2)), [0, 1, 0], "inconsistent numbers of samples"),
        (np.zeros((4, 3, 2)), [0.5, 1.5, 2.1, 3.0], "Unknown label type"),
        (np.zeros((4, 3, 2)), [0, 1, 2, 3], "too few training examples to hold some out"),
        (np.full((4, 3, 2), np.nan), [0, 1, 0, 1], "Input X contains NaN"),
        (np.zeros((4, 3, 2, 1)), [0, 1, 0, 1], r"bad shape of X; expected \(n, steps, features\)"),
        ([np.zeros((3, 2)), np.zeros((4, 1))], [0, 1], "sequence 1 has other features"),
        ([np.zeros((3, 2)), np.zeros((0, 2))], [0, 1], "bad shape of sequence 1"),
        ([np.zeros((3, 2)), np.full((4, 2), np.inf)], [0, 1], "Input X contains infinity"),
    ],
)
def test_bad_data_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(epochs=1).fit(x, y)


def test_sequences_that_do_not_fit_the_model_are_refused(
    fitted: SequenceClassifier, fitted_to_any: SequenceClassifier, small: SequenceData
) -> None:
    x = small.test.x
    for other in (x[:, :11], [*x[:2], x[2, :11]]):
        with pytest.raises(InputError, match=r"expected 12 in each sequence.*longest=12"):
            fitted.predict(other)
    for classifier in (fitted, fitted_to_any):
        with pytest.raises(InputError, match=r"other features than in fit; expected 2 a step"):
            classifier.predict(x[..., :1])
