"""Optimizers and schedules, against numbers worked out by hand and by an independent program."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np
import pytest

import rnn_tf.training.keras.soap
from rnn_tf.config import TrainConfig
from rnn_tf.training.keras.optimizer import WarmUpThenFall, build_optimizer, learning_rate
from rnn_tf.training.keras.soap import Soap

Layer = list[np.ndarray]


def rate(config: TrainConfig, steps: int, step: int) -> float:
    schedule = learning_rate(config, steps)
    assert not isinstance(schedule, float)
    return float(schedule(step))


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        # 100 steps, the first 10 of them rise to 0.02, 90 remain.
        ("cosine", 0, 0.002),
        ("cosine", 4, 0.01),
        ("cosine", 9, 0.02),
        ("cosine", 10, 0.02),
        ("cosine", 40, 0.015),  # a third: (1 + cos 60°) / 2 = 3/4
        ("cosine", 55, 0.01),
        ("cosine", 70, 0.005),
        ("cosine", 100, 0.0),
        ("cosine", 1000, 0.0),
        ("linear", 0, 0.002),
        ("linear", 10, 0.02),
        ("linear", 55, 0.01),
        ("linear", 91, 0.002),
        ("linear", 100, 0.0),
        ("constant", 0, 0.002),
        ("constant", 9, 0.02),
        ("constant", 99, 0.02),
    ],
)
def test_the_learning_rate_rises_then_falls(schedule: str, step: int, expected: float) -> None:
    config = TrainConfig.from_dict({"learning_rate": 0.02, "warmup": 0.1, "schedule": schedule})
    # float32: 7 digits, and at the end of a cosine the difference of two numbers near 1.
    assert rate(config, 100, step) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_without_warm_up_the_peak_comes_first(schedule: str) -> None:
    config = TrainConfig.from_dict({"learning_rate": 0.5, "warmup": 0, "schedule": schedule})
    assert rate(config, 10, 0) == 0.5
    assert rate(config, 10, 5) == pytest.approx(0.25)


def test_constant_without_warm_up_is_a_number() -> None:
    assert learning_rate(TrainConfig(schedule="constant", warmup=0, learning_rate=0.5), 10) == 0.5


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_even_the_shortest_run_learns(steps: int) -> None:
    config = TrainConfig(learning_rate=1.0, warmup=0.9)
    assert all(0 < rate(config, steps, step) <= 1 for step in range(steps))


def test_a_schedule_comes_back_from_its_configuration() -> None:
    schedule = WarmUpThenFall("linear", 0.3, 7, 90)
    again = WarmUpThenFall.from_config(schedule.get_config())
    assert [float(again(i)) for i in range(91)] == [float(schedule(i)) for i in range(91)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
        ("muon", keras.optimizers.Muon),
        ("soap", Soap),
    ],
)
def test_settings_reach_the_optimizer(name: str, kind: type[keras.optimizers.Optimizer]) -> None:
    config = TrainConfig.from_dict(
        {"optimizer": name, "clip_norm": 0.5, "weight_decay": 0.125, "learning_rate": 0.01}
    )
    optimizer = build_optimizer(config, 10)
    assert type(optimizer) is kind
    assert optimizer.weight_decay == (None if name == "adam" else 0.125)
    clip = optimizer.clip_norm if isinstance(optimizer, Soap) else optimizer.global_clipnorm
    assert clip == 0.5


@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "soap"])
def test_zero_means_neither_clipping_nor_decay(name: str) -> None:
    config = TrainConfig.from_dict(
        {"optimizer": name, "clip_norm": 0, "weight_decay": 0, "learning_rate": 0.01}
    )
    optimizer = build_optimizer(config, 10)
    assert not optimizer.weight_decay
    assert optimizer.global_clipnorm is None
    assert getattr(optimizer, "clip_norm", None) is None


@pytest.mark.parametrize("name", ["adamw", "muon", "soap"])
def test_weights_decay_and_biases_do_not(name: str) -> None:
    config = TrainConfig.from_dict(
        {"optimizer": name, "schedule": "constant", "warmup": 0, "learning_rate": 0.5}
        | {"weight_decay": 0.25}
    )
    dense = keras.layers.Dense(3, kernel_initializer="ones", bias_initializer="ones")
    dense.build((None, 2))
    zeros = [np.zeros(variable.shape, np.float32) for variable in dense.trainable_variables]
    optimizer = build_optimizer(config, 10)
    optimizer.apply(
        [keras.ops.convert_to_tensor(zero) for zero in zeros], dense.trainable_variables
    )
    np.testing.assert_array_equal(dense.kernel.numpy(), np.full((2, 3), 1 - 0.5 * 0.25))
    np.testing.assert_array_equal(dense.bias.numpy(), np.ones(3))


class NumpySoap:
    """SOAP in float64, written from the paper (Vyas et al., 2024, Algorithm 3) for one layer.

    Differs from it where `soap.py` says so: the first step counts, and the basis starts as
    the identity.
    """

    def __init__(self, rate: float, beta_shampoo: float, epsilon: float) -> None:
        self.rate, self.epsilon = rate, epsilon
        self.beta_1, self.beta_2, self.beta_shampoo = 0.9, 0.999, beta_shampoo
        self.t = 0

    def step(self, weights: Layer, gradients: Layer, *, refresh: bool) -> Layer:
        g = np.vstack(gradients).astype(np.float64)
        rows, columns = g.shape
        if self.t == 0:
            self.m, self.v = np.zeros_like(g), np.zeros_like(g)
            self.l, self.r = np.zeros((rows, rows)), np.zeros((columns, columns))
            self.q_l, self.q_r = np.eye(rows), np.eye(columns)
        self.t += 1
        self.l += (1 - self.beta_shampoo) * (g @ g.T - self.l)
        self.r += (1 - self.beta_shampoo) * (g.T @ g - self.r)
        if refresh:
            self.q_l = np.linalg.qr(self.l @ self.q_l).Q
            self.q_r = np.linalg.qr(self.r @ self.q_r).Q
        self.m += (1 - self.beta_1) * (g - self.m)
        self.v += (1 - self.beta_2) * ((self.q_l.T @ g @ self.q_r) ** 2 - self.v)
        m = self.q_l.T @ self.m @ self.q_r / (1 - self.beta_1**self.t)
        v = self.v / (1 - self.beta_2**self.t)
        # Adam's epsilon in the form that Keras has it: beside the uncorrected average.
        epsilon = self.epsilon / math.sqrt(1 - self.beta_2**self.t)
        direction = self.q_l @ (m / (np.sqrt(v) + epsilon)) @ self.q_r.T
        ends = np.cumsum([len(np.atleast_2d(weight)) for weight in weights])[:-1]
        parts = np.split(direction, ends)
        return [
            weight - self.rate * part.reshape(weight.shape)
            for weight, part in zip(weights, parts, strict=True)
        ]


def dense_layers(*shapes: tuple[int, int]) -> list[keras.layers.Dense]:
    layers = []
    for i, (inputs, outputs) in enumerate(shapes):
        layer = keras.layers.Dense(outputs, name=f"dense_{i}")
        layer.build((None, inputs))
        layers.append(layer)
    return layers


def random_gradients(layers: list[keras.layers.Dense], steps: int) -> Iterator[list[Layer]]:
    random = np.random.default_rng(0)
    for _ in range(steps):
        yield [
            [random.normal(size=variable.shape).astype(np.float32) for variable in layer.variables]
            for layer in layers
        ]


@pytest.mark.parametrize(
    ("shapes", "epsilon", "early_steps", "basis_every", "clip_norm"),
    [
        # Square with the bias below: 4x4 and 5x5.
        (((3, 4), (4, 5)), 1e-7, 100, 10, None),
        (((3, 4), (4, 5)), 1e-7, 2, 4, 3.0),
        # 5x4 and 5x6: the first gradient leaves one direction without any but rounding errors,
        # which a small epsilon would make a step of. No more than one: it is then unique.
        (((4, 4), (4, 6)), 1e-2, 2, 4, None),
    ],
)
def test_soap_takes_the_steps_of_the_paper(
    shapes: tuple[tuple[int, int], ...],
    epsilon: float,
    early_steps: int,
    basis_every: int,
    clip_norm: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rnn_tf.training.keras.soap, "EARLY_STEPS", early_steps)
    layers = dense_layers(*shapes)
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    optimizer = Soap(
        0.01, beta_shampoo=0.9, epsilon=epsilon, basis_every=basis_every, clip_norm=clip_norm
    )
    references = [NumpySoap(0.01, 0.9, epsilon) for _ in layers]
    expected = [[weight.astype(np.float64) for weight in layer.get_weights()] for layer in layers]
    for step, gradients in enumerate(random_gradients(layers, 15)):
        flat = [gradient for layer in gradients for gradient in layer]
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in flat], variables)
        norm = math.sqrt(sum(float(np.square(gradient, dtype=float).sum()) for gradient in flat))
        factor = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
        for i, reference in enumerate(references):
            expected[i] = reference.step(
                expected[i],
                [gradient * factor for gradient in gradients[i]],
                refresh=step < early_steps or step % basis_every == 0,
            )
    for layer, weights in zip(layers, expected, strict=True):
        for actual, weight in zip(layer.get_weights(), weights, strict=True):
            # 15 steps of 0.01 in float32, whose rounding a basis multiplies: 1e-6 seen.
            np.testing.assert_allclose(actual, weight, atol=1e-5)


def test_soap_takes_no_giant_step_where_a_direction_stands_on_no_velocity() -> None:
    """As after a turn of the basis: without a limit, a network that learns well is lost at once."""
    (layer,) = dense_layers((3, 4))
    optimizer = Soap(0.01)
    optimizer.build(layer.trainable_variables)
    (state,) = optimizer._states
    for name in ("left", "right"):
        state[name].assign(np.eye(4))
    state["momentum"].assign(np.full((4, 4), 0.1))
    before = layer.get_weights()
    zeros = [keras.ops.zeros_like(variable) for variable in layer.trainable_variables]
    optimizer.apply(zeros, layer.trainable_variables)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_allclose(new, old - 0.01 * rnn_tf.training.keras.soap.LONGEST, rtol=1e-5)


def test_soap_clips_the_whole_gradient_and_nothing_below_the_limit() -> None:
    # Adam's first step does not depend on the gradient's length; the averages do.
    averages = {}
    for clip_norm in (None, 5.0, 2.5):
        (dense,) = dense_layers((3, 4))
        ones = [keras.ops.ones(variable.shape) for variable in dense.variables]  # norm 4
        optimizer = Soap(clip_norm=clip_norm)
        optimizer.apply(ones, dense.trainable_variables)
        momentum = next(v for v in optimizer.variables if v.path.endswith("momentum"))
        averages[clip_norm] = float(momentum.numpy().mean())
    assert averages[None] == averages[5.0] == pytest.approx(0.1)
    assert averages[2.5] == pytest.approx(0.1 * 2.5 / 4)


@pytest.mark.parametrize(
    ("cell", "shape"),
    [
        # 3 features, 4 units: kernel, recurrent kernel and bias, one below the other.
        (keras.layers.SimpleRNN, (3 + 4 + 1, 4)),
        (keras.layers.LSTM, (3 + 4 + 1, 4 * 4)),
        (keras.layers.GRU, (3 + 4 + 2, 3 * 4)),
    ],
)
def test_soap_stacks_the_weights_of_a_layer(
    cell: type[keras.layers.RNN], shape: tuple[int, int]
) -> None:
    layer = cell(4)
    layer.build((None, 5, 3))
    optimizer = Soap()
    optimizer.build(layer.trainable_variables)
    momenta = [v.shape for v in optimizer.variables if v.path.endswith("momentum")]
    assert momenta == [shape]
    before = layer.get_weights()
    optimizer.apply([keras.ops.ones(v.shape) for v in layer.variables], layer.trainable_variables)
    assert all(not np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))


def test_soap_comes_back_from_its_configuration() -> None:
    soap = Soap(
        0.25,
        beta_1=0.8,
        beta_2=0.99,
        epsilon=1e-6,
        beta_shampoo=0.9,
        basis_every=3,
        clip_norm=0.5,
        weight_decay=0.125,
        name="mine",
    )
    config = soap.get_config()
    again = Soap.from_config(config)
    assert again.get_config() == config
    assert (again.basis_every, again.clip_norm, again.beta_shampoo) == (3, 0.5, 0.9)
    assert float(again.learning_rate) == 0.25
