"""What a search may vary, and between which bounds.

A space says for each setting of `rnn_tf.config.TrainConfig` that it varies either a list of
choices or a range. What is not in it stays as the preset has it. The spaces are the tables below;
a user's own is a YAML or JSON file of the same form:

    activation: [elu, tanh]
    learning_rate: {low: 0.001, high: 0.01, sampling: log}
    units: {low: 8, high: 64, step: 8}
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from rnn_tf.config import FEW, TrainConfig, type_of
from rnn_tf.data import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS, Cell

if TYPE_CHECKING:
    import keras_tuner

Sampling = Literal["linear", "log"]


@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely as the others."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included. Whole numbers where the setting is one."""

    low: float
    high: float
    sampling: Sampling = "linear"
    """linear: every value is as likely; log: every order of magnitude is."""
    step: float | None = None
    """The distance between two values; any value if left out. For linear sampling."""


Space = Mapping[str, Choice | Range]

# How one network is trained: its shape, SimpleRNN(32) and 2,282 parameters on MNIST, is left alone.
SMALL: Space = {
    "activation": Choice(("elu", "gelu", "relu", "tanh")),
    "recurrent_initializer": Choice(("identity", "orthogonal")),
    "learning_rate": Range(1e-3, 2e-2, "log"),
    "schedule": Choice(("cosine", "linear", "constant")),
    "clip_norm": Range(0.1, 5.0, "log"),
    "batch_size": Choice((32, 64, 128)),
    "dropout": Range(0.0, 0.2, step=0.05),
}

# The network as well.
FULL: Space = {
    "cell": Choice(("simple_rnn", "lstm", "gru")),
    "layers": Choice((1, 2)),
    "bidirectional": Choice((False, True)),
    "units": Range(8, 128, "log"),
    **SMALL,
}

SPACES: dict[str, Space] = {"small": SMALL, "full": FULL}

# Settings that can be searched: not what says where, how long or on what is trained.
TUNABLE = (
    "cell", "layers", "bidirectional", "units", "activation", "recurrent_initializer", "dropout",
    "recurrent_dropout", "noise", "batch_size", "optimizer", "learning_rate", "schedule", "warmup",
    "clip_norm", "weight_decay",
)  # fmt: skip

# Digits that a sampled number keeps: those that survive the way to a worker, in single precision.
DIGITS = 6
# What stands between a setting and the network that its bounds are for.
FOR = " of "
# What determines the size of a network, beside its units, in the order in which it is chosen.
SHAPE = ("cell", "layers", "bidirectional")


# --- from a name or a file ---
def read_space(source: str) -> Space:
    """The space of that name, or the one in that file.

    Raises `InputError` for an unknown name, an unreadable file, an unknown setting, and bounds
    that are empty, reversed, or not of the setting's type.
    """
    if source in SPACES:
        return SPACES[source]
    path = Path(source)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(
            f"unknown space {source!r}", expected=f"{', '.join(SPACES)}, or a .yaml or .json file"
        )
    table = _read_table(path)
    space = {name: _parse(f"{source}: {name}", name, bounds) for name, bounds in table.items()}
    if not space:
        raise InputError(f"{source}: nothing to search", expected="a setting and its bounds")
    return space


def _read_table(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {path}", got=str(error)) from error
    if not isinstance(table, dict):
        raise InputError(
            f"{path}: not a space", expected="setting: bounds on each line", got=repr(table)[:80]
        )
    return table


def _parse(where: str, name: object, bounds: object) -> Choice | Range:
    if name not in TUNABLE:
        raise InputError(f"{where}: cannot be searched", expected=f"one of {', '.join(TUNABLE)}")
    if isinstance(bounds, dict):
        return _parse_range(where, str(name), bounds)
    values = bounds if isinstance(bounds, list) else [bounds]
    if not values:
        raise InputError(f"{where}: no choice", expected="at least one value", got="[]")
    values = [_value(where, str(name), value) for value in values]
    if len(set(values)) < len(values):
        raise InputError(f"{where}: the same value twice", got=values)
    return Choice(tuple(values))


def _parse_range(where: str, name: str, bounds: dict[Any, Any]) -> Range:
    known = [field.name for field in dataclasses.fields(Range)]
    unknown = [key for key in bounds if key not in known]
    if unknown or not {"low", "high"} <= set(bounds):
        raise InputError(
            f"{where}: bad range", expected="low and high, and if you like sampling and step",
            got=", ".join(map(str, bounds)) or "nothing",
        )  # fmt: skip
    if type_of(name) not in (int, float):
        raise InputError(f"{where}: a range of names", expected="a list of choices")
    low, high = (_value(where, name, bounds[key]) for key in ("low", "high"))
    sampling, step = bounds.get("sampling", "linear"), bounds.get("step")
    if not low < high:
        what = "an empty range" if low == high else "a reversed range"
        raise InputError(f"{where}: {what}", expected="low < high", got=f"{low} to {high}")
    if sampling not in get_args(Sampling):
        raise InputError(f"{where}: unknown sampling {sampling!r}", expected="linear or log")
    if sampling == "log" and (low <= 0 or step is not None):
        raise InputError(
            f"{where}: bad log range", expected="low > 0 and no step", got=f"low {low}, step {step}"
        )
    if step is not None:
        step = _value(where, name, step)
        if not 0 < step <= high - low:
            raise InputError(f"{where}: bad step", expected=f"above 0, to {high - low}", got=step)
    return Range(low, high, sampling, step)


def _value(where: str, name: str, value: Any) -> Any:
    """A value of the file as the setting's type: checked by the setting itself."""
    if type_of(name) is float and not isinstance(value, bool):
        try:
            value = float(value)  # YAML 1.1 reads 1e-3 as a text
        except (TypeError, ValueError):
            raise InputError(f"{where}: not a number", got=repr(value)) from None
    try:
        dataclasses.replace(TrainConfig(), **{name: value})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return value


# --- how large ---
def parameters(config: TrainConfig, spec: SequenceSpec) -> int:
    """The weights of the model of a run, counted without building it."""
    directions = 2 if config.bidirectional else 1
    width = directions * config.units  # of what a layer gives to the next
    inputs = [spec.features] + [width] * (config.layers - 1)
    kind = CELLS[config.cell]
    recurrent = directions * sum(kind.parameters(n, config.units) for n in inputs)
    return recurrent + (width + 1) * spec.classes


class Shape(NamedTuple):
    """What determines the size of a network, beside its units: see `SHAPE`."""

    cell: Cell
    layers: int
    bidirectional: bool


def within(
    space: Space, base: TrainConfig, spec: SequenceSpec, limit: int
) -> dict[Shape, Choice | Range]:
    """The units that each shape may have so that no model of the space has more parameters.

    A shape of which not even the smallest fits is left out. Raises `InputError` when none fits.
    """
    units = space.get("units", Choice((base.units,)))
    each = [_each(space.get(name, Choice((getattr(base, name),)))) for name in SHAPE]
    fitting: dict[Shape, Choice | Range] = {}
    smallest = []
    for shape in itertools.starmap(Shape, itertools.product(*each)):
        sizes = {
            n: parameters(dataclasses.replace(base, **shape._asdict(), units=n), spec)
            for n in _each(units)
        }
        allowed = [n for n, size in sizes.items() if size <= limit]
        smallest.append(min(sizes.values()))
        if allowed and isinstance(units, Range) and len(allowed) > 1:
            fitting[shape] = dataclasses.replace(units, high=allowed[-1])
        elif allowed:
            fitting[shape] = Choice(tuple(allowed))
    if not fitting:
        raise InputError(
            "no model of the space is within --max-parameters",
            expected=f"at least {min(smallest):,}", got=f"{limit:,}",
        )  # fmt: skip
    return fitting


def largest(
    space: Space, base: TrainConfig, spec: SequenceSpec, limit: int | None = None
) -> TrainConfig:
    """What takes most to train: as many units and as large batches as any trial may have.

    `limit` is that on parameters. Raises `InputError` when no model is within it.
    """
    units = [space.get("units", Choice((base.units,)))]
    if limit is not None:
        units = list(within(space, base, spec, limit).values())
    batches = space.get("batch_size", Choice((base.largest_batch,)))
    return dataclasses.replace(base, units=max(map(_most, units)), batch_size=_most(batches))


def _most(bounds: Choice | Range) -> int:
    return int(max(bounds.values) if isinstance(bounds, Choice) else bounds.high)


def _each(bounds: Choice | Range) -> list[Any]:
    """Every value of a choice or of a range of whole numbers."""
    if isinstance(bounds, Choice):
        return list(bounds.values)
    return list(range(int(bounds.low), int(bounds.high) + 1, int(bounds.step or 1)))


# --- to and from KerasTuner ---
def hyperparameters(
    space: Space, base: TrainConfig, spec: SequenceSpec, max_parameters: int | None = None
) -> keras_tuner.HyperParameters:
    """The space as KerasTuner has it; with `max_parameters`, holding no model above it.

    `base` says what is not in the space, and from where a grid starts.
    """
    import keras_tuner

    # Where a range or a choice starts, `auto` is what it is for many examples.
    base = dataclasses.replace(base.resolved(spec, FEW), batch_size=base.largest_batch)
    result = keras_tuner.HyperParameters()
    if max_parameters is not None:
        _declare_shapes(result, space, base, within(space, base, spec, max_parameters))
        space = {name: bounds for name, bounds in space.items() if name not in (*SHAPE, "units")}
    for name in sorted(space, key=TUNABLE.index):
        _declare(result, name, space[name], base)
    return result


def models(space: keras_tuner.HyperParameters, *, grid: bool) -> int | None:
    """How many models the space holds; None if without end, as with a range of any numbers.

    With `grid`, how many it holds for that tuner, to which such a range is a few numbers.
    """
    values = {hp.name: _values(hp, grid) for hp in space.space}
    if any(each is None for each in values.values()):
        return None
    parents = {condition.name for hp in space.space for condition in hp.conditions}

    def count(names: Sequence[Any], chosen: dict[str, Any]) -> int:
        if not names:
            return 1
        hp, *rest = names
        if not all(condition.is_active(chosen) for condition in hp.conditions):
            return count(rest, chosen)
        each = values[hp.name] or ()
        if hp.name in parents:
            return sum(count(rest, {**chosen, hp.name: value}) for value in each)
        return len(each) * count(rest, chosen)

    return count(space.space, {})


def _values(hp: Any, grid: bool) -> Sequence[Any] | None:
    """What a hyperparameter can be; None for any number of a range."""
    between = hasattr(hp, "sampling") and hp.step is None
    if between and not grid:
        whole = isinstance(hp.min_value, int)
        return range(hp.min_value, hp.max_value + 1) if whole else None
    # A grid begins at the default, also when it is none of the numbers that stand for a range.
    return list(dict.fromkeys([hp.default, *hp.values] if between else hp.values))


def _declare_shapes(
    to: keras_tuner.HyperParameters,
    space: Space,
    base: TrainConfig,
    fitting: Mapping[Shape, Choice | Range],
    chosen: tuple[Any, ...] = (),
) -> None:
    """Declare the shapes in `fitting` that begin with `chosen`, and the units of each.

    What is chosen last depends on what was chosen before: a large cell may fit with one layer only.
    """
    of_which = ", ".join(str(v) for n, v in zip(SHAPE, chosen, strict=False) if n in space)
    suffix = f"{FOR}{of_which}" if of_which else ""
    if len(chosen) == len(SHAPE):
        if "units" in space:
            _declare(to, f"units{suffix}", fitting[Shape(*chosen)], base)
        return
    place = len(chosen)
    values = dict.fromkeys(shape[place] for shape in fitting if shape[:place] == chosen)
    name = f"{SHAPE[place]}{suffix}"
    if SHAPE[place] not in space:
        (value,) = values
        _declare_shapes(to, space, base, fitting, (*chosen, value))
        return
    _declare(to, name, Choice(tuple(values)), base)
    for value in values:
        with to.conditional_scope(name, [value]):
            _declare_shapes(to, space, base, fitting, (*chosen, value))


def _declare(
    to: keras_tuner.HyperParameters,
    name: str,
    bounds: Choice | Range,
    base: TrainConfig,
) -> None:
    default = getattr(base, name.partition(FOR)[0])
    if isinstance(bounds, Choice):
        default = default if default in bounds.values else None
        to.Choice(name, list(bounds.values), default=default)
        return
    default = default if bounds.low <= default <= bounds.high else None
    kind = to.Int if isinstance(default if default is not None else bounds.low, int) else to.Float
    kind(name, bounds.low, bounds.high, bounds.step, bounds.sampling, default=default)


def configure(values: Mapping[str, Any], base: TrainConfig) -> TrainConfig:
    """The training run that a trial's values stand for. Raises `InputError` for a bad one.

    Hyperband says with `tuner/epochs` how long a trial is trained.
    """
    named = {
        name.partition(FOR)[0]: value
        for name, value in values.items()
        if not name.startswith("tuner/")
    }
    settings = {name: _as_setting(value, getattr(base, name)) for name, value in named.items()}
    epochs = values.get("tuner/epochs", base.epochs)
    return dataclasses.replace(base, **settings, epochs=epochs)


def _as_setting(value: Any, like: Any) -> Any:
    """A value as KerasTuner gives it, as one of the type of the setting."""
    if isinstance(like, bool):
        return bool(value)  # KerasTuner makes numbers of them
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
