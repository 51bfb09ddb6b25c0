"""Settings: what is accepted, how they travel through JSON, and how a wrong one is named."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_tf.config import (
    PRESETS,
    Cell,
    Optimizer,
    Precision,
    Preset,
    Schedule,
    Strategy,
    TrainConfig,
    preset,
)
from rnn_tf.data import SequenceSpec
from rnn_tf.errors import InputError

shares = st.floats(0, 1, exclude_max=True)
configs = st.builds(
    TrainConfig,
    dataset=st.text(),
    cell=st.sampled_from(get_args(Cell)),
    units=st.integers(min_value=1),
    activation=st.text(),
    recurrent_initializer=st.text(),
    dropout=st.just("auto") | shares,
    recurrent_dropout=shares,
    noise=st.just("auto") | st.floats(0, allow_infinity=False),
    epochs=st.integers(min_value=1),
    batch_size=st.integers(min_value=1),
    optimizer=st.sampled_from(get_args(Optimizer)),
    learning_rate=st.just("auto") | st.floats(0, exclude_min=True, allow_infinity=False),
    schedule=st.sampled_from(get_args(Schedule)),
    warmup=shares,
    clip_norm=st.floats(0, allow_infinity=False),
    weight_decay=st.floats(0, allow_infinity=False),
    precision=st.sampled_from(get_args(Precision)),
    seed=st.integers(min_value=0, max_value=2**32 - 1),
    deterministic=st.booleans(),
    fused=st.booleans(),
    strategy=st.sampled_from(get_args(Strategy)),
)


@given(configs)
def test_json_gives_back_the_same_settings(config: TrainConfig) -> None:
    assert TrainConfig.from_dict(json.loads(config.to_json())) == config


def test_json_holds_every_setting_by_name() -> None:
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    assert list(json.loads(TrainConfig().to_json())) == names


def test_settings_cannot_be_changed_by_accident() -> None:
    config = TrainConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.units = 64  # type: ignore[misc]


def test_settings_left_out_have_their_defaults() -> None:
    assert TrainConfig.from_dict({"units": 64}) == TrainConfig(units=64)


def test_a_whole_number_is_a_number() -> None:
    assert TrainConfig.from_dict({"learning_rate": 1}).learning_rate == 1


def test_an_unknown_setting_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown setting 'unit'; expected one of .*'units'"):
        TrainConfig.from_dict({"unit": 32})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("units", 0),
        ("units", -1),
        ("layers", 0),
        ("epochs", 0),
        ("batch_size", 0),
        ("seed", -1),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("dropout", "none"),
        ("noise", -0.1),
        ("noise", math.inf),
        ("noise", math.nan),
        ("recurrent_dropout", 1.0),
        ("warmup", 1.0),
        ("warmup", math.nan),
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("clip_norm", -0.5),
        ("clip_norm", math.nan),
        ("weight_decay", -0.5),
        ("weight_decay", math.inf),
    ],
)
def test_a_number_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"^bad {name}; .*, got {re.escape(repr(value))}$"):
        TrainConfig.from_dict({name: value})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("units", 32.0, "int"),
        ("units", "32", "int"),
        ("units", True, "int"),
        ("learning_rate", "0.1", "float"),
        ("learning_rate", "automatic", "float"),
        ("learning_rate", False, "float"),
        ("fused", 1, "bool"),
        ("dataset", None, "str"),
        ("activation", ["relu"], "str"),
    ],
)
def test_a_value_of_another_type_is_named(name: str, value: Any, kind: str) -> None:
    expected = f"bad {name}; expected {kind}, got {value!r}"
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        TrainConfig.from_dict({name: value})


@pytest.mark.parametrize(
    "name", ["cell", "optimizer", "schedule", "precision", "strategy", "backend"]
)
@pytest.mark.parametrize("value", ["", "other", None, 1])
def test_an_unknown_choice_is_named_beside_the_known_ones(name: str, value: Any) -> None:
    known = re.escape(getattr(TrainConfig(), name))
    with pytest.raises(InputError, match=rf"^unknown {name} {value!r}; expected one of .*{known}"):
        TrainConfig.from_dict({name: value})


def test_settings_from_before_there_was_a_choice_are_of_keras() -> None:
    values = json.loads(TrainConfig().to_json())
    del values["backend"]
    assert TrainConfig.from_dict(values).backend == "keras"


# --- what `auto` stands for ---
@pytest.mark.parametrize(
    ("settings", "timesteps", "rate"),
    [
        # Up to 32 time steps what MNIST has, then in proportion to 1 / timesteps.
        ({}, 1, 0.005),
        ({}, 28, 0.005),
        ({}, 32, 0.005),
        ({}, 64, 0.0025),
        ({}, 1000, 0.00016),
        ({"activation": "relu"}, 1000, 0.00016),
        ({"cell": "lstm", "activation": "relu"}, 1000, 0.00016),
        # A state within bounds adds nothing up.
        ({"activation": "tanh"}, 1000, 0.005),
        ({"cell": "lstm"}, 1000, 0.005),
        ({"cell": "gru"}, 1000, 0.005),
        ({"learning_rate": 0.02}, 1000, 0.02),
    ],
)
def test_the_learning_rate_follows_the_length(
    settings: dict[str, Any], timesteps: int, rate: float
) -> None:
    spec = SequenceSpec(timesteps, 1, ("no", "yes"))
    config = TrainConfig.from_dict(settings).resolved(spec, 300)
    assert config.learning_rate == pytest.approx(rate)
    assert config.resolved(spec, 300) == config


@pytest.mark.parametrize(
    ("cell", "activation", "initializer"),
    [
        ("simple_rnn", "elu", "identity"),
        ("lstm", "tanh", "orthogonal"),
        ("gru", "tanh", "orthogonal"),
    ],
)
@pytest.mark.parametrize("timesteps", [28, 1000])
def test_the_recipe_of_a_cell_is_the_same_at_any_length(
    cell: str, activation: str, initializer: str, timesteps: int
) -> None:
    spec = SequenceSpec(timesteps, 1, ("no", "yes"))
    config = TrainConfig.from_dict({"cell": cell})
    found = config.resolved(spec, 300)
    assert (found.activation, found.recurrent_initializer) == (activation, initializer)
    names = ("activation", "recurrent_initializer", "learning_rate", "dropout", "noise")
    auto: dict[str, Any] = dict.fromkeys(names, "auto")
    assert dataclasses.replace(found, **auto) == config


def test_a_run_of_before_keeps_its_learning_rate() -> None:
    values = {**json.loads(TrainConfig().to_json()), "learning_rate": 5e-3}
    spec = SequenceSpec(500, 1, ("no", "yes"))
    assert TrainConfig.from_dict(values).resolved(spec, 300).learning_rate == 5e-3


@pytest.mark.parametrize(
    ("examples", "features", "dropout", "noise"),
    [
        (1, 2, 0.2, 0.3),
        (9_999, 28, 0.2, 0.3),
        (10_000, 28, 0.0, 0.0),
        (55_000, 28, 0.0, 0.0),
        # Without its only feature a sequence says nothing.
        (67, 1, 0.0, 0.3),
        (10_000, 1, 0.0, 0.0),
    ],
)
def test_few_examples_are_altered_while_training(
    examples: int, features: int, dropout: float, noise: float
) -> None:
    spec = SequenceSpec(28, features, ("no", "yes"))
    found = TrainConfig().resolved(spec, examples)
    assert (found.dropout, found.noise) == (dropout, noise)
    own = TrainConfig(dropout=0.1, noise=0.0).resolved(spec, examples)
    assert (own.dropout, own.noise) == (0.1, 0.0)
    tutorial = preset("tutorial").resolved(spec, examples)
    assert (tutorial.dropout, tutorial.noise) == (0.0, 0.0)


def test_every_preset_has_a_name_that_types_know() -> None:
    assert set(get_args(Preset)) == set(PRESETS)
    assert {name: preset(name) for name in PRESETS} == PRESETS


def test_the_defaults_are_the_best_preset() -> None:
    assert preset("best") == TrainConfig()


def test_presets_train_the_same_architecture() -> None:
    best, tutorial = preset("best"), preset("tutorial")
    for name in ("dataset", "cell", "units"):
        assert getattr(best, name) == getattr(tutorial, name)
    assert best.batch_size_for(55_000) == tutorial.batch_size_for(55_000) == 64
    assert best.epochs_for(55_000) == tutorial.epochs_for(55_000) == 10


def test_the_tutorial_preset_is_plain_keras() -> None:
    tutorial = preset("tutorial")
    assert (tutorial.activation, tutorial.recurrent_initializer) == ("tanh", "orthogonal")
    assert (tutorial.optimizer, tutorial.learning_rate) == ("adam", 1e-3)
    assert (tutorial.schedule, tutorial.warmup, tutorial.clip_norm) == ("constant", 0.0, 0.0)


def test_an_unknown_preset_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"^unknown preset 'fast'; .* best, tutorial$"):
        preset("fast")
