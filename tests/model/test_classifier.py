"""The classifier: exactly two layers, of the sizes, weights and arithmetic that were asked for."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from rnn_tf.config import TrainConfig, preset
from rnn_tf.data import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.model.classifier import (
    MaskedSequential,
    build_model,
    keras_layer,
    recurrent_layers,
)
from rnn_tf.model.stepwise import read_along

SPEC = SequenceSpec(timesteps=6, features=3, labels=tuple("abcd"))
ROWS = SequenceSpec(timesteps=28, features=28, labels=tuple("0123456789"))


def sequences(spec: SequenceSpec = SPEC, examples: int = 5) -> np.ndarray:
    shape = (examples, spec.longest, spec.features)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("cell", "parameters"),
    [
        # Gates * (28 * 32 + 32 * 32 + bias), and 32 * 10 + 10 for the softmax; the GRU of Keras
        # has two biases for each gate.
        ("simple_rnn", 1 * (28 * 32 + 32 * 32 + 32) + 330),
        ("lstm", 4 * (28 * 32 + 32 * 32 + 32) + 330),
        ("gru", 3 * (28 * 32 + 32 * 32 + 64) + 330),
    ],
)
def test_a_recurrent_layer_and_a_softmax_and_nothing_else(cell: Cell, parameters: int) -> None:
    model = build_model(TrainConfig.from_dict({"cell": cell}), ROWS)
    recurrent, softmax = model.layers
    assert type(model) is keras.Sequential
    assert type(recurrent) is keras_layer(cell)
    assert type(softmax) is keras.layers.Dense
    assert softmax.activation is keras.activations.softmax
    assert (recurrent.units, recurrent.return_sequences) == (32, False)
    assert model.count_params() == parameters


def test_the_classic_model_has_2282_parameters() -> None:
    assert build_model(preset("tutorial"), ROWS).count_params() == 2_282
    assert build_model(preset("best"), ROWS).count_params() == 2_282


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_probabilities_are_float32_and_sum_to_one(cell: str, precision: str) -> None:
    model = build_model(TrainConfig.from_dict({"cell": cell}), SPEC, precision=precision)
    probabilities = np.asarray(model(sequences()))
    assert probabilities.shape == (5, 4)
    assert probabilities.dtype == np.float32
    # A float32 softmax: the sum of 4 numbers rounded to 24 bits.
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=5e-7)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_for_the_recurrent_layer_only(precision: str) -> None:
    config = TrainConfig(cell="gru", layers=2, bidirectional=True)
    model = build_model(config, SPEC, precision=precision)
    *recurrent, softmax = model.layers
    for layer in itertools.chain(recurrent, *recurrent_layers(model)):
        assert layer.compute_dtype == precision.removeprefix("mixed_")
    assert softmax.compute_dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}


def test_simple_rnn_is_the_textbook_recurrence() -> None:
    model = build_model(preset("tutorial"), SPEC)
    kernel, recurrent, bias, out, out_bias = (
        weight.astype(float) for weight in model.get_weights()
    )
    state = np.zeros((5, 32))
    for step in range(SPEC.longest):
        state = np.tanh(sequences()[:, step] @ kernel + state @ recurrent + bias)
    logits = np.exp(state @ out + out_bias)
    expected = logits / logits.sum(axis=1, keepdims=True)
    # float32 against float64 over 6 steps: 6e-8 seen.
    np.testing.assert_allclose(np.asarray(model(sequences())), expected, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_unrolling_changes_neither_weights_nor_outputs(cell: str) -> None:
    config = TrainConfig.from_dict({"cell": cell, "units": 8})
    rolled, unrolled = (build_model(config, SPEC, unroll=unroll) for unroll in (False, True))
    unrolled.set_weights(rolled.get_weights())
    # The same float32 operations, fused in another order: 1e-7 seen.
    np.testing.assert_allclose(
        np.asarray(unrolled(sequences())), np.asarray(rolled(sequences())), atol=1e-6
    )


@pytest.mark.parametrize(
    ("cell", "layers", "bidirectional"),
    [("simple_rnn", 2, True), ("lstm", 1, False), ("lstm", 1, True), ("gru", 2, False)],
)
def test_reading_along_says_what_the_model_says_of_a_sequence_that_ends_there(
    cell: Cell, layers: int, bidirectional: bool
) -> None:
    config = TrainConfig(cell=cell, units=5, layers=layers, bidirectional=bidirectional)
    model = build_model(config, SPEC)
    (x,) = sequences(examples=1)
    states, probabilities = read_along(model, x)
    assert states.shape == (6, 10 if bidirectional else 5)
    for t in range(6):
        ends = dataclasses.replace(SPEC, timesteps=t + 1, longest=t + 1)
        short = build_model(config, ends)
        short.set_weights(model.get_weights())
        # float32 rounding: 1e-7 seen.
        np.testing.assert_allclose(probabilities[t], short(x[None, : t + 1])[0], atol=2e-6)
    kernel, bias = model.layers[-1].get_weights()
    logits = states @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("cell", "layers", "bidirectional"),
    [("simple_rnn", 2, True), ("lstm", 1, False), ("gru", 2, False)],
)
def test_an_answer_at_every_step(cell: str, layers: int, bidirectional: bool) -> None:
    values = {"cell": cell, "units": 5, "layers": layers, "bidirectional": bidirectional}
    config, x = TrainConfig.from_dict(values), sequences()
    model = build_model(config, dataclasses.replace(SPEC, answer="every_step"))
    assert type(model) is keras.Sequential
    assert model.output_shape == (None, 6, 4)
    said = np.asarray(model(x))
    assert said.shape == (5, 6, 4)
    assert said.sum(axis=2) == pytest.approx(1, abs=1e-6)
    # The same layers, asked at the end: the last step of whoever reads forwards.
    ends = build_model(config, SPEC)
    ends.set_weights(model.get_weights())
    if not bidirectional:
        np.testing.assert_allclose(said[:, -1], ends(x), atol=1e-6)
        np.testing.assert_allclose(said[:, 2], ends(x[:, :3]), atol=1e-6)
    states, along = read_along(model, x[0])
    assert states.shape == (6, 5 * (1 + bidirectional))
    np.testing.assert_allclose(along, said[0], atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "layers", "bidirectional"),
    [("simple_rnn", 2, True), ("lstm", 1, False), ("gru", 1, False)],
)
def test_a_masked_model_says_of_each_sequence_what_it_says_of_it_alone(
    cell: Cell, layers: int, bidirectional: bool
) -> None:
    """In any company, whatever the padding holds."""
    config = TrainConfig(cell=cell, units=5, layers=layers, bidirectional=bidirectional)
    spec = dataclasses.replace(SPEC, timesteps=None)
    model = build_model(config, spec)
    masked = MaskedSequential(model.layers)
    assert [id(weight) for weight in masked.weights] == [id(weight) for weight in model.weights]
    x, lengths = sequences(), np.array([3, 6, 1, 6, 2], np.int32)
    padding = np.arange(6) >= lengths[:, None]
    # Each said along the way by a sequence that has no padding.
    expected = [read_along(model, each[:n])[1][-1] for each, n in zip(x, lengths, strict=True)]
    for held in (0, 7, np.inf, np.nan):
        x[padding] = held
        # float32 rounding: 1e-7 seen.
        np.testing.assert_allclose(masked((x, lengths)), expected, atol=2e-6)
        for i in range(5):
            alone = masked((x[[i]], lengths[[i]]))
            np.testing.assert_allclose(alone[0], expected[i], atol=2e-6)
    x[padding] = 0
    for wrong in (lengths - (lengths > 1), np.minimum(lengths + 1, 6), np.full(5, 6)):
        assert np.abs(np.asarray(masked((x, wrong))) - expected).max() > 1e-3


@pytest.mark.parametrize(("layers", "bidirectional"), [(2, False), (1, True), (3, True)])
@pytest.mark.parametrize("cell", CELLS)
def test_stacked_layers_and_both_directions_of_keras(
    cell: Cell, layers: int, bidirectional: bool
) -> None:
    config = TrainConfig(cell=cell, units=5, layers=layers, bidirectional=bidirectional)
    model = build_model(config, SPEC)
    *recurrent, softmax = model.layers
    assert len(recurrent) == layers
    assert [layer.return_sequences for layer in recurrent] == [True] * (layers - 1) + [False]
    width = 10 if bidirectional else 5
    assert softmax.kernel.shape == (width, 4)
    kinds = {type(layer) for pair in recurrent_layers(model) for layer in pair}
    assert kinds == {keras_layer(cell)}
    for layer in recurrent:
        assert isinstance(layer, keras.layers.Bidirectional) == bidirectional
        if bidirectional:
            assert layer.merge_mode == "concat"
            forward, backward = layer.get_weights()[::3][:2]
            assert not np.array_equal(forward, backward), "each direction starts on its own"


def test_the_layer_of_the_default_model_keeps_its_name() -> None:
    assert [layer.name for layer in build_model(TrainConfig(), SPEC).layers] == [
        "recurrent", "probabilities",
    ]  # fmt: skip
    stack = build_model(TrainConfig(layers=3), SPEC)
    names = ["recurrent", "recurrent_2", "recurrent_3", "probabilities"]
    assert [layer.name for layer in stack.layers] == names


def test_identity_starts_the_state_as_its_own_memory() -> None:
    recurrent = build_model(TrainConfig(units=8), SPEC).layers[0]
    np.testing.assert_array_equal(recurrent.cell.recurrent_kernel.numpy(), np.eye(8))


def test_orthogonal_starts_with_a_rotation() -> None:
    config = TrainConfig(units=8, recurrent_initializer="orthogonal")
    start = build_model(config, SPEC).layers[0].cell.recurrent_kernel.numpy()
    # float32 rounding of sums of 8 products.
    np.testing.assert_allclose(start.T @ start, np.eye(8), atol=1e-6)


@pytest.mark.parametrize(("activation", "bidirectional"), [("elu", True), ("relu", False)])
def test_a_stack_starts_with_no_larger_answers_than_one_layer(
    activation: str, bidirectional: bool
) -> None:
    x = np.random.default_rng(0).uniform(size=(50, 28, 28)).astype(np.float32)

    def spread(layers: int) -> float:
        keras.utils.set_random_seed(1)
        config = TrainConfig(activation=activation, layers=layers, bidirectional=bidirectional)
        model = build_model(config, ROWS)
        model.layers[-1].activation = keras.activations.linear
        return float(np.ptp(model(x).numpy(), axis=1).mean())

    one = spread(1)
    assert one > 1
    # More than ten times as large if sums are summed up.
    assert spread(2) < 2 * one
    assert spread(3) < 2 * one


# --- how long sequences start ---
def lengthened(timesteps: int) -> SequenceSpec:
    return SequenceSpec(timesteps, features=3, labels=tuple("abcd"))


def started(config: TrainConfig, timesteps: int) -> list[np.ndarray]:
    keras.utils.set_random_seed(1)
    weights: list[np.ndarray] = build_model(config, lengthened(timesteps)).get_weights()
    return weights


@pytest.mark.parametrize("cell", CELLS)
def test_up_to_32_time_steps_everything_starts_as_in_keras(cell: str) -> None:
    config = TrainConfig.from_dict({"cell": cell})
    keras.utils.set_random_seed(1)
    kind = CELLS[config.cell]
    plain = keras.Sequential([
        keras.Input((32, 3)),
        getattr(keras.layers, kind.keras_layer)(
            32, activation=kind.activation,
            # An object, since the order in which initializers are made is that of their seeds.
            recurrent_initializer=keras.initializers.get(
                config.cell_initializer.replace("identity", "Identity")
            ),
        ),
        keras.layers.Dense(4, activation="softmax"),
    ])  # fmt: skip
    for timesteps in (28, 32):
        for found, expected in zip(started(config, timesteps), plain.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_an_answer_to_a_long_sum_starts_as_large_as_to_a_short_one() -> None:
    *short, short_kernel, short_bias = started(TrainConfig(), 32)
    *long, kernel, bias = started(TrainConfig(), 128)
    np.testing.assert_array_equal(kernel, short_kernel / 4)
    for found, expected in zip([*long, bias], [*short, short_bias], strict=True):
        np.testing.assert_array_equal(found, expected)
    # tanh keeps the state within bounds: nothing is summed up.
    bounded = TrainConfig(activation="tanh")
    for found, expected in zip(started(bounded, 128), started(bounded, 32), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("cell", "keeps"), [("lstm", 1.0), ("gru", 0.0)])
def test_the_units_of_a_gated_cell_keep_for_one_step_to_all(cell: str, keeps: float) -> None:
    """LSTM's forget gate starts with 1 in Keras and is its second; GRU's update gate is first."""
    config = TrainConfig.from_dict({"cell": cell, "units": 5})
    bias = started(config, 1000)[2]
    gates: dict[str, Any] = {"lstm": slice(5, 10), "gru": (0, slice(5))}
    gate = gates[cell]
    spread = np.log(1000) * np.array([0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(bias[gate], keeps + spread, rtol=1e-6)  # float32
    bias[gate] = keeps
    np.testing.assert_array_equal(bias, started(config, 32)[2])


def test_dropout_is_for_training_only() -> None:
    model = build_model(TrainConfig(dropout=0.5, recurrent_dropout=0.5), SPEC)
    quiet, quiet_again = (np.asarray(model(sequences(), training=False)) for _ in range(2))
    noisy, noisy_again = (np.asarray(model(sequences(), training=True)) for _ in range(2))
    np.testing.assert_array_equal(quiet, quiet_again)
    assert not np.array_equal(noisy, noisy_again)


def test_a_saved_model_comes_back_without_custom_code(tmp_path: Path) -> None:
    model = build_model(TrainConfig(), SPEC)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(np.asarray(again(sequences())), np.asarray(model(sequences())))


def test_an_unknown_activation_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"^unknown activation 'rely'; expected one of .*\brelu\b"):
        build_model(TrainConfig(activation="rely"), SPEC)


@pytest.mark.parametrize("name", ["deserialize", "serialize", "get"])
def test_what_is_no_activation_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(InputError, match=rf"^unknown activation '{name}'; (?!.*\b{name}\b)"):
        build_model(TrainConfig(activation=name), SPEC)


def test_an_unknown_initializer_is_named() -> None:
    message = r"^unknown recurrent_initializer 'eye'; expected .*orthogonal, identity"
    with pytest.raises(InputError, match=message):
        build_model(TrainConfig(recurrent_initializer="eye"), SPEC)
