"""Spaces: what is in them, how a user's own is read, and how large a model may be."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnn_tf.config import TrainConfig
from rnn_tf.data import SequenceSpec
from rnn_tf.data.normalize import Normalize
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.model.classifier import build_model
from tuning.oracles import build_oracle
from tuning.space import (
    FULL,
    SMALL,
    SPACES,
    Choice,
    Range,
    Shape,
    Space,
    configure,
    hyperparameters,
    largest,
    models,
    parameters,
    read_space,
    within,
)

MNIST = SequenceSpec(28, 28, tuple("0123456789"), Normalize((1 / 255,)))
BASE = TrainConfig()


def draws(space: Space, limit: int | None = None, count: int = 60) -> list[TrainConfig]:
    """What KerasTuner draws from a space at random."""
    drawn = hyperparameters(space, BASE, MNIST, limit)
    oracle = build_oracle("random", drawn, MNIST, trials=99, epochs=1, seed=0, file=Path())
    return [configure(oracle._random_values(), BASE) for _ in range(count)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [1, 7, 32])
@pytest.mark.parametrize(
    ("layers", "bidirectional"), [(1, False), (1, True), (3, False), (2, True)]
)
def test_parameters_are_those_that_keras_counts(
    cell: Cell, units: int, layers: int, bidirectional: bool
) -> None:
    config = TrainConfig(cell=cell, units=units, layers=layers, bidirectional=bidirectional)
    assert parameters(config, MNIST) == build_model(config, MNIST).count_params()


def test_the_small_space_keeps_the_size() -> None:
    assert {parameters(config, MNIST) for config in draws(SMALL)} == {2282}


@pytest.mark.parametrize("space", SPACES.values())
def test_every_draw_is_within_the_bounds(space: Space) -> None:
    for config in draws(space):
        for name, bounds in space.items():
            value = getattr(config, name)
            if isinstance(bounds, Choice):
                assert value in bounds.values
            else:
                assert bounds.low <= value <= bounds.high


def test_the_full_space_reaches_every_cell_and_both_ends() -> None:
    drawn = draws(FULL, count=300)
    shapes = {(config.cell, config.layers, config.bidirectional) for config in drawn}
    assert shapes == set(itertools.product(CELLS, (1, 2), (False, True)))
    units = [config.units for config in drawn]
    assert min(units) < 12
    assert max(units) > 100


@pytest.mark.parametrize("limit", [2282, 10_000])
def test_no_draw_is_above_the_limit_and_some_are_near_it(limit: int) -> None:
    sizes = [parameters(config, MNIST) for config in draws(FULL, limit, 200)]
    assert max(sizes) <= limit
    assert max(sizes) > 0.8 * limit


@functools.cache
def size(shape: Shape, units: int) -> int:
    return parameters(dataclasses.replace(BASE, **shape._asdict(), units=units), MNIST)


@settings(max_examples=15)
@given(limit=st.integers(400, 60_000))
def test_the_limit_takes_nothing_away_that_would_fit(limit: int) -> None:
    try:
        fitting = within(FULL, BASE, MNIST, limit)
    except InputError:
        assert limit < size(Shape("simple_rnn", 1, False), 8)
        return
    for shape in itertools.starmap(Shape, itertools.product(CELLS, (1, 2), (False, True))):
        fits = [n for n in range(8, 129) if size(shape, n) <= limit]
        if not fits:
            assert shape not in fitting
        elif isinstance(found := fitting[shape], Range):
            assert (found.low, found.high) == (fits[0], fits[-1])
        else:
            assert found.values == (fits[0],)


def test_a_shape_that_does_not_fit_is_not_drawn() -> None:
    """8 units of LSTM have 1,274 parameters; with a second layer or direction, more than 1,800."""
    drawn = draws(FULL, 1400, 200)
    lstm = [(c.layers, c.bidirectional, c.units) for c in drawn if c.cell == "lstm"]
    assert set(lstm) == {(1, False, 8)}
    assert {c.layers for c in drawn if c.cell == "simple_rnn"} == {1, 2}


def test_a_limit_below_every_model_is_refused() -> None:
    with pytest.raises(InputError, match="within --max-parameters; expected at least 2,282"):
        hyperparameters(SMALL, BASE, MNIST, 2281)


@pytest.mark.parametrize(
    ("space", "limit", "units", "batch_size"),
    [
        (SMALL, None, 32, 128),
        (FULL, None, 128, 128),
        (FULL, 2282, 32, 128),
        ({"units": Choice((8, 64, 16)), "batch_size": Range(16, 48)}, None, 64, 48),
        ({"activation": Choice(("elu", "relu"))}, None, 32, 64),
    ],
)
def test_the_largest_is_no_smaller_than_any_draw(
    space: Space, limit: int | None, units: int, batch_size: int
) -> None:
    found = largest(space, BASE, MNIST, limit)
    assert (found.units, found.batch_size) == (units, batch_size)
    for drawn in draws(space, limit):
        assert drawn.units <= found.units
        assert drawn.largest_batch <= found.largest_batch


def test_numbers_keep_the_digits_that_survive_single_precision() -> None:
    import numpy as np

    value = 0.0051234567890123
    config = configure({"learning_rate": value}, BASE)
    assert config == configure({"learning_rate": float(np.float32(value))}, BASE)
    assert config.learning_rate == 0.00512346


def test_hyperband_says_how_long() -> None:
    values = {
        "units of lstm, 2, True": 5,
        "cell": "lstm",
        "tuner/epochs": 3,
        "tuner/trial_id": "0001",
    }
    config = configure(values, BASE)
    assert (config.cell, config.units, config.epochs) == ("lstm", 5, 3)


# --- from a file ---
def test_a_file_of_either_kind_is_read(tmp_path: Path) -> None:
    table = {
        "units": {"low": 4, "high": 12, "step": 4},
        "learning_rate": {"low": 1e-3, "high": 1e-2, "sampling": "log"},
        "activation": ["elu", "tanh"],
        "clip_norm": 1,
    }
    (tmp_path / "a.json").write_text(json.dumps(table))
    (tmp_path / "b.yaml").write_text(
        "units: {low: 4, high: 12, step: 4}\n"
        "learning_rate: {low: 1e-3, high: 1e-2, sampling: log}\n"  # a text, for YAML 1.1
        "activation: [elu, tanh]\n"
        "clip_norm: 1\n"
    )
    space = read_space(str(tmp_path / "a.json"))
    assert space == read_space(str(tmp_path / "b.yaml"))
    assert {config.units for config in draws(space)} == {4, 8, 12}
    assert space["clip_norm"] == Choice((1.0,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("units: {low: 9, high: 3}", "units: a reversed range; expected low < high, got 9 to 3"),
        ("units: {low: 3, high: 3}", "units: an empty range"),
        ("units: []", "units: no choice; expected at least one value"),
        ("units: [3, 3]", "units: the same value twice"),
        ("units: {low: 1.5, high: 3}", "units: bad units; expected int, got 1.5"),
        ("units: {low: a, high: b}", "units: bad units; expected int, got 'a'"),
        ("units: {low: 0, high: 3}", "units: bad units; expected a whole number >= 1, got 0"),
        ("units: {low: 3}", "units: bad range; expected low and high"),
        ("units: {low: 3, high: 5, steps: 1}", "units: bad range; expected low and high"),
        ("units: {low: 3, high: 9, step: 0}", "units: bad units"),
        ("units: {low: 3, high: 9, step: 7}", "units: bad step; expected above 0, to 6, got 7"),
        ("learning_rate: [fast]", "learning_rate: not a number; got 'fast'"),
        ("learning_rate: [true]", "learning_rate: bad learning_rate; expected float, got True"),
        ("learning_rate: {low: 0.1, high: 1, sampling: cubic}", "unknown sampling 'cubic'"),
        ("dropout: {low: 0, high: 0.5, sampling: log}", "dropout: bad log range; expected low > 0"),
        (
            "dropout: {low: 0, high: 1}",
            "dropout: bad dropout; expected 0 <= value < 1 or auto, got 1.0",
        ),
        ("activation: {low: a, high: b}", "activation: a range of names; expected a list"),
        ("cell: [lstm, rnn]", "cell: unknown cell 'rnn'"),
        ("layers: [0, 2]", "layers: bad layers; expected a whole number >= 1, got 0"),
        ("bidirectional: [yes, 2]", "bidirectional: bad bidirectional; expected bool, got 2"),
        ("seed: [1, 2]", "seed: cannot be searched; expected one of cell, layers"),
        ("", "not a space; expected setting: bounds on each line, got None"),
        ("{}", "nothing to search"),
        ("[1", "cannot read"),
        ("!!python/object/apply:os.system [ls]", "cannot read"),
    ],
)
def test_bad_files_are_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_space(str(path))
    assert message in str(error.value)
    assert "mine.yaml" in str(error.value)


def test_an_unknown_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown space 'huge'; expected small, full, or a \."):
        read_space("huge")
    with pytest.raises(InputError, match="cannot read"):
        read_space(str(tmp_path / "missing.yaml"))


# --- how many models ---
SPEC = SequenceSpec(4, 2, ("a", "b", "c"))
FLOATS = Range(0.001, 0.01, "log")


@pytest.mark.parametrize(
    ("space", "limit", "number"),
    [
        ({"activation": Choice(("elu", "tanh"))}, None, 2),
        ({"activation": Choice(("elu", "tanh")), "batch_size": Choice((8, 16, 32))}, None, 6),
        ({"units": Range(2, 9)}, None, 8),
        ({"units": Range(2, 9, step=3)}, None, 3),
        ({"units": Range(2, 9, "log")}, None, 8),
        ({"dropout": Range(0.0, 0.2, step=0.05)}, None, 5),
        ({"learning_rate": FLOATS}, None, None),
        ({"learning_rate": FLOATS, "units": Range(2, 9)}, None, None),
        # Of simple_rnn with 2 to 11 units, of lstm and gru with 2 to 5.
        ({"cell": Choice(("simple_rnn", "lstm", "gru")), "units": Range(2, 20)}, 200, 10 + 4 + 4),
        ({"cell": Choice(("simple_rnn", "lstm")), "units": Choice((4, 8))}, 200, 2 + 1),
    ],
)
def test_the_models_of_a_space_are_counted(space: Any, limit: int | None, number: object) -> None:
    declared = hyperparameters(space, TrainConfig(), SPEC, limit)
    assert models(declared, grid=False) == number


@pytest.mark.parametrize(
    ("space", "limit"),
    [
        ({"activation": Choice(("elu", "tanh")), "batch_size": Choice((8, 64))}, None),
        ({"units": Range(2, 9, "log")}, None),
        ({"learning_rate": FLOATS}, None),
        ({"learning_rate": Range(0.006, 0.01)}, None),  # the default is not in it
        ({"cell": Choice(("gru", "simple_rnn", "lstm")), "units": Range(2, 20)}, 200),
    ],
)
def test_a_grid_has_as_many_trials_as_are_counted(
    space: Any, limit: int | None, tmp_path: Path
) -> None:
    declared = hyperparameters(space, TrainConfig(), SPEC, limit)
    oracle = build_oracle(
        "grid", declared, SPEC, trials=999, epochs=1, seed=0, file=tmp_path / "oracle.json"
    )
    found = set()
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        found.add(configure(trial.hyperparameters.values, TrainConfig()))
        oracle.update_trial(trial.trial_id, {"val_accuracy": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert len(found) == len(oracle.end_order) == models(declared, grid=True)
