"""Which layers have their loops compiled whole, and whose batches are shared out."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rnn_tf import TrainConfig
from rnn_tf.errors import InputError
from rnn_tf.startup import forms


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(forms.FORM, raising=False)
    monkeypatch.setattr(forms, "cores", lambda: 2)


@pytest.mark.parametrize(
    "small",
    [{}, {"units": 64}, {"batch_size": 256}, {"cell": "lstm"}, {"cell": "gru", "units": 36}],
)
def test_a_small_layer_is_small(small: dict[str, Any]) -> None:
    assert forms.is_small(TrainConfig(**small))
    assert forms.whole_loops(TrainConfig(**small))


@pytest.mark.parametrize(
    "large",
    [{"units": 65}, {"batch_size": 257}, {"cell": "lstm", "units": 33},
     {"cell": "gru", "units": 37}, {"units": 65, "batch_size": 1}],
)  # fmt: skip
def test_a_large_one_is_not(large: dict[str, Any]) -> None:
    assert not forms.is_small(TrainConfig(**large))


@pytest.mark.parametrize(
    ("cell", "units", "whole"),
    [
        ("simple_rnn", 256, True),
        ("simple_rnn", 512, False),
        ("lstm", 128, True),
        ("lstm", 256, False),
        ("gru", 256, True),
        ("gru", 300, False),
    ],
)
def test_larger_ones_have_whole_loops_where_all_cores_share_a_batch(
    cell: Any, units: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: dict[str, Any] = {"cell": cell, "units": units, "batch_size": 64}
    assert forms.whole_loops(TrainConfig(**config)) is whole
    for not_shared in ({"batch_size": 32}, {"fused": False}, {"strategy": "mirrored"}):
        assert not forms.whole_loops(TrainConfig(**{**config, **not_shared}))
    monkeypatch.setattr(forms, "cores", lambda: 3)
    assert not forms.whole_loops(TrainConfig(**config))


def test_the_user_may_say_what_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(forms.FORM, "whole")
    assert forms.whole_loops(TrainConfig(units=500))
    monkeypatch.setenv(forms.FORM, "shared")
    assert not forms.whole_loops(TrainConfig(units=5))
    monkeypatch.setenv(forms.FORM, "both")
    assert forms.whole_loops(TrainConfig(units=500))
    monkeypatch.setenv(forms.FORM, "fast")
    message = "bad RNN_TF_FORM; expected one of whole, shared, both, got fast. Unset RNN_TF_FORM."
    with pytest.raises(InputError, match=re.escape(message)):
        forms.whole_loops(TrainConfig())


@pytest.mark.parametrize(
    ("settings", "timesteps", "form", "shared"),
    [
        ({"cell": "simple_rnn", "units": 32, "batch_size": 64}, 28, None, False),
        ({"cell": "simple_rnn", "units": 32, "batch_size": 64}, 784, None, True),
        ({"cell": "simple_rnn", "units": 32, "batch_size": 256}, 28, None, True),
        ({"cell": "simple_rnn", "units": 64, "batch_size": 64}, 28, None, True),
        ({"cell": "lstm", "units": 8, "batch_size": 64}, 28, None, False),
        ({"cell": "lstm", "units": 32, "batch_size": 64}, 28, None, True),
        ({"cell": "gru", "units": 256}, 28, None, True),
        ({"cell": "lstm", "units": 32}, 28, "whole", False),
        ({"cell": "simple_rnn", "units": 5}, 28, "shared", True),
        ({"cell": "simple_rnn", "units": 5}, 28, "both", True),
    ],
)
def test_a_batch_is_shared_out_where_that_pays(
    settings: dict[str, Any],
    timesteps: int,
    form: str | None,
    shared: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if form is not None:
        monkeypatch.setenv(forms.FORM, form)
    assert forms.is_shared_out(TrainConfig(**settings), timesteps) is shared


def test_a_share_is_not_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "cores", lambda: 3)
    assert [forms.shares(size) for size in (1, 63, 64, 96, 1000)] == [1, 1, 2, 3, 3]
