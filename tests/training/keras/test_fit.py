"""Training itself: the compiled epoch is the same training, and every batch counts."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from killed import killed_after
from recordings import recordings

from rnn_tf import Run, TrainConfig, build_model, train
from rnn_tf.config import Optimizer
from rnn_tf.data import SequenceData
from rnn_tf.model.cells import Cell
from rnn_tf.startup import xla_flags
from rnn_tf.training.keras import fit as in_keras
from rnn_tf.training.keras.backend import probabilities
from rnn_tf.training.keras.batches import batches, evaluation_batches, pieces
from rnn_tf.training.keras.devices import seed_everything
from rnn_tf.training.keras.fit import fit
from rnn_tf.training.keras.kept_models import KEPT, KeptModels, programs_of
from rnn_tf.training.keras.optimizer import build_optimizer
from rnn_tf.training.keras.training_model import TrainingSequential
from rnn_tf.training.order import Order, epoch_order
from rnn_tf.training.recorder import Fitted

# 203 examples in batches of 16: the last batch has 11.
CONFIG = TrainConfig(units=7, epochs=3, batch_size=16, learning_rate=0.01, dropout=0.0, noise=0.0)
# And what chance adds. One program, where KEPT has it.
CHANCE = dataclasses.replace(CONFIG, dropout=0.1, noise=0.1)


def fitted(config: TrainConfig, data: SequenceData, path: Path, **options: object) -> Fitted:
    """A training with a program of its own; with that of one before, if `kept` has it."""
    seed_everything(config)
    return fit(config, data, Run.create(path, config, data.spec), **options)  # type: ignore[arg-type]


def weights(model: keras.Model) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


# --- the compiled epoch ---
@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "optimizer", "layers", "whole_loops", "varies"),
    [
        ("simple_rnn", "soap", 1, True, False), ("simple_rnn", "adam", 2, True, False),
        ("lstm", "adam", 1, True, True), ("gru", "adam", 1, False, True),
    ],
)  # fmt: skip
def test_fused_and_plain_training_give_the_same_weights(
    cell: Cell,
    optimizer: Optimizer,
    layers: int,
    whole_loops: bool,
    varies: bool,
    small: SequenceData,
    varying: SequenceData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against a fit batch after batch, by Keras's own layers and its own masking.

    With SOAP, which magnifies how they round, by the same layers.
    """
    data = varying if varies else small
    config = dataclasses.replace(
        CONFIG, cell=cell, optimizer=optimizer, layers=layers, clip_norm=1.0
    )
    with monkeypatch.context() as patch:
        patch.setattr(xla_flags, "are_in_effect", lambda: whole_loops)
        fused = fitted(config, data, tmp_path / "fused")
    if optimizer != "soap":
        monkeypatch.setattr(in_keras, "loop_over_time", lambda *_, **__: None)
    plain = fitted(dataclasses.replace(config, fused=False), data, tmp_path / "plain")
    # float32 rounding in another order, over 39 updates: 2e-6 seen; weights are near 1.
    np.testing.assert_allclose(weights(fused.model), weights(plain.model), atol=5e-5)
    for a, b in zip(fused.history, plain.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-4)
        assert a["val_accuracy"] == b["val_accuracy"]


@pytest.mark.slow
def test_training_reads_each_sequence_to_its_own_end(tmp_path: Path) -> None:
    """Against gradients of the sequences of each length by themselves, without a mask."""
    data = recordings(train=64, longest=5)
    config = dataclasses.replace(
        CONFIG, cell="gru", bidirectional=True, optimizer="adam", schedule="constant",
        warmup=0.0, clip_norm=0.0, epochs=3, batch_size=64,
    )  # fmt: skip
    fitted(config, data, tmp_path)
    last = Run.open(tmp_path).load_state()  # of the last epoch, not of the best
    assert last is not None
    seed_everything(config)
    model = build_model(config, data.spec)
    optimizer = keras.optimizers.Adam(config.learning_rate)
    x, y, lengths = data.spec.normalization(data.train.x), data.train.y, data.train.lengths
    assert lengths is not None
    for _ in range(config.epochs_for(len(y))):
        total = [0.0 for _ in model.trainable_variables]
        for length in np.unique(lengths):
            of_length = np.flatnonzero(lengths == length)
            with tf.GradientTape() as tape:
                state = tf.constant(x[of_length, :length])
                for layer in model.layers:
                    state = layer(state)
                said = keras.losses.sparse_categorical_crossentropy(y[of_length], state)
                loss = tf.reduce_sum(said) / len(y)
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            total = [a + b for a, b in zip(total, gradients, strict=True)]
        optimizer.apply(total, model.trainable_variables)
    # Those that are no seeds.
    found = [last[f"model/{i}"] for i in range(len(model.variables))]
    found = [value for value in found if value.dtype == np.float32]
    for one, other in zip(found, model.get_weights(), strict=True):
        # float32 rounding over 3 updates: 1e-6 seen.
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_sequences_of_different_lengths_are_learned(varying: SequenceData, tmp_path: Path) -> None:
    """Only the last two steps say the class: nobody learns it who reads the padding as well."""
    config = dataclasses.replace(CHANCE, epochs=20)
    model = fitted(config, varying, tmp_path, kept=KEPT).model
    said = probabilities(model, varying.test, varying.spec)
    assert (said.argmax(1) == varying.test.y).mean() > 0.9


@pytest.mark.slow
def test_a_kept_model_trains_as_a_new_one_does(tmp_path: Path) -> None:
    """Every setting that a compiled program reads from variables, all changed at once.

    And other examples of other lengths, of which there are a few less, normalized as is learned
    on them.
    """
    waves, others = (recordings(seed) for seed in (0, 1))
    assert waves.spec.normalization != others.spec.normalization
    others = dataclasses.replace(
        others, train=others.train.take(slice(3, None)), valid=others.valid.take(slice(1, None))
    )
    second = dataclasses.replace(
        CHANCE, learning_rate=0.003, schedule="linear", warmup=0.3, seed=7, epochs=4,
        recurrent_initializer="orthogonal", clip_norm=0.2,
    )  # fmt: skip
    fitted(CHANCE, waves, tmp_path / "first", kept=KEPT)
    *_, model = KEPT._models.values()
    program = model.train_function
    found = fitted(second, others, tmp_path / "second", kept=KEPT)
    *_, last = KEPT._models.values()
    assert last is model
    assert model.train_function is program
    fresh = fitted(second, others, tmp_path / "fresh")
    np.testing.assert_array_equal(weights(found.model), weights(fresh.model))
    again = fitted(CHANCE, waves, tmp_path / "again", kept=KEPT)
    assert [{**record, "seconds": 0} for record in again.history] == [
        {**record, "seconds": 0} for record in Run.open(tmp_path / "first").history
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"units": 6}, {"cell": "gru"}, {"batch_size": 8}, {"dropout": 0.3}, {"noise": 0.3},
        {"activation": "tanh"}, {"layers": 2}, {"bidirectional": True}, {"clip_norm": 0.0},
        {"weight_decay": 0.1}, {"schedule": "constant", "warmup": 0.0},
    ],
)  # fmt: skip
def test_a_model_of_another_program_is_not_taken(
    change: dict[str, object], small: SequenceData, tmp_path: Path
) -> None:
    kept = KeptModels(most=1)
    other = dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]
    models = []
    for config in (CONFIG, other, CONFIG):
        config = config.resolved(small.spec, len(small.train.y))
        model = TrainingSequential(build_model(config, small.spec).layers)
        model.compile(optimizer=build_optimizer(config, 10))
        with kept.lent(model, programs_of(config, small, "float32", fused=True)) as lent:
            models.append(lent)
        assert models[-1] is model
    assert len(kept._models) == 1, "only the last ones are kept"


def test_a_model_that_is_lent_is_not_lent_again(small: SequenceData) -> None:
    kept = KeptModels()
    first, second, third = (
        TrainingSequential(build_model(CONFIG, small.spec).layers) for _ in range(3)
    )
    for model in (first, second, third):
        model.compile(optimizer=build_optimizer(CONFIG, 10))
    with kept.lent(first, "key") as one, kept.lent(second, "key") as other:
        assert (one, other) == (first, second)
    with kept.lent(third, "key") as again:
        assert again is first  # given back last


def test_training_is_what_a_loop_over_the_batches_gives(
    small: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against Keras's own `train_on_batch`, the last batch handed over short, not filled up.

    With time steps that are written out, since XLA does not compile the loops whole.
    """
    monkeypatch.setattr(xla_flags, "are_in_effect", lambda: False)
    config = dataclasses.replace(
        CONFIG,
        optimizer="adam",
        schedule="constant",
        warmup=0.0,
        clip_norm=0.0,
        epochs=2,
    )
    found = fitted(config, small, tmp_path)
    seed_everything(config)
    model = build_model(config, small.spec)
    model.compile(keras.optimizers.Adam(config.learning_rate), "sparse_categorical_crossentropy")
    losses = []
    for epoch in range(config.epochs_for(203)):
        total = 0.0
        for row in epoch_order(203, 16, config.seed, epoch):
            index = row[row >= 0]
            loss = model.train_on_batch(small.train.x[index], small.train.y[index])
            model.reset_metrics()
            total += float(loss) * len(index)
        losses.append(total / 203)
    # float32 rounding over 26 updates: 1e-6 seen.
    np.testing.assert_allclose(weights(model), weights(found.model), atol=2e-5)
    assert [record["loss"] for record in found.history] == pytest.approx(losses, rel=1e-4)


def test_a_broken_run_on_different_lengths_ends_with_the_same_bits(
    varying: SequenceData, tmp_path: Path
) -> None:
    config = dataclasses.replace(CHANCE, epochs=5)
    unbroken = fitted(config, varying, tmp_path / "unbroken", kept=KEPT)
    run = Run.create(tmp_path / "broken", config, varying.spec)
    seed_everything(config)
    with killed_after(3):
        fit(config, varying, run, kept=KEPT)
    seed_everything(config)
    resumed = fit(config, varying, run, kept=KEPT)
    np.testing.assert_array_equal(weights(resumed.model), weights(unbroken.model))
    assert [{**record, "seconds": 0} for record in resumed.history] == [
        {**record, "seconds": 0} for record in unbroken.history
    ]


def test_the_best_epoch_is_the_one_that_is_kept(small: SequenceData, tmp_path: Path) -> None:
    config = dataclasses.replace(CHANCE, epochs=6, schedule="constant")
    found = fitted(config, small, tmp_path, kept=KEPT)
    best = found.history[found.best_epoch - 1]
    assert best["val_accuracy"] == max(record["val_accuracy"] for record in found.history)
    probabilities = found.model.predict(small.valid.x, verbose=0)
    assert (probabilities.argmax(1) == small.valid.y).mean() == pytest.approx(best["val_accuracy"])


def test_mixed_precision_trains(small: SequenceData, tmp_path: Path) -> None:
    """In float16, where the loss is scaled up too."""
    config = dataclasses.replace(CONFIG, epochs=8)
    found = fitted(config, small, tmp_path, precision="mixed_float16")
    assert found.history[-1]["loss"] < 0.5 * found.history[0]["loss"]
    recurrent, softmax = found.model.layers
    assert (recurrent.dtype_policy.name, softmax.dtype_policy.name) == ("mixed_float16", "float32")
    assert all(weight.dtype == np.float32 for weight in found.model.get_weights())


def test_dropout_trains_and_does_nothing_afterwards(varying: SequenceData, tmp_path: Path) -> None:
    """Of inputs and states, in both directions."""
    config = dataclasses.replace(
        CONFIG, optimizer="adam", dropout=0.2, recurrent_dropout=0.1, epochs=8,
        bidirectional=True,
    )  # fmt: skip
    found = fitted(config, varying, tmp_path)
    assert found.history[-1]["loss"] < found.history[0]["loss"]
    once, twice = (probabilities(found.model, varying.test, varying.spec) for _ in range(2))
    np.testing.assert_array_equal(once, twice)


@pytest.mark.slow
def test_a_replica_makes_the_steps_of_a_single_device(small: SequenceData, tmp_path: Path) -> None:
    """MirroredStrategy over one CPU device: the code that several GPUs would run.

    With SOAP, clipping and decay; what it adds up is one gradient, so that nothing is rounded in
    another order. All batches are full: of an uneven one the mean is rounded otherwise.
    """
    config = dataclasses.replace(CONFIG, batch_size=29, clip_norm=0.1, weight_decay=0.1)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    alone = fitted(config, small, tmp_path / "alone")
    mirrored = fitted(config, small, tmp_path / "mirrored", strategy=strategy)
    np.testing.assert_allclose(weights(alone.model), weights(mirrored.model), atol=1e-6)
    for a, b in zip(alone.history, mirrored.history, strict=True):
        assert {**a, "seconds": 0} == pytest.approx({**b, "seconds": 0}, abs=1e-5)


# --- loss that is not a number ---
# Linear units, a rate that rises from almost nothing to far too much: first it learns, then the
# weights grow until the recurrence overflows.
DIVERGING = dataclasses.replace(
    CONFIG, activation="linear", optimizer="adam", learning_rate=20.0, warmup=0.9,
    schedule="constant", clip_norm=0.0, epochs=60,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:training diverges")
def test_a_loss_that_becomes_nan_stops_and_keeps_the_best(
    small: SequenceData, tmp_path: Path
) -> None:
    run = train(DIVERGING, tmp_path / "run", data=small, progress=False)
    metrics = run.metrics
    assert re.fullmatch(r"the loss became NaN or infinite in epoch \d+", metrics["stopped"])
    assert 1 <= metrics["best_epoch"] <= len(run.history) < DIVERGING.epochs_for(203)
    best = run.history[metrics["best_epoch"] - 1]
    assert metrics["valid"]["accuracy"] == pytest.approx(best["val_accuracy"])
    assert all(np.isfinite(weight).all() for weight in run.load_model().get_weights())


# --- order ---
def test_every_example_is_in_every_epoch_once_and_the_order_differs() -> None:
    first, second = (epoch_order(203, 16, seed=1, epoch=epoch) for epoch in (0, 1))
    assert sorted(first[first >= 0]) == list(range(203))
    assert first.shape == (13, 16)
    assert (first[-1] == -1).sum() == 13 * 16 - 203
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, epoch_order(203, 16, seed=2, epoch=0))
    np.testing.assert_array_equal(first, epoch_order(203, 16, seed=1, epoch=0))


def test_batches_hold_sequences_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 5003)
    first, second, again = (epoch_order(5003, 16, 1, epoch, lengths) for epoch in (0, 1, 0))
    assert sorted(first[first >= 0]) == list(range(5003))
    assert (first[-1] == -1).sum() == 16 - 5003 % 16
    full = lengths[first[:-1]]
    longest = full.max(axis=1)
    # Any 16 of them would wait for the longest, mostly of 28 or 29 steps; 15 is their mean.
    assert longest.mean() < 17.5
    assert (full.max(axis=1) - full.min(axis=1)).mean() < 4
    # Neither the order of the batches nor what is in them comes from the lengths alone.
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.15
    assert set(map(tuple, np.sort(first))).isdisjoint(map(tuple, np.sort(second)))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(("examples", "batch_size"), [(5, 16), (16, 16), (17, 16), (40, 1)])
def test_few_examples_are_in_an_epoch_once_at_any_lengths(examples: int, batch_size: int) -> None:
    lengths = np.arange(examples) % 7 + 1
    order = epoch_order(examples, batch_size, 1, 0, lengths)
    assert order.shape == (-(-examples // batch_size), batch_size)
    assert sorted(order[order >= 0]) == list(range(examples))
    assert (order.ravel()[:examples] >= 0).all()


def test_both_pipelines_give_the_same_lengths(varying: SequenceData) -> None:
    data = varying
    order = Order.of(data.train, 16, 5)
    (x, lengths), y, weight = next(iter(pieces(order, first=3, last=4)))
    plain = list(batches(order, data.spec, lambda: np.array(3, np.int64)))
    normalized = data.spec.normalization(x.numpy())
    np.testing.assert_allclose(normalized, [batch[0][0] for batch in plain], atol=1e-6)
    np.testing.assert_array_equal(lengths, [batch[0][1] for batch in plain])
    np.testing.assert_array_equal(y, [batch[1] for batch in plain])
    np.testing.assert_array_equal(weight, [batch[2] for batch in plain])
    assert data.train.lengths is not None
    total = tf.reduce_sum(tf.cast(lengths, tf.float32) * weight)
    assert float(total) == data.train.lengths.sum()


def test_both_pipelines_give_the_same_batches(small: SequenceData) -> None:
    order = Order.of(small.train, 16, 5)
    x, y, weight = next(iter(pieces(order, first=3, last=4)))
    plain = list(batches(order, small.spec, lambda: np.array(3, np.int64)))
    np.testing.assert_array_equal(x, [batch[0] for batch in plain])
    np.testing.assert_array_equal(y, [batch[1] for batch in plain])
    np.testing.assert_array_equal(weight, [batch[2] for batch in plain])
    assert float(tf.reduce_sum(weight)) == 203


def test_evaluation_drops_no_example(mnist: SequenceData) -> None:
    split = mnist.test.take(slice(1203))
    parts = list(evaluation_batches(split, mnist.spec))
    np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), split.y)
    np.testing.assert_allclose(
        np.concatenate([x for x, _ in parts]), split.x / np.float32(255), rtol=1e-6
    )


# --- a run from end to end ---
def test_one_epoch_on_mnist_reads_digits(run: Run) -> None:
    metrics = run.metrics
    assert metrics["parameters"] == 2282
    assert metrics["test"]["examples"] == 10_000
    assert metrics["valid"]["examples"] == 5_000
    assert metrics["train"]["examples"] == 55_000
    # 93.5-95 % seen over seeds; chance is 10 %.
    assert metrics["test"]["accuracy"] > 0.90
    assert metrics["best_epoch"] == 1
    assert metrics["stopped"] is None


def test_a_run_holds_all_its_files_and_no_others(run: Run) -> None:
    assert {path.name for path in run.path.iterdir()} == {
        "config.json", "spec.json", "model.keras", "history.jsonl", "metrics.json",
        "curves.png", "confusion.png", "tensorboard", "compiled.json", "data_profile.npz",
    }  # fmt: skip
    (record,) = run.history
    assert list(record) == [
        "epoch", "seconds", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate",
    ]  # fmt: skip
    assert list(run.tensorboard_folder.glob("events.*"))


def test_the_saved_model_is_plain_keras_and_scores_the_same(run: Run, mnist: SequenceData) -> None:
    model = keras.saving.load_model(run.model_file, safe_mode=True)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    x = mnist.test.x.astype(np.float32) / 255
    loss, accuracy = model.evaluate(x, mnist.test.y, batch_size=1000, verbose=0)
    # Both metrics are float32 sums over 10,000 examples.
    assert accuracy == pytest.approx(run.metrics["test"]["accuracy"], abs=1e-6)
    assert loss == pytest.approx(run.metrics["test"]["loss"], rel=1e-4)
    assert [type(layer) for layer in model.layers] == [keras.layers.SimpleRNN, keras.layers.Dense]


@pytest.mark.parametrize("varies", [False, True])
def test_what_a_model_reads_is_noisy_in_training_alone(
    varies: bool, small: SequenceData, varying: SequenceData
) -> None:
    data = varying if varies else small
    noise = np.array([0.5, 0.0], np.float32)
    keras.utils.set_random_seed(3)
    model = TrainingSequential([Echo()], noise)
    x = np.ones((500, 6, 2), np.float32)
    given = (x, np.full(500, 6, np.int32)) if varies else x
    np.testing.assert_array_equal(model(given, training=False), x)
    first, second = (np.asarray(model(given, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first[..., 1], x[..., 1])
    assert (first - x)[..., 0].std() == pytest.approx(0.5, rel=0.04)  # 4 standard deviations
    assert not np.array_equal(first, second)
    steps = data.train.x[slice(None) if data.train.valid is None else data.train.valid]
    seen = data.spec.normalization(steps).reshape(-1, 2)
    np.testing.assert_allclose(data.deviation(), seen.std(axis=0), rtol=1e-5)


class Echo(keras.layers.Layer):
    """Gives what it reads."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x


def test_the_same_seed_gives_the_same_bits(small: SequenceData, tmp_path: Path) -> None:
    a, b, other = (
        fitted(dataclasses.replace(CHANCE, seed=seed), small, tmp_path / name, kept=KEPT)
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    )
    np.testing.assert_array_equal(weights(a.model), weights(b.model))
    assert not np.array_equal(weights(a.model), weights(other.model))


def test_metrics_are_valid_json(run: Run) -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(run.metrics_file.read_text(), parse_constant=refuse)
