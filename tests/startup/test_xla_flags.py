"""XLA is told how to compile small layers, unless the user tells it something."""

from __future__ import annotations

import os

import pytest

from rnn_tf import TrainConfig
from rnn_tf.startup import xla_flags


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(xla_flags.VARIABLE, raising=False)


@pytest.mark.parametrize("small", [{}, {"units": 64}, {"batch_size": 256}])
def test_a_small_layer_gets_the_flags(small: dict[str, int]) -> None:
    xla_flags.suit(TrainConfig(**small))  # type: ignore[arg-type]
    assert xla_flags.are_set()


@pytest.mark.parametrize("large", [{"units": 65}, {"batch_size": 257}])
def test_a_large_one_does_not(large: dict[str, int]) -> None:
    xla_flags.suit(TrainConfig(**large))  # type: ignore[arg-type]
    assert xla_flags.VARIABLE not in os.environ


def test_what_the_user_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(xla_flags.VARIABLE, "--xla_cpu_enable_fast_math=true")
    xla_flags.suit(TrainConfig())
    assert os.environ[xla_flags.VARIABLE] == "--xla_cpu_enable_fast_math=true"
    assert not xla_flags.are_set()


def test_a_tensorflow_that_may_not_know_the_flags_is_not_given_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.22.0")
    xla_flags.suit(TrainConfig())
    assert not xla_flags.are_set()
