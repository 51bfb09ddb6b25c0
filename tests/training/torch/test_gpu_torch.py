"""Training in PyTorch on a GPU of CUDA; skipped where there is none.

These need neither TensorFlow nor the fixtures of the other tests, only Keras on PyTorch:
KERAS_BACKEND=torch python -m pytest --noconftest -m "" tests/training/torch/test_gpu_torch.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from recordings import phases, recordings

from rnn_tf.config import PRESETS, TrainConfig
from rnn_tf.data import SequenceData
from rnn_tf.model.cells import Cell

torch = pytest.importorskip("torch", reason="PyTorch is the extra `torch`")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU of CUDA"),
]

from rnn_tf.training.torch import fit as fit_torch  # noqa: E402 - needs torch
from rnn_tf.training.torch.backend import TorchBackend  # noqa: E402
from rnn_tf.training.torch.recorded import Recorded  # noqa: E402

# 203 examples in batches of 16: the last batch has 11.
CONFIG = TrainConfig(
    units=7, epochs=3, batch_size=16, optimizer="adam", dropout=0.0, noise=0.0, backend="torch"
)
# Enough updates for SOAP to change its bases both ways, in each update and in every tenth.
SOAP = dataclasses.replace(PRESETS["best"], cell="gru", units=7, epochs=12, batch_size=16)


@pytest.fixture(autouse=True)
def float32_products() -> Iterator[None]:
    """As on the CPU: cuDNN would multiply with ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def of_one_length(data: SequenceData) -> SequenceData:
    spec = dataclasses.replace(data.spec, timesteps=data.spec.longest)
    splits = (split._replace(lengths=None) for split in (data.train, data.valid, data.test))
    return SequenceData(spec, *splits)


def training(config: TrainConfig, data: SequenceData, precision: str = "float32") -> Any:
    import keras

    keras.utils.set_random_seed(config.seed)
    resolved = config.resolved(data.spec, len(data.train.y))
    return fit_torch.Training(resolved, data, precision)


def trained(config: TrainConfig, data: SequenceData) -> tuple[np.ndarray, list[dict[str, float]]]:
    """The weights and the scores of all epochs."""
    found = training(config, data)
    scores = [found.epoch(number) for number in range(found.epochs)]
    return flat(found), scores


def flat(found: Any) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in found.weights()])


@pytest.mark.parametrize(
    ("cell", "activation", "layers", "bidirectional"),
    [
        ("simple_rnn", "tanh", 1, False),
        ("simple_rnn", "elu", 1, False),  # written out where all are as long
        ("simple_rnn", "elu", 2, True),
        ("lstm", "tanh", 1, False),
        ("gru", "tanh", 2, False),
        ("gru", "tanh", 1, True),  # packed where lengths vary, and not recorded
    ],
)
@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("by_step", [False, True])
def test_the_training_is_that_of_the_cpu(
    cell: Cell,
    activation: str,
    layers: int,
    bidirectional: bool,
    varies: bool,
    by_step: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(
        CONFIG, cell=cell, activation=activation, layers=layers, bidirectional=bidirectional,
        answer="every_step" if by_step else "end",
    )  # fmt: skip
    if by_step:
        data = phases(varies=varies)
    else:
        data = recordings() if varies else of_one_length(recordings())
    packed = varies and bidirectional and activation == "tanh"
    assert isinstance(training(config, data)._work, Recorded) == (not packed)
    on_gpu, scores = trained(config, data)
    monkeypatch.setattr(fit_torch, "choose_device", lambda: torch.device("cpu"))
    on_cpu, expected = trained(config, data)
    # float32 rounding in another order, over 39 updates; weights are near 1.
    np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-5)
    for a, b in zip(scores, expected, strict=True):
        assert a == pytest.approx(b, rel=3e-4, abs=1e-6)


@pytest.mark.parametrize("config", [SOAP, dataclasses.replace(SOAP, activation="elu")])
def test_a_recorded_training_learns_and_repeats(config: TrainConfig) -> None:
    """With dropout, noise and SOAP."""
    data = recordings(train=600)
    first, scores = trained(config, data)
    again, _ = trained(config, data)
    np.testing.assert_array_equal(first, again)
    assert scores[-1]["val_accuracy"] > 0.8
    assert scores[-1]["loss"] < scores[0]["loss"]


@pytest.mark.parametrize("varies", [False, True])
def test_a_broken_off_training_goes_on_to_the_same_weights(varies: bool) -> None:
    data = recordings() if varies else of_one_length(recordings())
    whole, _ = trained(SOAP, data)
    begun = training(SOAP, data)
    for number in range(5):
        begun.epoch(number)
    state = begun.state()
    resumed = training(SOAP, data)
    resumed.restore(state)
    for number in range(5, resumed.epochs):
        resumed.epoch(number)
    np.testing.assert_array_equal(flat(resumed), whole)


def test_chance_is_another_in_each_batch() -> None:
    """A recording draws anew whenever it is replayed."""
    data = of_one_length(recordings())
    found = training(dataclasses.replace(CONFIG, dropout=0.5), data)
    found._seed_chance(0)
    index = torch.arange(16, device="cuda")
    logits = [torch.empty(16, 3, device="cuda") for _ in range(3)]
    for said in logits[:2]:
        found._work(index, said, data.spec.longest)
    assert not torch.equal(logits[0], logits[1])
    found._seed_chance(0)
    found._work(index, logits[2], data.spec.longest)
    assert torch.equal(logits[0], logits[2])


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_learns(precision: str) -> None:
    found = training(SOAP, recordings(train=600), precision)
    scores = [found.epoch(number) for number in range(found.epochs)]
    assert np.isfinite([each["loss"] for each in scores]).all()
    assert scores[-1]["val_accuracy"] > 0.75


def test_small_layers_are_trained_in_float32_unless_asked() -> None:
    chosen = fit_torch.choose_precision
    assert chosen(CONFIG) == "float32"
    assert chosen(dataclasses.replace(CONFIG, units=256)) == "float32"
    assert chosen(dataclasses.replace(CONFIG, units=256, cell="gru")) == "mixed_float16"
    assert chosen(dataclasses.replace(CONFIG, precision="mixed_float16")) == "mixed_float16"


def test_the_first_line_says_how_it_is_trained() -> None:
    data, lstm = of_one_length(recordings()), dataclasses.replace(CONFIG, cell="lstm")
    said = TorchBackend().describe(lstm, data)
    assert said == "PyTorch on cuda, gradients by autograd, recorded as a CUDA graph"
    plain = TorchBackend().describe(dataclasses.replace(lstm, fused=False), data)
    assert plain == "PyTorch on cuda, gradients by autograd"
