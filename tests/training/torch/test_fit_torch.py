"""Training in PyTorch: the training of Keras, by other arithmetic and other gradients."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import Killed, each_epoch_kept

from rnn_tf import Run, TrainConfig, train
from rnn_tf.config import Optimizer
from rnn_tf.data import SequenceData, Split
from rnn_tf.errors import CheckFailed
from rnn_tf.evaluate import evaluate
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.training.keras import fit as in_keras
from rnn_tf.training.keras.devices import seed_everything
from rnn_tf.training.recorder import Fitted

torch = pytest.importorskip("torch", reason="PyTorch is the extra `torch`")
pytestmark = pytest.mark.torch

from rnn_tf.training.torch import fit as fit_torch  # noqa: E402 - needs torch
from rnn_tf.training.torch.gradients import ManualGradients  # noqa: E402
from rnn_tf.training.torch.module import SequenceClassifier, build_recurrent  # noqa: E402

# 203 examples in batches of 16: the last batch has 11.
CONFIG = TrainConfig(
    units=7, epochs=3, batch_size=16, learning_rate=0.01, dropout=0.0, noise=0.0, backend="torch"
)


def fitted(config: TrainConfig, data: SequenceData, path: Path, **options: Any) -> Fitted:
    seed_everything(config)
    fit = fit_torch.fit if config.backend == "torch" else in_keras.fit
    return fit(config, data, Run.create(path, config, data.spec), **options)


def weights(found: Fitted) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in found.model.get_weights()])


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


# --- the witness ---
@pytest.mark.parametrize(
    ("cell", "units", "optimizer", "tolerance"),
    [
        # float32 rounding in another order, over 39 updates: 2e-6 seen; weights are near 1.
        ("simple_rnn", 7, "adam", 2e-5),
        ("lstm", 7, "adam", 2e-5),
        ("gru", 7, "adam", 2e-5),
        # SOAP's preconditioners begin with the rank of one gradient. Where that is less than
        # their size, rounding chooses the rest of the basis, and no two programs agree. These
        # sizes are square: 4x4 and 6x6. Adam's step for directions of almost no gradient
        # magnifies rounding: 5e-4 seen. In another order of gates they differ by 6e-3.
        ("lstm", 1, "soap", 2e-3),
        ("gru", 2, "soap", 2e-3),
    ],
)
def test_it_is_the_training_of_keras(
    cell: Cell,
    units: int,
    optimizer: Optimizer,
    tolerance: float,
    small: SequenceData,
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(CONFIG, cell=cell, units=units, optimizer=optimizer)
    witness = fitted(config, small, tmp_path / "torch")
    keras = fitted(dataclasses.replace(config, backend="keras"), small, tmp_path / "keras")
    np.testing.assert_allclose(weights(witness), weights(keras), atol=tolerance)
    assert witness.best_epoch == keras.best_epoch
    for a, b in zip(witness.history, keras.history, strict=True):
        assert list(a) == list(b)
        for name in ("accuracy", "val_accuracy"):
            assert a[name] == pytest.approx(b[name], abs=1e-6)
        # 4e-5 of the loss seen, where it has become small.
        for name in ("loss", "val_loss", "learning_rate"):
            assert a[name] == pytest.approx(b[name], rel=3e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("cell", "layers", "bidirectional"), [("simple_rnn", 2, True), ("lstm", 2, False)]
)
def test_stacked_and_bidirectional_training_is_that_of_keras(
    cell: Cell, layers: int, bidirectional: bool, small: SequenceData, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        CONFIG, cell=cell, optimizer="adam", layers=layers, bidirectional=bidirectional, epochs=2
    )
    assert not fit_torch.writes_out(config, "float32")
    witness = fitted(config, small, tmp_path / "torch")
    keras = fitted(dataclasses.replace(config, backend="keras"), small, tmp_path / "keras")
    # As for one layer above.
    np.testing.assert_allclose(weights(witness), weights(keras), atol=2e-5)
    assert witness.best_epoch == keras.best_epoch
    for a, b in zip(witness.history, keras.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=3e-4, abs=1e-7)
        assert a["val_accuracy"] == pytest.approx(b["val_accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    ("cell", "activation", "layers", "bidirectional"),
    [
        ("simple_rnn", "tanh", 1, False), ("gru", "tanh", 1, True), ("lstm", "elu", 2, False),
    ],
)  # fmt: skip
def test_training_on_different_lengths_is_that_of_keras(
    cell: Cell,
    activation: str,
    layers: int,
    bidirectional: bool,
    varying: SequenceData,
    tmp_path: Path,
) -> None:
    """By PyTorch's own layers, packed, by the loop over time, and with gradients written out."""
    data = varying
    config = dataclasses.replace(
        CONFIG, cell=cell, optimizer="adam", layers=layers, bidirectional=bidirectional, epochs=2,
        activation=activation,
    )  # fmt: skip
    witness = fitted(config, data, tmp_path / "torch")
    keras = fitted(dataclasses.replace(config, backend="keras"), data, tmp_path / "keras")
    # As above, where all are as long.
    np.testing.assert_allclose(weights(witness), weights(keras), atol=2e-5)
    assert witness.best_epoch == keras.best_epoch
    for a, b in zip(witness.history, keras.history, strict=True):
        for name in ("loss", "val_loss"):
            assert a[name] == pytest.approx(b[name], rel=3e-4, abs=1e-7)
        assert a["val_accuracy"] == pytest.approx(b["val_accuracy"], abs=1e-6)


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, True), (2, False)])
def test_dropout_is_of_the_inputs_of_each_direction(
    layers: int, bidirectional: bool, small: SequenceData
) -> None:
    config = dataclasses.replace(
        CONFIG, cell="lstm", dropout=0.5, layers=layers, bidirectional=bidirectional
    )
    training = fit_torch.Training(config, small, "float32")
    training._seed_chance(0)
    masks = training._masks(16)
    assert masks is not None
    assert [mask.shape[1] for mask in masks] == ([2, 2] if bidirectional else [2, 7])
    x = torch.from_numpy(small.train.x[:16])
    said = training.module.states(x, masks)
    for i in range(2):
        other = [mask.clone() for mask in masks]
        other[i][0] = 2 - other[i][0]  # what was dropped is kept, and the other way round
        changed = (training.module.states(x, other) != said).any(1)
        assert changed.tolist() == [True] + 15 * [False]
    nothing = training.module.states(x, [torch.ones_like(mask) for mask in masks])
    torch.testing.assert_close(nothing, training.module.states(x))


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm"])
def test_a_bias_that_keras_does_not_have_is_not_trained(
    cell: Cell, small: SequenceData, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, cell=cell, epochs=1)
    training = fit_torch.Training(config, small, "float32")
    training.epoch(0)
    recurrent = training.module.recurrent
    assert not recurrent.bias_hh_l0.any()
    assert recurrent.bias_ih_l0.any()


# --- gradients ---
WRITTEN_OUT: list[tuple[Cell, str]] = [
    *(("simple_rnn", each) for each in ("tanh", "relu", "elu", "gelu", "sigmoid")),
    ("gru", "tanh"),
    ("lstm", "tanh"),
]


def with_gradients(cell: Cell, activation: str, dtype: Any) -> tuple[Any, Any]:
    """A module of 5 units with a gradient for each parameter, and chance that goes on from it."""
    gates = CELLS[cell].recurrent_activation
    recurrent = build_recurrent(cell, activation, gates, features=3, units=5)
    module = SequenceClassifier(recurrent, 5, 4).to(dtype)
    chance = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=chance)
        parameter.grad = torch.zeros_like(parameter)
    module.recurrent.bias_hh_l0.requires_grad_(CELLS[cell].biases == 2)
    return module, chance


@pytest.mark.parametrize(
    ("timesteps", "dtype", "tolerance"),
    # float32 rounding of sums over 99 examples and steps: 5e-7 seen, in float64 accordingly less.
    [(1, torch.float32, 5e-6), (9, torch.float32, 5e-6), (9, torch.float64, 1e-14)],
)
@pytest.mark.parametrize(("cell", "activation"), WRITTEN_OUT)
def test_gradients_written_out_are_those_of_autograd(
    cell: Cell, activation: str, timesteps: int, dtype: Any, tolerance: float
) -> None:
    module, chance = with_gradients(cell, activation, dtype)
    x = torch.randn(11, timesteps, 3, generator=chance, dtype=dtype)
    y = torch.randint(0, 4, (11,), generator=chance)
    logits = torch.empty(11, 4, dtype=dtype)
    written_out = ManualGradients(module, activation, timesteps, examples=11)
    for _ in range(2):  # nothing is left of the batch before
        written_out.x.copy_(x.transpose(0, 1))
        written_out(y, logits)
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.requires_grad}
    module.zero_grad(set_to_none=False)
    said = module(x)
    torch.nn.functional.cross_entropy(said, y).backward()
    torch.testing.assert_close(logits, said.detach(), rtol=0, atol=tolerance)
    for name, grad in found.items():
        torch.testing.assert_close(grad, module.get_parameter(name).grad, rtol=0, atol=tolerance)
    assert len(found) == (6 if cell == "gru" else 5)


@pytest.mark.parametrize("padding", [0.0, 3.0, np.inf, np.nan])
@pytest.mark.parametrize(("cell", "activation"), WRITTEN_OUT)
def test_gradients_written_out_begin_at_the_end_of_each_sequence(
    cell: Cell, activation: str, padding: float
) -> None:
    """Those of autograd, of each sequence alone, whatever the padding holds."""
    module, chance = with_gradients(cell, activation, torch.float32)
    x = torch.randn(7, 9, 3, generator=chance)
    y = torch.randint(0, 4, (7,), generator=chance)
    gradients = ManualGradients(module, activation, 9, examples=7)

    def found(lengths: Any) -> dict[str, Any]:
        logits = torch.empty(7, 4)
        gradients.x.copy_(x.transpose(0, 1))
        for i, length in enumerate(right):
            gradients.x[length:, i] = padding
        gradients(y, logits, torch.tensor(lengths))
        parameters = module.named_parameters()
        return {"logits": logits} | {n: p.grad.clone() for n, p in parameters if p.requires_grad}

    right = [4, 1, 9, 7, 9, 2, 5]
    found([9] * 7)  # nothing is left of the batch before, NaN neither
    written_out, shifted = found(right), found([max(1, length - 1) for length in right])
    module.zero_grad(set_to_none=False)
    said = torch.cat([module(x[i : i + 1, :length]) for i, length in enumerate(right)])
    torch.nn.functional.cross_entropy(said, y).backward()
    expected = {"logits": said.detach()}
    expected |= {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    assert len(expected) == (7 if cell == "gru" else 6)
    for name, value in expected.items():
        # float32 rounding of sums over 37 steps: 5e-7 seen.
        torch.testing.assert_close(written_out[name], value, rtol=0, atol=5e-6)
    assert any((shifted[name] - value).abs().max() > 1e-2 for name, value in expected.items())


@pytest.mark.parametrize(
    ("cell", "activation"),
    [("simple_rnn", "tanh"), ("simple_rnn", "gelu"), ("gru", "tanh"), ("lstm", "tanh")],
)
@pytest.mark.parametrize("varies", [False, True])
def test_autograd_trains_to_the_same_weights(
    cell: Cell,
    activation: str,
    varies: bool,
    small: SequenceData,
    varying: SequenceData,
    tmp_path: Path,
) -> None:
    """With dropout and noise, which do not depend on who computes the gradients."""
    config = dataclasses.replace(
        CONFIG, cell=cell, activation=activation, optimizer="adam", dropout=0.3, noise=0.2
    )
    assert fit_torch.writes_out(config, "float32") == (not torch.cuda.is_available())
    data = varying if varies else small
    written_out = fitted(config, data, tmp_path / "written out")
    autograd = fitted(dataclasses.replace(config, fused=False), data, tmp_path / "autograd")
    # float32 rounding over 39 updates: 2e-6 seen.
    np.testing.assert_allclose(weights(written_out), weights(autograd), atol=2e-5)


def test_dropout_drops_features_for_all_time_steps_and_repeats(small: SequenceData) -> None:
    config = dataclasses.replace(CONFIG, dropout=0.25, batch_size=4000)
    training = fit_torch.Training(config, small, "float32")
    batches: list[Any] = []
    for epoch in (1, 0, 0):
        training._seed_chance(epoch)
        batches.append(training._masks(4000))
    (other,), (first,), (again,) = batches
    assert first.shape == (4000, 2)
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float(first.mean()) == pytest.approx(1, abs=0.03)  # 4 standard deviations
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    later: Any = training._masks(4000)
    assert not torch.equal(first, later[0])


def test_one_time_step_is_a_sequence(small: SequenceData, tmp_path: Path) -> None:
    """No state is multiplied, and the state's weights only decay, whoever computes gradients."""
    splits = [Split(each.x[:, -1:], each.y) for each in (small.train, small.valid, small.test)]
    data = SequenceData(dataclasses.replace(small.spec, timesteps=1), *splits)
    config = dataclasses.replace(CONFIG, optimizer="adamw")
    written_out = fitted(config, data, tmp_path / "written out")
    autograd = fitted(dataclasses.replace(config, fused=False), data, tmp_path / "autograd")
    np.testing.assert_allclose(weights(written_out), weights(autograd), atol=2e-5)


def test_arrays_that_may_not_be_written_to_are_trained_on(small: SequenceData) -> None:
    x, y = small.train.x.copy(), small.train.y.copy()
    x.flags.writeable = y.flags.writeable = False
    data = dataclasses.replace(small, train=Split(x, y))
    training = fit_torch.Training(CONFIG, data, "float32")
    training.epoch(0)
    np.testing.assert_array_equal(x, small.train.x)


def test_a_batch_may_be_larger_than_the_data(small: SequenceData, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, batch_size=1000, epochs=8)
    history = fitted(config, small, tmp_path).history
    assert history[-1]["loss"] < history[0]["loss"]


# --- precision, threads, NaN ---
@pytest.mark.parametrize(
    ("precision", "cell", "varies"),
    [
        ("mixed_float16", "simple_rnn", False), ("mixed_bfloat16", "simple_rnn", True),
        ("mixed_float16", "gru", True), ("mixed_bfloat16", "gru", False),
    ],
)  # fmt: skip
def test_mixed_precision_trains(
    precision: str,
    cell: Cell,
    varies: bool,
    small: SequenceData,
    varying: SequenceData,
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(CONFIG, cell=cell, epochs=8)
    data = varying if varies else small
    found = fitted(config, data, tmp_path, precision=precision)
    assert found.history[-1]["loss"] < 0.7 * found.history[0]["loss"]
    recurrent, softmax = found.model.layers
    assert recurrent.dtype_policy.name == precision
    assert softmax.dtype_policy.name == "float32"
    plain = fitted(config, data, tmp_path / "plain")
    assert not np.array_equal(weights(found), weights(plain)), "arithmetic was not mixed"


def test_threads_are_given_back(small: SequenceData, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        fitted(dataclasses.replace(CONFIG, epochs=1), small, tmp_path)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cell", "units", "expected"),
    # The states of 64 examples meet 4 * 23 * 23 weights of LSTM(23): twice 2^16 products and some
    # more. Those of GRU(53) meet 3 * 53 * 53: twice 2^18.
    [("lstm", 22, 1), ("lstm", 23, 2), ("lstm", 32, 3), ("gru", 52, 1), ("gru", 53, 2)],
)
def test_each_thread_has_enough_to_multiply(cell: Cell, units: int, expected: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        config = dataclasses.replace(CONFIG, cell=cell, units=units, batch_size=64)
        assert fit_torch.threads_for(config) == expected
    finally:
        torch.set_num_threads(before)


# First it learns, then the weights grow until the recurrence overflows; float16 does so soon.
DIVERGING = dataclasses.replace(
    CONFIG, activation="linear", optimizer="adam", learning_rate=20.0, warmup=0.9,
    schedule="constant", clip_norm=0.0, epochs=60, precision="mixed_float16",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:training diverges")
def test_a_loss_that_becomes_nan_stops_and_keeps_the_best(
    small: SequenceData, tmp_path: Path
) -> None:
    run = train(DIVERGING, tmp_path / "run", data=small, progress=False)
    assert re.fullmatch(r"the loss became NaN or infinite in epoch \d+", run.metrics["stopped"])
    assert 1 <= run.metrics["best_epoch"] <= len(run.history) < DIVERGING.epochs_for(203)
    best = run.history[run.metrics["best_epoch"] - 1]
    assert run.metrics["valid"]["accuracy"] == pytest.approx(best["val_accuracy"])


def test_a_loss_that_is_nan_at_once_says_what_to_change(
    small: SequenceData, tmp_path: Path
) -> None:
    config = dataclasses.replace(DIVERGING, learning_rate=1e30)
    with pytest.raises(CheckFailed, match="NaN or infinite in epoch 1; set --learning-rate auto"):
        fitted(config, small, tmp_path)


# --- going on ---
@pytest.mark.parametrize(
    ("change", "precision"),
    [
        ({"dropout": 0.2}, "float32"),
        ({"cell": "gru", "dropout": 0.2, "noise": 0.3}, "float32"),
        ({"cell": "gru", "dropout": 0.2, "layers": 2, "bidirectional": True}, "float32"),
        ({"cell": "lstm", "optimizer": "adamw"}, "float32"),
        ({"optimizer": "adam"}, "mixed_float16"),  # the scale of the loss is kept too
    ],
)
@pytest.mark.parametrize("varies", [False, True])
def test_a_broken_run_ends_with_the_same_bits(
    change: dict[str, Any], precision: str, varies: bool, small: SequenceData,
    varying: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config, data = dataclasses.replace(CONFIG, epochs=6, **change), varying if varies else small
    unbroken = fitted(config, data, tmp_path / "unbroken", precision=precision)
    save_state, save_history = Run.save_state, Run.save_history

    def dies_in_state(run: Run, state: dict[str, np.ndarray]) -> None:
        if len(run.history) == 1:
            raise Killed
        save_state(run, state)

    def dies_before_history(run: Run, history: list[dict[str, Any]]) -> None:
        if len(history) == 4:
            raise Killed
        save_history(run, history)

    run = Run.create(tmp_path / "broken", config, data.spec)
    for name, dies in (("save_state", dies_in_state), ("save_history", dies_before_history)):
        with each_epoch_kept(), monkeypatch.context() as patch:
            patch.setattr(Run, name, dies)
            seed_everything(config)
            with pytest.raises(Killed):
                fit_torch.fit(config, data, run, precision=precision)
    assert len(run.history) == 3
    resumed = fit_torch.fit(config, data, run, precision=precision)
    np.testing.assert_array_equal(weights(resumed), weights(unbroken))
    assert without_times(resumed.history) == without_times(unbroken.history)
    assert resumed.best_epoch == unbroken.best_epoch


# --- a run from end to end ---
def test_a_run_is_as_any_other(small: SequenceData, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optimizer="adam", dataset=str(tmp_path / "waves.npz"))
    witness = train(config, tmp_path / "torch", data=small, progress=False)
    keras = train(
        dataclasses.replace(config, backend="keras"), tmp_path / "keras", data=small, progress=False
    )
    files, of_keras = ({p.name for p in each.path.iterdir()} for each in (witness, keras))
    assert files == of_keras - {"compiled.json"}
    assert list(witness.tensorboard_folder.glob("events.*"))
    assert list(witness.metrics) == list(keras.metrics)
    same = ("parameters", "best_epoch", "precision", "stopped")
    assert {k: witness.metrics[k] for k in same} == {k: keras.metrics[k] for k in same}
    for name in ("train", "valid", "test"):
        told, expected = witness.metrics[name], keras.metrics[name]
        assert told["examples"] == expected["examples"]
        assert told["accuracy"] == expected["accuracy"]
        # As in the history above.
        assert told["loss"] == pytest.approx(expected["loss"], rel=3e-4)


def test_keras_scores_the_run_as_pytorch_did(
    small_npz: Path, small: SequenceData, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, cell="gru", dataset=str(small_npz))
    run = train(config, tmp_path / "run", data=small, progress=False)
    scores = evaluate(Run.open(run.path))
    assert scores.accuracy == run.metrics["test"]["accuracy"]
    # float32 rounding: 1e-7 seen.
    assert scores.loss == pytest.approx(run.metrics["test"]["loss"], rel=1e-5)


@pytest.mark.slow
def test_one_epoch_on_mnist_reads_digits(mnist: SequenceData, run: Run, tmp_path: Path) -> None:
    witness = train(
        TrainConfig(epochs=1, backend="torch"), tmp_path / "run", data=mnist, progress=False
    )
    assert witness.metrics["test"]["examples"] == 10_000
    assert witness.metrics["train"]["examples"] == 55_000
    # Over 860 updates rounding grows into another training: both reach 93.5-96 %.
    assert witness.metrics["test"]["accuracy"] > 0.93
    assert witness.metrics["test"]["accuracy"] == pytest.approx(
        run.metrics["test"]["accuracy"], abs=0.02
    )
