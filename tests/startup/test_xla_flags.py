"""Small layers are compiled with our flags, unless the user has set some."""

from __future__ import annotations

import os

import pytest

from rnn_tf.startup import xla_flags


@pytest.fixture
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(xla_flags.VARIABLE, raising=False)


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
