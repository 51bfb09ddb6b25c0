"""Small layers are compiled with our flags, unless the user has set some."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from rnn_tf import TrainConfig
from rnn_tf.errors import InputError
from rnn_tf.startup import xla_flags


@pytest.fixture
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(xla_flags.VARIABLE, raising=False)


@pytest.mark.parametrize(
    "small",
    [{}, {"units": 64}, {"batch_size": 256}, {"cell": "lstm"}, {"cell": "gru", "units": 36}],
)
def test_a_small_layer_is_small(small: dict[str, Any]) -> None:
    assert xla_flags.is_small(TrainConfig(**small))


@pytest.mark.parametrize(
    "large",
    [{"units": 65}, {"batch_size": 257}, {"cell": "lstm", "units": 33},
     {"cell": "gru", "units": 37}, {"units": 65, "batch_size": 1}],
)  # fmt: skip
def test_a_large_one_is_not(large: dict[str, Any]) -> None:
    assert not xla_flags.is_small(TrainConfig(**large))


def test_the_user_may_say_what_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(xla_flags.FORM, "whole")
    assert xla_flags.is_small(TrainConfig(units=500))
    monkeypatch.setenv(xla_flags.FORM, "shared")
    assert not xla_flags.is_small(TrainConfig(units=5))
    monkeypatch.setenv(xla_flags.FORM, "fast")
    message = "bad RNN_TF_FORM; expected whole or shared, got fast. Unset RNN_TF_FORM."
    with pytest.raises(InputError, match=re.escape(message)):
        xla_flags.is_small(TrainConfig())


@pytest.mark.usefixtures("no_flags")
def test_the_flags_are_offered_where_they_are_wanted() -> None:
    xla_flags.offer(False)
    assert xla_flags.VARIABLE not in os.environ
    xla_flags.offer(True)
    assert os.environ[xla_flags.VARIABLE] == xla_flags.FLAGS


@pytest.mark.parametrize("own", ["--xla_cpu_enable_fast_math=true", ""])
def test_the_flags_of_the_user_stand(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(xla_flags.VARIABLE, own)
    xla_flags.offer(True)
    assert os.environ[xla_flags.VARIABLE] == own


@pytest.mark.usefixtures("no_flags")
def test_a_tensorflow_that_may_not_know_the_flags_is_not_given_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.22.0")
    xla_flags.offer(True)
    assert xla_flags.VARIABLE not in os.environ


@pytest.mark.usefixtures("tensorflow")
def test_what_is_settled_is_what_xla_does() -> None:
    """The flags are in effect in tests: see conftest.py."""
    assert xla_flags.are_settled()
    assert xla_flags._compiles_loops_whole() == xla_flags.are_in_effect()
